"""What is inside a file: how it is stored, and which column holds the text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.corpus.files import arrow_file, chunks, open_raw, source_errors
from phi_fast.corpus.source import ID_COLUMN, TEXT_COLUMNS, Compression, Source
from phi_fast.corpus.streams import MAGIC, StreamFault, decompressed
from phi_fast.corpus.tables import is_text, one_line
from phi_fast.errors import InputError

LINES = 100
HEAD = 1 << 20
LONGEST_HEAD = 256 << 20
JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def with_columns(source: Source, text: str | None, identity: str | None) -> Source:
    """The source with its text and id columns (and an Arrow file's layout) filled in, or with its fault.

    Raises
    ------
    InputError
        When it can be read and has no such column; the message lists those it has.
    """
    if source.format == "tree":
        return source
    if source.format == "jsonl":
        return _lines_columns(source, text, identity)
    try:
        source, schema = (_parquet_schema if source.format == "parquet" else _arrow_schema)(source)
    except (pa.ArrowException, OSError, ValueError) as error:
        what = "empty file" if not source.size else one_line(error)
        fault = f"not a readable {source.format.capitalize()} file: {what}"
        return replace(source, text=text or TEXT_COLUMNS[0], id=identity, fault=fault)
    columns = {field.name: str(field.type) for field in schema}
    usable = {field.name for field in schema if is_text(field.type)}
    single = {name for name in columns if schema.get_field_index(name) >= 0}
    plain = {field.name for field in schema if not pa.types.is_nested(field.type)} & single
    return _choose(source, columns, usable & single, plain, text, identity)


def _parquet_schema(source: Source) -> tuple[Source, Any]:
    with arrow_file(source) as file:
        return source, pq.read_schema(file)


def _arrow_schema(source: Source) -> tuple[Source, Any]:
    with arrow_file(source) as file:
        layout: Literal["file", "stream"] = "file" if file.read(6) == b"ARROW1" else "stream"
        file.seek(0)
        reader = (pa.ipc.open_file if layout == "file" else pa.ipc.open_stream)(file)
        return replace(source, layout=layout), reader.schema


def stored_as(path: str, by_name: Compression | None) -> Compression | None:
    """Compression by the first bytes where they tell, else by the file's name."""
    with open_raw(path) as file:
        head = bytes(file.read(6))
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    plain = head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")  # some downloads unpack and keep the name
    return None if plain else by_name


def _lines_columns(source: Source, text: str | None, identity: str | None) -> Source:
    found: dict[str, set[str]] = {}
    for value in first_objects(source):
        for key, member in value.items():
            found.setdefault(key, set()).add(JSON_TYPES.get(type(member), "null"))
    if not found:  # empty, or nothing but bad lines: each of them will be rejected with its reason
        return replace(source, text=text or TEXT_COLUMNS[0], id=identity)
    columns = {key: " or ".join(sorted(types)) for key, types in found.items()}
    usable = {key for key, types in found.items() if types & {"string", "null"}}
    plain = {key for key, types in found.items() if not types & {"array", "object"}}
    return _choose(source, columns, usable, plain, text, identity)


def first_objects(source: Source) -> list[dict[str, Any]]:
    """The first JSON objects of a file of lines, as far as its head holds them.

    Raises
    ------
    InputError
        When the file is one JSON array, or UTF-16.
    """
    head = bytearray()
    try:
        for text in (part[0] for part in decompressed(source)) if source.compression else chunks(source):
            head += text
            if len(head) >= (HEAD if b"\n" in text else LONGEST_HEAD):
                break
        else:
            head += b"\n"
    except StreamFault:
        pass  # reported when the file is read
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{source.path} is UTF-16: convert it first, `iconv -f UTF-16 -t UTF-8`")
    start = head.removeprefix(b"\xef\xbb\xbf")[:4096].lstrip()
    if start.startswith(b"["):
        raise InputError(
            f"{source.path} is one JSON array, not one object a line: convert it first, "
            f"`jq -c '.[]' {source.name} > {source.name.partition('.')[0]}.jsonl`"
        )
    objects = []
    for line in head[: head.rfind(b"\n") + 1].removeprefix(b"\xef\xbb\xbf").split(b"\n")[:LINES]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            objects.append(value)
    return objects


def _choose(
    source: Source, columns: dict[str, str], usable: set[str], plain: set[str], text: str | None, identity: str | None
) -> Source:
    listed = ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "none"
    where = source.path
    if text is None:
        text = next((name for name in TEXT_COLUMNS if name in usable), None)
        if text is None:
            names = ", ".join(TEXT_COLUMNS)
            raise InputError(f"{where}: no text column among {names}. It has: {listed}. Name it with --text")
    elif text not in columns:
        raise InputError(f'{where}: no column "{text}". It has: {listed}')
    elif text not in usable:
        raise InputError(f'{where}: column "{text}" is {columns[text]}, not text. It has: {listed}')
    if identity is None:
        identity = ID_COLUMN if ID_COLUMN in plain else None
    elif identity not in columns:
        raise InputError(f'{where}: no id column "{identity}". It has: {listed}')
    elif identity not in plain:
        raise InputError(f'{where}: column "{identity}" is {columns[identity]} and cannot be the id')
    return replace(source, text=text, id=identity)


def holds_documents(source: Source, text: str | None) -> bool:
    """Whether a ``.json`` file met in a folder is a file of lines with a text, and not settings or metadata."""
    try:
        with source_errors(source):
            _lines_columns(source, text, None)
            return any(first_objects(source))
    except InputError:
        return False
