"""From evidence to verdicts: which matches condemn, and what becomes of the document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.decontaminate.policy import LARGE_NODES, Policy
from phi_fast.decontaminate.tables import numbers

if TYPE_CHECKING:
    import numpy.typing as npt

    from phi_fast.engines.ngram import PartInfo

# Columns of the evidence that decide.
DECIDING = (
    "channel", "suite", "item", "part", "n", "run", "coverage", "words", "nodes", "item_nodes", "tau", "alpha",
    "distance",
)  # fmt: skip
_READ = ["id", "file", "row", "doc_start", "doc_end", *DECIDING]
_NEAR = 1_000  # characters: the farthest a cut moves to a line boundary


class Match(NamedTuple):
    """A match that condemns its document; spans are characters of the document."""

    channel: str
    suite: str
    item: str
    part: str
    doc_start: int
    doc_end: int
    run: int | None
    coverage: float | None
    tau: float | None
    alpha: float | None
    distance: float | None

    @property
    def strength(self) -> tuple[float, int]:
        """How telling it is, beside other matches of the document."""
        alike = self.coverage if self.coverage is not None else self.alpha
        return (alike if alike is not None else 1 - (self.distance or 0.0) ** 2 / 2, self.run or 0)

    def said(self) -> str:
        """Say in words how alike document and item are."""
        if self.channel == "syntax":
            return f"match rate {self.tau:.2f} by node types, {self.alpha:.2f} in alpha-normalised form"
        if self.channel == "embedding":
            return f"embedding at distance {self.distance:.2f}"
        return f"coverage {self.coverage:.2f}, run {self.run} words"


@dataclass(frozen=True, slots=True)
class Condemned:
    """A document that the policy condemns, and the matches that do it."""

    id: str
    file: str
    row: int
    matches: tuple[Match, ...]


def considered(policy: Policy, parts: Sequence[PartInfo]) -> npt.NDArray[np.float64]:
    """Give each part's weight under the policy; 0 where it cannot condemn: not considered or allowed."""
    allow = frozenset(policy.allow)
    weights = np.zeros(len(parts))
    for number, part in enumerate(parts):
        names = (part.suite, part.item, f"{part.item} {part.part}", f"{part.suite} {part.item}",
                 f"{part.suite} {part.item} {part.part}", f"{part.suite} {part.part}")  # fmt: skip
        if part.part in policy.parts and allow.isdisjoint(names):
            weights[number] = policy.weights.get(part.part, 1.0)
    return weights


def condemns(policy: Policy, batch: pa.RecordBatch | pa.Table, parts: Sequence[PartInfo]) -> npt.NDArray[np.bool_]:
    """Say which rows of the evidence condemn their document.

    Parameters
    ----------
    policy
        The rule.
    batch
        Rows of evidence.parquet with the columns :data:`DECIDING`.
    parts
        ``NgramIndex.parts`` of the run's index.

    Returns
    -------
    ndarray of bool, shape (rows,)
    """
    return _Judge(policy, parts).condemns(batch)


class _Judge:
    """A policy applied to one index's parts: what does not depend on the evidence is worked out once."""

    def __init__(self, policy: Policy, parts: Sequence[PartInfo]) -> None:
        self._policy = policy
        weights = considered(policy, parts).tolist()
        # By part: its weight for any channel, and for words, which cannot judge every part.
        self._weight = {
            (one.suite, one.item, one.part): (weight, weight * one.testable)
            for one, weight in zip(parts, weights, strict=True)
        }

    def condemns(self, batch: pa.RecordBatch | pa.Table) -> npt.NDArray[np.bool_]:
        if not batch.num_rows:
            return np.zeros(0, np.bool_)
        channel = batch.column("channel")
        by_words = np.asarray(pc.equal(channel, "ngram"))
        words_could = by_words & self._words(batch, max([1.0, *self._policy.weights.values()]))
        guilty = words_could | self._alike(batch, channel)
        rows = np.flatnonzero(guilty)
        if len(rows):  # names are looked up only for rows that some weight could condemn
            some = batch.take(pa.array(rows))
            names = zip(*(some.column(name).to_pylist() for name in ("suite", "item", "part")), strict=True)
            weights = np.array([self._weight[name] for name in names])
            held = np.where(by_words[rows], (weights[:, 1] > 0) & self._words(some, weights[:, 1]), weights[:, 0] > 0)
            guilty[rows] = held
        found: npt.NDArray[np.bool_] = guilty
        return found

    def _words(
        self, batch: pa.RecordBatch | pa.Table, weight: float | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        policy = self._policy
        enough: npt.NDArray[np.bool_] = (numbers(batch, "n") == policy.n) & (numbers(batch, "words") >= policy.words)
        return enough & self._reaches(numbers(batch, "coverage").astype(np.float64), numbers(batch, "run"), weight)

    def _alike(self, batch: pa.RecordBatch | pa.Table, channel: pa.Array) -> npt.NDArray[np.bool_]:
        """Rows that condemn by syntax or by embedding."""
        policy = self._policy
        found = np.zeros(batch.num_rows, np.bool_)
        near = np.zeros(batch.num_rows, np.bool_)
        if policy.distance is not None:
            distances = pc.fill_null(batch.column("distance"), np.inf)
            near = np.asarray(distances) <= np.float32(policy.distance)
            if not policy.both:
                found |= near & np.asarray(pc.equal(channel, "embedding"))
        alpha, tau = numbers(batch, "alpha"), numbers(batch, "tau")
        nodes = np.minimum(numbers(batch, "nodes"), numbers(batch, "item_nodes"))
        large = nodes >= LARGE_NODES
        trees = np.zeros(batch.num_rows, np.bool_)
        if policy.tau is not None:
            trees |= large & (tau >= np.float32(policy.tau))
        if policy.alpha is not None:
            trees |= np.where(large, alpha >= np.float32(policy.alpha), alpha >= 1)
        trees &= nodes >= policy.nodes
        found |= trees & np.asarray(pc.equal(channel, "syntax")) & (near if policy.both else True)
        return found

    def _reaches(
        self, coverage: npt.NDArray[np.float64], run: npt.NDArray[np.int64], weight: float | npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        # Coverage is stored in 32 bits: compared there, so that 0.7 reaches 0.7.
        reached = np.zeros(len(coverage), np.bool_)
        if self._policy.coverage is not None:
            reached |= (coverage * weight).astype(np.float32) >= np.float32(self._policy.coverage)
        if self._policy.run is not None:
            reached |= run * weight >= self._policy.run
        return reached


def condemned(evidence: Path, policy: Policy, parts: Sequence[PartInfo]) -> Iterator[Condemned]:
    """Go through the documents that a policy condemns, in evidence order, in constant memory."""
    for (file, row, identity), found in groupby(_guilty(evidence, policy, parts), key=lambda one: one[0]):
        yield Condemned(identity, file, row, tuple(match for _, match in found))


def _guilty(evidence: Path, policy: Policy, parts: Sequence[PartInfo]) -> Iterator[tuple[tuple[str, int, str], Match]]:
    judge = _Judge(policy, parts)
    with pq.ParquetFile(evidence) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=_READ):
            rows = np.flatnonzero(judge.condemns(batch))
            if not len(rows):
                continue
            some = batch.take(pa.array(rows)).to_pydict()
            keys = zip(some["file"], some["row"], some["id"], strict=True)
            found = zip(*(some[name] for name in Match._fields), strict=True)
            yield from zip(keys, map(Match._make, found), strict=True)


def reason(matches: Sequence[Match]) -> str:
    """Say in a sentence why a document is condemned: its worst match, and how many other items it holds."""
    worst = max(matches, key=lambda one: one.strength)
    others = len({(one.suite, one.item) for one in matches} - {(worst.suite, worst.item)})
    name = worst.item if worst.item.lower().startswith(worst.suite.lower()) else f"{worst.suite} {worst.item}"
    more = f", and {others} more item{'s' if others > 1 else ''}" if others else ""
    return f"{name} {worst.part}: {worst.said()}{more}"


def cut(text: str, matches: Sequence[Match], policy: Policy) -> str | None:
    """Take a document's condemning matches out of it.

    Each match goes with ``policy.window`` characters on either side, moved to the nearest line boundary. Pieces that
    are blank or shorter than ``policy.min_piece`` go too.

    Returns
    -------
    str or None
        What is left; None where nothing is, or where there are more than ``policy.max_pieces`` pieces: drop it.
    """
    spans = sorted(_widened(text, match.doc_start, match.doc_end, policy.window) for match in matches)
    pieces: list[str] = []
    at = 0
    for start, end in spans:
        if start > at:
            pieces.append(text[at:start])
        at = max(at, end)
    pieces.append(text[at:])
    pieces = [piece for piece in pieces if piece.strip()]
    if policy.max_pieces is not None and len(pieces) > policy.max_pieces:
        return None
    pieces = [piece for piece in pieces if len(piece) >= policy.min_piece]
    if not pieces:
        return None
    glued = [piece if piece.endswith("\n") else piece + "\n" for piece in pieces[:-1]]
    return "".join([*glued, pieces[-1]])


def _widened(text: str, start: int, end: int, window: int) -> tuple[int, int]:
    """Widen a span by a window, then move each side to the nearest beginning of a line outside the span.

    A minified file is one line: where no line begins within ``_NEAR`` characters, the cut goes through the line.
    """
    left, right = max(0, start - window), min(len(text), end + window)
    before = text.rfind("\n", 0, left) + 1
    after = text.find("\n", left, start) + 1 or before
    behind = text.find("\n", max(end, right - 1)) + 1 or len(text)
    ahead = text.rfind("\n", end, right) + 1 or behind
    return _nearest(left, before, after), _nearest(right, behind, ahead)


def _nearest(place: int, *boundaries: int) -> int:
    nearest = min(boundaries, key=lambda one: abs(one - place))
    return nearest if abs(nearest - place) <= _NEAR else place
