"""A small, even, repeatable sample of a corpus, for learning what is common in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing

from phi_fast.corpus.blocks import stream_units
from phi_fast.corpus.files import Buffer
from phi_fast.corpus.source import Batch, Column, Files, Lines, Source, Unit
from phi_fast.corpus.tables import arrow_units, parquet_leaf, parquet_metadata, row_slices, slice_rows, to_column
from phi_fast.corpus.work import read, units

PIECE = 256 << 10
LIMIT = 64 << 20
PACKED = 4
"""How much smaller code is when compressed, about."""


def sample(sources: Sequence[Source], limit: int = LIMIT) -> Iterator[tuple[int, Batch]]:
    """Documents from all over the corpus, the same ones every time.

    Pieces of 256 KB of text, evenly spaced over the bytes of the corpus; a corpus no larger than `limit` is taken
    whole, as far as `limit` goes. What can only be read in order (compressed files, Arrow) gives its beginning.

    Parameters
    ----------
    sources
        As `discover` gave them.
    limit : int
        Bytes of text, about.

    Yields
    ------
    (int, Batch)
        Number of the source and some of its documents; a `Lines` batch is valid until the next one is taken.
        Corrupt parts are left out.
    """
    readable = [(number, source) for number, source in enumerate(sources) if source.fault is None and source.size]
    total = sum(_text_bytes(source) for _, source in readable)
    held = 0
    whole = (part for number, source in readable for part in _whole(number, source))
    for number, batch in whole if total <= limit else _pieces(readable, total, max(1, limit // PIECE)):
        yield number, batch
        held += _size(batch)
        if held >= limit:
            return


def _size(batch: Batch) -> int:
    if isinstance(batch, Lines):
        return len(batch.data)
    return sum(map(len, batch.data)) if isinstance(batch, Files) else int(batch.text.nbytes)


def _text_bytes(source: Source) -> int:
    """Bytes of text in a source, about."""
    if source.format == "parquet":
        metadata, leaf = parquet_metadata(source), parquet_leaf(source)
        groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
        return sum(int(group.column(leaf).total_uncompressed_size) for group in groups)
    return source.size * (PACKED if source.compression else 1)


def _whole(number: int, source: Source) -> Iterator[tuple[int, Batch]]:
    buffer = Buffer()
    with closing(units(number, source, unit_bytes=PIECE)) as parts:
        for unit, batch in parts:
            yield number, batch if batch is not None else read(unit, source, buffer)


def _pieces(readable: list[tuple[int, Source]], total: int, count: int) -> Iterator[tuple[int, Batch]]:
    buffer = Buffer()
    spots: dict[int, list[float]] = {}  # by source: how far into it, from 0 to 1
    ends, reached = [], 0
    for number, source in readable:
        size = _text_bytes(source)
        reached += size
        ends.append((reached, size, number))
    position = 0
    for k in range(count):
        place = (2 * k + 1) * total // (2 * count)
        while ends[position][0] <= place:
            position += 1
        end, size, number = ends[position]
        spots.setdefault(number, []).append(1 - (end - place) / size)
    for number, source in readable:
        for batch in _from_source(number, source, spots.get(number, []), buffer):
            yield number, batch


def _from_source(number: int, source: Source, spots: list[float], buffer: Buffer) -> Iterator[Batch]:
    if not spots:
        return
    if source.format == "jsonl" and source.compression is None:
        for spot in spots:
            start = int(spot * source.size)
            yield read(Unit(number, 0, start, min(source.size, start + PIECE), 0, last=False), source, buffer)
    elif source.format == "tree":
        yield from _files(number, source, spots, buffer)
    elif source.format == "parquet":
        yield from _row_groups(source, spots)
    else:
        held = 0
        make = stream_units if source.format == "jsonl" else arrow_units
        for _, batch in make(number, source, PIECE):
            yield batch
            held += _size(batch)
            if held >= PIECE * len(spots):
                return


def _files(number: int, source: Source, spots: list[float], buffer: Buffer) -> Iterator[Batch]:
    row = reached = 0
    for spot in spots:
        while row < len(source.sizes) - 1 and reached + source.sizes[row] <= spot * source.size:
            reached += source.sizes[row]
            row += 1
        start, held = row, 0
        while row < len(source.sizes) and (row == start or held + source.sizes[row] <= PIECE):
            held += source.sizes[row]
            row += 1
        reached += held
        if start < row:
            yield read(Unit(number, 0, start, row, 0, last=False), source, buffer)


def _row_groups(source: Source, spots: list[float]) -> Iterator[Column]:
    metadata, leaf = parquet_metadata(source), parquet_leaf(source)
    rows, row = metadata.num_rows, 0
    wanted: Counter[int] = Counter()
    bounds = []
    for group in range(metadata.num_row_groups):
        row += metadata.row_group(group).num_rows
        bounds.append(row)
    for spot in spots:
        wanted[next((group for group, bound in enumerate(bounds) if spot * rows < bound), 0)] += 1
    for group, pieces in sorted(wanted.items()):
        if not bounds:
            return
        info = metadata.row_group(group)
        step = slice_rows(info.num_rows, info.column(leaf).total_uncompressed_size, PIECE)
        slices = row_slices(source, group, step)
        for _ in range(pieces):
            try:
                yield to_column(next(slices), source)
            except (StopIteration, OSError, ValueError):  # a corrupt page is reported by the scan
                break
