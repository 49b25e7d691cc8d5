"""A run's evidence added up, batch by batch: by item, by suite, by channel, and the matches that rank first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from phi_fast.decontaminate.channels import CHANNELS, SYNTAX
from phi_fast.decontaminate.record import Run
from phi_fast.decontaminate.tables import numbers, strength
from phi_fast.decontaminate.verdicts import condemns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phi_fast.engines.ngram import PartInfo

BINS = 20  # of a histogram


@dataclass(slots=True)
class Count:
    """What was found of an item, or of a suite. ``condemned`` counts documents with a match that condemns them."""

    documents: int = 0
    condemned: int = 0
    matches: int = 0
    coverage: float = 0.0
    run: int = 0
    alpha: float = 0.0  # the best match rate, and the match rate by node types of the same match
    tau: float = 0.0
    distance: float | None = None  # the least; None: no embedding of a document is near


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


def findable(part: PartInfo, run: Run) -> bool:
    """Whether a channel of the run can find a part, by words or by syntax."""
    return (part.testable and "ngram" in run.record["settings"]["channels"]) or part.nodes > 0


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


class Tally:
    """Adds up evidence, batch by batch."""

    def __init__(self, run: Run, parts: list[PartInfo], listed: int) -> None:
        self.policy, self.parts, self.listed = run.policy, parts, listed
        self.channels: Counter[str] = Counter()
        self.number = {(part.suite, part.item, part.part): number for number, part in enumerate(parts)}
        self.items = list(dict.fromkeys((part.suite, part.item) for part in parts))
        self.suites = list(dict.fromkeys(part.suite for part in parts))
        item_number = {key: number for number, key in enumerate(self.items)}
        self.item_of = np.array([item_number[part.suite, part.item] for part in parts], np.int64)
        self.suite_of = np.array([self.suites.index(suite) for suite, _ in self.items], np.int64)
        self.testable = np.zeros(len(self.items), bool)
        np.logical_or.at(self.testable, self.item_of, [findable(part, run) for part in parts])
        self.seen, self.condemned = _Distinct(len(self.items)), _Distinct(len(self.items))
        self.suite_seen, self.suite_condemned = _Distinct(len(self.suites)), _Distinct(len(self.suites))
        self.matches = np.zeros(len(self.items), np.int64)
        self.coverage = np.zeros(len(self.items), np.float32)
        self.run = np.zeros(len(self.items), np.int64)
        self.alpha, self.tau = np.zeros((2, len(self.items)), np.float32)
        self.distance = np.full(len(self.items), np.inf, np.float32)
        self.found_by = np.zeros((len(CHANNELS), len(self.items)), bool)
        self.histogram, self.trees = np.zeros((2, 2, BINS), np.int64)
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
        np.minimum.at(self.distance, item, np.asarray(pc.fill_null(batch.column("distance"), np.inf)))
        of = np.asarray(pc.index_in(batch.column("channel"), pa.array(CHANNELS)))
        np.logical_or.at(self.found_by, (of, item), guilty)
        self.channels.update(
            {CHANNELS[one]: int(count) for one, count in zip(*np.unique(of, return_counts=True), strict=True)}
        )
        self._add_alike(batch, item)
        by_words = numbers(batch, "n") == self.policy.n
        self._add_bins(self.histogram, coverage[by_words], guilty[by_words])
        self._add_bins(self.trees, numbers(batch, "alpha")[of == SYNTAX], guilty[of == SYNTAX])
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

    def _add_alike(self, batch: pa.RecordBatch, item: NDArray[np.int64]) -> None:
        """Keep the best match rate of each item, with the match rate by node types of that match."""
        alpha, tau = numbers(batch, "alpha"), numbers(batch, "tau")
        order = np.lexsort((tau, alpha, item))
        best = order[np.append(item[order][1:] != item[order][:-1], True)]  # the last row of each item
        at = item[best]
        better = (alpha[best] > self.alpha[at]) | ((alpha[best] == self.alpha[at]) & (tau[best] > self.tau[at]))
        self.alpha[at[better]], self.tau[at[better]] = alpha[best[better]], tau[best[better]]

    @staticmethod
    def _add_bins(histogram: NDArray[np.int64], values: NDArray[np.float32], guilty: NDArray[np.bool_]) -> None:
        bins = np.clip((values * BINS).astype(np.int64), 0, BINS - 1)
        for row, some in enumerate((~guilty, guilty)):
            histogram[row] += np.bincount(bins[some], minlength=BINS)

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
                *self._best(np.array([one])), *self.items[one],
            )
            for one in np.flatnonzero(self.matches).tolist()
        ]  # fmt: skip
        return sorted(counts, key=lambda one: (-one.condemned, -max(one.coverage, one.alpha), -one.run, -one.documents))

    def _best(self, some: NDArray[np.int64]) -> tuple[float, int, float, float, float | None]:
        """Best coverage, run, alpha, tau and distance of items."""
        alike = some[np.lexsort((self.tau[some], self.alpha[some]))[-1]]
        nearest = float(self.distance[some].min())
        return (
            float(self.coverage[some].max()), int(self.run[some].max()), float(self.alpha[alike]),
            float(self.tau[alike]), None if np.isinf(nearest) else nearest,
        )  # fmt: skip

    def items_found_by(self) -> dict[str, tuple[int, int]]:
        """Items that a channel condemns a document for, and those that no other does: by channel that found matches."""
        alone = self.found_by & (self.found_by.sum(axis=0) == 1)
        return {
            name: (int(self.found_by[number].sum()), int(alone[number].sum()))
            for number, name in enumerate(CHANNELS)
            if self.channels[name]
        }

    def suite_counts(self) -> list[SuiteCount]:
        counts = []
        guilty, seen = self.condemned.counts > 0, self.seen.counts > 0
        for number, name in enumerate(self.suites):
            mine = self.suite_of == number
            counts.append(
                SuiteCount(
                    int(self.suite_seen.counts[number]),
                    int(self.suite_condemned.counts[number]),
                    int(self.matches[mine].sum()),
                    *self._best(np.flatnonzero(mine)),
                    name=name,
                    items=int(mine.sum()),
                    items_condemned=int((mine & guilty).sum()),
                    items_seen=int((mine & seen & ~guilty).sum()),
                    items_untestable=int((mine & ~seen & ~self.testable).sum()),
                )
            )
        return counts
