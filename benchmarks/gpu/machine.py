"""Where a run takes place: the GPU, its driver, versions, and the rates everything is held against."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from phi_fast.bench import limits as rates
from phi_fast.bench.clock import Clock, clock_for

Value = dict[str, Any]


def environment() -> Value:
    """Describe the machine; `gpu` is "" where there is none."""
    found: Value = {
        "gpu": "",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "cuda": torch.version.cuda,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": card.name,
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory_gb": round(card.total_memory / 1e9, 1),
            "l2_mb": round(getattr(card, "L2_cache_size", 0) / 1e6, 1),
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return found


def _version(name: str) -> str:
    try:
        return str(__import__(name).__version__)
    except ImportError:
        return "not installed"


def limits() -> Value:
    """Measure copy rate and matrix product rates."""
    return dataclasses.asdict(rates.measure("cuda" if torch.cuda.is_available() else "cpu"))


class OneRun:
    """A rehearsal's clock: everything is run once, and what it says is no measurement."""

    def times(
        self, run: Callable[[Any], object], setup: Callable[[], Any] = lambda: None, budget: float = 0.0
    ) -> list[float]:
        """Give the milliseconds of one run."""
        given = setup()
        began = time.perf_counter()
        run(given)
        return [(time.perf_counter() - began) * 1e3]


def clock() -> Clock:
    """Give the GPU's clock, or a rehearsal's."""
    return clock_for("cuda") if torch.cuda.is_available() else OneRun()


def warm_up() -> Value:
    """Load what every task needs, so that no task's time holds it."""
    import phi_fast.bench.catalogue

    return {"modules": len(sys.modules), "ops": len(phi_fast.bench.catalogue.OPS)}
