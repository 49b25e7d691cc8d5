"""The documents of a unit one by one, for what reads them in Python: their texts, ids, and why a row has none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from phi_fast.corpus.source import Batch, Column, Fault, Lines, Source


class Document(NamedTuple):
    """A row of a unit: its text, or the reason why it has none (and of how many rows); neither for a blank line."""

    row: int
    id: str | None
    text: str | None
    reason: str = ""
    rows: int = 1


def documents(batch: Batch, source: Source) -> Iterator[Document]:
    """All rows of a unit, from 0."""
    count = 0
    if isinstance(batch, Lines):
        data = bytes(batch.data)
        lines = data.split(b"\n")
        if lines and not lines[-1]:
            lines.pop()
        for row, line in enumerate(lines):
            yield _of_line(row, line, source)
        count = len(lines)
    elif isinstance(batch, Column):
        count = len(batch.text)
        ids = [None] * count if batch.id is None else batch.id.to_pylist()
        binary = batch.text.cast(pa.large_binary() if pa.types.is_large_string(batch.text.type) else pa.binary())
        for row, (value, name) in enumerate(zip(binary.to_pylist(), ids, strict=True)):
            yield _of_bytes(row, id_text(name), value)
    else:
        count = len(batch.data)
        unread = {row: reason for row, _, _, reason in batch.rejected}
        for row, (value, name) in enumerate(zip(batch.data, batch.names, strict=True)):
            if row in unread:
                yield Document(row, None, None, unread[row])
            else:
                yield _of_bytes(row, f"{source.name}/{name}", value)
    fault: Fault | None = batch.fault
    if fault is not None:
        yield Document(count, None, None, fault.reason, fault.rows)


def _of_line(row: int, line: bytes, source: Source) -> Document:
    if not line.strip():
        return Document(row, None, None)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Document(row, None, None, f"no JSON: {error}")
    if not isinstance(value, dict):
        return Document(row, None, None, f"expected an object, got {type(value).__name__}")
    text = value.get(source.text)
    if not isinstance(text, str):
        said = "nothing" if source.text not in value else "null" if text is None else type(text).__name__
        return Document(row, None, None, f'expected a string in "{source.text}", got {said}')
    if not _encodes(text):
        return Document(row, None, None, f'"{source.text}" holds half of a surrogate pair')
    name = value.get(source.id) if source.id else None
    return Document(row, id_text(name) or None, text)


def _of_bytes(row: int, name: str | None, value: bytes | None) -> Document:
    if value is None:
        return Document(row, None, None, "no text: null")
    try:
        return Document(row, name, value.decode())
    except UnicodeDecodeError as error:
        return Document(row, None, None, f"not UTF-8: byte {error.start}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def id_text(value: Any) -> str | None:
    """Write a JSON scalar as an id; a list or an object is none."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot stand in a table
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, list | Mapping):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)
