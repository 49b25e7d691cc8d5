"""The ways to find matches, and what they find in a batch of documents, in one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from phi_fast.corpus import Batch, Column, Lines, Source
from phi_fast.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from phi_fast._native import ScanResult
    from phi_fast.engines.ngram import NgramIndex, PartInfo
    from phi_fast.engines.trees import TreeIndex

CHANNELS = ("ngram", "syntax", "embedding")
NGRAM, SYNTAX, EMBEDDING = range(3)
FORMS = ("function", "body")
# A match of any channel. What a channel does not have is 0, and null in the evidence; a `distance` of a syntax match is
# that of the embedding channel for the same document and item, NaN where it found none.
MATCH = np.dtype(
    [
        ("doc", "<u4"), ("part", "<u4"), ("channel", "u1"), ("form", "u1"), ("n", "<u2"), ("run", "<u4"),
        ("words", "<u4"), ("doc_start", "<u4"), ("doc_end", "<u4"), ("item_start", "<u4"), ("item_end", "<u4"),
        ("nodes", "<u4"), ("item_nodes", "<u4"), ("coverage", "<f4"), ("score", "<f4"), ("tau", "<f4"),
        ("alpha", "<f4"), ("distance", "<f4"),
    ]
)  # fmt: skip
# Comparing every function with every item takes time for each pair; with more items than this it is asked for by name.
MOST_ITEMS_BY_DEFAULT = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """What the channels found in a batch: as ``ScanResult``, with the matches of all channels in one array.

    Attributes
    ----------
    matches : ndarray of MATCH
        By document, then channel, then as the channel has them.
    docs : ndarray
        Row, place and id of each document that ``matches["doc"]`` counts.
    """

    rows: int
    documents: int
    text_bytes: int
    matches: npt.NDArray[np.void]
    docs: npt.NDArray[np.void]
    rejected: list[tuple[int, int, int, str]]


class Looking(Protocol):
    """A channel that looks at a batch after the scan and adds what it finds."""

    def look(self, batch: Batch, source: Source, found: Found) -> Found:
        """Add this channel's matches; ``found.docs`` has every document of the batch."""


@dataclass(frozen=True, slots=True)
class Channels:
    """What documents are scanned with: the index of the items, and the channels that are on."""

    index: NgramIndex
    names: tuple[str, ...]
    trees: TreeIndex | None = None
    embedding: Looking | None = None

    @property
    def parts(self) -> list[PartInfo]:
        """The items' parts, with what the syntax channel can compare them by."""
        return parts_with_trees(self.index.parts, self.trees)

    def scan(self, batch: Batch, source: Source) -> Found:
        """Find the matches of all channels in one batch of documents, whatever it holds."""
        result = scan_batch(self.index, batch, source, trees=self.trees, every=self.embedding is not None)
        found = _found(result, ngram="ngram" in self.names)
        if self.embedding is not None:
            found = self.embedding.look(batch, source, found)
        return only_matched(found)


def scan_batch(
    index: NgramIndex,
    batch: Batch,
    source: Source,
    counts: npt.NDArray[np.uint32] | None = None,
    trees: TreeIndex | None = None,
    every: bool = False,
) -> ScanResult:
    """Scan one batch of documents with the compiled engines."""
    if isinstance(batch, Lines):
        return index.scan_jsonl(batch.data, source.text, source.id, counts, trees, every)
    if isinstance(batch, Column):
        return index.scan_arrow(batch.text, counts, trees=trees, every=every)
    return index.scan_utf8(batch.data, counts, trees=trees, every=every)


def chosen_channels(given: Sequence[str] | None, wanted: Sequence[str]) -> tuple[str, ...]:
    """Check the channels asked for; ``wanted`` where none were.

    Raises
    ------
    InputError
        None at all, or one that there is not.
    """
    names = [one.strip() for entry in given or () for one in entry.split(",") if one.strip()] or list(wanted)
    for name in names:
        if name not in CHANNELS:
            raise InputError(f'channel "{name}": give {", ".join(CHANNELS[:-1])} or {CHANNELS[-1]}')
    return tuple(name for name in CHANNELS if name in names)


def parts_with_trees(parts: Sequence[PartInfo], trees: TreeIndex | None) -> list[PartInfo]:
    """Say of each part how large the tree is that the syntax channel compares."""
    if trees is None:
        return list(parts)
    return [replace(part, nodes=nodes) for part, nodes in zip(parts, trees.nodes, strict=True)]


def only_matched(found: Found) -> Found:
    """Leave out documents without a match."""
    numbers = np.unique(found.matches["doc"])
    if len(numbers) == len(found.docs):
        return found
    matches = found.matches.copy()
    matches["doc"] = np.searchsorted(numbers, found.matches["doc"])
    return replace(found, matches=matches, docs=found.docs[numbers])


def in_order(matches: Sequence[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """Put matches of several channels in order of document and channel; within these they stay as they are."""
    together = np.concatenate(matches)
    order = np.lexsort((together["channel"], together["doc"]))
    ordered: npt.NDArray[np.void] = together[order]
    return ordered


def _found(result: ScanResult, ngram: bool) -> Found:
    words, trees = result.matches if ngram else result.matches[:0], result.tree_matches
    by_words, by_trees = np.zeros(len(words), MATCH), np.zeros(len(trees), MATCH)
    _copy(words, by_words, "n", "run", "words", "coverage", "score")
    _copy(trees, by_trees, "form", "nodes", "item_nodes", "tau", "alpha")
    by_trees["channel"] = SYNTAX
    by_trees["score"] = trees["alpha"]
    by_trees["distance"] = np.nan
    matches = in_order([by_words, by_trees]) if len(by_trees) else by_words
    return Found(result.rows, result.documents, result.text_bytes, matches, result.docs, result.rejected)


def _copy(found: npt.NDArray[Any], into: npt.NDArray[Any], *names: str) -> None:
    for name in ("doc", "part", "doc_start", "doc_end", "item_start", "item_end", *names):
        into[name] = found[name]
