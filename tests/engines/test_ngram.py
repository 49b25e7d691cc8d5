"""Matches: the engine against the oracle, on documents assembled from pieces of items, through every door."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.engines.support import N_LISTS, Found, every_way, expected, found, index_of, levels
from tests.oracles import ngram
from tests.oracles.words import words

# Few words, so that they repeat; among them ones that differ only in case, form, or bit 5 of a byte, and numbers.
VOCABULARY = ["a", "b", "c", "d", "e", "the", "x_1", "1", "22", "é", "ā", "ġ", "ﬁ", "word" * 6, "\u03c3", "각"]
SAME = {
    "a": "A",
    "é": "e\u0301",
    "ﬁ": "FI",
    "word" * 6: "Word" * 6,
    "\u03c3": "Σ",
    "각": "\u1100\u1161\u11a8",
    "1": "\uff11",
}
SEPARATORS = [" ", " ", " ", "\n", ", ", "—", "😀", '"', "\\", "\t", " " * 64, "(", "\u2028", "/"]
SOME_N = st.sampled_from([*N_LISTS, (1,), (2, 1), (3,), (64, 5), (4, 3, 2)])

small_words = st.sampled_from(VOCABULARY)
numbered_words = st.integers(0, 60).map(lambda number: f"w{number}")


@st.composite
def joined(draw: st.DrawFn, chosen: Sequence[str]) -> str:
    """The words as text: with any separators, some words in another case or form."""
    plain = draw(st.booleans())
    pieces = [draw(st.sampled_from(["", " ", "\n— "]))]
    for word in chosen:
        other = not plain and draw(st.booleans())
        pieces.append(SAME.get(word, word.upper()) if other else word)
        pieces.append(" " if plain else draw(st.sampled_from(SEPARATORS)))
    return "".join(pieces[:-1] if draw(st.booleans()) else pieces)


@st.composite
def item_words(draw: st.DrawFn) -> list[str]:
    kind = draw(st.sampled_from([small_words, numbered_words, small_words | numbered_words]))
    return draw(st.lists(kind, min_size=draw(st.sampled_from([0, 8, 14, 25])), max_size=45))


@st.composite
def document_words(draw: st.DrawFn, items: Sequence[Sequence[str]]) -> list[str]:
    """Pieces of items, whole or cut or edited, repeated, with anything in between."""
    chosen: list[str] = []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["whole", "edited", "piece", "again", "filler"]))
        item = list(draw(st.sampled_from(items)))
        start = draw(st.integers(0, len(item)))
        end = draw(st.integers(start, len(item)))
        if kind == "filler":
            chosen += draw(st.lists(small_words | st.just("zzz"), max_size=30))
        elif kind == "piece":
            chosen += item[start:end]
        elif kind == "whole":
            chosen += item
        elif kind == "again":
            chosen += item[start:end] * draw(st.integers(2, 4))
        else:
            every = draw(st.integers(5, 16))
            chosen += ["zzz" if at % every == every - 1 else word for at, word in enumerate(item)]
    return chosen


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[str], tuple[int, ...]]:
    items = draw(st.lists(item_words(), min_size=1, max_size=3))
    documents = [draw(document_words(items)) for _ in range(draw(st.integers(1, 3)))]
    return [draw(joined(item)) for item in items], [draw(joined(document)) for document in documents], draw(SOME_N)


@given(cases())
def test_generated_documents(case: tuple[list[str], list[str], tuple[int, ...]]) -> None:
    texts, documents, n = case
    index = index_of(texts, n)
    wanted = expected(ngram.Index(texts, n), documents)
    event(f"documents that match: {len(wanted)}")
    for level in levels():
        for way, got in every_way(index, documents):
            assert got == wanted, (level, way)


@given(cases())
def test_what_the_index_says_of_its_parts(case: tuple[list[str], list[str], tuple[int, ...]]) -> None:
    texts, _, n = case
    oracle = ngram.Index(texts, n)
    for level in levels():
        index = index_of(texts, n)
        assert index.n == tuple(oracle.n), level
        assert index.keys == len(oracle.places), level
        for info, part, weighable in zip(index.parts, oracle.parts, oracle.weighable, strict=True):
            assert (info.words, info.weighable, info.testable) == (len(part.words), len(weighable), part.is_testable())
            assert info.set_aside == {
                "no_letters": sum("no_letters" in flags for flags in part.flags),
                "few_distinct": sum(flags == {"few_distinct"} for flags in part.flags),
                "common": 0,
            }
        assert [info.text for info in index.parts] == texts


@given(cases())
def test_every_match_is_of_equal_words(case: tuple[list[str], list[str], tuple[int, ...]]) -> None:
    """From the spans alone: the longest run is common to both, and no other words are claimed."""
    texts, documents, n = case
    index = index_of(texts, n)
    for row, matches in found(index.scan_utf8(documents)).items():
        for match in map(ngram.Match._make, matches):
            held = [word.form for word in words(documents[row][match.doc_start : match.doc_end])]
            item = [word.form for word in words(texts[match.part][match.item_start : match.item_end])]
            runs = {tuple(held[at : at + match.run]) for at in range(len(held) - match.run + 1)}
            assert any(tuple(item[at : at + match.run]) in runs for at in range(len(item) - match.run + 1))
            assert match.n <= match.run
            assert 8 <= match.words <= min(len(held), len(item))
            assert match.score >= match.run - match.n + 1


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[str], list[str], tuple[int, ...]]:
    texts, documents, n = draw(cases())
    copies = draw(st.integers(1, 4))
    return texts, documents * copies, n


@given(samples())
def test_learning_common_grams(case: tuple[list[str], list[str], tuple[int, ...]]) -> None:
    texts, documents, n = case
    oracle = ngram.Index(texts, n)
    index = index_of(texts, n)
    counts = [0] * oracle.total_words
    for document in documents:
        oracle.count(document, counts)
    for _ in levels():
        for threads in (1, 2):
            learnt = index.new_counts()
            index.scan_utf8(documents, counts=learnt, threads=threads)
            assert learnt.tolist() == counts
    assert index.learn_common(learnt, len(documents)) == oracle.learn_common(counts, len(documents))
    assert [info.weighable for info in index.parts] == [len(weighable) for weighable in oracle.weighable]
    assert [info.set_aside["common"] for info in index.parts] == [
        sum("common" in flags for flags in part.flags) for part in oracle.parts
    ]
    assert index.keys == len(oracle.places)
    assert found(index.scan_utf8(documents)) == expected(oracle, documents)


@pytest.mark.parametrize("n", N_LISTS)
def test_a_hit_anywhere_in_a_document(n: tuple[int, ...]) -> None:
    """A copy at the very start, at the very end, alone, and across every place of a 64-byte block."""
    item = "Check if in given list of numbers, are any two numbers closer to each other than given Threshold_9"
    index, oracle = index_of([item], n), ngram.Index([item], n)
    documents = [item, "x " + item, item + " x", item + "\n", item * 2, "(" + item + ")", item[1:], item[:-1]]
    documents += [
        filler * times + sep + item for times in range(66) for filler, sep in (("x", " "), (" ", ""), ("é", "—"))
    ]
    wanted = expected(oracle, documents)
    assert len(wanted) == len(documents)
    for level in levels():
        for way, got in every_way(index, documents):
            assert got == wanted, (level, way)


@pytest.mark.parametrize("n", N_LISTS)
def test_short_and_empty_texts(n: tuple[int, ...]) -> None:
    item = " ".join(f"w{k}" for k in range(20))
    documents = ["", " ", "w0", "\n\n", "—", "w0 w1 w2 w3", "w0 w1 w2 w3 w4", item[:20], "😀"]
    for texts in ([item], [], [""], ["", item, "w1"], ["—"]):
        index = index_of(texts, n)
        for _ in levels():
            for _, got in every_way(index, documents):
                assert got == expected(ngram.Index(texts, n), documents) == {}
            assert found(index.scan_utf8([])) == found(index.scan_jsonl(b"", "text", None)) == {}
            if item in texts:
                whole: Found = expected(ngram.Index(texts, n), [item])
                assert found(index.scan_utf8([item])) == whole != {}


def test_long_words_and_long_documents() -> None:
    """Words past 16 bytes and documents past the scan's tiles of n-grams."""
    item = " ".join(f"{'name' * (k % 9)}{k}" for k in range(30))
    index, oracle = index_of([item]), ngram.Index([item])
    for count in (0, 1000, 1011, 1015, 1019, 1020, 1024, 2043, 5000):
        document = " ".join(f"v{k % 700}" for k in range(count)) + " " + item + " tail" * (count % 7)
        for level in levels():
            for way, got in every_way(index, [document]):
                assert got == expected(oracle, [document]), (level, way, count)


def test_an_idiom_before_a_copy_takes_nothing_from_it() -> None:
    """A phrase of the part up to two parts' lengths before a whole copy: the copy is still seen as whole."""
    names = [f"w{k}" for k in range(40)]
    index, oracle = index_of([" ".join(names)]), ngram.Index([" ".join(names)])
    for gap in (0, 1, 20, 34, 35, 60, 69, 70, 71, 74, 75, 90):
        document = " ".join([*names[10:16], *["filler"] * gap, *names, *["filler"] * gap, *names[20:26]])
        for way, got in every_way(index, [document]):
            assert got == expected(oracle, [document]), (way, gap)
        table = index.scan([document])
        assert max(table["coverage"].to_pylist()) == 1.0
        assert {40} == {
            words for words, n in zip(table["words"].to_pylist(), table["n"].to_pylist(), strict=True) if n == 13
        }
