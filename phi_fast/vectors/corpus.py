"""Every document of a corpus as vectors: long ones in windows, one vector a window."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from phi_fast.corpus import Batch, Buffer, Column, Fault, Lines, Source, discover, read, units
from phi_fast.errors import InputError
from phi_fast.vectors.store import StoredAs, VectorStore, Writer, open_vectors

if TYPE_CHECKING:
    from phi_fast.vectors.models import Embedder

UNIT_BYTES = 1 << 18
"""Text between two records of how far it is: seconds of work for a small model on a CPU."""

SCHEMA = pa.schema(
    [("id", pa.string()), ("file", pa.string()), ("row", pa.uint64()), ("start", pa.uint64()), ("end", pa.uint64())]
)


class Told(NamedTuple):
    """Progress: what was done since the last one. ``bytes`` are as stored; ``resumed`` ones were done before."""

    bytes: int
    documents: int = 0
    vectors: int = 0
    rejected: int = 0
    resumed: bool = False


Progress = Callable[[Told], None]


class Document(NamedTuple):
    """A row of a unit: its text, or the reason why it has none (and of how many rows); neither for a blank line."""

    row: int
    id: str | None
    text: str | None
    reason: str = ""
    rows: int = 1


def embed_corpus(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    embedder: Embedder,
    *,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    strict: bool = False,
    stored_as: StoredAs = "float32",
    unit_bytes: int = UNIT_BYTES,
    begin: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> VectorStore:
    """Embed every document of a corpus; the same call after an interruption goes on where it stopped.

    Parameters
    ----------
    corpus, text, id, pattern
        As for `phi_fast.decontaminate`.
    output
        Folder for the vectors: see `open_vectors`.
    embedder
        The model. A document longer than its window is cut into windows, one vector each, with their characters.
    strict
        Stop at the first row that is no document, instead of listing it in rejected.jsonl.
    stored_as
        "float32" or "float16".
    unit_bytes
        Text between two records of how far it is.
    begin
        Called with the corpus' bytes.
    progress
        Called after each unit.

    Raises
    ------
    InputError
        Something about the arguments or the input is wrong; or ``strict``, and a row is no document.
    RunError
        The folder holds other vectors, a file vanished or changed, or the disk is full.
    """
    paths = [os.fspath(one) for one in ([corpus] if isinstance(corpus, str | os.PathLike) else corpus)]
    folder = Path(output).expanduser()
    for path in paths:
        if "://" not in path and Path(path).is_dir() and folder.resolve().is_relative_to(Path(path).resolve()):
            raise InputError(f"{folder}: lies inside the corpus {path}; give --output a folder outside")
    sources = discover(paths, text=text, id=id, pattern=pattern)
    inputs = [[one.name, one.format, one.text, one.id, one.size, one.stamp] for one in sources]
    settings = {
        "embedder": embedder.settings, "stored_as": stored_as, "of": "corpus", "inputs": inputs,
        "unit_bytes": unit_bytes,
    }  # fmt: skip
    tell = progress or (lambda told: None)
    if begin:
        begin(sum(source.size for source in sources))
    with Writer(folder, settings, SCHEMA) as out:
        if strict and out.rejected:
            raise InputError(
                f"{folder / 'rejected.jsonl'}: {out.rejected:,} rows are no documents. Without --strict, go on"
            )
        place = out.position or {"source": 0, "units": 0, "row": 0, "bytes": 0}
        tell(Told(place["bytes"], vectors=out.rows, rejected=out.rejected, resumed=True))
        for number in range(place["source"], len(sources)):
            if out.finished:
                break
            source, buffer = sources[number], Buffer()
            first, skipped = (place["row"], place["units"]) if number == place["source"] else (0, 0)
            done = {(number, unit) for unit in range(skipped)}
            for unit, batch in units(number, source, done, unit_bytes=unit_bytes):
                found = list(documents(batch or read(unit, source, buffer), source))
                bad = [one for one in found if one.reason]
                if strict and bad:
                    raise InputError(
                        f"{_named(source, first + bad[0].row)}: {bad[0].reason}. "
                        "Without --strict such rows are set aside in rejected.jsonl."
                    )
                good = [(one, one.text) for one in found if one.text is not None]
                spans = [(one, whole, *window) for one, whole in good for window in embedder.windows(whole)]
                vectors = embedder.embed([whole[start:end] for _, whole, start, end in spans])
                rows = pa.record_batch(
                    [
                        [one.id or f"{source.name}:{first + one.row}" for one, *_ in spans],
                        [source.name] * len(spans),
                        np.array([first + one.row for one, *_ in spans], np.uint64),
                        np.array([start for _, _, start, _ in spans], np.uint64),
                        np.array([end for *_, end in spans], np.uint64),
                    ],
                    schema=SCHEMA,
                )
                place = {
                    "source": number + unit.last, "units": 0 if unit.last else unit.index + 1,
                    "row": 0 if unit.last else first + _rows(found), "bytes": place["bytes"] + unit.size,
                }  # fmt: skip
                refused = [
                    {"file": source.name, "row": first + one.row, "rows": one.rows, "reason": one.reason} for one in bad
                ]
                out.append(vectors, rows, position=place, rejected=refused)
                first += _rows(found)
                tell(Told(unit.size, len(good), len(spans), len(bad)))
        out.finish()
    return open_vectors(folder)


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
            yield _of_bytes(row, None if name is None else str(name), value)
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
    name = (
        None if name is None or isinstance(name, list | dict) else name if isinstance(name, str) else json.dumps(name)
    )
    return Document(row, name.encode("utf-8", "backslashreplace").decode() if name else None, text)


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


def _rows(found: Sequence[Document]) -> int:
    return sum(one.rows for one in found)


def _named(source: Source, row: int) -> str:
    return f"{source.name} line {row + 1}" if source.format == "jsonl" else f"{source.name} row {row}"


def summary(store: VectorStore) -> dict[str, Any]:
    """Vectors, documents and dimensions of a store of a corpus."""
    rows = store.rows
    documents = rows.group_by(["file", "row"]).aggregate([]).num_rows if rows.num_rows else 0
    return {"vectors": len(store), "documents": documents, "dim": store.vectors.shape[1]}
