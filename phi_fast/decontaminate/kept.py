"""The matched documents, which the journal keeps: verdicts and excerpts need no corpus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.outcome import KEPT, LENGTHS, PLACES, RAW, ROWS, split

Wanted = TypeVar("Wanted")


class Origin(NamedTuple):
    """What must be known of a source to read its documents from the journal: its name, format and text key."""

    name: str
    format: str
    text: str


def origins(inputs: Sequence[Mapping[str, Any]]) -> list[Origin]:
    """Read the origins from run.json's ``inputs``."""
    return [Origin(one["name"], one["format"], one["text"]) for one in inputs]


@dataclass(frozen=True, slots=True)
class Kept:
    """A matched document as it stood in the corpus: a JSON line, or its text.

    ``offset`` is that of the raw line in the (decompressed) JSONL file, -1 elsewhere.
    """

    origin: Origin
    raw: bytes
    offset: int

    @property
    def length(self) -> int:
        """Bytes of the raw line; -1 where there is none."""
        return len(self.raw) if self.offset >= 0 else -1

    @property
    def text(self) -> str:
        """The document's text."""
        return str(json.loads(self.text_json)) if self.origin.format == "jsonl" else self.raw.decode()

    @property
    def text_json(self) -> bytes:
        """The document's text as a JSON string, as the line has it."""
        if self.origin.format != "jsonl":
            return json.dumps(self.raw.decode(), ensure_ascii=False).encode()
        from phi_fast import _native

        span = _native.json_field(self.raw, self.origin.text)
        if span is None:
            raise AssertionError(f'a matched line of {self.origin.name} has no "{self.origin.text}"')
        return self.raw[span[0] : span[1]]


def with_kept(
    journal: Journal, sources: Sequence[Origin], wanted: Iterator[Wanted], place: Callable[[Wanted], tuple[str, int]]
) -> Iterator[tuple[Wanted, Kept]]:
    """Join things with the documents they are about, in constant memory.

    Parameters
    ----------
    journal, sources
        A complete journal and what its source numbers stand for.
    wanted, place
        Things in evidence order, and which (file, row) each is about.
    """
    one = next(wanted, None)
    for number, origin in enumerate(sources):
        base = 0
        for unit in range(journal.lengths[number]):
            if one is None:
                return
            file, row = place(one)
            if file != origin.name:
                break
            counts, _ = journal.unit(number, unit, ())
            here: dict[int, tuple[bytes, int]] | None = None
            while one is not None and file == origin.name and row < base + counts["rows"]:
                if here is None:
                    here = _documents(journal.unit(number, unit, KEPT)[1])
                yield one, Kept(origin, *here[row - base])
                one = next(wanted, None)
                if one is not None:
                    file, row = place(one)
            base += counts["rows"]
    if one is not None:
        raise AssertionError(f"the journal lacks {place(one)}")


def _documents(parts: Sequence[memoryview]) -> dict[int, tuple[bytes, int]]:
    rows = np.frombuffer(parts[ROWS], np.uint32).tolist()
    places = np.frombuffer(parts[PLACES], np.uint64).tolist() or [-1] * len(rows)
    return dict(zip(rows, zip(split(parts[RAW], parts[LENGTHS]), places, strict=True), strict=True))
