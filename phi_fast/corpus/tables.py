"""Parquet by row groups, Arrow IPC by record batches; text and id columns only, as close to zero copy as they allow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.corpus.files import arrow_file, is_corrupt
from phi_fast.corpus.source import Column, Fault, Source, Unit
from phi_fast.errors import RunError

MOST_ROWS = 1 << 16
"""Rows in one slice at most: the size of a row is only known on average."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold documents."""
    if isinstance(kind, pa.BaseExtensionType):
        return is_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_null(kind) or is_bytes(kind)) or any(
        getattr(pa.types, f"is_{name}")(kind) for name in ("string", "large_string", "string_view")
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes of any length."""
    return any(getattr(pa.types, f"is_{name}")(kind) for name in ("binary", "large_binary", "binary_view"))


def as_text(array: Any) -> pa.Array:
    """A text column as one `string` or `large_string` array; bytes are taken to be UTF-8, unchecked."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        array = array.cast(kind.storage_type) if isinstance(array, pa.ChunkedArray) else array.storage
        kind = array.type
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    large = pa.types.is_large_string(value) or pa.types.is_large_binary(value)
    as_bytes = is_bytes(value)
    if value is not kind or pa.types.is_string_view(value) or pa.types.is_binary_view(value):
        array, large = array.cast(pa.large_binary() if as_bytes else pa.large_string()), True
    array = one_array(array)
    if as_bytes:
        array = array.view(pa.large_string() if large else pa.string())
    return array


def one_array(array: Any) -> pa.Array:
    """A chunked array as one array, without a copy where it has one chunk."""
    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks == 1:
        return array.chunk(0)
    if array.nbytes > 1 << 30 and (pa.types.is_string(array.type) or pa.types.is_binary(array.type)):
        array = array.cast(pa.large_string() if pa.types.is_string(array.type) else pa.large_binary())
    combined = array.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def columns_of(source: Source) -> list[str]:
    """The columns that are read."""
    return [source.text] if source.id in (None, source.text) else [source.text, str(source.id)]


def to_column(rows: Any, source: Source) -> Column:
    """Text and id of a table or record batch."""
    identity = one_array(rows.column(source.id)) if source.id is not None else None
    return Column(as_text(rows.column(source.text)), identity)


def empty_column(fault: Fault | None = None) -> Column:
    return Column(pa.array([], pa.string()), None, fault)


# Parquet


@lru_cache(maxsize=16)
def parquet_metadata(source: Source) -> Any:
    """The footer, parsed once for a source."""
    with arrow_file(source) as file:
        try:
            return pq.read_metadata(file)
        except Exception as error:
            if not is_corrupt(error, source):
                raise
            raise RunError(f"{source.path}: its footer cannot be read ({one_line(error)})") from error


def parquet_leaf(source: Source) -> int:
    """Number of the text column among the file's leaf columns."""
    schema = parquet_metadata(source).schema
    return next(i for i in range(len(schema.names)) if schema.column(i).path == source.text)


def open_parquet(source: Source, buffer_size: int = 0) -> Any:
    """A ParquetFile whose footer is parsed once. With a buffer, columns are read page by page."""
    return pq.ParquetFile(
        arrow_file(source),
        metadata=parquet_metadata(source),
        pre_buffer=False,
        buffer_size=buffer_size,
        page_checksum_verification=True,
    )


def parquet_units(number: int, source: Source, unit_bytes: int) -> list[tuple[Unit, int]]:
    """One unit for each row group, or several for a big one: (unit, rows of its slice; 0: the whole group)."""
    metadata = parquet_metadata(source)
    leaf = parquet_leaf(source)
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    texts = [max(1, group.column(leaf).total_uncompressed_size) for group in groups]
    plan: list[tuple[int, int, int]] = []  # row group, rows of a slice, size
    for g, (group, text) in enumerate(zip(groups, texts, strict=True)):
        size = source.size * text // sum(texts)
        if text <= 2 * unit_bytes or group.num_rows < 2:
            plan.append((g, 0, size))
            continue
        step = slice_rows(group.num_rows, text, unit_bytes)
        slices = -(-group.num_rows // step)
        plan += [(g, step, size // slices)] * slices
    plan = plan or [(0, 0, source.size)]
    last = len(plan) - 1
    stop = 1 if groups else 0
    return [(Unit(number, i, g, g + stop, size, i == last), step) for i, (g, step, size) in enumerate(plan)]


def slice_rows(rows: int, text_bytes: int, unit_bytes: int) -> int:
    """How many rows make a slice of about `unit_bytes`."""
    return max(1, min(MOST_ROWS, rows * unit_bytes // max(1, text_bytes)))


def read_row_group(unit: Unit, source: Source) -> Column:
    """A whole row group; if it is corrupt, no row and a fault for all of them."""
    if unit.start == unit.stop:
        return empty_column()
    with open_parquet(source) as file:
        try:
            return to_column(file.read_row_group(unit.start, columns=columns_of(source), use_threads=False), source)
        except Exception as error:
            return empty_column(group_fault(source, unit.start, 0, error))


def read_slices(source: Source, units: list[Unit], step: int) -> Iterator[tuple[Unit, Column]]:
    """The slices of one big row group in order; from a corrupt page on its rows are a fault."""
    group, fault = units[0].start, None
    rows = 0
    slices = row_slices(source, group, step)
    for unit in units:
        column = None
        if fault is None:
            try:
                column = to_column(next(slices), source)
                rows += len(column.text)
            except Exception as error:
                fault = group_fault(source, group, rows, error)
                column = empty_column(fault)
        yield unit, empty_column() if column is None else column


def row_slices(source: Source, group: int, step: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Tables of exactly `step` rows (the last one fewer) of a row group, reading no more than that at a time."""
    columns = columns or columns_of(source)
    with open_parquet(source, buffer_size=1 << 20) as file:
        pending: list[Any] = []
        for batch in file.iter_batches(step, row_groups=[group], columns=columns, use_threads=False):
            pending.append(batch)
            del batch
            while sum(part.num_rows for part in pending) >= step:
                yield _first_rows(pending, step)
        if sum(part.num_rows for part in pending):
            yield _first_rows(pending, step)


def _first_rows(batches: list[Any], count: int) -> pa.Table:
    """Take the first rows out of a list of batches, keeping no reference to them."""
    table = pa.Table.from_batches(batches)
    batches[:] = table.slice(count).to_batches()
    return table.slice(0, count)


def group_fault(source: Source, group: int, done: int, error: Exception) -> Fault:
    """The fault of a row group of which `done` rows could be read."""
    if not is_corrupt(error, source):
        raise error
    rows = parquet_metadata(source).row_group(group).num_rows - done
    reason = f"corrupt row group {group} ({one_line(error)}): {rows:,} rows cannot be read"
    return Fault(reason, rows)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# Arrow IPC


def open_arrow(source: Source, columns: list[str] | None = None) -> tuple[Any, Any]:
    """The file and the reader of an Arrow IPC file or stream, for these columns (all without)."""
    open_reader = pa.ipc.open_file if source.layout == "file" else pa.ipc.open_stream
    file = arrow_file(source)
    reader = open_reader(file)
    if columns is not None:
        fields = [reader.schema.get_field_index(name) for name in columns]
        file.seek(0)
        reader = open_reader(file, options=pa.ipc.IpcReadOptions(included_fields=sorted(fields)))
    return file, reader


def arrow_batches(source: Source, columns: list[str] | None = None) -> Iterator[tuple[pa.RecordBatch | Fault, int]]:
    """Record batches in order with the place reached in the file; a corrupt one is a Fault, and ends a stream.

    A batch is checked so far that no corrupt offset can lead outside its memory.
    """
    file, reader = open_arrow(source, columns)
    scanned = columns_of(source)
    with file:
        if source.layout == "file":
            count = reader.num_record_batches
            for number in range(count):
                place = source.size * (number + 1) // count
                try:
                    batch = reader.get_batch(number)
                    check(batch)
                except Exception as error:
                    rows = _rows_of_batch(source, number) if columns != scanned else 0
                    yield _batch_fault(source, number, rows, error), place
                else:
                    yield batch, place
            return
        number = 0
        while True:
            batch = None
            try:
                batch = reader.read_next_batch()
                check(batch)
            except StopIteration:
                return
            except Exception as error:
                yield _batch_fault(source, number, 0 if batch is None else batch.num_rows, error), file.tell()
                if batch is None:
                    return
            else:
                yield batch, file.tell()
            number += 1


def _batch_fault(source: Source, number: int, rows: int, error: Exception) -> Fault:
    if not is_corrupt(error, source):
        raise error
    ends = "" if source.layout == "file" or rows else "; what follows it in the stream is unread"
    return Fault(f"corrupt record batch {number} ({one_line(error)}){ends}", rows)


def _rows_of_batch(source: Source, number: int) -> int:
    """Rows of a batch of which some column is corrupt, as the scan counted them."""
    file, reader = open_arrow(source, columns_of(source))
    with file:
        try:
            batch = reader.get_batch(number)
            check(batch)
        except Exception:
            return 0
        return int(batch.num_rows)


def check(batch: pa.RecordBatch) -> None:
    """Raise ArrowInvalid where offsets or indices lead outside the buffers; does not look at the text itself."""
    batch.validate()
    for array in batch.columns:
        kind = array.type
        small = pa.types.is_string(kind) or pa.types.is_binary(kind)
        if not (small or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)):
            array.validate(full=True)
            continue
        if not len(array):
            continue
        _, offsets_buffer, data = array.buffers()
        width = np.dtype(np.int32 if small else np.int64)
        offsets = np.frombuffer(offsets_buffer, width, len(array) + 1, array.offset * width.itemsize)
        if offsets[0] < 0 or offsets[-1] > (data.size if data else 0) or np.any(offsets[1:] < offsets[:-1]):
            raise pa.ArrowInvalid("text offsets out of range")


def arrow_units(number: int, source: Source, unit_bytes: int) -> Iterator[tuple[Unit, Column]]:
    """Units of an Arrow file in order, each with its rows: small record batches together, big ones in slices."""
    index = row = 0
    held: tuple[Column, int] | None = None
    for column, size in _arrow_columns(source, unit_bytes):
        if held is not None:
            yield _arrow_unit(number, index, row, held, last=False)
            index, row = index + 1, row + _rows(held[0])
        held = column, size
    yield _arrow_unit(number, index, row, held or (empty_column(), source.size), last=True)


def _rows(column: Column) -> int:
    return len(column.text) + (column.fault.rows if column.fault else 0)


def _arrow_unit(number: int, index: int, row: int, held: tuple[Column, int], last: bool) -> tuple[Unit, Column]:
    column, size = held
    return Unit(number, index, row, row + _rows(column), size, last), column


def _arrow_columns(source: Source, unit_bytes: int) -> Iterator[tuple[Column, int]]:
    pending: list[Column] = []
    held = position = 0

    def flush(fault: Fault | None = None) -> Column:
        nonlocal pending, held
        if not pending:
            return empty_column(fault)
        identity = None if pending[0].id is None else pa.concat_arrays([column.id for column in pending])
        text = pa.concat_arrays([column.text for column in pending])
        pending, held = [], 0
        return Column(text, identity, fault)

    for batch, place in arrow_batches(source, columns_of(source)):
        if isinstance(batch, Fault):
            yield flush(batch), max(0, place - position)
            position = place
            continue
        column = to_column(batch, source)
        size = column.text.nbytes
        if pending and held + size > unit_bytes:
            yield flush(), max(0, place - position)
            position = place
        if size <= 2 * unit_bytes:
            pending.append(column)
            held += size
            continue
        step = slice_rows(len(column.text), size, unit_bytes)
        for start in range(0, len(column.text), step):
            identity = None if column.id is None else column.id.slice(start, step)
            yield Column(column.text.slice(start, step), identity), max(0, place - position)
            position = place
    if pending:
        yield flush(), max(0, source.size - position)
