"""Python source as sequences of syntax-tree node types, and how alike two of them are.

The parser gives the tree that CPython's `ast` gives, as numbers: no objects, no GIL while it works, and on broken text
it goes on function by function.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from phi_fast import _native
from phi_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODE_TYPES: tuple[str, ...] = _native.NODE_TYPES
"""Names of the node types, as `ast` has them; a type's number is its place here."""

Metric = Literal["sequence", "tree"]


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One function definition of a source.

    Attributes
    ----------
    start, end : int
        Characters of the source from its ``def`` (or ``async``) to the end of its last statement, half open.
    whole : bool
        No syntax error inside.
    types : ndarray of uint8, shape (nodes,)
        Node types in preorder; places in `NODE_TYPES`. Identifiers, literal values, expression contexts, comments and
        docstrings do not count.
    sizes : ndarray of uint32, shape (nodes,)
        Nodes in the subtree that starts at each.
    alpha : ndarray of uint32, shape (nodes,)
        The alpha-normalised form: names other than builtins numbered by first use; builtins, attributes, keyword names
        and literals keep their text. Two functions that differ in names alone have the same form.
    body : slice
        Where in these arrays the body stands.
    """

    start: int
    end: int
    whole: bool
    types: NDArray[np.uint8]
    sizes: NDArray[np.uint32]
    alpha: NDArray[np.uint32]
    body: slice


@dataclass(frozen=True, slots=True, eq=False)
class Parsed:
    """A source parsed: all its nodes in preorder, and its functions in the order of their ``def``.

    ``errors`` counts the statements that did not parse; 0 says that the tree is CPython's.
    """

    types: NDArray[np.uint8]
    sizes: NDArray[np.uint32]
    functions: tuple[Function, ...]
    errors: int


def parse(source: str | bytes) -> Parsed:
    """Parse Python source, whole or broken.

    Grammar up to Python 3.13, and of Python 2 what differs: print, exec, backticks, ``except E, e``, ``raise E, v``.

    Parameters
    ----------
    source
        Text, or UTF-8 bytes.

    Raises
    ------
    InputError
        The text holds a lone surrogate, or is longer than 1 GiB. Nothing in a source is an error otherwise.
    """
    try:
        data = source.encode() if isinstance(source, str) else bytes(source)
        native = _native.ParsedSource(data)
    except (UnicodeEncodeError, ValueError) as error:
        raise InputError(f"cannot parse this source: {error}") from None
    types, sizes = native.types, native.sizes
    ascii_only = data.isascii()

    def character(byte: int) -> int:
        return byte if ascii_only else len(data[:byte].decode(errors="replace"))

    functions = []
    for f in native.functions.tolist():
        first, count, body_first, body_count, start, stop, whole = f
        functions.append(
            Function(
                character(start),
                character(stop),
                bool(whole),
                types[first : first + count],
                sizes[first : first + count],
                native.alpha(first, count),
                slice(body_first - first, body_first - first + body_count),
            )
        )
    return Parsed(types, sizes, tuple(functions), native.errors)


def distance(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    sizes: tuple[NDArray[Any], NDArray[Any]] | None = None,
    cutoff: int | None = None,
) -> int:
    """Edit distance of two sequences, or, with `sizes`, of the two trees they are the preorder of.

    Parameters
    ----------
    a, b
        Node types or alpha-normalised forms, shape (nodes,).
    sizes
        Subtree sizes of both: asks for the tree edit distance (Zhang and Shasha 1989; insert, delete and relabel cost
        one). The sequence distance never exceeds it.
    cutoff
        Sequences only: give up above it and return cutoff + 1, sooner.
    """
    left, right = a.astype(np.uint32), b.astype(np.uint32)
    if sizes is None:
        return _native.sequence_distance(left, right, cutoff)
    try:
        return _native.tree_distance(left, sizes[0].astype(np.uint32), right, sizes[1].astype(np.uint32))
    except ValueError as error:
        raise InputError(str(error)) from None


def match_rate(a: Function, b: Function, *, metric: Metric = "sequence", alpha: bool = False) -> float:
    """τ = 1 - d / max(n, m) of two functions: 1.0 where they differ in names, literals, comments and docstrings alone.

    Parameters
    ----------
    metric
        "sequence": edit distance of the preorder sequences, as the phi-1 paper measures. "tree": of the trees.
    alpha
        Compare alpha-normalised forms instead of node types: names may still differ, what they are used for may not.
    """
    if metric not in ("sequence", "tree"):
        raise InputError(f'metric "{metric}": give "sequence" or "tree"')
    left, right = (a.alpha, b.alpha) if alpha else (a.types, b.types)
    longest = max(len(left), len(right))
    if not longest:
        return 1.0
    return 1.0 - distance(left, right, sizes=(a.sizes, b.sizes) if metric == "tree" else None) / longest


def neighbours(
    items: Sequence[NDArray[np.uint8]] | Sequence[Function],
    functions: Sequence[NDArray[np.uint8]] | Sequence[Function],
    tau: float = 0.8,
    threads: int | None = None,
    *,
    metric: Metric = "sequence",
) -> NDArray[Any]:
    """All pairs of a function and an item with match rate τ or more, by node types; exact.

    Parameters
    ----------
    items, functions
        Sequences of node types, such as ``Function.types``, or functions themselves; the metric "tree" needs functions.
    tau
        Above 0, at most 1.
    threads
        All processors by default.
    metric
        "sequence": edit distance of the preorder sequences. "tree": of the trees; the pairs are those of the sequences,
        which are never further apart, looked at again.

    Returns
    -------
    structured ndarray, fields (query, item, distance) of uint32
        Places in `functions` and `items`, sorted.

    Raises
    ------
    InputError
        `tau` or `metric` is none, or an array is given where the metric needs a function.
    """
    if not 0 < tau <= 1:
        raise InputError(f"tau {tau}: give a match rate above 0 and at most 1")
    if metric not in ("sequence", "tree"):
        raise InputError(f'metric "{metric}": give "sequence" or "tree"')
    if metric == "tree":
        for one in (*items, *functions):
            if not isinstance(one, Function):
                raise InputError(f'metric "tree" compares functions as `parse` gives them, not {type(one).__name__}')
    workers = threads or os.cpu_count() or 1
    item_types, item_offsets = _joined(_types(items))
    queries = _types(functions)
    try:
        pairs = _native.TreeNeighbours(item_types, item_offsets).within_each(queries, tau, workers)
    except ValueError as error:
        raise InputError(str(error)) from None
    if metric == "sequence":
        return pairs
    # Only the functions that are in a pair have their trees compared, under their places among these.
    wanted, places = np.unique(pairs["query"], return_inverse=True)
    query_types, query_offsets = _joined([queries[place] for place in wanted])
    among = pairs.copy()
    among["query"] = places
    distances = _native.tree_distances(
        among,
        query_types,
        _sizes([functions[place] for place in wanted]),
        query_offsets,
        item_types,
        _sizes(items),
        item_offsets,
        workers,
    )
    pairs["distance"] = distances
    longest = np.maximum(np.diff(query_offsets)[places], np.diff(item_offsets)[pairs["item"]])
    kept: NDArray[Any] = pairs[1.0 - distances / longest >= tau - 1e-12]
    return kept


def _types(sequences: Sequence[Any]) -> Sequence[NDArray[np.uint8]]:
    # (A hundred thousand arrays scattered over memory are not worth a look each.)
    return [one.types for one in sequences] if sequences and isinstance(sequences[0], Function) else sequences


def _sizes(functions: Sequence[Any]) -> NDArray[np.uint32]:
    return np.concatenate([np.zeros(0, np.uint32), *(function.sizes for function in functions)])


def _joined(sequences: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    offsets = np.zeros(len(sequences) + 1, np.uint64)
    np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
    return np.concatenate([np.zeros(0, np.uint8), *sequences]).astype(np.uint8), offsets
