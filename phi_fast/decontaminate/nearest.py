"""What evidence says of functions like items': each item's nearest, and each document's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.decontaminate.policy import LARGE_NODES
from phi_fast.decontaminate.tables import numbers

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

_READ = [
    "channel", "file", "row", "id", "suite", "item", "doc_start", "doc_end", "nodes", "item_nodes", "tau", "distance",
]  # fmt: skip
_BATCH = 1 << 16  # rows of evidence in hand at a time


@dataclass(frozen=True, slots=True)
class SimilarItem:
    """An item and the function most like its.

    Attributes
    ----------
    nodes : int
        Syntax nodes of the largest tree it can be compared by; 0 where it has none.
    testable : bool
        Whether that tree is large enough.
    tau : float or None
        The highest match rate found, None where none of 0.8 or more was; document, file, row and span (characters) say
        where, and of several places name the first.
    """

    suite: str
    item: str
    nodes: int
    testable: bool
    tau: float | None = None
    document: str | None = None
    file: str | None = None
    row: int | None = None
    doc_start: int | None = None
    doc_end: int | None = None


class Near(NamedTuple):
    """A document that holds a function like an item's, and the highest match rate of any."""

    file: str
    row: int
    id: str
    tau: float


def close_rows(evidence: Path, distance: float | None = None, min_nodes: int = LARGE_NODES) -> Iterator[pa.RecordBatch]:
    """Go through the evidence of functions like items', in evidence order, in constant memory.

    Rows of the syntax channel, of functions and of bodies alike, with trees of ``min_nodes`` on both sides and, where
    it is given, within ``distance``.
    """
    with pq.ParquetFile(evidence) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=_READ):
            close = np.asarray(pc.equal(batch.column("channel"), "syntax"))
            close &= np.minimum(numbers(batch, "nodes"), numbers(batch, "item_nodes")) >= min_nodes
            if distance is not None:
                apart = np.asarray(pc.fill_null(batch.column("distance"), np.inf))
                close &= apart <= np.float32(distance)
            if close.all():
                yield batch
            elif close.any():
                yield batch.filter(pa.array(close))


def by_document(rows: Iterable[pa.RecordBatch]) -> Iterator[Near]:
    """Give each document of :func:`close_rows` once, with its highest match rate, in evidence order."""
    held: Near | None = None
    for batch in rows:
        if not batch.num_rows:
            continue
        file, row = np.asarray(batch.column("file").dictionary_encode().indices), np.asarray(batch.column("row"))
        first = np.flatnonzero(np.append(True, (file[1:] != file[:-1]) | (row[1:] != row[:-1])))
        heads = batch.take(pa.array(first))
        best = np.maximum.reduceat(numbers(batch, "tau"), first)
        for near in map(Near, *(heads.column(name).to_pylist() for name in ("file", "row", "id")), best.tolist()):
            if held is not None and held[:2] == near[:2]:  # a document's rows may go on in the next batch
                held = held._replace(tau=max(held.tau, near.tau))
                continue
            if held is not None:
                yield held
            held = near
    if held is not None:
        yield held


def measured(
    evidence: Path, parts: Sequence[PartInfo], distance: float | None = None, min_nodes: int = LARGE_NODES
) -> tuple[tuple[SimilarItem, ...], Counter[float]]:
    """Find each item's nearest function, and count documents by their highest match rate.

    Returns
    -------
    tuple
        Items in the suites' order, and match rate to documents. Both are bounded by the suites, whatever the corpus.
    """
    nodes: dict[tuple[str, str], int] = {}
    for part in parts:
        nodes[part.suite, part.item] = max(nodes.get((part.suite, part.item), 0), part.nodes)
    best: dict[tuple[str, str], tuple[Any, ...]] = {}

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in close_rows(evidence, distance, min_nodes):
            _best_of_items(batch, best)
            yield batch

    nearest = Counter(near.tau for near in by_document(watched()))
    items = tuple(SimilarItem(*key, size, size >= min_nodes, *best.get(key, ())) for key, size in nodes.items())
    return items, nearest


def _best_of_items(batch: pa.RecordBatch, best: dict[tuple[str, str], tuple[Any, ...]]) -> None:
    """Take up a batch's best row of each item where it is better than what was found before."""
    suite, item = (batch.column(name).dictionary_encode() for name in ("suite", "item"))
    key = np.asarray(suite.indices).astype(np.int64) * len(item.dictionary) + np.asarray(item.indices)
    order = np.lexsort((-numbers(batch, "tau"), key))  # stable: of equals the first
    heads = order[np.append(True, key[order][1:] != key[order][:-1])]
    names = ("suite", "item", "tau", "id", "file", "row", "doc_start", "doc_end")
    some = batch.take(pa.array(heads))
    for suite_name, item_name, *found in zip(*(some.column(name).to_pylist() for name in names), strict=True):
        there = best.get((suite_name, item_name))
        if there is None or found[0] > there[0]:
            best[suite_name, item_name] = tuple(found)
