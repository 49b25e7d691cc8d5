"""A tree of source files: every file is a document."""

from __future__ import annotations

from collections.abc import Iterator

from phi_fast.corpus.files import AGAIN, file_of, open_raw, source_errors
from phi_fast.corpus.source import Files, Source, Unit
from phi_fast.errors import RunError

MOST_FILES = 2048


def tree_units(number: int, source: Source, unit_bytes: int) -> Iterator[Unit]:
    """Consecutive files of about `unit_bytes` together."""
    start = index = held = 0
    for row, size in enumerate(source.sizes):
        if row > start and (held + size > unit_bytes or row - start >= MOST_FILES):
            yield Unit(number, index, start, row, held, last=False)
            start, index, held = row, index + 1, 0
        held += size
    yield Unit(number, index, start, len(source.sizes), held, last=True)


def read_files(unit: Unit, source: Source) -> Files:
    """The files `unit.start` to `unit.stop`; binary and forbidden ones are rejected."""
    batch = Files([], [], [])
    for row in range(unit.start, unit.stop):
        data, reason = read_file(source, row)
        if reason:
            batch.rejected.append((row - unit.start, -1, -1, reason))
        batch.names.append(source.files[row])
        batch.data.append(data)
    return batch


def read_file(source: Source, row: int) -> tuple[bytes, str]:
    """Content of one file, or b"" and the reason why it is no document."""
    path = file_of(source, row)
    try:
        with source_errors(source), open_raw(path) as file:
            data = bytes(file.read())
    except RunError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise RunError(f"{path} vanished during the run: put it back, {AGAIN}") from error
        if isinstance(error.__cause__, PermissionError):
            return b"", f"cannot be read: {error.__cause__.strerror}"
        raise
    if len(data) != source.sizes[row]:
        raise RunError(f"{path} was modified during the run: start again with a new output folder")
    found = data.find(b"\0")
    return (b"", f"binary: NUL byte at byte {found}") if found >= 0 else (data, "")
