"""What the tests of the engines share: indexes of plain texts, the SIMD levels, and results in the oracle's terms."""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from phi_fast import _native
from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import Item, Part, Suite
from tests.oracles import ngram
from tests.oracles.ngram import Match

N_LISTS = [(13, 5), (5,), (8,), (13,), (13, 8, 3)]

# One Match a tuple: what the engine reports of it, in the oracle's order of fields.
Found = dict[int, list[tuple[Any, ...]]]


def levels() -> Iterator[str]:
    """Use every SIMD level of this machine in turn, or only the one that PHI_FAST_NATIVE forces."""
    before = _native.simd()
    forced = os.environ.get("PHI_FAST_NATIVE")
    try:
        for level in [forced] if forced else _native.SIMD_AVAILABLE:
            _native.use_simd(level)
            yield level
    finally:
        _native.use_simd(before)


def suite_of(texts: Sequence[str], name: str = "made") -> Suite:
    """A suite with one item a text, each of one part."""
    items = tuple(Item(f"made/{number}", (Part("question", text),)) for number, text in enumerate(texts))
    return Suite(name=name, items=items, source="made by a test", sha256="0" * 64)


def index_of(texts: Sequence[str], n: Sequence[int] = (13, 5)) -> NgramIndex:
    return NgramIndex.build([suite_of(texts)], n)


def found(result: _native.ScanResult) -> Found:
    """The matches of a scan by row, each in the oracle's order of fields."""
    rows = result.docs["row"].tolist()
    by_row: Found = {row: [] for row in rows}
    for match in result.matches:
        fields = [match[field].item() for field in Match._fields]
        by_row[rows[match["doc"]]].append(tuple(fields))
    return by_row


def expected(oracle: ngram.Index, documents: Iterable[str | None]) -> Found:
    """What the oracle finds, by row; None stands for a row that is no document."""
    by_row: Found = {}
    for row, document in enumerate(documents):
        matches = [] if document is None else oracle.matches(document)
        if matches:
            by_row[row] = [tuple(match) for match in matches]
    return by_row


def jsonl(documents: Iterable[str | None], ensure_ascii: bool) -> bytes:
    """A line for each document, its id after its text or before; None becomes a null."""
    lines = []
    for number, document in enumerate(documents):
        fields: dict[str, object] = {"text": document, "id": number}
        if number % 2:
            fields = dict(reversed(fields.items()))
        lines.append(json.dumps(fields, ensure_ascii=ensure_ascii).encode() + b"\n")
    return b"".join(lines)


def every_way(index: NgramIndex, documents: Sequence[str]) -> Iterator[tuple[str, Found]]:
    """The same documents, scanned through every door of the engine."""
    yield "bytes", found(index.scan_utf8([document.encode() for document in documents]))
    yield "bytes, two threads", found(index.scan_utf8([document.encode() for document in documents], threads=2))
    yield "str", found(index.scan_utf8(documents))
    for ensure_ascii in (False, True):
        yield (
            f"JSONL, ensure_ascii={ensure_ascii}",
            found(index.scan_jsonl(jsonl(documents, ensure_ascii), "text", "id")),
        )
    for kind in (pa.string(), pa.large_string()):
        yield str(kind), found(index.scan_arrow(pa.array(documents, kind)))
        padded = pa.array([None, "left out", *documents, "left out as well", None], kind)
        yield f"{kind}, sliced", found(index.scan_arrow(padded.slice(2, len(documents))))
        holed = pa.array([text for document in documents for text in (None, document)], kind)
        yield f"{kind}, with nulls", {row // 2: m for row, m in found(index.scan_arrow(holed)).items()}
    yield "scan", found_in_table(index, index.scan(list(documents), threads=1))
    yield "scan, Arrow", found_in_table(index, index.scan(pa.chunked_array([pa.array(documents, pa.string())])))


def found_in_table(index: NgramIndex, table: pa.Table) -> Found:
    """As `found`, from the table that NgramIndex.scan returns."""
    numbers = {(part.suite, part.item, part.part): number for number, part in enumerate(index.parts)}
    by_row: Found = {}
    for row in table.to_pylist():
        assert row["channel"] == "ngram"
        row["part"] = numbers[row["suite"], row["item"], row["part"]]
        by_row.setdefault(row["row"], []).append(tuple(row[field] for field in Match._fields))
    return by_row


def python_sources(limit: int) -> list[str]:
    """Files of this Python's own library, the same ones every time."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts: list[str] = []
    for path in sorted(library.glob("*.py")) + sorted((library / "encodings").glob("*.py")):
        try:
            texts.append(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        if len(texts) == limit:
            break
    return texts


def counts_of(oracle: ngram.Index) -> list[int]:
    return [0] * oracle.total_words


def as_counts(counts: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.asarray(counts, np.uint32)
