"""The text around the most telling matches, so that the report needs neither corpus nor whole documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.kept import Origin, with_kept
from phi_fast.decontaminate.policy import Policy
from phi_fast.decontaminate.record import EVIDENCE, EXCERPTS
from phi_fast.decontaminate.tables import TableFile, numbers, strength
from phi_fast.decontaminate.verdicts import DECIDING, condemns

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

MATCHES = 10_000  # the ones that condemn first, then by strength and run
AROUND = 1_000  # characters on either side
LONGEST = 20_000  # characters of an excerpt
_SCHEMA = pa.schema([("file", pa.string()), ("row", pa.int64()), ("start", pa.int64()), ("text", pa.string())])
_READ = ["file", "row", "doc_start", "doc_end", "score", *DECIDING]


def write_excerpts(
    folder: Path, journal: Journal, sources: Sequence[Origin], policy: Policy, parts: Sequence[PartInfo]
) -> None:
    """Write excerpts.parquet for the first :data:`MATCHES` matches: evidence order, one or more rows a document."""
    spans: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for file, row, start, end in _best(folder / EVIDENCE, policy, parts):
        spans[file, row].append((start, end))
    with TableFile(folder / EXCERPTS, _SCHEMA) as table:
        for place, kept in with_kept(journal, sources, iter(spans), lambda place: place):
            text = kept.text
            for start, end in windows(spans[place], len(text)):
                table.add(*place, start, text[start:end])


def _best(evidence: Path, policy: Policy, parts: Sequence[PartInfo]) -> Iterator[tuple[str, int, int, int]]:
    kept: pa.Table | None = None
    with pq.ParquetFile(evidence) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=_READ):
            table = pa.Table.from_batches([batch]).select(["file", "row", "doc_start", "doc_end"])
            guilty, run = condemns(policy, batch, parts), numbers(batch, "run")
            for name, values in {"condemns": guilty, "strength": strength(batch), "run": run}.items():
                table = table.append_column(name, pa.array(values))
            kept = _first(table if kept is None else pa.concat_tables([kept, table]))
    if kept is not None:
        names = ("file", "row", "doc_start", "doc_end")
        yield from zip(*(kept.column(name).to_pylist() for name in names), strict=True)


def _first(table: pa.Table) -> pa.Table:
    """Keep the first matches by rank, in the order they stand in (so equals go by evidence order)."""
    if table.num_rows <= MATCHES:
        return table
    keys = [-table.column(name).to_numpy().astype(np.float64) for name in ("run", "strength", "condemns")]
    best = np.sort(np.lexsort(keys)[:MATCHES])
    return table.take(pa.array(best)).combine_chunks()


def windows(spans: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Give the stretches of a text that show its spans, each of at most :data:`LONGEST` characters."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        around = (max(0, start - AROUND), min(length, end + AROUND))
        if found and max(found[-1][1], around[1]) - found[-1][0] <= LONGEST:
            found[-1] = (found[-1][0], max(found[-1][1], around[1]))
        elif around[1] - around[0] <= LONGEST:
            found.append(around)
        else:
            found.append((around[0], around[0] + LONGEST))
    return found
