"""Every kernel against every rival and against the chip's limit: ``phi-fast bench kernels``.

    from phi_fast.bench import op, rival

Names are imported when they are first used; they need the extra [train].
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from phi_fast.errors import InputError

if TYPE_CHECKING:
    from phi_fast.bench.catalogue import OPS
    from phi_fast.bench.ops import Case, Draw, Work, op, rival

__all__ = ["OPS", "Case", "Draw", "Work", "op", "rival"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("torch") is None:
        raise InputError("the benchmark needs torch, which is not installed: pip install 'phi-fast[train]'")
    # The catalogue, whichever is asked for: a rival joins an op that must be there.
    importlib.import_module("phi_fast.bench.catalogue")
    return getattr(importlib.import_module("phi_fast.bench.ops"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
