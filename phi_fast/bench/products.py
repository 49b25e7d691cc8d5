"""The ops that are made of matrix products: the MLP, its first half in one kernel, and the loss head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from phi_fast.bench.ops import OURS, Case, Draw, Sizes, Work, op, rival
from phi_fast.kernels import cross_entropy as losses
from phi_fast.kernels import mlp as mlps

_ROWS = (2048, 8192, 32768)
_CHECKED = 2048  # rows whose error is measured: fp64 products of more would take longer than all that is timed


def _cases(**rest: float) -> list[Case]:
    return [Case({"rows": rows, **rest}, {"rows": _CHECKED, **rest}) for rows in _ROWS]


def _weight(draw: Draw, out: int, width: int) -> Tensor:
    return draw.normal(out, width, scale=width**-0.5)


def _linear_inputs(sizes: Sizes, draw: Draw) -> Sequence[Tensor]:
    rows, width, out = (int(sizes[name]) for name in ("rows", "width", "out"))
    return draw.normal(rows, width), _weight(draw, out, width), draw.normal(out, scale=0.5)


def linear_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """One product forward, two backward; x, weight, bias and y; then dy, x, weight, bias and three gradients."""
    rows, width, out = sizes["rows"], sizes["width"], sizes["out"]
    x, weight, y = rows * width, out * width, rows * out
    return {
        "forward": Work(2 * rows * width * out, (x + weight + out + y) * size),
        "backward": Work(4 * rows * width * out, (y + 2 * x + 2 * weight + 2 * out) * size),
    }


_LINEAR = _cases(width=2048, out=8192)


@op(
    "linear_bias_gelu", inputs=_linear_inputs, cases=_LINEAR, small=_LINEAR[1:2], work=linear_work,
    interpreted=[{"rows": 70, "width": 96, "out": 140}],
)  # fmt: skip
def _linear_bias_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x weight^T + bias)."""
    return mlps.linear_bias_gelu_reference(x, weight, bias)


rival("linear_bias_gelu", name=OURS)(mlps.linear_bias_gelu)


def _mlp_inputs(sizes: Sizes, draw: Draw) -> Sequence[Tensor]:
    rows, width, inner = (int(sizes[name]) for name in ("rows", "width", "inner"))
    return (
        draw.normal(rows, width), _weight(draw, inner, width), draw.normal(inner, scale=0.5),
        _weight(draw, width, inner), draw.normal(width, scale=0.5),
    )  # fmt: skip


def mlp_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """Two products forward, four backward; x, both layers and y; then dy, x, both layers but bias2, five gradients."""
    rows, width, inner = sizes["rows"], sizes["width"], sizes["inner"]
    x, weights = rows * width, 2 * width * inner
    return {
        "forward": Work(4 * x * inner, (2 * x + weights + inner + width) * size),
        "backward": Work(8 * x * inner, (3 * x + 2 * weights + 2 * inner + width) * size),
    }


_MLP = _cases(width=2048, inner=8192)


@op(
    "mlp", inputs=_mlp_inputs, cases=_MLP, small=_MLP[1:2], work=mlp_work,
    interpreted=[{"rows": 40, "width": 64, "inner": 256}],
)  # fmt: skip
def _mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """The feed-forward branch: linear, GELU, linear."""
    return mlps.reference(x, weight1, bias1, weight2, bias2)


rival("mlp", name=OURS)(mlps.mlp)


def _loss_inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    rows, width, words = (int(sizes[name]) for name in ("rows", "width", "vocabulary"))
    labels = draw.integers(0, words, rows)
    labels[::17] = -100
    return draw.normal(rows, width), _weight(draw, words, width), draw.normal(words, scale=0.1), labels


def loss_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """One product forward, three with gradients, which may come in one pass: each tensor in, each gradient out."""
    rows, width, words = sizes["rows"], sizes["width"], sizes["vocabulary"]
    tensors, product = (rows * width + words * width + words) * size, 2 * rows * width * words
    return {
        "forward": Work(product, tensors + rows * 8 + 4),
        "both": Work(3 * product, 2 * tensors + rows * 8 + 4),
    }


_LOSS = _cases(width=2048, vocabulary=51200)


@op(
    "cross_entropy", inputs=_loss_inputs, cases=_LOSS, small=_LOSS[1:2], work=loss_work, passes=("forward", "both"),
    interpreted=[{"rows": 50, "width": 64, "vocabulary": 1000}],
)  # fmt: skip
def _cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """The head and its loss; gradients belong to the forward of some, so backward alone is not timed."""
    return losses.reference(hidden, weight, bias, labels)


rival("cross_entropy", name=OURS)(losses.linear_cross_entropy)
