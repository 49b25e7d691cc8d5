"""One finished run folder, read once into what the reports and the terminal say. Streams, so any size will do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.decontaminate.record import EVIDENCE, EXCERPTS, REJECTED, VERDICTS, Run
from phi_fast.decontaminate.tally import ItemCount, SuiteCount, Tally, findable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from phi_fast.engines.ngram import PartInfo

LISTED = 10_000  # matches listed in report.html at most: the ones that condemn first, then by strength and run
_HEAD = 1 << 16  # of a line of rejected.jsonl: its reason comes before the raw line, which may be 100 MB
_BATCH = 1 << 16  # rows of evidence in hand at a time
_REASON = re.compile(rb'"reason": ?("(?:[^"\\]|\\.)*")')
_ROWS = re.compile(rb', "rows": (\d+)')


@dataclass(frozen=True, slots=True)
class Document:
    """A document that holds a listed match."""

    id: str
    file: str
    row: int
    verdict: str  # drop, cut, flag or keep
    reason: str


@dataclass(frozen=True, slots=True)
class Match:
    """One listed match; spans in characters. ``excerpt`` is an index into ``Summary.excerpts`` or -1."""

    document: int
    part: int
    channel: str
    form: str | None
    n: int | None
    doc_start: int
    doc_end: int
    item_start: int
    item_end: int
    run: int | None
    coverage: float | None
    score: float
    tau: float | None
    alpha: float | None
    nodes: int | None
    item_nodes: int | None
    distance: float | None
    condemns: bool
    excerpt: int


@dataclass(slots=True)
class Summary:
    """A run in numbers, and its most telling matches with the text around them."""

    run: Run
    parts: list[PartInfo]
    suites: list[SuiteCount]
    items: list[ItemCount]  # the worst first
    histogram: NDArray[np.int64]  # (2, BINS): matches at the policy's n by coverage; spared, condemning
    trees: NDArray[np.int64]  # (2, BINS): matches of the syntax channel by alpha; spared, condemning
    channels: Counter[str]  # matches of each channel that found any
    found_by: dict[str, tuple[int, int]]  # by such a channel, items it condemns documents for, and those it alone does
    rejected: list[tuple[str, int]]
    documents: list[Document] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)  # the worst first
    excerpts: list[tuple[int, str]] = field(default_factory=list)  # start in the document, text

    @property
    def untestable(self) -> list[PartInfo]:
        """Parts that neither words nor syntax can find, in suite order."""
        return [part for part in self.parts if not findable(part, self.run)]

    @property
    def set_aside(self) -> Counter[str]:
        """n-grams that carry no weight, by reason, over all parts."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.set_aside)
        return total

    def set_aside_by_item(self) -> list[tuple[str, str, dict[str, int]]]:
        """(suite, item, n-grams set aside by reason) of each item that has any, the most first."""
        by_item: dict[tuple[str, str], Counter[str]] = {}
        for part in self.parts:
            by_item.setdefault((part.suite, part.item), Counter()).update(part.set_aside)
        ranked = sorted(by_item.items(), key=lambda one: -one[1].total())
        return [(suite, item, dict(counts)) for (suite, item), counts in ranked if counts.total()]

    def worst(self, count: int = 3) -> list[Match]:
        """The worst match of each of the worst documents."""
        seen: dict[int, Match] = {}
        for match in self.matches:
            seen.setdefault(match.document, match)
            if len(seen) == count:
                break
        return list(seen.values())

    def item_of(self, match: Match) -> tuple[str, str]:
        """Suite and item of a match."""
        return self.parts[match.part].suite, self.parts[match.part].item

    def also(self, match: Match) -> list[Match]:
        """The worst match of each other channel for the same document and item, the worst first."""
        item, found = self.item_of(match), {match.channel: match}
        for other in self.matches:
            if other.document == match.document and self.item_of(other) == item:
                found.setdefault(other.channel, other)
        return list(found.values())[1:]


def summarise_run(run_dir: str | Path, listed: int = LISTED) -> Summary:
    """Read a run's folder.

    Parameters
    ----------
    run_dir
        RUN/, with run.json, evidence, verdicts, excerpts and index written.
    listed
        Matches taken up in full at most.

    Raises
    ------
    InputError
        The folder holds no run.
    """
    run = Run.load(run_dir)
    parts = run.parts()
    tally = Tally(run, parts, listed)
    for batch in _batches(run.path / EVIDENCE):
        tally.add(batch)
    summary = Summary(
        run, parts, tally.suite_counts(), tally.item_counts(), tally.histogram, tally.trees, tally.channels,
        tally.items_found_by(), _rejected(run.path / REJECTED),
    )  # fmt: skip
    _list_matches(summary, tally.worst())
    return summary


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            if batch.num_rows:
                yield batch


def _rejected(path: Path) -> list[tuple[str, int]]:
    """Count rejected rows by reason, the most first; where in a line it went wrong is left out."""
    import json

    reasons: Counter[str] = Counter()
    with path.open("rb") as file:
        while head := file.readline(_HEAD):
            found = _REASON.search(head)
            reason = json.loads(found[1]) if found else "unknown"
            # One fault may stand for many rows. A quote within a value is escaped, so these are keys.
            raw = head.find(b', "raw')
            several = _ROWS.search(head, 0, raw if raw >= 0 else len(head))
            reasons[re.sub(r" at (byte|character) \d+.*", "", reason)] += max(1, int(several[1])) if several else 1
            while head and not head.endswith(b"\n"):
                head = file.readline(_HEAD)
    return sorted(reasons.items(), key=lambda one: (-one[1], one[0]))


def _list_matches(summary: Summary, rows: list[dict[str, Any]]) -> None:
    keys = {(row["file"], row["row"]) for row in rows}
    verdicts = {
        (row["file"], row["row"]): (row["verdict"], row["reason"])
        for row in _rows_of(summary.run.path / VERDICTS, keys, ["file", "row", "verdict", "reason"])
    }
    excerpts: dict[tuple[str, int], list[int]] = {}
    for row in _rows_of(summary.run.path / EXCERPTS, keys, ["file", "row", "start", "text"]):
        excerpts.setdefault((row["file"], row["row"]), []).append(len(summary.excerpts))
        summary.excerpts.append((row["start"], row["text"]))
    number: dict[tuple[str, int], int] = {}
    for row in rows:
        key = (row["file"], row["row"])
        if key not in number:
            number[key] = len(summary.documents)
            summary.documents.append(Document(row["id"], *key, *verdicts.get(key, ("keep", ""))))
        excerpt = _holding(summary.excerpts, excerpts.get(key, []), row["doc_start"], row["doc_end"])
        summary.matches.append(
            Match(
                number[key], row["part_number"], row["channel"], row["form"], row["n"], row["doc_start"],
                row["doc_end"], row["item_start"], row["item_end"], row["run"], row["coverage"], row["score"],
                row["tau"], row["alpha"], row["nodes"], row["item_nodes"], row["distance"], row["condemns"], excerpt,
            )
        )  # fmt: skip


def _holding(excerpts: list[tuple[int, str]], mine: list[int], start: int, end: int) -> int:
    """The excerpt that holds a span, or else its beginning: a very long one is not kept whole."""
    begins = [one for one in mine if excerpts[one][0] <= start < excerpts[one][0] + len(excerpts[one][1])]
    whole = [one for one in begins if end <= excerpts[one][0] + len(excerpts[one][1])]
    return (whole or begins or [-1])[0]


def _rows_of(path: Path, keys: set[tuple[str, int]], columns: list[str]) -> Iterable[dict[str, Any]]:
    """Rows of the documents wanted, in the file's order."""
    rows = pa.array(sorted({row for _, row in keys}), pa.int64())
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1 << 14, columns=columns):
            near = batch.filter(pc.is_in(batch.column("row").cast(pa.int64()), rows))
            for row in near.to_pylist():
                if (row["file"], row["row"]) in keys:
                    yield row
