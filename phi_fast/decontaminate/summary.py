"""One finished run folder, read once into what the reports and the terminal say. Streams, so any size will do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.decontaminate.record import EVIDENCE, EXCERPTS, REJECTED, VERDICTS, Run
from phi_fast.decontaminate.tables import numbers, strength
from phi_fast.decontaminate.verdicts import condemns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phi_fast.engines.ngram import PartInfo

LISTED = 10_000  # matches listed in report.html at most: the ones that condemn first, then by strength and run
COVERAGE_BINS = 20
_HEAD = 1 << 16  # of a line of rejected.jsonl: its reason comes before the raw line, which may be 100 MB
_BATCH = 1 << 16  # rows of evidence in hand at a time
_REASON = re.compile(rb'"reason": ?("(?:[^"\\]|\\.)*")')
_ROWS = re.compile(rb', "rows": (\d+)')


@dataclass(slots=True)
class Count:
    """What was found of an item, or of a suite. ``condemned`` counts documents with a match that condemns them."""

    documents: int = 0
    condemned: int = 0
    matches: int = 0
    coverage: float = 0.0
    run: int = 0
    alpha: float = 0.0


@dataclass(slots=True)
class SuiteCount(Count):
    """A suite: its ``items`` are either condemned, only seen, unseen or untestable, each counted once."""

    name: str = ""
    items: int = 0
    items_condemned: int = 0
    items_seen: int = 0
    items_untestable: int = 0

    @property
    def items_unseen(self) -> int:
        """Items of which no document holds anything worth recording."""
        return self.items - self.items_condemned - self.items_seen - self.items_untestable


@dataclass(slots=True)
class ItemCount(Count):
    """An item of which something was found."""

    suite: str = ""
    item: str = ""


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
    histogram: NDArray[np.int64]  # (2, COVERAGE_BINS): matches at the policy's n by coverage; spared, condemning
    rejected: list[tuple[str, int]]
    documents: list[Document] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)  # the worst first
    excerpts: list[tuple[int, str]] = field(default_factory=list)  # start in the document, text

    @property
    def untestable(self) -> list[PartInfo]:
        """Parts no channel can find, in suite order."""
        return [part for part in self.parts if not part.findable]

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
    tally = _Tally(run, parts, listed)
    for batch in _batches(run.path / EVIDENCE):
        tally.add(batch)
    summary = Summary(
        run, parts, tally.suite_counts(), tally.item_counts(), tally.histogram, _rejected(run.path / REJECTED)
    )
    _list_matches(summary, tally.worst())
    return summary


class _Distinct:
    """Counts distinct (document, thing) pairs per thing, where a document's rows come one after the other."""

    def __init__(self, things: int) -> None:
        self.counts = np.zeros(things, np.int64)
        self._open = np.empty(0, np.int64)

    def add(self, document: NDArray[np.int64], thing: NDArray[np.int64]) -> None:
        if not len(document):
            return
        size = len(self.counts)
        pairs = np.unique(document * size + thing)
        new = np.setdiff1d(pairs, self._open, assume_unique=True)
        self.counts += np.bincount(new % size, minlength=size)
        last = int(document[-1])
        self._open = np.union1d(self._open[self._open // size == last], pairs[pairs // size == last])


class _Tally:
    """Adds up evidence, batch by batch."""

    def __init__(self, run: Run, parts: list[PartInfo], listed: int) -> None:
        self.policy, self.parts, self.listed = run.policy, parts, listed
        self.number = {(part.suite, part.item, part.part): number for number, part in enumerate(parts)}
        self.items = list(dict.fromkeys((part.suite, part.item) for part in parts))
        self.suites = list(dict.fromkeys(part.suite for part in parts))
        item_number = {key: number for number, key in enumerate(self.items)}
        self.item_of = np.array([item_number[part.suite, part.item] for part in parts], np.int64)
        self.suite_of = np.array([self.suites.index(suite) for suite, _ in self.items], np.int64)
        self.testable = np.zeros(len(self.items), bool)
        np.logical_or.at(self.testable, self.item_of, [part.findable for part in parts])
        self.seen, self.condemned = _Distinct(len(self.items)), _Distinct(len(self.items))
        self.suite_seen, self.suite_condemned = _Distinct(len(self.suites)), _Distinct(len(self.suites))
        self.matches = np.zeros(len(self.items), np.int64)
        self.coverage = np.zeros(len(self.items), np.float32)
        self.run = np.zeros(len(self.items), np.int64)
        self.alpha = np.zeros(len(self.items), np.float32)
        self.histogram = np.zeros((2, COVERAGE_BINS), np.int64)
        self._kept: pa.Table | None = None
        self._documents, self._last, self._rows = -1, (None, -1), 0

    def add(self, batch: pa.RecordBatch) -> None:
        part = self._part_numbers(batch)
        item = self.item_of[part]
        document = self._document_numbers(batch)
        guilty = np.asarray(condemns(self.policy, batch, self.parts), bool)
        coverage, runs = numbers(batch, "coverage"), numbers(batch, "run")
        self.seen.add(document, item)
        self.condemned.add(document[guilty], item[guilty])
        self.suite_seen.add(document, self.suite_of[item])
        self.suite_condemned.add(document[guilty], self.suite_of[item[guilty]])
        self.matches += np.bincount(item, minlength=len(self.items))
        np.maximum.at(self.coverage, item, coverage)
        np.maximum.at(self.run, item, runs)
        np.maximum.at(self.alpha, item, numbers(batch, "alpha"))
        ours = numbers(batch, "n") == self.policy.n
        bins = np.clip((coverage * COVERAGE_BINS).astype(np.int64), 0, COVERAGE_BINS - 1)
        for row, some in enumerate((ours & ~guilty, ours & guilty)):
            self.histogram[row] += np.bincount(bins[some], minlength=COVERAGE_BINS)
        extra = {
            "part_number": part, "document": document, "condemns": guilty,
            "strength": strength(batch),
            "order": np.arange(self._rows, self._rows + len(part)),
        }  # fmt: skip
        self._rows += len(part)
        table = pa.Table.from_batches([batch])
        for name, column in extra.items():
            table = table.append_column(name, pa.array(column))
        self._kept = table if self._kept is None else pa.concat_tables([self._kept, table])
        if self._kept.num_rows > 4 * self.listed:
            self._kept = self._ranked()

    def _ranked(self) -> pa.Table:
        assert self._kept is not None
        keys = [("condemns", "descending"), ("strength", "descending"), ("run", "descending"), ("order", "ascending")]
        order = pc.sort_indices(self._kept, sort_keys=keys)
        return self._kept.take(order[: self.listed]).combine_chunks()

    def worst(self) -> list[dict[str, Any]]:
        return [] if self._kept is None else self._ranked().to_pylist()

    def _part_numbers(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        coded = [batch.column(name).dictionary_encode() for name in ("suite", "item", "part")]
        combined = np.zeros(batch.num_rows, np.int64)
        for column in coded:
            combined = combined * len(column.dictionary) + column.indices.to_numpy()
        values, inverse = np.unique(combined, return_inverse=True)
        numbers = np.empty(len(values), np.int64)
        names = [column.dictionary.to_pylist() for column in coded]
        for slot, value in enumerate(values.tolist()):
            rest, third = divmod(value, len(names[2]))
            first, second = divmod(rest, len(names[1]))
            numbers[slot] = self.number[names[0][first], names[1][second], names[2][third]]
        found: NDArray[np.int64] = numbers[inverse]
        return found

    def _document_numbers(self, batch: pa.RecordBatch) -> NDArray[np.int64]:
        files = batch.column("file").dictionary_encode()
        codes, rows = files.indices.to_numpy(), batch.column("row").to_numpy()
        starts = np.ones(batch.num_rows, np.int64)
        starts[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
        names = files.dictionary.to_pylist()
        starts[0] = (names[codes[0]], int(rows[0])) != self._last
        numbers = self._documents + np.cumsum(starts)
        self._documents, self._last = int(numbers[-1]), (names[codes[-1]], int(rows[-1]))
        return numbers

    def item_counts(self) -> list[ItemCount]:
        counts = [
            ItemCount(
                int(self.seen.counts[one]), int(self.condemned.counts[one]), int(self.matches[one]),
                float(self.coverage[one]), int(self.run[one]), float(self.alpha[one]), *self.items[one],
            )
            for one in np.flatnonzero(self.matches).tolist()
        ]  # fmt: skip
        return sorted(counts, key=lambda one: (-one.condemned, -max(one.coverage, one.alpha), -one.run, -one.documents))

    def suite_counts(self) -> list[SuiteCount]:
        counts = []
        guilty, seen = self.condemned.counts > 0, self.seen.counts > 0
        for number, name in enumerate(self.suites):
            mine = self.suite_of == number
            counts.append(
                SuiteCount(
                    documents=int(self.suite_seen.counts[number]),
                    condemned=int(self.suite_condemned.counts[number]),
                    matches=int(self.matches[mine].sum()),
                    coverage=float(self.coverage[mine].max()),
                    run=int(self.run[mine].max()),
                    alpha=float(self.alpha[mine].max()),
                    name=name,
                    items=int(mine.sum()),
                    items_condemned=int((mine & guilty).sum()),
                    items_seen=int((mine & seen & ~guilty).sum()),
                    items_untestable=int((mine & ~seen & ~self.testable).sum()),
                )
            )
        return counts


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
                number[key], row["part_number"], row["channel"], row["n"], row["doc_start"], row["doc_end"],
                row["item_start"], row["item_end"], row["run"], row["coverage"], row["score"], row["tau"], row["alpha"],
                row["nodes"], row["distance"], row["condemns"], excerpt,
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
