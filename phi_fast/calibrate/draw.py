"""Documents drawn from a corpus, the same ones for the same seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from phi_fast.corpus import Batch, Column, Lines, Source, sample
from phi_fast.decontaminate.outcome import id_text


class Drawn(NamedTuple):
    """A document as it stands in the corpus."""

    id: str
    text: str


def draw(
    sources: Sequence[Source],
    documents: int,
    max_bytes: int,
    seed: int,
    drawn: Callable[[int], None] = lambda count: None,
) -> list[Drawn]:
    """Draw whole documents from all over a corpus.

    Pieces evenly spaced over the bytes of the corpus are read, as far as `max_bytes` goes (a smaller corpus is read
    whole); of the documents that lie in them, `documents` are drawn by `seed`. A compressed file is read from its
    start.

    Parameters
    ----------
    sources
        As ``discover`` gave them.
    documents, max_bytes
        How many at most, and how many bytes are read for them, about.
    seed
        Draws others.
    drawn
        Told of the documents read so far, now and then.

    Returns
    -------
    list of Drawn
        In the order of the corpus. What is blank or is no text is left out. Ids occur once: a second one of the same
        gets a number.
    """
    rng = random.Random(f"{seed}:draw")
    kept: list[tuple[int, Drawn]] = []
    seen = 0
    for number, batch in sample(sources, max_bytes):
        for one in _documents(sources[number], batch, seen):
            place = seen if seen < documents else rng.randrange(seen + 1)
            if seen < documents:
                kept.append((seen, one))
            elif place < documents:
                kept[place] = (seen, one)
            seen += 1
        drawn(seen)
    kept.sort(key=lambda pair: pair[0])
    names: dict[str, int] = {}
    result = []
    for _, (name, text) in kept:
        names[name] = names.get(name, 0) + 1
        result.append(Drawn(name if names[name] == 1 else f"{name} ({names[name]})", text))
    return result


def _documents(source: Source, batch: Batch, seen: int) -> Iterator[Drawn]:
    for number, (identity, text) in enumerate(_rows(source, batch)):
        if text.strip():
            yield Drawn(identity if identity is not None else f"{source.name}, sampled row {seen + number}", text)


def _rows(source: Source, batch: Batch) -> Iterator[tuple[str | None, str]]:
    if isinstance(batch, Lines):
        for line in bytes(batch.data).split(b"\n"):
            try:
                row = json.loads(line)
                text = row[source.text]
                text.encode()
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            yield id_text(row.get(source.id)), text
    elif isinstance(batch, Column):
        ids = [None] * len(batch.text) if batch.id is None else batch.id.to_pylist()
        for identity, raw in zip(ids, _raw(batch), strict=True):
            text = _decoded(raw)
            if text is not None:
                yield id_text(identity), text
    else:
        for name, raw in zip(batch.names, batch.data, strict=True):
            text = _decoded(raw)
            if text is not None:
                yield f"{source.name}/{name}", text


def _raw(batch: Column) -> list[bytes | None]:
    import pyarrow as pa

    large = pa.types.is_large_string(batch.text.type)
    raw: list[bytes | None] = batch.text.cast(pa.large_binary() if large else pa.binary()).to_pylist()
    return raw


def _decoded(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError:
        return None
