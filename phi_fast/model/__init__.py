"""The phi architecture in plain PyTorch, Hugging Face checkpoints in and out.

>>> from phi_fast.model import Phi, PhiConfig
>>> model = Phi(PhiConfig.phi_1_small())  # doctest: +SKIP

Names are imported when they are first used: `PhiConfig` needs no torch, the others need the extra [train].
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from phi_fast.errors import InputError

if TYPE_CHECKING:
    from phi_fast.model.config import PhiConfig
    from phi_fast.model.documents import document_bounds
    from phi_fast.model.fused import FUSED
    from phi_fast.model.operations import PLAIN, Operations, Places
    from phi_fast.model.phi import Output, Phi

_HOME = {
    "FUSED": "fused",
    "PLAIN": "operations",
    "Operations": "operations",
    "Output": "phi",
    "Phi": "phi",
    "PhiConfig": "config",
    "Places": "operations",
    "document_bounds": "documents",
}

__all__ = ["FUSED", "PLAIN", "Operations", "Output", "Phi", "PhiConfig", "Places", "document_bounds"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "PhiConfig" and importlib.util.find_spec("torch") is None:
        raise InputError("the model needs torch, which is not installed: pip install 'phi-fast[train]'")
    return getattr(importlib.import_module(f"phi_fast.model.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
