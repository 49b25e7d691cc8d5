"""Exact L2 search: the k nearest vectors, or all within a radius, over arrays and files of any size, on all cores.

The smaller side is held in memory in pieces and packed; the larger is streamed from where it lies, so an `np.memmap`
is never loaded whole. What is found does not depend on threads, tiles or the machine's instruction set, up to the last
bit of a distance.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phi_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[str, int, int], None]
"""Told what is done ("compiling" or "searching"), rows done, and rows in all; may be called from any thread."""

PAIR = np.dtype([("query", "<u4"), ("vector", "<u8"), ("distance", "<f4")])
"""A pair within the radius, as `within` gives them."""

_MOST_DIM = 1 << 20  # with more, the slack for float32's rounding would leave nothing to gain
_ITEM_BYTES = 16 << 20  # of the packed side at a time: it stays in the last-level cache
_MOST_ITEMS = 8192
_STATE_BYTES = 64 << 20  # of what is remembered of queries, a thread
_BLOCK_WORK = 4e9  # multiplications between two looks at whether to stop
_BLOCK_BYTES = 32 << 20
_CONVERTED_BYTES = 4 << 20
_PENDING = 64


def knn(
    queries: NDArray[Any],
    vectors: NDArray[Any],
    k: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k nearest vectors of each query; exact.

    Parameters
    ----------
    queries, vectors
        Shapes (queries, dim) and (vectors, dim); arrays or memory maps. float32 is read where it lies, other numbers
        are converted to float32 piece by piece.
    k
        How many; at most as many as there are vectors.
    threads
        All usable cores by default.
    progress
        Called as ``progress(stage, rows done, rows in all)``.

    Returns
    -------
    distances : ndarray of float32, shape (queries, k)
        Euclidean, ascending; computed as the root of the sum of (a - b)² in float64.
    places : ndarray of int64, shape (queries, k)
        Rows of `vectors`; of equal distances the lower row comes first.

    Raises
    ------
    InputError
        Shapes or numbers of dimensions do not fit, k is out of range, or a row holds NaN or infinity (it is named).
    """
    queries, vectors = _sides(queries, vectors)
    if int(k) != k or not 1 <= k <= len(vectors):
        raise InputError(f"k {k}: give a whole number from 1 to {len(vectors):,}, as many vectors as there are")
    count, k = len(queries), int(k)
    if not count:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    search = _Search(queries, vectors, threads, progress)
    best = np.full((count, k), np.inf)
    places = np.full((count, k), np.iinfo(np.int64).max)
    if search.by_row:
        search.nearest_of_rows(best, places)
    else:
        search.nearest_of_items(best, places)
    return np.sqrt(best, out=best).astype(np.float32), places


def within(
    queries: NDArray[Any],
    vectors: NDArray[Any],
    radius: float,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """All pairs of a query and a vector at most `radius` apart; exact.

    Parameters
    ----------
    queries, vectors, threads, progress
        As for `knn`.
    radius
        Euclidean; the pairs at just this distance count. All that is found is held in memory.

    Returns
    -------
    structured ndarray, dtype `PAIR`: query (uint32), vector (uint64), distance (float32)
        Sorted by query, then vector.

    Raises
    ------
    InputError
        As for `knn`; or the radius is negative or no number.
    """
    queries, vectors = _sides(queries, vectors)
    radius = float(radius)
    if not radius >= 0:
        raise InputError(f"radius {radius}: give 0 or more")
    if len(queries) > np.iinfo(np.uint32).max:
        raise InputError(f"{len(queries):,} queries: give at most 4,294,967,295 at a time")
    if not len(queries) or not len(vectors):
        return np.zeros(0, PAIR)
    return _Search(queries, vectors, threads, progress).within(radius * radius)


class NearestNeighbors:
    """Nearest neighbours with scikit-learn's methods, by exact search.

    Parameters
    ----------
    n_neighbors, radius
        What `kneighbors` and `radius_neighbors` use unless told otherwise.
    metric
        "euclidean" (or "l2").
    threads
        All usable cores by default.
    """

    def __init__(
        self, n_neighbors: int = 5, radius: float = 1.0, metric: str = "euclidean", threads: int | None = None
    ) -> None:
        if metric not in ("euclidean", "l2"):
            raise InputError(f'metric "{metric}": this search knows "euclidean" alone')
        self.n_neighbors, self.radius, self.metric, self.threads = n_neighbors, radius, metric, threads

    def fit(self, X: NDArray[Any], y: object = None) -> NearestNeighbors:
        """Remember the vectors, shape (vectors, dim); nothing is copied. `y` is ignored."""
        self._vectors = _matrix(X, "X")
        self.n_samples_fit_, self.n_features_in_ = self._vectors.shape
        return self

    def kneighbors(
        self, Q: NDArray[Any], n_neighbors: int | None = None, return_distance: bool = True
    ) -> NDArray[np.int64] | tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distances and places of the nearest, both of shape (queries, n_neighbors); see `knn`."""
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        distances, places = knn(Q, self._fitted(), k, threads=self.threads)
        return (distances, places) if return_distance else places

    def radius_neighbors(
        self, Q: NDArray[Any], radius: float | None = None, return_distance: bool = True, sort_results: bool = False
    ) -> NDArray[np.object_] | tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Distances and places within the radius: an object array each, of one array a query; see `within`.

        In order of place, or of distance where `sort_results`.
        """
        Q = _matrix(Q, "queries")
        pairs = within(Q, self._fitted(), self.radius if radius is None else radius, threads=self.threads)
        if sort_results:
            pairs = pairs[np.lexsort((pairs["vector"], pairs["distance"], pairs["query"]))]
        ends = np.searchsorted(pairs["query"], np.arange(len(Q) + 1))
        distances, places = np.empty(len(Q), object), np.empty(len(Q), object)
        for query in range(len(Q)):
            mine = pairs[ends[query] : ends[query + 1]]
            distances[query], places[query] = mine["distance"].copy(), mine["vector"].astype(np.int64)
        return (distances, places) if return_distance else places

    def _fitted(self) -> NDArray[Any]:
        if not hasattr(self, "_vectors"):
            raise InputError("nothing to search in yet: call fit first")
        return self._vectors


def _matrix(given: Any, name: str) -> NDArray[Any]:
    matrix = np.asarray(given)
    if matrix.ndim != 2:
        raise InputError(f"{name}: give an array of shape (rows, dimensions), not {matrix.shape}")
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"{name}: give real numbers, not {matrix.dtype}")
    return matrix


def _sides(queries: Any, vectors: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    queries, vectors = _matrix(queries, "queries"), _matrix(vectors, "vectors")
    if queries.shape[1] != vectors.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]:,} dimensions and vectors {vectors.shape[1]:,}: they must have as many"
        )
    if not 1 <= queries.shape[1] <= _MOST_DIM:
        raise InputError(f"{queries.shape[1]:,} dimensions: give 1 to {_MOST_DIM:,}")
    return queries, vectors


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class _Items:
    """A piece of the smaller side: as it was, its squared norms, packed; the last two padded to whole registers."""

    first: int
    vectors: NDArray[np.float32]
    norms: NDArray[np.float32]
    packed: NDArray[np.float32]


class _Search:
    """One search: which side is streamed, in which blocks, by how many threads."""

    def __init__(
        self, queries: NDArray[Any], vectors: NDArray[Any], threads: int | None, progress: Progress | None
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads {threads}: give 1 or more")
        self.by_row = len(queries) > len(vectors)
        self.items, self.rows = (vectors, queries) if self.by_row else (queries, vectors)
        self._names = ("vectors", "queries") if self.by_row else ("queries", "vectors")
        self._progress = progress or (lambda stage, done, total: None)
        self._lock = threading.Lock()
        self._done = self._total = 0
        if "phi_fast.vectors._tiles" not in sys.modules:
            self._progress("compiling", 0, len(self.rows))
        try:
            from phi_fast.vectors import _tiles
        except ImportError as error:
            raise InputError(f"the search needs numba ({error}): pip install 'phi-fast[embed]'") from error

        self.tiles = _tiles
        self.dim = self.rows.shape[1]
        self.threads = min(threads or usable_cores(), max(1, -(-len(self.rows) // _tiles.TILE)))

    def nearest_of_items(self, best: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        """Queries are the items: every thread finds the k nearest among its rows; these are merged."""
        k = best.shape[1]
        most = max(1, _STATE_BYTES // (k * 24 + _PENDING * 16))
        for items in self._pieces(most):
            count = len(items.vectors)
            lows = np.empty_like(items.norms)
            self.tiles.item_bounds(items.norms, count, self.dim, np.inf, lows)
            states = [_state(count, k, count) for _ in range(self.threads)]
            low = [lows.copy() for _ in states]

            def search(
                thread: int, start: int, block: NDArray[np.float32], items: _Items = items, states: Any = states,
                low: Any = low,
            ) -> None:  # fmt: skip
                bad = self.tiles.nearest_block(
                    block.ctypes.data, block.strides[0] // 4, len(block), items.packed, items.vectors, items.norms,
                    low[thread], False, start, *states[thread],
                )  # fmt: skip
                self._refuse(1, start, bad)

            self._over_rows(len(items.vectors), search)
            found = np.concatenate([state[0] for state in states], 1)
            where = np.concatenate([state[1] for state in states], 1)
            order = np.lexsort((where, found))[:, :k]
            part = slice(items.first, items.first + count)
            best[part], places[part] = np.take_along_axis(found, order, 1), np.take_along_axis(where, order, 1)

    def nearest_of_rows(self, best: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        """Queries are the rows: each is one thread's."""
        k = best.shape[1]
        scratch = [_state(0, k, self.tiles.TILE)[4:] for _ in range(self.threads)]
        for items in self._pieces(_MOST_ITEMS):
            low = np.empty_like(items.norms)
            self.tiles.item_bounds(items.norms, len(items.vectors), self.dim, 0.0, low)

            def search(
                thread: int, start: int, block: NDArray[np.float32], items: _Items = items, low: Any = low
            ) -> None:
                mine = slice(start, start + len(block))
                bad = self.tiles.nearest_block(
                    block.ctypes.data, block.strides[0] // 4, len(block), items.packed, items.vectors, items.norms, low,
                    True, items.first, best[mine], places[mine], best[mine].copy(), best[mine, 0].copy(),
                    *scratch[thread],
                )  # fmt: skip
                self._refuse(1, start, bad)

            self._over_rows(len(items.vectors), search)
        self.tiles.sort_heaps(best, places)

    def within(self, limit: float) -> NDArray[Any]:
        """Pairs whose squared distance is at most `limit`."""
        parts: list[NDArray[Any]] = []
        item_side, row_side = ("vector", "query") if self.by_row else ("query", "vector")
        for items in self._pieces(_MOST_ITEMS):
            low = np.empty_like(items.norms)
            self.tiles.item_bounds(items.norms, len(items.vectors), self.dim, limit, low)
            room = max(1 << 16, 2 * self.tiles.TILE * len(items.vectors))
            buffers = [(np.empty((room, 2), np.int64), np.empty(room, np.float32)) for _ in range(self.threads)]

            def search(
                thread: int, start: int, block: NDArray[np.float32], items: _Items = items, buffers: Any = buffers,
                low: Any = low,
            ) -> None:  # fmt: skip
                hits, distances = buffers[thread]
                row = 0
                while row < len(block):
                    row, found, bad = self.tiles.within_block(
                        block.ctypes.data, block.strides[0] // 4, row, len(block), items.packed, items.vectors, low,
                        limit, hits, distances,
                    )  # fmt: skip
                    self._refuse(1, start, bad)
                    pairs = np.empty(found, PAIR)
                    pairs[item_side] = hits[:found, 0] + items.first
                    pairs[row_side] = hits[:found, 1] + start
                    pairs["distance"] = distances[:found]
                    parts.append(pairs)

            self._over_rows(len(items.vectors), search)
        pairs = np.concatenate(parts)
        return pairs[np.lexsort((pairs["vector"], pairs["query"]))]

    def _refuse(self, side: int, start: int, bad: int) -> None:
        if bad >= 0:
            raise InputError(
                f"row {start + bad:,} of the {self._names[side]} holds NaN, infinity or a number too large for "
                "float32: take it out, or mend what computed it"
            )

    def _pieces(self, most: int) -> Iterator[_Items]:
        tiles = self.tiles
        size = max(1, min(most, _MOST_ITEMS, _ITEM_BYTES // (4 * self.dim)))
        if size > tiles.PANEL:
            size -= size % tiles.PANEL
        self._total = len(self.rows) * -(-len(self.items) // size)
        for first in range(0, len(self.items), size):
            vectors = _converted(self.items[first : first + size]).copy()
            lanes = -(-len(vectors) // tiles.LANES) * tiles.LANES
            norms = np.full(lanes, np.inf, np.float32)
            bad = tiles.squared_norms(vectors.ctypes.data, len(vectors), self.dim, self.dim, norms)
            self._refuse(0, first, bad)
            packed = _aligned(lanes * self.dim)
            tiles.pack(vectors, packed)
            yield _Items(first, vectors, norms, packed)

    def _over_rows(self, items: int, search: Callable[[int, int, NDArray[np.float32]], None]) -> None:
        """Call ``search(thread, first row, block)`` for all blocks of rows; Ctrl-C ends it after the blocks in hand."""
        row_bytes = 4 * self.dim
        most = _BLOCK_BYTES if _as_it_lies(self.rows) else _CONVERTED_BYTES
        size = int(min(_BLOCK_WORK / (items * self.dim), most / row_bytes, len(self.rows) / self.threads))
        size = max(1, size // self.tiles.TILE) * self.tiles.TILE
        starts = iter(range(0, len(self.rows), size))
        errors: list[tuple[int, BaseException]] = []
        stop = threading.Event()

        def work(thread: int) -> None:
            while not stop.is_set():
                with self._lock:
                    start = next(starts, None)
                if start is None:
                    return
                try:
                    block = _converted(self.rows[start : start + size])
                    search(thread, start, block)
                    with self._lock:
                        self._done += len(block)
                        self._progress("searching", self._done, self._total)
                except BaseException as error:
                    errors.append((start, error))
                    stop.set()

        if self.threads == 1:
            work(0)
        else:
            workers = [threading.Thread(target=work, args=(thread,), daemon=True) for thread in range(self.threads)]
            try:
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()  # a signal interrupts this
            finally:
                stop.set()
                for worker in workers:
                    if worker.ident is not None:
                        worker.join(0.7)
        if errors:
            raise min(errors, key=lambda one: one[0])[1]


def _state(queries: int, k: int, slots: int) -> tuple[NDArray[Any], ...]:
    """What `nearest_block` remembers: best, places, bounds, limits, pending, least, waiting."""
    best, places = np.full((queries, k), np.inf), np.full((queries, k), np.iinfo(np.int64).max)
    room = (slots, _PENDING)
    return (
        best, places, best.copy(), np.full(queries, np.inf), np.empty(room, np.int64), np.empty(room),
        np.zeros(slots, np.int64),
    )  # fmt: skip


def _as_it_lies(array: NDArray[Any]) -> bool:
    return bool(
        array.dtype == np.float32 and array.strides[1] == 4 and array.strides[0] % 4 == 0 and array.flags.aligned
    )


def _converted(block: NDArray[Any]) -> NDArray[np.float32]:
    if _as_it_lies(block):
        return block
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(block, np.float32)


def _aligned(count: int) -> NDArray[np.float32]:
    """An array that begins at a cache line."""
    raw = np.empty(4 * count + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + 4 * count].view(np.float32)
