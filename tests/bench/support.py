"""A small op, which runs anywhere, and rows made by hand."""

from __future__ import annotations

from typing import Any

import torch

from phi_fast.bench.ops import OPS, OURS, Draw, Op, Sizes, Work, op, rival
from phi_fast.bench.rows import Row

ROW = Row("softmax", "rows 4, width 8", "fp32", "forward", OURS, machine="M", versions="V", date="2026-11-24")


def _inputs(sizes: Sizes, draw: Draw) -> list[torch.Tensor]:
    return [draw.normal(int(sizes["rows"]), int(sizes["width"]))]


def _work(sizes: Sizes, size: int) -> dict[str, Work]:
    elements = sizes["rows"] * sizes["width"] * size
    return {"forward": Work(0, 2 * elements), "backward": Work(0, 3 * elements)}


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Softmax over the last dimension."""
    return x.softmax(-1)


def make_op(**changes: Any) -> Op:
    """Register "softmax", with an implementation called phi_fast that is PyTorch's."""
    cases = [{"rows": 4, "width": 8}, {"rows": 16, "width": 8}]
    op("softmax", **({"inputs": _inputs, "cases": cases, "interpreted": cases, "work": _work} | changes))(softmax)
    rival("softmax", name=OURS)(lambda x: torch.softmax(x, -1))
    OPS["softmax"].own = False  # as one of the catalogue's
    return OPS["softmax"]


class FakeClock:
    """Calls once and says each of ten milliseconds."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def times(self, run: Any, setup: Any = lambda: None, budget: float = 0.0) -> list[float]:
        given = setup()
        self.calls.append("after a forward" if given is not None else "alone")
        run(given)
        return [float(one) for one in (10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11)]
