"""What scanning a unit gave, as the bytes that stand in the journal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zstandard

from phi_fast.corpus import Batch, Column, Lines, Source
from phi_fast.corpus.documents import id_text
from phi_fast.decontaminate.channels import MATCH

if TYPE_CHECKING:
    import pyarrow as pa

    from phi_fast.decontaminate.channels import Found

# The parts of a unit's record, by position.
MATCHES, ROWS, IDS, PLACES, LENGTHS, RAW, BAD, BAD_LENGTHS, BAD_RAW = range(9)
FOUND = (MATCHES, ROWS, IDS, BAD, BAD_LENGTHS, BAD_RAW)  # what the tables need
KEPT = (ROWS, PLACES, LENGTHS, RAW)  # the matched documents themselves


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that is no document, or ``rows`` of them that cannot be read. ``raw`` is None where there is no line.

    ``offset`` and ``length`` are those of the raw line in the (decompressed) JSONL file, -1 elsewhere.
    """

    row: int
    reason: str
    rows: int
    offset: int
    length: int
    id: str | None
    raw: bytes | None


def pack(batch: Batch, result: Found, source: Source) -> tuple[dict[str, int], list[bytes]]:
    """Turn a scan's result into counts and bytes; only ids of matched documents become Python objects."""
    docs, rejected = result.docs, result.rejected
    rows = docs["row"]
    raw: Sequence[bytes | memoryview] = ()
    ids: list[str | None] = []
    bad_ids: list[str | None] = [None] * len(rejected)
    bad_raw: list[bytes | memoryview] = []
    base = 0
    places = b""
    documents = result.documents
    if isinstance(batch, Lines):
        data, base = batch.data, batch.offset
        begins, lengths = docs["offset"], docs["length"]
        raw = [data[at : at + size] for at, size in zip(begins.tolist(), lengths.tolist(), strict=True)]
        spans = zip(docs["id_start"].tolist(), docs["id_end"].tolist(), strict=True)
        ids = [id_of(bytes(data[start:end])) if start >= 0 else None for start, end in spans]
        bad_raw = [data[at : at + size] for _, at, size, _ in rejected]
        places = (begins + np.uint64(base)).tobytes()
    elif isinstance(batch, Column):
        if len(rows):
            raw = _utf8(batch.text.take(rows))
            ids = _ids(batch, rows)
        if rejected:
            bad_ids = _ids(batch, np.array([row for row, *_ in rejected]))
    else:
        raw = [batch.data[row] for row in rows.tolist()]
        ids = [f"{source.name}/{batch.names[row]}" for row in rows.tolist()]
        bad_raw = [batch.data[row] for row, *_ in rejected]
        unread = batch.rejected
        if unread:  # they are empty in the batch, so the scan took them for empty documents
            documents -= len(unread)
            rejected = [*rejected, *unread]
            bad_raw += [b""] * len(unread)
        bad_ids = [f"{source.name}/{batch.names[row]}" for row, *_ in rejected]
    bad = [
        [row, reason, 1, base + at if at >= 0 else -1, size, one_id]
        for (row, at, size, reason), one_id in zip(rejected, bad_ids, strict=True)
    ]
    fault = batch.fault
    if fault is not None:
        bad.append([result.rows, fault.reason, fault.rows, fault.offset, fault.length, None])
        bad_raw += [fault.raw] if isinstance(batch, Lines) else []
    counts = {
        "rows": result.rows + (fault.rows if fault else 0), "documents": documents, "text_bytes": result.text_bytes,
        "matches": len(result.matches), "matched_documents": len(docs), "rejected": len(bad),
    }  # fmt: skip
    parts = [
        result.matches.tobytes(), rows.tobytes(), _json(ids), places, _lengths(raw),
        _packed(raw), _json(bad), _lengths(bad_raw), _packed(bad_raw),
    ]  # fmt: skip
    return counts, parts


def matched_ids(parts: Sequence[memoryview]) -> tuple[npt.NDArray[np.void], list[tuple[int, str | None]]]:
    """Read a unit's matches, and row in the unit and id (None: it has none) of the documents they count by ``doc``."""
    rows = np.frombuffer(parts[ROWS], np.uint32).tolist()
    ids = json.loads(bytes(parts[IDS])) if len(parts[IDS]) else [None] * len(rows)
    return np.frombuffer(parts[MATCHES], MATCH), list(zip(rows, ids, strict=True))


def rejected(parts: Sequence[memoryview]) -> Iterator[Bad]:
    """Read a unit's rejected rows."""
    raw = split(parts[BAD_RAW], parts[BAD_LENGTHS])
    for row, reason, count, offset, length, identity in json.loads(bytes(parts[BAD])) if len(parts[BAD]) else ():
        yield Bad(row, reason, count, offset, length, identity, next(raw, None))


def split(packed: memoryview, lengths: memoryview) -> Iterator[bytes]:
    """Give the byte strings that were packed together, one by one."""
    if not len(packed):
        return
    data = memoryview(zstandard.ZstdDecompressor().decompress(packed))
    begin = 0
    for length in np.frombuffer(lengths, np.uint64).tolist():
        yield bytes(data[begin : begin + length])
        begin += length


def id_of(raw: bytes) -> str | None:
    """Read an id from its raw JSON. Numbers stay as they are written: an id of 1.50, or of 5,000 digits, is that id."""
    return id_text(json.loads(raw, parse_int=str, parse_float=str))


def _ids(batch: Column, rows: npt.NDArray[Any]) -> list[str | None]:
    return [None] * len(rows) if batch.id is None else [id_text(one) for one in batch.id.take(rows).to_pylist()]


def _utf8(texts: pa.Array) -> list[bytes]:
    import pyarrow as pa

    binary = texts.cast(pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary())
    return [one or b"" for one in binary.to_pylist()]


def _json(value: Sequence[Any]) -> bytes:
    return json.dumps(value).encode() if value else b""


def _lengths(parts: Sequence[bytes | memoryview]) -> bytes:
    return np.array([len(part) for part in parts], np.uint64).tobytes()


_compressor = threading.local()


def _packed(parts: Sequence[bytes | memoryview]) -> bytes:
    if not any(len(part) for part in parts):
        return zstandard.ZstdCompressor(level=1).compress(b"") if parts else b""
    if not hasattr(_compressor, "zstd"):
        _compressor.zstd = zstandard.ZstdCompressor(level=1)
    packed: bytes = _compressor.zstd.compress(b"".join(parts))
    return packed
