"""Two texts side by side: which tokens are the same, which are renamed, and which lines stand beside which."""

from __future__ import annotations

import builtins
import keyword
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

LONGEST = 4_000  # tokens a side, at most: the time grows with their product
_CHARACTERS = 100_000  # a side, at most: what is longer need not be cut into tokens to be too long
_PROSE = 0.08  # share of brackets and operators under which a text is prose and no code
_FIXED = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"match", "case", "type", "self", "cls"}


class Kind(IntEnum):
    """What a piece of a text is beside the other text."""

    SPACE = 0  # white space between pieces of different kinds
    SAME = 1  # but for white space and the kind of quotes
    RENAMED = 2
    CHANGED = 3
    ONLY = 4  # only here
    ASIDE = 5  # a docstring or comment, only here


@dataclass(frozen=True, slots=True)
class Piece:
    """So many characters of a text, all of one kind."""

    length: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Alignment:
    """A document's text beside an item's.

    Attributes
    ----------
    document, item
        The pieces of either text, from its beginning to its end: their lengths add up to the text's.
    rows
        Lines of the document and lines of the item that stand beside each other, from the top; either may be 0. Tokens
        that are the same or renamed stand in the same row as their counterparts.
    names
        (document's name, item's name) of each renaming, in order of first use in the document. No name stands on
        either side twice.
    """

    document: tuple[Piece, ...]
    item: tuple[Piece, ...]
    rows: tuple[tuple[int, int], ...]
    names: tuple[tuple[str, str], ...]


def align(document: str, item: str) -> Alignment | None:
    """Lay a document's text beside an item's.

    Tokens are compared by edit operations, once as they stand and once with names that are numbered consistently: a
    name of the document is **renamed** where it stands for a name of the item more often than for anything else, and
    the other way round. What stands against another token nevertheless is changed. As in alpha-normalised forms,
    keywords, builtins and attributes are never renamed, nor are words of docstrings, comments and prose.

    Parameters
    ----------
    document, item
        Any texts, whether or not they are code.

    Returns
    -------
    Alignment or None
        None where a text has more than :data:`LONGEST` tokens. ``align(b, a)`` is ``align(a, b)`` with sides exchanged.
    """
    if document == item:
        lines = document.count("\n") + 1
        whole = (Piece(len(document), Kind.SAME),) if document else ()
        return Alignment(whole, whole, ((1, 1),) * lines, ())
    if max(len(document), len(item)) > _CHARACTERS:
        return None
    left, right = _cut(document), _cut(item)
    if max(len(left.tokens), len(right.tokens)) > LONGEST:
        return None
    # Of several shortest edits, rapidfuzz's choice depends on which text comes first.
    turned = (len(item), item) < (len(document), document)
    pairs = _turned(_paired(right.tokens, left.tokens)) if turned else _paired(left.tokens, right.tokens)
    pairs = _without_strays(pairs, left, right)
    kinds = _kinds(pairs, left.tokens, right.tokens)
    names = {
        (left.tokens[i].text, right.tokens[j].text): None
        for i, j, same in pairs
        if same and kinds[0][i] == Kind.RENAMED
    }
    return Alignment(
        _pieces(left, kinds[0]), _pieces(right, kinds[1]), _rows(left, right, pairs, kinds), tuple(names)
    )  # fmt: skip


# ---- tokens ----------------------------------------------------------------------------------------------------------

_SIGN = r"->|\*\*|//|<<|>>|[-+*/%&|^:@=!<>]=|\S"
_TOKEN = re.compile(
    rf"""
      (?P<open>[rRbBuUfF]{{0,2}}(?:\"{{3}}|'{{3}}))
    | (?P<string>[rRbBuUfF]{{0,2}}(?:"(?:[^"\\\n]|\\.){{0,1000}}+"|'(?:[^'\\\n]|\\.){{0,1000}}+'))
    | (?P<comment>\#)
    | (?P<number>\d(?:[eE][+-]\d|[\w.])*)
    | (?P<name>\w+)
    | (?P<sign>{_SIGN})
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"\w+|\"{3}|'{3}|" + _SIGN)
_QUOTED = re.compile(r"([rRbBuUfF]{0,2})(['\"])([^'\"\\]*)\2")


class _Token(NamedTuple):
    start: int
    end: int
    text: str
    key: str  # equal tokens have equal keys
    prose: bool
    name: bool  # may be renamed
    weight: int  # how much it tells of which line belongs to which


class _Cut(NamedTuple):
    """A text cut into tokens, up to one more than :data:`LONGEST`, and the line that each stands on."""

    text: str
    tokens: list[_Token]
    lines: list[int]


@lru_cache(maxsize=128)
def _cut(text: str) -> _Cut:
    tokens = list(islice(_code(text), LONGEST + 1))
    signs = sum(token.weight == 0 and token.text not in ".,;:!?'\"" for token in tokens)
    if signs < _PROSE * len(tokens):
        tokens = list(islice(_words(text, 0, len(text)), LONGEST + 1))
    lines, line, at = [], 0, 0
    for token in tokens:
        line += text.count("\n", at, token.start)
        lines.append(line)
        at = token.start
    return _Cut(text, tokens, lines)


def _code(text: str) -> Iterable[_Token]:
    at, attribute = 0, False
    while hit := _TOKEN.search(text, at):
        start, (at, said, kind) = hit.start(), (hit.end(), hit[0], hit.lastgroup)
        if kind in ("open", "comment"):
            closing = said[-3:] if kind == "open" else "\n"
            end = text.find(closing, at)
            end = len(text) if end < 0 else end
            yield _Token(start, at, said, _quotes(said.lower()), True, False, 0)
            yield from _words(text, at, end)
            at = end
            if kind == "open" and end < len(text):
                at = end + 3
                yield _Token(end, at, closing, _quotes(closing), True, False, 0)
        elif kind == "string":
            plain = _QUOTED.fullmatch(said)
            yield _Token(start, at, said, f'{plain[1].lower()}"{plain[3]}"' if plain else said, False, False, 2)
        elif kind == "sign":
            yield _Token(start, at, said, said, False, False, 0)
        else:
            free = kind == "name" and not attribute and said not in _FIXED
            yield _Token(start, at, said, said, False, free, 2 if free or kind == "number" else 1)
        attribute = said == "."


def _words(text: str, start: int, end: int) -> Iterable[_Token]:
    for hit in _WORD.finditer(text, start, end):
        word = hit[0]
        yield _Token(hit.start(), hit.end(), word, _quotes(word), True, False, int(word[0].isalnum() or word[0] == "_"))


def _quotes(sign: str) -> str:
    return sign.replace("'''", '"""')


# ---- pairs -----------------------------------------------------------------------------------------------------------

_Pair = tuple[int, int, bool]  # a token of either side, and whether the two are the same or renamed


def _paired(left: Sequence[_Token], right: Sequence[_Token]) -> list[_Pair]:
    """Tokens that stand against each other, under the renaming that leaves the fewest changed."""
    best = _pairs(left, right, {})
    if all(same for _, _, same in best) and len(best) == len(left) == len(right):
        return best
    nameless = [["\0" if token.name else token.key for token in side] for side in (left, right)]
    tried: list[dict[str, str]] = [{}]
    for pairs in (best, _edits(*nameless)):
        names = _renaming(pairs, left, right)
        if names not in tried:
            tried.append(names)
            found = _pairs(left, right, names)
            best = max(best, found, key=lambda pairs: sum(same for _, _, same in pairs))
    return best


def _renaming(pairs: Sequence[_Pair], left: Sequence[_Token], right: Sequence[_Token]) -> dict[str, str]:
    """Names of either side that meet each other more often than anything else."""
    met = Counter((left[i].text, right[j].text) for i, j, _ in pairs if left[i].name and right[j].name)
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for (one, other), count in met.items():
        ours[one] += count
        theirs[other] += count
    return {
        one: other
        for (one, other), count in met.items()
        if one != other and 2 * count > ours[one] and 2 * count > theirs[other]
    }


def _pairs(left: Sequence[_Token], right: Sequence[_Token], names: dict[str, str]) -> list[_Pair]:
    # A renamed name is nothing but its counterpart, and a counterpart nothing but what is renamed to it.
    back = {other: one for one, other in names.items()}
    return _edits(
        [_key(token, names.get(token.text), back, "\1") for token in left],
        [_key(token, token.text if token.text in back else None, names, "\2") for token in right],
    )


def _key(token: _Token, renamed: str | None, taken: dict[str, str], side: str) -> str:
    if not token.name:
        return token.key
    if renamed is not None:
        return "\0" + renamed
    return side + token.key if token.text in taken else token.key


def _edits(left: list[str], right: list[str]) -> list[_Pair]:
    number: dict[str, int] = {}
    for key in (*left, *right):
        number.setdefault(key, len(number))
    pairs = []
    for edit in Levenshtein.opcodes([number[key] for key in left], [number[key] for key in right]):
        if edit.tag in ("equal", "replace"):
            both = zip(range(edit.src_start, edit.src_end), range(edit.dest_start, edit.dest_end), strict=True)
            pairs += [(i, j, edit.tag == "equal") for i, j in both]
    return pairs


def _turned(pairs: Sequence[_Pair]) -> list[_Pair]:
    return [(j, i, same) for i, j, same in pairs]


def _without_strays(pairs: Sequence[_Pair], left: _Cut, right: _Cut) -> list[_Pair]:
    """The pairs, but for lone brackets and the like that would tie together lines which belong to others."""
    weights: dict[tuple[int, int], int] = {}
    for i, j, same in pairs:
        if same:
            place = left.lines[i], right.lines[j]
            weights[place] = weights.get(place, 0) + left.tokens[i].weight
    ours = {one for (one, _), weight in weights.items() if weight}
    theirs = {other for (_, other), weight in weights.items() if weight}
    stray = {place for place, weight in weights.items() if not weight and place[0] in ours and place[1] in theirs}
    if not stray:
        return list(pairs)
    return [(i, j, same and (left.lines[i], right.lines[j]) not in stray) for i, j, same in pairs]


def _kinds(
    pairs: Sequence[_Pair], left: Sequence[_Token], right: Sequence[_Token]
) -> tuple[list[Kind], list[Kind]]:  # fmt: skip
    alone = [[Kind.ASIDE if token.prose else Kind.ONLY for token in side] for side in (left, right)]
    for i, j, same in pairs:
        one, other = left[i], right[j]
        if same:
            alone[0][i] = alone[1][j] = Kind.SAME if one.key == other.key else Kind.RENAMED
        elif one.prose == other.prose:
            alone[0][i] = alone[1][j] = Kind.CHANGED
    return alone[0], alone[1]


# ---- pieces and rows -------------------------------------------------------------------------------------------------


def _pieces(cut: _Cut, kinds: Sequence[Kind]) -> tuple[Piece, ...]:
    """Pieces of one kind, the white space between two of a kind within."""
    found: list[tuple[int, Kind]] = []
    at, before = 0, Kind.SPACE
    for token, kind in zip(cut.tokens, kinds, strict=True):
        if kind == before:
            found[-1] = (found[-1][0] + token.end - at, kind)
        else:
            if token.start > at:
                found.append((token.start - at, Kind.SPACE))
            found.append((token.end - token.start, kind))
        at, before = token.end, kind
    if at < len(cut.text):
        found.append((len(cut.text) - at, Kind.SPACE))
    return tuple(Piece(*one) for one in found)


def _rows(
    left: _Cut, right: _Cut, pairs: Sequence[_Pair], kinds: tuple[Sequence[Kind], Sequence[Kind]]
) -> tuple[tuple[int, int], ...]:
    tied: list[list[int]] = []  # first and last line of either side, of lines tied together by what is the same
    for one, other in dict.fromkeys((left.lines[i], right.lines[j]) for i, j, same in pairs if same):
        if tied and (one <= tied[-1][1] or other <= tied[-1][3]):
            tied[-1][1], tied[-1][3] = max(tied[-1][1], one), max(tied[-1][3], other)
        else:
            tied.append([one, one, other, other])
    full = set(left.lines), set(right.lines)
    changed = tuple(
        {line for line, kind in zip(cut.lines, kinds_of, strict=True) if kind == Kind.CHANGED}
        for cut, kinds_of in zip((left, right), kinds, strict=True)
    )
    end = [cut.text.count("\n") + 1 for cut in (left, right)]
    rows: list[tuple[int, int]] = []
    for before, after in pairwise([[-1, -1, -1, -1], *tied, [end[0], 0, end[1], 0]]):
        gaps = range(before[1] + 1, after[0]), range(before[3] + 1, after[2])
        blank = any(some.isdisjoint(gap) for some, gap in zip(full, gaps, strict=True))
        if blank or not any(some.isdisjoint(gap) for some, gap in zip(changed, gaps, strict=True)):
            rows += [(int(line < len(gaps[0])), int(line < len(gaps[1]))) for line in range(max(map(len, gaps)))]
        else:
            rows += [(1, 0)] * len(gaps[0]) + [(0, 1)] * len(gaps[1])
        if after[0] < end[0]:
            rows.append((after[1] - after[0] + 1, after[3] - after[2] + 1))
    return tuple(rows)
