"""phi's parallel block: one LayerNorm feeds attention and MLP at once, and one matrix product each way serves both.

    y         = LayerNorm(x)
    q|k|v|h   = y W_in^T + b_in,        W_in  = [q; k; v; fc1] along rows
    a         = attention(rotary(q), rotary(k), v),   g = gelu_tanh(h)
    block     = x + [a|g] W_out^T + b,  W_out = [dense | fc2] along columns

`block` is the op and `reference` its definition in plain PyTorch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.kernels import attention as attention_op
from phi_fast.kernels import layer_norm, residual, rotary
from phi_fast.kernels._common import new_seed
from phi_fast.kernels.attention import document_bounds
from phi_fast.kernels.block_weights import BlockWeights

__all__ = ["BlockWeights", "block", "document_bounds", "reference"]


def block(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    *,
    heads: int,
    eps: float = 1e-5,
    positions: Tensor | None = None,
    bounds: Tensor | None = None,
    attention_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    seed: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute the block; the arguments are those of `reference`."""
    return reference(
        x, weights, cos, sin, heads=heads, eps=eps, positions=positions, bounds=bounds,
        attention_dropout=attention_dropout, residual_dropout=residual_dropout, seed=seed, compute_dtype=compute_dtype,
    )  # fmt: skip


def reference(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    *,
    heads: int,
    eps: float = 1e-5,
    positions: Tensor | None = None,
    bounds: Tensor | None = None,
    attention_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    seed: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Define `block` in plain PyTorch, product by product; the arguments are the same, and so are the masks of a seed.

    Products are taken and rounded in `compute_dtype`; LayerNorm, rotation, softmax and the last sum in at least
    float32.
    """
    dtype = x.dtype if compute_dtype is None else compute_dtype
    if seed is None and (attention_dropout > 0 or residual_dropout > 0):
        seed = new_seed(x.device)
    with torch.autocast(x.device.type, enabled=False):
        w = BlockWeights(*weights[:2], *(one.to(dtype) for one in weights[2:]))
        y = layer_norm.reference(x, w.norm_weight, w.norm_bias, eps).to(dtype)
        q, k, v = (
            F.linear(y, weight, bias).unflatten(-1, (heads, -1))
            for weight, bias in ((w.q_weight, w.q_bias), (w.k_weight, w.k_bias), (w.v_weight, w.v_bias))
        )
        q, k = rotary.reference(q, k, cos, sin, positions=positions)
        attended = attention_op.reference(q, k, v, bounds=bounds, dropout=attention_dropout, seed=seed)
        attended = F.linear(attended.flatten(-2), w.dense_weight, w.dense_bias)
        transformed = F.gelu(F.linear(y, w.fc1_weight, w.fc1_bias), approximate="tanh")
        transformed = F.linear(transformed, w.fc2_weight, w.fc2_bias)
        return residual.reference(
            x, attended, transformed, residual_dropout, None if seed is None else residual_seed(seed)
        )


def residual_seed(seed: Tensor) -> Tensor:
    """Give the seed of the residual's masks, another than attention's, which `seed` itself rules."""
    return seed + 1
