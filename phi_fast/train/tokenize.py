"""A corpus as tokens: read and encoded unit by unit in worker processes, written in the corpus' order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from phi_fast.corpus import Batch, Buffer, Column, Lines, Source, Unit, discover, read, units, verify_unchanged
from phi_fast.corpus.documents import documents
from phi_fast.errors import InputError
from phi_fast.train.shards import SHARD_TOKENS, Writer
from phi_fast.train.tokenizer import Tokenizer, from_json, open_tokenizer
from phi_fast.train.tokens import TokenStore, open_tokens
from phi_fast.train.workers import Workers

UNIT_BYTES = 1 << 20
LONGEST = 128 << 20
"""A document of more characters is set aside: encoding takes about a hundred bytes of memory a token."""

_RECORD_SECONDS = 2.0


class Told(NamedTuple):
    """Progress: what was done since the last one. ``bytes`` are as stored; ``resumed`` ones were done before."""

    bytes: int
    documents: int = 0
    tokens: int = 0
    rejected: int = 0
    resumed: bool = False


Progress = Callable[[Told], None]


class _Encoded(NamedTuple):
    """What a worker makes of a unit; rows count from the unit's first."""

    tokens: Any
    lengths: Any
    rows: Any
    total: int
    bad: list[tuple[int, int, str]]


def tokenize_corpus(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | Tokenizer,
    *,
    end_of_text: str | None = None,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    strict: bool = False,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    unit_bytes: int = UNIT_BYTES,
    begin: Callable[[int], None] | None = None,
    progress: Progress | None = None,
) -> TokenStore:
    """Write every document of a corpus as tokens, each with the end-of-text token after it.

    The same call after an interruption goes on where it stopped and ends with the same bytes, whatever `workers`. The
    order is that of the corpus. A text that holds ``<|endoftext|>`` written out, or another special token, is encoded
    as those characters: only the end of a document gives the token.

    Parameters
    ----------
    corpus, text, id, pattern
        As for `phi_fast.decontaminate`.
    output
        Folder for the tokens: see `open_tokens`.
    tokenizer, end_of_text
        As for `open_tokenizer`, or what it gave.
    strict
        Stop at the first row that is no document, instead of listing it in rejected.jsonl.
    workers
        Processes; as many as cores unless given.
    shard_tokens
        A shard ends with the document that brings it to so many tokens.
    unit_bytes
        Text a worker takes at a time.
    begin
        Called with the corpus' bytes.
    progress
        Called after each unit.

    Raises
    ------
    InputError
        Something about the arguments or the input is wrong; or ``strict``, and a row is no document.
    RunError
        The folder holds other tokens, a file vanished or changed, a worker was lost, or the disk is full.
    """
    paths = [os.fspath(one) for one in ([corpus] if isinstance(corpus, str | os.PathLike) else corpus)]
    folder = Path(output).expanduser()
    for path in paths:
        if "://" not in path and Path(path).is_dir() and folder.resolve().is_relative_to(Path(path).resolve()):
            raise InputError(f"{folder}: lies inside the corpus {path}; give --output a folder outside")
    if shard_tokens < 1:
        raise InputError(f"shard_tokens of {shard_tokens}: give 1 or more")
    if workers is not None and workers < 1:
        raise InputError(f"workers of {workers}: give 1 or more")
    known = tokenizer if isinstance(tokenizer, Tokenizer) else open_tokenizer(tokenizer, end_of_text=end_of_text)
    sources = discover(paths, text=text, id=id, pattern=pattern)
    settings = {"shard_tokens": shard_tokens, "unit_bytes": unit_bytes, "longest": LONGEST}
    tell = progress or (lambda told: None)
    if begin:
        begin(sum(source.size for source in sources))
    with Writer(folder, known.identity, settings, [_said(one) for one in sources], known.json) as out:
        if strict and out.rejected:
            raise InputError(
                f"{folder / 'rejected.jsonl'}: {out.rejected:,} rows are no documents. Without --strict, go on"
            )
        place = out.position or {"source": 0, "units": 0, "row": 0, "bytes": 0}
        tell(Told(place["bytes"], out.documents, out.tokens, out.rejected, resumed=True))
        if not out.finished:
            count = workers or len(os.sched_getaffinity(0))
            given = (sources, known.json, known.name, known.end_of_text, out.dtype.str)
            recorded = time.monotonic()
            with Workers(count, f"{__name__}:_worker", given) as pool:
                for unit, found in pool.map(_tasks(sources, place["source"], place["units"], unit_bytes)):
                    source, first = sources[unit.source], place["row"]
                    if strict and found.bad:
                        row, _, reason = found.bad[0]
                        raise InputError(
                            f"{_named(source, first + row)}: {reason}. "
                            "Without --strict such rows are set aside in rejected.jsonl."
                        )
                    if unit.last and source.fault is None:
                        verify_unchanged(source)
                    bad = [
                        {"file": source.name, "row": first + row, "rows": rows, "reason": reason}
                        for row, rows, reason in found.bad
                    ]
                    out.append(found.tokens, found.lengths, found.rows + first, unit.source, bad)
                    place = {
                        "source": unit.source + unit.last, "units": 0 if unit.last else unit.index + 1,
                        "row": 0 if unit.last else first + found.total, "bytes": place["bytes"] + unit.size,
                    }  # fmt: skip
                    if time.monotonic() - recorded > _RECORD_SECONDS:
                        out.record(place)
                        recorded = time.monotonic()
                    tell(Told(unit.size, len(found.lengths), len(found.tokens), len(bad)))
            out.finish(place)
    return open_tokens(folder)


def _said(source: Source) -> dict[str, Any]:
    said: dict[str, Any] = {"name": source.name, "format": source.format, "text": source.text, "size": source.size}
    return said | {"stamp": source.stamp} | ({"files": list(source.files)} if source.format == "tree" else {})


def _named(source: Source, row: int) -> str:
    if source.format == "tree":
        return f"{source.name}/{source.files[row]}"
    return f"{source.name} line {row + 1}" if source.format == "jsonl" else f"{source.name} row {row}"


def _tasks(sources: Sequence[Source], first: int, skipped: int, unit_bytes: int) -> Iterator[tuple[Unit, Any]]:
    for number in range(first, len(sources)):
        done = {(number, unit) for unit in range(skipped if number == first else 0)}
        for unit, batch in units(number, sources[number], done, unit_bytes=unit_bytes):
            yield unit, (unit, _packed(batch))


def _packed(batch: Batch | None) -> Any:
    """A batch that goes through a pipe without what its buffers hold besides."""
    if isinstance(batch, Lines):
        return bytes(batch.data), batch.offset, batch.fault
    if isinstance(batch, Column):
        return pa.record_batch([batch.text], ["text"]).serialize().to_pybytes(), str(batch.text.type), batch.fault
    return batch


def _worker(given: tuple[list[Source], str, str, int, str]) -> Callable[[Any], _Encoded]:
    """What a worker process does with a unit."""
    sources, json, name, end, dtype = given
    tokenizer, buffer, kind = from_json(json, name, end), Buffer(), np.dtype(dtype)

    def encode(task: tuple[Unit, Any]) -> _Encoded:
        unit, batch = task
        source = sources[unit.source]
        texts, rows, bad, count = [], [], [], 0
        for one in documents(_unpacked(batch, unit, source, buffer), source):
            count += one.rows
            if one.text is not None and len(one.text) <= LONGEST:
                texts.append(one.text)
                rows.append(one.row)
            elif one.text is not None:
                bad.append((one.row, 1, f"document of {len(one.text):,} characters: longer than {LONGEST:,}"))
            elif one.reason:
                bad.append((one.row, one.rows, one.reason))
        found = tokenizer.encode(texts, kind)
        lengths = np.fromiter((len(one) + 1 for one in found), np.int64, len(found))
        tokens = np.full(int(lengths.sum()), end, kind)
        start = 0
        for ids in found:
            tokens[start : start + len(ids)] = ids
            start += len(ids) + 1
        return _Encoded(tokens, lengths, np.array(rows, np.int64), count, bad)

    return encode


def _unpacked(batch: Any, unit: Unit, source: Source, buffer: Buffer) -> Batch:
    if batch is None:
        return read(unit, source, buffer)
    data, what, fault = batch
    if isinstance(what, int):
        return Lines(memoryview(data), what, fault)
    schema = pa.schema([("text", pa.large_string() if what == "large_string" else pa.string())])
    return Column(pa.ipc.read_record_batch(pa.py_buffer(data), schema).column(0), None, fault)
