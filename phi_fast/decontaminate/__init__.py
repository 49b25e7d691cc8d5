"""Take out of a corpus what leaks a benchmark: evidence, policy, verdicts, clean corpus, report.

This package is called like a function, see :func:`phi_fast.decontaminate.run.decontaminate`::

    import phi_fast

    run = phi_fast.decontaminate("corpus/*.jsonl", "humaneval", "run")
    run.evidence().to_pandas()
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi_fast.decontaminate.decide import redecide
    from phi_fast.decontaminate.policy import Policy, make_policy
    from phi_fast.decontaminate.record import Run
    from phi_fast.decontaminate.reproduce import reproduce_run
    from phi_fast.decontaminate.run import decontaminate

__all__ = ["Policy", "Run", "decontaminate", "make_policy", "redecide", "reproduce_run"]

_HOME = {
    "Policy": "policy",
    "Run": "record",
    "decontaminate": "run",
    "make_policy": "policy",
    "redecide": "decide",
    "reproduce_run": "reproduce",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


class _CallablePackage(ModuleType):
    """A package that can be called.

    ``phi_fast.decontaminate`` is both the public function and this package: the import system binds the package to that
    name as soon as any of its modules is imported, over whatever function stood there. So the package itself is made
    callable, and both ``phi_fast.decontaminate(...)`` and ``phi_fast.decontaminate.policy`` always work.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from phi_fast.decontaminate.run import decontaminate

        return decontaminate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
