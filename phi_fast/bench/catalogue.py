"""All ops with all who compute them: importing this fills `OPS`."""

from __future__ import annotations

from phi_fast.bench import attentions, blocks, memory_bound, products, rivals
from phi_fast.bench.ops import OPS

__all__ = ["OPS", "attentions", "blocks", "memory_bound", "products", "rivals"]
