"""Documents fetched again by their place, for reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from phi_fast.corpus.blocks import stream_blocks
from phi_fast.corpus.edits import Edits, changed
from phi_fast.corpus.files import must_fill, opened, source_errors
from phi_fast.corpus.source import UNIT_BYTES, Fault, Removal, Source
from phi_fast.corpus.tables import (
    arrow_batches,
    as_text,
    columns_of,
    parquet_leaf,
    parquet_metadata,
    row_slices,
    slice_rows,
)
from phi_fast.corpus.trees import read_file


def texts(source: Source, places: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, str]]:
    """Read documents again.

    Parameters
    ----------
    source
        As `discover` gave it.
    places
        (row, offset, length) in order of row; the last two are needed for JSONL only (as in `Removal`), else -1.

    Yields
    ------
    (int, str)
        Row and text. Plain JSONL and trees are read in place, Parquet by row group, compressed files and Arrow
        from their start.

    Raises
    ------
    RunError
        The source vanished or is not what was scanned.
    """
    wanted = Edits((Removal(*place) for place in places), source)
    if source.format == "jsonl":
        lines = _stream_lines(source, wanted) if source.compression else _plain_lines(source, wanted)
        for row, line in lines:
            try:
                text = json.loads(line)[source.text]
            except (ValueError, KeyError, TypeError) as error:
                raise changed(source) from error
            yield row, text
    elif source.format == "tree":
        for place in wanted:
            yield place.row, read_file(source, place.row)[0].decode()
    else:
        yield from _table_texts(source, wanted)


def _plain_lines(source: Source, wanted: Edits) -> Iterator[tuple[int, bytes]]:
    with opened(source) as fill:
        for place in wanted:
            line = bytearray(place.length)
            must_fill(fill, memoryview(line), place.offset, source)
            yield place.row, bytes(line)


def _stream_lines(source: Source, wanted: Edits) -> Iterator[tuple[int, bytes]]:
    for block in stream_blocks(source, UNIT_BYTES):
        for place in wanted.before_offset(block.offset + len(block.data)):
            start = place.offset - block.offset
            yield place.row, bytes(block.data[start : start + place.length])
        if wanted.done:
            return


def _table_texts(source: Source, wanted: Edits) -> Iterator[tuple[int, str]]:
    row = 0
    if source.format == "arrow":
        for batch, _ in arrow_batches(source, columns_of(source)):
            rows = batch.rows if isinstance(batch, Fault) else batch.num_rows
            for place in wanted.before(row + rows):
                if isinstance(batch, Fault):
                    raise changed(source)
                yield place.row, as_text(batch.column(source.text).slice(place.row - row, 1))[0].as_py()
            row += rows
            if wanted.done:
                return
        return
    with source_errors(source):
        metadata = parquet_metadata(source)
    leaf = parquet_leaf(source)
    for group in range(metadata.num_row_groups):
        info = metadata.row_group(group)
        places = wanted.before(row + info.num_rows)
        if places:
            size = info.column(leaf).total_uncompressed_size
            yield from _group_texts(source, group, row, Edits(places, source), size)
        row += info.num_rows


def _group_texts(source: Source, group: int, row: int, wanted: Edits, size: int) -> Iterator[tuple[int, str]]:
    step = slice_rows(parquet_metadata(source).row_group(group).num_rows, size, UNIT_BYTES)
    for table in row_slices(source, group, step, [source.text]):
        for place in wanted.before(row + table.num_rows):
            yield place.row, as_text(table.column(0).slice(place.row - row, 1))[0].as_py()
        row += table.num_rows
        if wanted.done:
            return
