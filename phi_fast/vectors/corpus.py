"""Every document of a corpus as vectors: long ones in windows, one vector a window."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from phi_fast.corpus import Buffer, Source, discover, read, units
from phi_fast.corpus.documents import Document, documents
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


def _rows(found: Sequence[Document]) -> int:
    return sum(one.rows for one in found)


def _named(source: Source, row: int) -> str:
    return f"{source.name} line {row + 1}" if source.format == "jsonl" else f"{source.name} row {row}"


def summary(store: VectorStore) -> dict[str, Any]:
    """Vectors, documents and dimensions of a store of a corpus."""
    rows = store.rows
    documents = rows.group_by(["file", "row"]).aggregate([]).num_rows if rows.num_rows else 0
    return {"vectors": len(store), "documents": documents, "dim": store.vectors.shape[1]}
