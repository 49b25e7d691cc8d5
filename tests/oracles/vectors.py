"""What nearest and within mean, in plain float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np


def squared(queries: Any, vectors: Any) -> Any:
    """All squared distances in float64 of what float32 holds."""
    a, b = np.asarray(queries, np.float32).astype(np.float64), np.asarray(vectors, np.float32).astype(np.float64)
    out = np.empty((len(a), len(b)))
    for row, one in enumerate(a):
        out[row] = ((one - b) ** 2).sum(axis=1)
    return out


def knn(queries: Any, vectors: Any, k: int) -> tuple[Any, Any]:
    """Distances and places of the k nearest; of equal ones the lower place first."""
    distances = squared(queries, vectors)
    places = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(distances, places, 1)), places


def within(queries: Any, vectors: Any, radius: float) -> list[tuple[int, int, float]]:
    """(query, vector, distance) of all pairs at most so far apart."""
    distances = squared(queries, vectors)
    return [(int(q), int(v), float(np.sqrt(distances[q, v]))) for q, v in np.argwhere(distances <= radius * radius)]
