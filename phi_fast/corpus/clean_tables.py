"""Clean copies of Parquet and Arrow: the same schema, metadata, columns, codec and row groups, fewer rows."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.corpus.edits import Edits, Tally, changed
from phi_fast.corpus.files import arrow_file
from phi_fast.corpus.output import Output, Tick
from phi_fast.corpus.source import UNIT_BYTES, Fault, Removal, Source
from phi_fast.corpus.tables import (
    arrow_batches,
    as_text,
    group_fault,
    is_bytes,
    open_arrow,
    parquet_metadata,
    row_slices,
    slice_rows,
)
from phi_fast.errors import InputError

WHOLE_GROUP = 64 << 20
"""A row group larger than this is written as several, so as to stay within memory."""

# So many row groups larger than two units are in memory at a time, however many threads write.
_LARGE = threading.Semaphore(2)


def write_parquet(source: Source, output: Output, edits: Edits, tally: Tally, tick: Tick) -> None:
    """Row group by row group; those that lose every row are left out."""
    metadata = parquet_metadata(source)
    schema = metadata.schema.to_arrow_schema()
    row = 0
    with (
        pa.PythonFile(output, mode="w") as sink,
        pq.ParquetWriter(sink, schema, **parquet_settings(metadata)) as writer,
    ):
        for group in range(metadata.num_row_groups):
            _write_group(source, group, row, edits, tally, writer)
            row += metadata.row_group(group).num_rows
            tick(metadata.row_group(group).total_byte_size)


def _write_group(source: Source, group: int, row: int, edits: Edits, tally: Tally, writer: Any) -> None:
    info = parquet_metadata(source).row_group(group)
    end = row + info.num_rows
    planned = edits.before(end)
    gone = sum(removal.rows for removal in planned if removal.edit is None)
    if gone >= info.num_rows:
        tally.dropped += gone
        return
    large = info.total_byte_size > 2 * UNIT_BYTES
    with _LARGE if large else nullcontext():
        held: list[pa.Table] = []
        for table in _group_slices(source, group, row, Edits(planned, source), tally):
            held.append(table)
            del table
            if sum(part.nbytes for part in held) >= WHOLE_GROUP:
                _write(writer, held)
        _write(writer, held)
        pa.default_memory_pool().release_unused()


def _group_slices(source: Source, group: int, row: int, edits: Edits, tally: Tally) -> Iterator[pa.Table]:
    """What stays of a row group, slice by slice; where it cannot be read on, the rest is counted as lost."""
    info = parquet_metadata(source).row_group(group)
    columns = parquet_metadata(source).schema.to_arrow_schema().names
    step = slice_rows(info.num_rows, info.total_byte_size, UNIT_BYTES)
    slices = row_slices(source, group, step, columns)
    first, end = row, row + info.num_rows
    while row < end:
        try:
            table = next(slices)
        except Exception as error:
            fault = group_fault(source, group, row - first, error)
            known = sum(removal.rows for removal in edits.before(end))
            tally.dropped += known
            if known < fault.rows:
                tally.faults.append((row, fault))
            return
        start, row = row, row + table.num_rows
        yield apply(table, start, edits.before(row), source, tally)


def _write(writer: Any, tables: list[pa.Table]) -> None:
    """Write tables as one row group, and forget them."""
    whole = pa.concat_tables(tables) if tables else None
    tables.clear()
    if whole is not None and whole.num_rows:
        writer.write_table(whole, row_group_size=whole.num_rows)


def parquet_settings(metadata: Any) -> dict[str, Any]:
    """ParquetWriter's arguments that make a file like the one this metadata is of."""
    leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    settings: dict[str, Any] = {
        "version": metadata.format_version if metadata.format_version in ("1.0", "2.4", "2.6") else "2.6",
        "store_schema": b"ARROW:schema" in (metadata.metadata or {}),
        "use_deprecated_int96_timestamps": any(leaf.physical_type == "INT96" for leaf in leaves),
        "use_compliant_nested_type": not any(".list.item" in leaf.path for leaf in leaves),
    }
    if metadata.num_row_groups:
        group = metadata.row_group(0)
        columns = {leaf.path: group.column(i) for i, leaf in enumerate(leaves)}
        settings["compression"] = {path: _codec(column.compression) for path, column in columns.items()}
        settings["use_dictionary"] = [path for path, column in columns.items() if column.has_dictionary_page] or False
        settings["write_statistics"] = [path for path, column in columns.items() if column.is_stats_set] or False
        settings["sorting_columns"] = group.sorting_columns or None
        settings["write_page_index"] = any(column.has_offset_index for column in columns.values())
    return settings


def _codec(name: str) -> str:
    codec = {"UNCOMPRESSED": "none", "LZ4_RAW": "lz4"}.get(name, name.lower())
    return codec if codec == "none" or pa.Codec.is_available(codec) else "snappy"


def write_arrow(source: Source, output: Output, edits: Edits, tally: Tally, tick: Tick) -> None:
    """Record batch by record batch; those that lose every row are left out."""
    file, reader = open_arrow(source)
    with file:
        schema = reader.schema
    options = pa.ipc.IpcWriteOptions(compression=batch_codec(source))
    new = pa.ipc.new_file if source.layout == "file" else pa.ipc.new_stream
    row = place = 0
    with pa.PythonFile(output, mode="w") as sink, new(sink, schema, options=options) as writer:
        for batch, reached in arrow_batches(source):
            if isinstance(batch, Fault):
                known = sum(removal.rows for removal in edits.before(row + batch.rows))
                tally.dropped += known
                if known < batch.rows or not batch.rows:
                    tally.faults.append((row, batch))
                row += batch.rows
                continue
            table = apply(pa.Table.from_batches([batch]), row, edits.before(row + batch.num_rows), source, tally)
            for part in table.combine_chunks().to_batches() if table.num_rows else []:
                writer.write_batch(part)
            row += batch.num_rows
            tick(max(0, reached - place))
            place = max(place, reached)


def apply(table: pa.Table, first: int, removals: list[Removal], source: Source, tally: Tally) -> pa.Table:
    """The rows that stay, with their texts cut; `first` is the table's first row in the file."""
    if not removals:
        return table
    keep = np.ones(table.num_rows, bool)
    cuts: list[tuple[int, str]] = []
    column = table.column(source.text)
    for removal in removals:
        row = removal.row - first
        if row < 0:
            raise changed(source)
        new = None
        if removal.edit is not None:
            new = removal.edit(as_text(column.slice(row, 1))[0].as_py())
        if new is None:
            keep[row : row + removal.rows] = False
            tally.dropped += removal.rows
        else:
            cuts.append((row, new))
            tally.cut += 1
    if cuts:
        position = table.schema.get_field_index(source.text)
        table = table.set_column(position, table.schema.field(position), _with_cuts(column, cuts, source))
    return _kept(table, keep)


def _kept(table: pa.Table, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Table:
    try:
        return table.filter(pa.array(keep))
    except pa.ArrowNotImplementedError:  # views: slices between the rows that go do for every type
        edges = np.flatnonzero(np.diff(np.concatenate(([False], keep, [False]))))
        runs = [table.slice(start, stop - start) for start, stop in edges.reshape(-1, 2).tolist()]
        return pa.concat_tables(runs) if runs else table.slice(0, 0)


def _with_cuts(column: pa.ChunkedArray, cuts: list[tuple[int, str]], source: Source) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind) and source.format == "arrow":
        raise InputError(f'{source.path}: "{source.text}" is dictionary-encoded and cannot be cut: use the drop mode')
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    value = storage.value_type if pa.types.is_dictionary(storage) else storage
    as_bytes = is_bytes(value)
    chunks: list[pa.Array] = []
    at = 0
    for row, text in cuts:
        chunks += column.slice(at, row - at).chunks
        piece = pa.array([text.encode() if as_bytes else text], storage)
        chunks.append(pa.ExtensionArray.from_storage(kind, piece) if storage is not kind else piece)
        at = row + 1
    return pa.chunked_array(chunks + column.slice(at).chunks, kind)


def batch_codec(source: Source) -> str | None:
    """Codec of an Arrow file's buffers: BodyCompression of its first record batch, which pyarrow does not show."""
    with arrow_file(source) as file:
        file.seek(8 if source.layout == "file" else 0)
        messages = pa.ipc.MessageReader.open_stream(file)
        try:
            while (message := messages.read_next_message()).type != "record batch":
                continue
        except (StopIteration, OSError, pa.ArrowException):
            return None
        data = message.metadata.to_pybytes()
    header = _table_field(data, struct.unpack_from("<I", data)[0], 2)
    if header is None:
        return None
    batch = header + struct.unpack_from("<I", data, header)[0]
    compression = _table_field(data, batch, 3)
    if compression is None:
        return None
    codec = _table_field(data, compression + struct.unpack_from("<I", data, compression)[0], 0)
    return "zstd" if codec is not None and data[codec] == 1 else "lz4"


def _table_field(data: bytes, table: int, field: int) -> int | None:
    """Place of a field in a flatbuffer table, None where it has its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * field >= struct.unpack_from("<H", data, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * field)[0]
    return table + offset if offset else None
