"""Thin, typed faces of the C++ engines; what notebooks and every stage use."""

from __future__ import annotations

from phi_fast.engines.ngram import NgramIndex, PartInfo

__all__ = ["NgramIndex", "PartInfo"]
