"""Documents drawn from a corpus, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from phi_fast.corpus import Batch, Source, sample
from phi_fast.corpus.documents import documents


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
    texts = (one for one in documents(batch, source) if one.text is not None)
    for number, one in enumerate(texts):
        if one.text is not None and one.text.strip():
            yield Drawn(one.id if one.id is not None else f"{source.name}, sampled row {seen + number}", one.text)
