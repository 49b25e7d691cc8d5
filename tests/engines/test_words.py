"""Words: the engine against its plain twin, at every SIMD level."""

from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_fast import _native
from tests.engines.support import levels, python_sources
from tests.oracles.words import has_letter, is_unassigned, is_word_character, normal_form, words

# Characters that this Python's Unicode does not know may be known to the engine's: they are left out.
assigned = st.characters(exclude_categories=("Cs", "Cn"))
marks = st.sampled_from([chr(c) for c in range(0x10000) if unicodedata.combining(chr(c))])
unstable = st.sampled_from(
    [
        char
        for char in map(chr, range(sys.maxunicode + 1))
        if not 0xD800 <= ord(char) <= 0xDFFF
        and not is_unassigned(char)
        and (unicodedata.normalize("NFKC", char) != char or len(char.lower()) > 1)
    ]
)
jamo = st.characters(min_codepoint=0x1100, max_codepoint=0x11FF)
pieces = st.one_of(
    st.text(assigned, max_size=8),
    st.text(unstable, max_size=4),
    st.text(marks, max_size=4),
    st.text(jamo, max_size=6),
    st.sampled_from(["a", "A", "_", "9", " ", "\n", '"', "\\", "é", "—", "😀", "x" * 63, " " * 62, "ΟΔΟΣ", "İ", "K"]),
)
texts = st.lists(pieces, max_size=40).map("".join)


def agree(text: str) -> None:
    expected = [tuple(word) for word in words(text)]
    for level in levels():
        assert _native.words(text) == expected, level


@given(texts)
def test_generated_texts(text: str) -> None:
    agree(text)


@given(st.text(alphabet="aZ_9 .é—\u0301😀", max_size=300))
def test_words_across_blocks(text: str) -> None:
    agree(text)


def test_every_character() -> None:
    points = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF]
    known = [char for char in points if not is_unassigned(char) and unicodedata.category(char) != "Co"]
    assert len(known) > 100_000
    agree(" ".join(f"{char} {char}x" for char in known))


def test_words_that_touch_a_block_edge() -> None:
    for before in range(131):
        for filler in ("x", " ", "é", "😀"):
            agree(filler * before + "Word_9")
            agree(filler * before + " É\u0301k y")


def test_real_sources() -> None:
    for text in python_sources(12):
        agree(text)


@given(st.text(assigned, min_size=1, max_size=12))
def test_what_a_word_is(text: str) -> None:
    """The twin itself: words tile the word characters of a text, nothing else, and normal forms are stable in case."""
    found = words(text)
    inside = {at for _, start, end in found for at in range(start, end)}
    assert inside == {at for at, char in enumerate(text) if is_word_character(char)}
    assert all(later.start > word.end for word, later in pairwise(found))
    assert all(word.form == normal_form(text[word.start : word.end]) for word in found)


def test_hand_made_words() -> None:
    text = "def Naïve_2(x²): # ΟΔΟΣ—ﬁne"
    forms = ["def", "naïve_2", "x2", "οδοσ", "fine"]
    assert [word.form for word in words(text)] == forms
    assert [text[word.start : word.end] for word in words(text)] == ["def", "Naïve_2", "x²", "ΟΔΟΣ", "ﬁne"]
    assert _native.words(text) == [tuple(word) for word in words(text)]
    assert [has_letter(form) for form in ("a1", "_1", "é", "12", "\u0301")] == [True, False, True, False, False]


def test_levels() -> None:
    assert _native.SIMD_AVAILABLE[0] == "scalar"
    assert _native.simd() in _native.SIMD_AVAILABLE
    assert [_native.simd() for _ in levels()] == list(levels())
    with pytest.raises(ValueError, match="mmx"):
        _native.use_simd("mmx")
    assert "unicode-15.1.0" in _native.NORMALISER
