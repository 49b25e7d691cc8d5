"""Files to test on, and a plain reading of a whole corpus through its units."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from phi_fast.corpus import Buffer, Column, Fault, Files, Lines, Source, read, work

CODECS = ("gz", "zst", "bz2", "xz")


def pack(data: bytes, codec: str | None) -> bytes:
    """One member or frame, by the reference implementation of each codec."""
    if codec is None:
        return data
    if codec == "gz":
        return gzip.compress(data, 6)
    if codec == "zst":
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)
    return bz2.compress(data) if codec == "bz2" else lzma.compress(data)


def unpack(data: bytes, codec: str | None) -> bytes:
    if codec is None:
        return data
    if codec == "gz":
        return gzip.decompress(data)
    if codec == "zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return bz2.decompress(data) if codec == "bz2" else lzma.decompress(data)


def documents(count: int, size: int = 40) -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "text": f"document {i} é " + "x y " * (size // 4 * (i % 7)), "n": i} for i in range(count)]


def jsonl(docs: Sequence[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(doc, ensure_ascii=False) + end for doc in docs).encode()


def write_jsonl(path: Path, docs: Sequence[dict[str, Any]], codec: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(jsonl(docs), codec))
    return path


@dataclass
class Whole:
    """A source read through its units: what follows what in which order."""

    data: bytes = b""
    texts: list[str | None] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    units: int = 0


def read_whole(sources: Sequence[Source], unit_bytes: int, threads: int = 3) -> list[Whole]:
    """Read every unit, check the numbering, and put the rows together in order."""
    buffer = Buffer()
    parts: dict[tuple[int, int], Any] = {}
    last: dict[int, int] = {}
    for unit, batch in work(sources, threads=threads, unit_bytes=unit_bytes):
        batch = read(unit, sources[unit.source], buffer) if batch is None else batch
        if isinstance(batch, Lines):
            batch = Lines(memoryview(bytes(batch.data)), batch.offset, batch.fault)
        assert (unit.source, unit.index) not in parts
        parts[unit.source, unit.index] = batch
        if unit.last:
            assert unit.source not in last
            last[unit.source] = unit.index
    assert sorted(parts) == [(s, i) for s in range(len(sources)) for i in range(last[s] + 1)]
    wholes = []
    for number in range(len(sources)):
        whole = Whole(units=last[number] + 1)
        for index in range(last[number] + 1):
            _add(whole, parts[number, index])
        wholes.append(whole)
    return wholes


def _add(whole: Whole, batch: Lines | Column | Files) -> None:
    if isinstance(batch, Lines):
        data = bytes(batch.data)
        lines = data.split(b"\n")
        at = batch.offset
        for line in lines[: None if lines[-1] else -1]:
            whole.lines.append((at, line))
            whole.texts.append(_text(line))
            at += len(line) + 1
        whole.data += data
    elif isinstance(batch, Column):
        whole.texts += batch.text.to_pylist()
        if batch.id is not None:
            assert len(batch.id) == len(batch.text)
            whole.ids += batch.id.to_pylist()
    else:
        whole.rejected += [(len(whole.texts) + row, reason) for row, _, _, reason in batch.rejected]
        whole.texts += [data.decode("utf-8", "replace") for data in batch.data]
    if batch.fault is not None:
        whole.faults.append((len(whole.texts), batch.fault))
        whole.texts += [None] * batch.fault.rows


def _text(line: bytes) -> str | None:
    try:
        value = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except ValueError:
        return None
    return value.get("text") if isinstance(value, dict) else None
