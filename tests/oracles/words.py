"""Words of a text, and their normal form."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple


class Word(NamedTuple):
    """A word: its normal form, and its place in the text in characters, half open."""

    form: str
    start: int
    end: int


def is_word_character(char: str) -> bool:
    """Letters, marks, numbers and the underscore."""
    return char == "_" or unicodedata.category(char)[0] in "LMN"


def normal_form(word: str) -> str:
    """NFKC, then every code point's own lower case; a sigma at the end is no exception."""
    return "".join(char.lower() for char in unicodedata.normalize("NFKC", word))


def has_letter(form: str) -> bool:
    return any(unicodedata.category(char)[0] == "L" for char in form)


def words(text: str) -> list[Word]:
    """The maximal runs of word characters of ``text``, in order."""
    found = []
    start = None
    for at, char in enumerate([*text, " "]):
        if is_word_character(char):
            start = at if start is None else start
        elif start is not None:
            found.append(Word(normal_form(text[start:at]), start, at))
            start = None
    return found


def is_unassigned(char: str) -> bool:
    """True where this Python's Unicode knows no such character: the engine's newer tables may know one."""
    return unicodedata.category(char) == "Cn"
