"""The embedding channel: documents' functions and windows near an item in the space of an embedding model."""

from __future__ import annotations

import ast
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from phi_fast.corpus import Batch, Column, Lines, Source
from phi_fast.decontaminate.channels import EMBEDDING, MATCH, SYNTAX, Found, in_order
from phi_fast.decontaminate.policy import FLOOR_DISTANCE

if TYPE_CHECKING:
    import numpy.typing as npt

    from phi_fast.engines.ngram import PartInfo
    from phi_fast.vectors import Embedder

UNIT_BYTES = 1 << 19  # of a work unit by default: seconds of work for a small model on a CPU
_SHORTEST = 40  # characters: shorter pieces say nothing


class EmbeddingChannel:
    """Items as vectors, and the look at a batch that finds what lies near them.

    An item is embedded as its question and solution together and, where these are a program, once more without
    docstrings, since copies often come without them. Of a document each function is a piece, and so is what
    stands between functions, in windows as large as the model sees; a document that fits one window is one piece more.

    Parameters
    ----------
    parts
        The items' parts, in the order of the index.
    embedder
        The model; called from one thread at a time.
    """

    def __init__(self, parts: Sequence[PartInfo], embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()
        texts: dict[tuple[str, str], dict[str, tuple[int, str]]] = {}
        for number, part in enumerate(parts):
            texts.setdefault((part.suite, part.item), {})[part.part] = (number, part.text)
        pieces, of_part, spans = [], [], []
        for named in texts.values():
            both = [named[name] for name in ("question", "solution") if name in named]
            if not both:
                continue
            text = "".join(one for _, one in both)
            for whole in (text, without_docstrings(text)):
                for start, end in embedder.windows(whole) if whole else ():
                    if len(whole[start:end].strip()) >= min(_SHORTEST, len(whole.strip())):
                        pieces.append(whole[start:end])
                        of_part.append(both[-1][0])
                        spans.append((0, len(both[-1][1])))
        self._parts = np.array(of_part, np.uint32)
        self._spans = np.array(spans, np.uint32).reshape(-1, 2)
        self._items = embedder.embed(pieces)

    def look(self, batch: Batch, source: Source, found: Found) -> Found:
        """Add the nearest piece of each document and item within :data:`FLOOR_DISTANCE`."""
        from phi_fast.vectors import within

        texts, document, spans = [], [], []
        for number, text in enumerate(texts_of(batch, source, found.docs)):
            for start, end in self.pieces(text):
                texts.append(text[start:end])
                document.append(number)
                spans.append((start, end))
        if not texts:
            return found
        with self._lock:
            vectors = self._embedder.embed(texts)
            pairs = within(self._items, vectors, FLOOR_DISTANCE, threads=1)
        near = _nearest(pairs, self._parts, np.array(document, np.uint32))
        matches = np.zeros(len(near), MATCH)
        piece, item = near["vector"], near["query"]
        matches["doc"], matches["part"] = np.array(document, np.uint32)[piece], self._parts[item]
        matches["channel"] = EMBEDDING
        matches["distance"] = near["distance"]
        matches["score"] = 1 - near["distance"].astype(np.float64) ** 2 / 2
        places = np.array(spans, np.uint32)[piece]
        matches["doc_start"], matches["doc_end"] = places[:, 0], places[:, 1]
        matches["item_start"], matches["item_end"] = self._spans[item].T
        return replace(found, matches=in_order([_with_distances(found.matches, matches), matches]))

    def pieces(self, text: str) -> list[tuple[int, int]]:
        """Cut a document: spans of its functions, of what stands between them, and of all of it where that fits."""
        from phi_fast.engines import syntax

        functions = [(one.start, one.end) for one in syntax.parse(text).functions if one.whole]
        windows = self._embedder.windows(text)
        if len(windows) == 1:
            return _worth(text, dict.fromkeys([*windows, *functions]))
        found: list[tuple[int, int]] = []
        reached = 0
        for start, end in functions:
            if start > reached:
                found += self._windows(text, reached, start)
            found += self._windows(text, start, end)
            reached = max(reached, end)
        return _worth(text, dict.fromkeys([*found, *self._windows(text, reached, len(text))]))

    def _windows(self, text: str, start: int, end: int) -> list[tuple[int, int]]:
        return [(start + a, start + b) for a, b in self._embedder.windows(text[start:end])]


def without_docstrings(source: str) -> str:
    """Write a program without its docstrings and comments; nothing where it is none or has no docstring."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    found = False
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
            found = True
    return ast.unparse(tree) if found else ""


def open_embedder(model: str, device: str | None = None) -> Embedder:
    """Load the channel's model.

    Raises
    ------
    InputError
        It is not there, or what runs it is not installed.
    """
    from phi_fast.vectors import Embedder

    return Embedder(model, device=device)


def described(model: str, embedder: Embedder) -> dict[str, Any]:
    """Give what decides the vectors, as it stands in run.json; ``given`` is how the model was named."""
    return {"given": model} | embedder.settings


def without_name(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Give the settings without how the model was named: what decides a run's output."""
    return None if settings is None else {name: value for name, value in settings.items() if name != "given"}


def texts_of(batch: Batch, source: Source, docs: npt.NDArray[np.void]) -> list[str]:
    """Read the documents of a batch that ``docs`` lists."""
    if isinstance(batch, Lines):
        from phi_fast import _native

        texts = []
        for at, size in zip(docs["offset"].tolist(), docs["length"].tolist(), strict=True):
            line = bytes(batch.data[at : at + size])
            span = _native.json_field(line, source.text)
            if span is None:
                raise AssertionError(f'a scanned line of {source.name} has no "{source.text}"')
            texts.append(str(json.loads(line[span[0] : span[1]])))
        return texts
    if isinstance(batch, Column):
        return [
            one.decode() if isinstance(one, bytes) else str(one) for one in batch.text.take(docs["row"]).to_pylist()
        ]
    return [bytes(batch.data[row]).decode() for row in docs["row"].tolist()]


def _worth(text: str, spans: Mapping[tuple[int, int], None]) -> list[tuple[int, int]]:
    return [(start, end) for start, end in spans if len(text[start:end].strip()) >= _SHORTEST]


def _nearest(
    pairs: npt.NDArray[np.void], parts: npt.NDArray[np.uint32], document: npt.NDArray[np.uint32]
) -> npt.NDArray[np.void]:
    """Keep of each document and item the nearest pair; of equal ones the first piece."""
    part, owner = parts[pairs["query"]], document[pairs["vector"]]
    order = np.lexsort((pairs["vector"], pairs["distance"], part, owner))
    ordered, part, owner = pairs[order], part[order], owner[order]
    first = np.ones(len(ordered), np.bool_)
    first[1:] = (part[1:] != part[:-1]) | (owner[1:] != owner[:-1])
    kept: npt.NDArray[np.void] = ordered[first]
    return kept


def _with_distances(matches: npt.NDArray[np.void], near: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Tell syntax matches the distance of their document and item."""
    trees = np.flatnonzero(matches["channel"] == SYNTAX)
    if not len(trees) or not len(near):
        return matches
    told = matches.copy()
    keys = (near["doc"].astype(np.uint64) << np.uint64(32)) | near["part"]
    wanted = (matches["doc"][trees].astype(np.uint64) << np.uint64(32)) | matches["part"][trees]
    order = np.argsort(keys)
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    here = keys[order][place] == wanted
    told["distance"][trees[here]] = near["distance"][order][place][here]
    return told
