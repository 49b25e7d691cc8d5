"""phi_fast: decontaminate a code corpus against benchmarks, fast and with evidence.

>>> import phi_fast
>>> run = phi_fast.decontaminate("corpus/", "humaneval", "run")  # doctest: +SKIP

Names are imported when they are first used, so ``import phi_fast`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi_fast import errors
    from phi_fast.decontaminate.run import decontaminate
    from phi_fast.engines.ngram import NgramIndex
    from phi_fast.model.accelerate import accelerate, restore
    from phi_fast.suites import load_suite

    __version__: str

__all__ = ["NgramIndex", "__version__", "accelerate", "decontaminate", "errors", "load_suite", "restore"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("phi_fast")
    if name == "NgramIndex":
        return importlib.import_module("phi_fast.engines.ngram").NgramIndex
    if name == "load_suite":
        return importlib.import_module("phi_fast.suites").load_suite
    if name in ("accelerate", "restore"):
        for needed in ("torch", "transformers"):
            if importlib.util.find_spec(needed) is None:
                from phi_fast.errors import InputError

                raise InputError(f"{name} needs {needed}, which is not installed: pip install 'phi-fast[train]'")
        return getattr(importlib.import_module("phi_fast.model.accelerate"), name)
    if name in ("decontaminate", "errors"):
        return importlib.import_module(f"phi_fast.{name}")  # the package is callable: see its __init__
    if name == "_native" and importlib.util.find_spec("phi_fast._native") is None:
        raise ImportError(
            f"phi_fast in {__path__[0]} has no compiled engines: this is its source, not what was installed. "
            "Run Python from another folder, or install the source in place with: pip install -e ."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
