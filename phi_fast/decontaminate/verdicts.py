"""From evidence to verdicts: which matches condemn, and what becomes of the document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.decontaminate.policy import Policy

if TYPE_CHECKING:
    import numpy.typing as npt

    from phi_fast.engines.ngram import PartInfo

_READ = ["id", "file", "row", "suite", "item", "part", "n", "doc_start", "doc_end", "run", "coverage", "words"]
_NEAR = 1_000  # characters: the farthest a cut moves to a line boundary


class Match(NamedTuple):
    """A match that condemns its document; spans are characters of the document."""

    suite: str
    item: str
    part: str
    doc_start: int
    doc_end: int
    run: int
    coverage: float


@dataclass(frozen=True, slots=True)
class Condemned:
    """A document that the policy condemns, and the matches that do it."""

    id: str
    file: str
    row: int
    matches: tuple[Match, ...]


def considered(policy: Policy, parts: Sequence[PartInfo]) -> npt.NDArray[np.float64]:
    """Give each part's weight under the policy; 0 where it cannot condemn: not considered, untestable or allowed."""
    allow = frozenset(policy.allow)
    weights = np.zeros(len(parts))
    for number, part in enumerate(parts):
        names = (part.suite, part.item, f"{part.item} {part.part}", f"{part.suite} {part.item}",
                 f"{part.suite} {part.item} {part.part}", f"{part.suite} {part.part}")  # fmt: skip
        if part.testable and part.part in policy.parts and allow.isdisjoint(names):
            weights[number] = policy.weights.get(part.part, 1.0)
    return weights


def condemns(policy: Policy, batch: pa.RecordBatch | pa.Table, parts: Sequence[PartInfo]) -> npt.NDArray[np.bool_]:
    """Say which rows of the evidence condemn their document.

    Parameters
    ----------
    policy
        The rule.
    batch
        Rows of evidence.parquet, with suite, item, part, n, run, coverage and words.
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
        self._weight = {(one.suite, one.item, one.part): weight for one, weight in zip(parts, weights, strict=True)}

    def condemns(self, batch: pa.RecordBatch | pa.Table) -> npt.NDArray[np.bool_]:
        policy = self._policy
        guilty = _numbers(batch, "n") == policy.n
        guilty &= _numbers(batch, "words") >= policy.words
        coverage, run = _numbers(batch, "coverage").astype(np.float64), _numbers(batch, "run")
        # A cheap pass first: names are looked up only for rows that some weight could condemn.
        most = max(policy.weights.values(), default=1.0)
        guilty &= self._reaches(coverage, run, max(most, 1.0))
        rows = np.flatnonzero(guilty)
        if len(rows):
            some = batch.take(pa.array(rows))
            names = zip(*(some.column(name).to_pylist() for name in ("suite", "item", "part")), strict=True)
            weights = np.array([self._weight[name] for name in names])
            guilty[rows] = (weights > 0) & self._reaches(coverage[rows], run[rows], weights)
        found: npt.NDArray[np.bool_] = guilty
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
    worst = max(matches, key=lambda one: (one.coverage, one.run))
    others = len({(one.suite, one.item) for one in matches} - {(worst.suite, worst.item)})
    name = worst.item if worst.item.lower().startswith(worst.suite.lower()) else f"{worst.suite} {worst.item}"
    more = f", and {others} more item{'s' if others > 1 else ''}" if others else ""
    return f"{name} {worst.part}: coverage {worst.coverage:.2f}, run {worst.run} words{more}"


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


def _numbers(batch: pa.RecordBatch | pa.Table, name: str) -> npt.NDArray[Any]:
    return np.asarray(batch.column(name))
