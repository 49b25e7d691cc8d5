"""Embedding models, stores of vectors, and exact L2 search.

>>> from phi_fast import vectors
>>> distances, places = vectors.knn(queries, corpus, 5)  # doctest: +SKIP

Names are imported when they are first used: ``import phi_fast.vectors`` loads neither numba nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi_fast.vectors.models import Embedder
    from phi_fast.vectors.search import NearestNeighbors, knn, within
    from phi_fast.vectors.store import VectorStore, embed_to, open_vectors

_HOME = {
    "Embedder": "models",
    "NearestNeighbors": "search",
    "VectorStore": "store",
    "embed_to": "store",
    "knn": "search",
    "open_vectors": "store",
    "within": "search",
}

__all__ = ["Embedder", "NearestNeighbors", "VectorStore", "embed_to", "knn", "open_vectors", "within"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"phi_fast.vectors.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
