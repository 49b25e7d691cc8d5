"""The search over tiles, compiled by numba: importing this compiles it, or loads what was compiled before.

One side is packed (the *items*: few, held in panels), the other is streamed row by row from where it lies (the *rows*:
many). A pair is a candidate where its inner product, in float32, is not below ``low[item] + half[row]``; the two are
made so that no pair within the limit can fall below. Candidates are decided by the sum of (a - b)² in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types

from phi_fast.vectors._micro import (
    FORCED,
    LANES,
    ROWS,
    UNROLL,
    WIDE,
    float_pointer,
    lowest_bit,
    mask_of,
    seed,
    tile_1,
    tile_2,
    tile_3,
)

PANEL = WIDE * LANES
TILE = 16 * ROWS  # rows whose candidates are looked for together: they stay in the second-level cache meanwhile
UNIT = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-125  # covers what is lost below the normal numbers, for every element of an inner product
HUGE = 1e36  # squared norms from here on leave float32 no room: such vectors are candidates always


def _can_keep() -> bool:
    """Whether numba finds a folder to keep what it compiles in."""
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


# Numba keeps what it compiled for a machine until this file changes: change it together with _micro.py.
_KEEP = FORCED is None and _can_keep()
_compiled = njit(nogil=True, cache=_KEEP)
_whole, _floats, _wholes = types.int64, types.float32[::1], types.int64[::1]
_grid, _exact, _numbers = types.float32[:, ::1], types.float64[:, ::1], types.int64[:, ::1]


def _entry(*takes: Any) -> Any:
    """Compile for these arguments now, not when it is first called."""
    return njit(takes, nogil=True, cache=_KEEP)


_sums = njit(nogil=True, cache=_KEEP, fastmath={"reassoc", "contract"})


@_sums
def _square_sum(vector: Any) -> Any:
    total = np.float32(0)
    for k in range(vector.shape[0]):
        total += vector[k] * vector[k]
    return total


@_sums
def _square_sum_64(vector: Any) -> Any:
    total = 0.0
    for k in range(vector.shape[0]):
        value = np.float64(vector[k])
        total += value * value
    return total


@_sums
def _distance(a: Any, b: Any) -> Any:
    """Sum of (a - b)² in float64."""
    total = 0.0
    for k in range(a.shape[0]):
        difference = np.float64(a[k]) - np.float64(b[k])
        total += difference * difference
    return total


@_compiled
def _rounded_down(value: float) -> Any:
    """A float32 that, added to another such in float32, never exceeds the exact sum."""
    return np.float32(value - abs(value) * (4 * UNIT))


@_compiled
def slack(dim: int) -> float:
    """What float32 can be off by, as a share of |a|² + |b|², in |a|² + |b|² - 2ab.

    Inner product and squared norms have a relative error of at most g = n u / (1 - n u), for n additions in any order
    (Higham 2002, section 3.1), so the whole is within 2 g / (1 - g) of what was computed.
    """
    terms = (dim + 16) * UNIT
    return 2 * terms / (1 - 2 * terms)


@_entry(_whole, _whole, _whole, _whole, _floats)
def squared_norms(address: int, rows: int, stride: int, dim: int, norms: Any) -> int:
    """Squared norms in float32, infinite where too large for it; gives the first row that holds no number, or -1."""
    for row in range(rows):
        vector = carray(float_pointer(address + row * stride * 4), (dim,))
        norms[row] = _square_sum(vector)
        if not norms[row] < HUGE:
            if not np.isfinite(_square_sum_64(vector)):
                return row
            norms[row] = np.inf
    return -1


@_compiled
def half_bound(norm: Any, dim: int, error: float, limit: float) -> Any:
    """What a vector adds to the bound: (|a|² (1 - ε) - limit) / 2 and less, -inf where it is a candidate always."""
    if norm == np.inf or limit == np.inf:
        return np.float32(-np.inf)
    return _rounded_down((norm * (1.0 - error) - limit * (1 + 8 * UNIT)) / 2 - dim * TINY)


@_entry(_floats, _whole, _whole, types.float64, _floats)
def item_bounds(norms: Any, count: int, dim: int, limit: float, low: Any) -> None:
    """`half_bound` of every item; what is no item is never a candidate."""
    error = slack(dim)
    for item in range(low.shape[0]):
        low[item] = half_bound(norms[item], dim, error, limit) if item < count else np.float32(np.inf)


@_entry(_grid, _floats)
def pack(vectors: Any, packed: Any) -> None:
    """Lay vectors out in panels: element k of all its lanes, then element k + 1. What is no vector is 0."""
    count, dim = vectors.shape
    lanes = packed.shape[0] // dim
    for first in range(0, lanes, PANEL):
        width = min(PANEL, lanes - first)
        base = first * dim
        for lane in range(width):
            item = first + lane
            for k in range(dim):
                packed[base + k * width + lane] = vectors[item, k] if item < count else np.float32(0)


@_compiled
def _tile(width: int, panel: int, rows: int, stride: int, dim: int, present: int, low: int, half: int, sums: int,
          masks: int, ahead: int) -> int:  # fmt: skip
    if width == LANES:
        return tile_1(panel, rows, stride, dim, present, low, half, sums, masks, ahead)
    if width == 2 * LANES:
        return tile_2(panel, rows, stride, dim, present, low, half, sums, masks, ahead)
    return tile_3(panel, rows, stride, dim, present, low, half, sums, masks, ahead)


@_entry(_whole, _whole, _whole, _whole, _floats, _grid, _floats, types.float64, _numbers, _floats)
def within_block(
    address: int, stride: int, begin: int, rows: int, packed: Any, items: Any, low: Any, limit: float, hits: Any,
    distances: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Pairs whose squared distance is at most `limit`.

    Looks at the rows from `begin` on until all are done or `hits` might overflow. Gives the next row, the number of
    hits, and the first row that holds no number, or -1. ``hits[n]`` is (item, row).
    """
    count, dim = items.shape
    lanes = packed.shape[0] // dim
    norms, half = np.empty(TILE, np.float32), np.zeros(TILE + ROWS, np.float32)
    sums, masks = np.empty(ROWS * PANEL, np.float32), np.empty(ROWS * WIDE, np.int32)
    step, error = (dim // UNROLL) * 64, slack(dim)
    found = 0
    for start in range(begin, rows, TILE):
        size = min(TILE, rows - start)
        if found + size * count > hits.shape[0]:
            return start, found, -1
        base = address + start * stride * 4
        bad = squared_norms(base, size, stride, dim, norms)
        if bad >= 0:
            return start, found, start + bad
        for row in range(size):
            half[row] = half_bound(norms[row], dim, error, 0.0)
        ahead, end = base + size * stride * 4, base + min(2 * TILE, rows - start) * stride * 4
        for first in range(0, lanes, PANEL):
            width = min(PANEL, lanes - first)
            wide = width // LANES
            panel, lows = packed.ctypes.data + first * dim * 4, low.ctypes.data + first * 4
            for group in range(0, size, ROWS):
                present = min(ROWS, size - group)
                fetched = ahead if ahead < end else panel
                ahead += step
                if not _tile(
                    width, panel, base + group * stride * 4, stride, dim, present, lows, half.ctypes.data + group * 4,
                    sums.ctypes.data, masks.ctypes.data, fetched,
                ):  # fmt: skip
                    continue
                for row in range(group, group + present):
                    vector = carray(float_pointer(base + row * stride * 4), (dim,))
                    for register in range(wide):
                        bits = masks[(row - group) * wide + register]
                        while bits:
                            item = first + register * LANES + lowest_bit(bits)
                            bits &= bits - 1
                            if item < count:
                                exact = _distance(items[item], vector)
                                if exact <= limit:
                                    hits[found, 0] = item
                                    hits[found, 1] = start + row
                                    distances[found] = np.float32(np.sqrt(exact))
                                    found += 1
    return rows, found, -1


@_compiled
def _sift(values: Any, places: Any, value: float, place: int) -> None:
    """Put a pair in the place of the heap's greatest."""
    size = values.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            values[right] > values[child] or (values[right] == values[child] and places[right] > places[child])
        ):
            child = right
        if values[child] < value or (values[child] == value and places[child] <= place):
            break
        values[at], places[at] = values[child], places[child]
        at = child
    values[at], places[at] = value, place


@_entry(_exact, _numbers)
def sort_heaps(best: Any, places: Any) -> None:
    """Turn every heap of (distance, place) into a list in ascending order."""
    k = best.shape[1]
    for query in range(best.shape[0]):
        for last in range(k - 1, 0, -1):
            value, place = best[query, last], places[query, last]
            best[query, last], places[query, last] = best[query, 0], places[query, 0]
            _sift(best[query, :last], places[query, :last], value, place)


@_compiled
def _sift_value(values: Any, value: float) -> None:
    size = values.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and values[child + 1] > values[child]:
            child += 1
        if values[child] <= value:
            break
        values[at] = values[child]
        at = child
    values[at] = value


@_compiled
def _settle(
    query: int, slot: int, other: int, pending: Any, least: Any, waiting: Any, best: Any, places: Any, bounds: Any,
    limits: Any, items: Any, address: int, stride: int, by_row: bool,
) -> None:  # fmt: skip
    """Decide a query's waiting candidates by their exact distances. `other` is added to the other side's place."""
    dim = items.shape[1]
    distances, numbers, limit = best[query], places[query], limits[query]
    for n in range(waiting[slot]):
        if least[slot, n] <= limit:
            item, row = (pending[slot, n], query) if by_row else (query, pending[slot, n])
            exact = _distance(items[item], carray(float_pointer(address + row * stride * 4), (dim,)))
            place = pending[slot, n] + other
            if exact < distances[0] or (exact == distances[0] and place < numbers[0]):
                _sift(distances, numbers, exact, place)
                limit = min(limit, distances[0])
    waiting[slot] = 0
    bounds[query] = distances  # all that could be nearer is among the best now
    limits[query] = distances[0]


@_entry(
    _whole, _whole, _whole, _floats, _grid, _floats, _floats, types.boolean, _whole, _exact, _numbers, _exact,
    types.float64[::1], _numbers, _exact, _wholes,
)  # fmt: skip
def nearest_block(
    address: int, stride: int, rows: int, packed: Any, items: Any, norms_of_items: Any, low: Any, by_row: bool,
    other: int, best: Any, places: Any, bounds: Any, limits: Any, pending: Any, least: Any, waiting: Any,
) -> int:  # fmt: skip
    """The k nearest, over one block of rows; gives the first row that holds no number, or -1.

    Queries are the rows where `by_row`, else the items; the places of the other side begin at `other`. For each query
    ``best`` and ``places`` are a heap of the k exact (squared distance, place) so far, ``bounds`` a heap of k upper
    bounds of distances, and ``limits`` the least known bound of the k-th distance. ``pending`` and ``least`` (a lower
    bound) hold ``waiting`` candidates not decided yet, of items or of a tile's rows; none is left at the end.
    """
    count, dim = items.shape
    lanes = packed.shape[0] // dim
    error, room, k = slack(dim), pending.shape[1], best.shape[1]
    widest = np.float64(0)  # the greatest norm in the first panel
    for item in range(min(PANEL, count)):
        widest = max(widest, np.float64(norms_of_items[item]))
    # A bound of the k-th distance from the first panel at once, where all of it would be candidates else.
    seeded = by_row and k <= LANES and widest < np.inf
    norms, half = np.empty(TILE, np.float32), np.zeros(TILE + ROWS, np.float32)
    sums, masks = np.empty(ROWS * PANEL, np.float32), np.empty(ROWS * WIDE, np.int32)
    step = (dim // UNROLL) * 64
    for start in range(0, rows, TILE):
        size = min(TILE, rows - start)
        base = address + start * stride * 4
        bad = squared_norms(base, size, stride, dim, norms)
        if bad >= 0:
            return start + bad
        for row in range(size):
            half[row] = half_bound(norms[row], dim, error, limits[start + row] if by_row else 0.0)
        ahead, end = base + size * stride * 4, base + min(2 * TILE, rows - start) * stride * 4
        for first in range(0, lanes, PANEL):
            width = min(PANEL, lanes - first)
            wide = width // LANES
            panel, lows = packed.ctypes.data + first * dim * 4, low.ctypes.data + first * 4
            seeding = seeded and first == 0
            for group in range(0, size, ROWS):
                present = min(ROWS, size - group)
                fetched = ahead if ahead < end else panel
                ahead += step
                if not _tile(
                    width, panel, base + group * stride * 4, stride, dim, present, lows, half.ctypes.data + group * 4,
                    sums.ctypes.data, masks.ctypes.data, fetched,
                ):  # fmt: skip
                    continue
                for row in range(group, group + present):
                    line = (row - group) * width
                    query, target = start + row, 0
                    if seeding and norms[row] < np.inf:
                        kth = seed(sums.ctypes.data + line * 4, norms_of_items.ctypes.data, wide, k)
                        if kth < np.inf:
                            most = np.float64(kth) + norms[row]
                            off = (error + 8 * UNIT) * (norms[row] + widest) + 4 * dim * TINY
                            limits[query] = min(limits[query], most + 2 * off)
                            half[row] = half_bound(norms[row], dim, error, limits[query])
                            for register in range(wide):
                                masks[(row - group) * wide + register] = mask_of(
                                    sums.ctypes.data + (line + register * LANES) * 4, lows + register * LANES * 4,
                                    half[row],
                                )  # fmt: skip
                    for register in range(wide):
                        bits = masks[(row - group) * wide + register]
                        while bits:
                            lane = register * LANES + lowest_bit(bits)
                            bits &= bits - 1
                            item = first + lane
                            if item >= count:
                                continue
                            if by_row:
                                target = item
                            else:
                                query, target = item, start + row
                            both = np.float64(norms_of_items[item]) + norms[row]
                            lowest, highest = -np.inf, np.inf
                            if both < np.inf:
                                about = both - 2.0 * sums[line + lane]
                                off = error * both + 2 * dim * TINY
                                lowest, highest = about - off, about + off
                            if lowest > limits[query]:
                                continue
                            slot = row if by_row else item
                            if waiting[slot] == room:
                                _settle(
                                    query, slot, other, pending, least, waiting, best, places, bounds, limits, items,
                                    address, stride, by_row,
                                )  # fmt: skip
                            pending[slot, waiting[slot]] = target
                            least[slot, waiting[slot]] = lowest
                            waiting[slot] += 1
                            if highest < bounds[query, 0]:
                                _sift_value(bounds[query], highest)
                                if bounds[query, 0] < limits[query]:
                                    limits[query] = bounds[query, 0]
                                    if by_row:
                                        half[row] = half_bound(norms[row], dim, error, limits[query])
                                    else:
                                        low[item] = half_bound(norms_of_items[item], dim, error, limits[query])
        if by_row:  # while the rows are in the cache
            for row in range(size):
                _settle(
                    start + row, row, other, pending, least, waiting, best, places, bounds, limits, items, address,
                    stride, by_row,
                )  # fmt: skip
    if not by_row:
        for item in range(count):
            if waiting[item]:
                _settle(
                    item, item, other, pending, least, waiting, best, places, bounds, limits, items, address, stride,
                    by_row,
                )  # fmt: skip
                low[item] = half_bound(norms_of_items[item], dim, error, limits[item])
    return -1
