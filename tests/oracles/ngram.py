"""The n-gram channel: which places of a document meet which parts of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tests.oracles.words import Word, has_letter, words

FEWEST_WORDS = 8
LEAST_COVERAGE = 0.2
LONG_RUN = 13
TESTABLE_WORDS = 13
DISTINCT = 4
COMMON_SHARE = 0.001
COMMON_AT_LEAST = 2
COPY_COVERAGE = 0.5


class Run(NamedTuple):
    """Words that a document and a part have in common: document[i : i + length] == part[j : j + length]."""

    i: int
    j: int
    length: int


class Match(NamedTuple):
    """One place where a document meets a part; spans in characters, half open."""

    n: int
    part: int
    doc_start: int
    doc_end: int
    item_start: int
    item_end: int
    run: int
    words: int
    coverage: float
    score: int


@dataclass
class Part:
    """The words of one part, and the flags of its grams of the shortest n."""

    words: list[Word]
    shortest: int
    first_word: int
    flags: list[set[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.forms = [word.form for word in self.words]
        for j in range(len(self.words) - self.shortest + 1):
            gram = self.forms[j : j + self.shortest]
            flags = set()
            if not any(has_letter(form) for form in gram):
                flags.add("no_letters")
            if len(set(gram)) < min(DISTINCT, self.shortest):
                flags.add("few_distinct")
            self.flags.append(flags)

    def weighable(self) -> set[int]:
        """Positions of words covered by at least one gram without a flag."""
        return {j + t for j, flags in enumerate(self.flags) if not flags for t in range(self.shortest)}

    def is_testable(self) -> bool:
        return len(self.words) >= TESTABLE_WORDS and len(self.weighable()) >= FEWEST_WORDS


class Index:
    """Parts in the order given, which is their number in matches."""

    def __init__(self, texts: Iterable[str], n: Sequence[int] = (13, 5)) -> None:
        self.n = sorted(set(n), reverse=True)
        self.shortest = min(self.n)
        self.parts: list[Part] = []
        total = 0
        for text in texts:
            part = Part(words(text), self.shortest, total)
            self.parts.append(part)
            total += len(part.words)
        self.total_words = total
        self._find_grams()

    def _find_grams(self) -> None:
        self.places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for number, part in enumerate(self.parts):
            for j, flags in enumerate(part.flags):
                if not flags:
                    self.places.setdefault(tuple(part.forms[j : j + self.shortest]), []).append((number, j))
        self.weighable = [part.weighable() for part in self.parts]

    def seeds(self, document: Sequence[str]) -> dict[int, list[tuple[int, int]]]:
        """For each part met: the pairs (i, j) where a gram of the part stands in the document."""
        found: dict[int, list[tuple[int, int]]] = {}
        for i in range(len(document) - self.shortest + 1):
            for number, j in self.places.get(tuple(document[i : i + self.shortest]), ()):
                found.setdefault(number, []).append((i, j))
        return found

    def runs(self, document: Sequence[str], number: int, seeds: Iterable[tuple[int, int]]) -> set[Run]:
        """The seeds grown as far left and right as they go."""
        part = self.parts[number].forms
        found: dict[int, list[Run]] = {}
        for i, j in seeds:
            same_diagonal = found.setdefault(i - j, [])
            if any(run.i <= i < run.i + run.length for run in same_diagonal):
                continue
            left = 0
            while i - left > 0 and j - left > 0 and document[i - left - 1] == part[j - left - 1]:
                left += 1
            right = 0
            while i + right < len(document) and j + right < len(part) and document[i + right] == part[j + right]:
                right += 1
            same_diagonal.append(Run(i - left, j - left, left + right))
        return {run for same_diagonal in found.values() for run in same_diagonal}

    def matches(self, text: str) -> list[Match]:
        """All matches of a document, in the order in which they are reported."""
        document = words(text)
        forms = [word.form for word in document]
        found = []
        for number, seeds in self.seeds(forms).items():
            runs = self.runs(forms, number, seeds)
            for n in self.n:
                long_enough = sorted(run for run in runs if run.length >= n)
                found += self._clusters(document, number, n, long_enough)
        return sorted(found, key=lambda match: (-match.n, match[1:6]))

    def _clusters(self, document: list[Word], number: int, n: int, runs: list[Run]) -> list[Match]:
        part = self.parts[number]
        weighable = self.weighable[number]
        window = 2 * len(part.words)
        promise: dict[Run, tuple[int, int]] = {}
        for run in runs:
            end = run.i + window
            near = [other for other in runs if run.i <= other.i < end]
            cut = [Run(other.i, other.j, min(other.length, end - other.i)) for other in near]
            union = {other.j + t for other in cut if other.length >= n for t in range(other.length)} & weighable
            promise[run] = (len(union), max(other.length for other in near))

        found = []
        consumed: list[tuple[int, int]] = []
        for run in sorted(runs, key=lambda run: (-promise[run][0], -run.i, run.j)):
            if not reaches_floor(*promise[run], len(weighable)):
                continue
            if any(start <= run.i < end for start, end in consumed):
                continue
            end = min([run.i + window, *(start for start, _ in consumed if start > run.i)])
            clipped = [
                Run(other.i, other.j, min(other.length, end - other.i)) for other in runs if run.i <= other.i < end
            ]
            pieces = [piece for piece in clipped if piece.length >= n]
            if not pieces:
                continue
            doc_marked, part_marked = tile(pieces)
            consumed.append((min(doc_marked), max(doc_marked) + 1))
            covered = len(part_marked & weighable)
            longest = max(piece.length for piece in pieces)
            if not reaches_floor(covered, longest, len(weighable)):
                continue
            shared = {j for piece in pieces for j in range(piece.j, piece.j + piece.length - n + 1)}
            found.append(
                Match(
                    n=n,
                    part=number,
                    doc_start=document[min(doc_marked)].start,
                    doc_end=document[max(doc_marked)].end,
                    item_start=part.words[min(part_marked)].start,
                    item_end=part.words[max(part_marked)].end,
                    run=longest,
                    words=covered,
                    coverage=float(np.float32(covered / len(weighable))),
                    score=len(shared),
                )
            )
        return found

    def count(self, text: str, counts: list[int]) -> None:
        """Add a sample document to ``counts``, indexed by the gram's place among the words of all parts."""
        forms = [word.form for word in words(text)]
        for number, seeds in self.seeds(forms).items():
            covered = {run.j + t for run in self.runs(forms, number, seeds) for t in range(run.length)}
            weighable = self.weighable[number]
            if len(covered & weighable) / len(weighable) < COPY_COVERAGE:
                for j in {j for _, j in seeds}:
                    counts[self.parts[number].first_word + j] += 1

    def learn_common(self, counts: Sequence[int], documents: int) -> int:
        """Set aside the grams that stand in too many sample documents; how many are set aside."""
        learnt = 0
        for part in self.parts:
            for j, flags in enumerate(part.flags):
                if counts[part.first_word + j] > max(COMMON_AT_LEAST, documents * COMMON_SHARE):
                    flags.add("common")
                    learnt += 1
        self._find_grams()
        return learnt


def reaches_floor(covered: int, run: int, weighable: int) -> bool:
    """The least that is recorded as evidence."""
    return covered >= FEWEST_WORDS and (covered / weighable >= LEAST_COVERAGE or run >= LONG_RUN)


def tile(pieces: Iterable[Run]) -> tuple[set[int], set[int]]:
    """Pair words one to one, longest pieces first: the words of the document and of the part that are paired."""
    doc_marked: set[int] = set()
    part_marked: set[int] = set()
    for i, j, length in sorted(pieces, key=lambda piece: (-piece.length, piece.i, piece.j)):
        for t in range(length):
            if i + t not in doc_marked and j + t not in part_marked:
                doc_marked.add(i + t)
                part_marked.add(j + t)
    return doc_marked, part_marked
