"""The ops that only move bytes: LayerNorm, the residual sum, rotary positions, bias and GELU.

Least bytes: each input read once, each output written once, the backward reading what it must of the forward again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phi_fast.bench.ops import OURS, Draw, Sizes, Work, op, rival
from phi_fast.kernels import layer_norm as norms
from phi_fast.kernels import mlp as mlps
from phi_fast.kernels import residual as residuals
from phi_fast.kernels import rotary as rotaries

EPS = 1e-5
_ROWS = (2048, 8192, 32768)


def _rows(width: int) -> list[dict[str, float]]:
    return [{"rows": rows, "width": width} for rows in _ROWS]


def _norm_inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    rows, width = int(sizes["rows"]), int(sizes["width"])
    return draw.normal(rows, width, mean=1, scale=2), draw.normal(width, mean=1), draw.normal(width), EPS


def norm_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """x, weight, bias in and y out; then dy, x, weight in and dx, dweight, dbias out."""
    all_rows, width = sizes["rows"] * sizes["width"], sizes["width"]
    return {
        "forward": Work(0, (2 * all_rows + 2 * width) * size),
        "backward": Work(0, (3 * all_rows + 3 * width) * size),
    }


@op(
    "layer_norm", inputs=_norm_inputs, cases=[*_rows(1024), *_rows(2048)], small=_rows(2048)[1:2], work=norm_work,
    interpreted=[{"rows": 37, "width": 128}, {"rows": 9, "width": 1030}],
)  # fmt: skip
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension."""
    return norms.reference(x, weight, bias, eps)


rival("layer_norm", name=OURS)(norms.layer_norm)


def _residual_inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    shape = int(sizes["rows"]), int(sizes["width"])
    x, attention, mlp = (draw.normal(*shape) for _ in range(3))
    seed = draw.integers(0, 2**31 - 1, 2)
    return x, attention, mlp, float(sizes["dropout"]), seed


def residual_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """Three in, one out; backward nothing without dropout (the gradient is passed on), else one in and two out."""
    all_rows = sizes["rows"] * sizes["width"]
    return {
        "forward": Work(0, 4 * all_rows * size),
        "backward": Work(0, 3 * all_rows * size if sizes["dropout"] else 0),
    }


_RESIDUAL: list[dict[str, float]] = [{"rows": rows, "width": 2048, "dropout": p} for p in (0.0, 0.1) for rows in _ROWS]


@op(
    "residual", inputs=_residual_inputs, cases=_RESIDUAL, small=[_RESIDUAL[1], _RESIDUAL[4]], work=residual_work,
    interpreted=[{"rows": 24, "width": 96, "dropout": p} for p in (0.0, 0.1)],
)  # fmt: skip
def _residual(x: Tensor, attention: Tensor, mlp: Tensor, p: float, seed: Tensor) -> Tensor:
    """x + dropout(attention) + dropout(mlp), masks by Philox from the seed."""
    return residuals.reference(x, attention, mlp, p, seed)


rival("residual", name=OURS)(residuals.residual)


def _rotary_inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    tokens, length = int(sizes["tokens"]), int(sizes["length"])
    shape = tokens // length, length, int(sizes["heads"]), int(sizes["head_dim"])
    cos, sin = rotaries.rotary_tables(length, int(sizes["rotary_dim"]), device=draw.device)
    return draw.normal(*shape), draw.normal(*shape), cos, sin


def rotary_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """q and k in and out, and the tables' fp32; backward the same of the gradients."""
    both = 2 * sizes["tokens"] * sizes["heads"] * sizes["head_dim"]
    work = Work(0, 2 * both * size + sizes["length"] * sizes["rotary_dim"] * 4)
    return {"forward": work, "backward": work}


_HEADS = {"length": 2048, "heads": 32, "head_dim": 64, "rotary_dim": 32}


@op(
    "rotary", inputs=_rotary_inputs, cases=[{"tokens": rows, **_HEADS} for rows in _ROWS], work=rotary_work,
    small=[{"tokens": 8192, **_HEADS}],
    interpreted=[
        {"tokens": 26, "length": 13, "heads": 3, "head_dim": 64, "rotary_dim": 32},
        {"tokens": 9, "length": 9, "heads": 2, "head_dim": 80, "rotary_dim": 80},
    ],
)  # fmt: skip
def _rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary positions on queries and keys."""
    return rotaries.reference(q, k, cos, sin)


rival("rotary", name=OURS)(rotaries.rotary)


def _gelu_inputs(sizes: Sizes, draw: Draw) -> Sequence[Tensor]:
    rows, width = int(sizes["rows"]), int(sizes["width"])
    return draw.normal(rows, width, scale=1.5), draw.normal(width, scale=0.5)


def gelu_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """x and bias in, y out; then dy, x and bias in, dx and dbias out."""
    all_rows, width = sizes["rows"] * sizes["width"], sizes["width"]
    return {"forward": Work(0, (2 * all_rows + width) * size), "backward": Work(0, (3 * all_rows + 2 * width) * size)}


@op(
    "bias_gelu", inputs=_gelu_inputs, cases=_rows(8192), small=_rows(8192)[1:2], work=gelu_work,
    interpreted=[{"rows": 21, "width": 300}],
)  # fmt: skip
def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """gelu(x + bias), tanh form."""
    return mlps.bias_gelu_reference(x, bias)


rival("bias_gelu", name=OURS)(mlps.bias_gelu)


@rival("bias_gelu", name="F.gelu")
def _f_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x + bias, approximate="tanh")
