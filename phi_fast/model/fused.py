"""The operations of `operations`, from the kernels: what `Phi(config, ops=FUSED)` is computed with.

On CUDA tensors Triton runs, elsewhere the kernels' references in plain PyTorch. Under autocast products are taken in
its type, as PyTorch takes them; the stream, LayerNorm and the loss stay in theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from phi_fast.kernels import attention as attention_kernel
from phi_fast.kernels import block as block_kernel
from phi_fast.kernels import cross_entropy as cross_entropy_kernel
from phi_fast.kernels import layer_norm as layer_norm_kernel
from phi_fast.kernels import mlp as mlp_kernel
from phi_fast.kernels import residual as residual_kernel
from phi_fast.kernels import rotary as rotary_kernel
from phi_fast.model.operations import IGNORED, Operations, Places


def prepare(places: Places) -> Places:
    """Make what every block's attention needs of the places.

    Returns
    -------
    Places
        With `cos` and `sin`, (T, rotary_dim / 2) float32 tables; `positions` int32; and `bounds`, int32 (2, B · T),
        where each token's document begins and ends, None where every row is one document.
    """
    device, length = places.positions.device, places.positions.shape[-1]
    cos, sin = rotary_kernel.rotary_tables(length, places.rotary_dim, places.rope_theta, device)
    bounds = None
    if places.cu_seqlens is not None:
        bounds = attention_kernel.document_bounds(places.cu_seqlens, places.positions.numel())
    return dataclasses.replace(places, positions=places.positions.int(), cos=cos, sin=sin, bounds=bounds)


def product_dtype(x: Tensor) -> torch.dtype:
    """The type matrix products of `x` are taken in: autocast's where that is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `operations.layer_norm`."""
    return layer_norm_kernel.layer_norm(x, weight, bias, eps)


def attention(q: Tensor, k: Tensor, v: Tensor, places: Places, dropout: float) -> Tensor:
    """See `operations.attention`."""
    q, k = rotate(q, k, places)
    return attend(q, k, v, places, dropout)


def rotate(q: Tensor, k: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """The first half of `attention`: queries and keys turned by their positions."""
    assert places.cos is not None and places.sin is not None, "places that went through prepare"
    positions = None if places.bounds is None else places.positions
    return rotary_kernel.rotary(q, k, places.cos, places.sin, positions=positions)


def attend(q: Tensor, k: Tensor, v: Tensor, places: Places, dropout: float) -> Tensor:
    """The second half of `attention`."""
    return attention_kernel.attention(q, k, v, bounds=places.bounds, dropout=dropout)


def mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """See `operations.mlp`."""
    dtype = product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        given = (one.to(dtype) for one in (x, weight1, bias1, weight2, bias2))
        return mlp_kernel.mlp(*given)


def residual(x: Tensor, attended: Tensor, transformed: Tensor, dropout: float) -> Tensor:
    """See `operations.residual`."""
    return residual_kernel.residual(x, attended.to(x.dtype), transformed.to(x.dtype), dropout)


def cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, num_items: Tensor | int | None = None
) -> Tensor:
    """See `operations.cross_entropy`; the logits never stand in memory all at once."""
    if num_items is None:
        num_items = (targets != IGNORED).sum().clamp(min=1)
    return head_loss(x, weight, bias, targets, IGNORED, num_items)


def head_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignored: int,
    num_items: Tensor | float | None,
) -> Tensor:
    """The loss of `kernels.cross_entropy`, its product in autocast's type; the mean where `num_items` is None."""
    dtype = product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return cross_entropy_kernel.linear_cross_entropy(
            x.to(dtype).contiguous(), weight.to(dtype), None if bias is None else bias.to(dtype), targets,
            ignore_index=ignored, num_items=num_items,
        )  # fmt: skip


def block(
    x: Tensor,
    weights: Sequence[Tensor],
    places: Places,
    heads: int,
    eps: float,
    attention_dropout: float,
    residual_dropout: float,
) -> Tensor:
    """A whole block, x (B, T, hidden) to x + attention + MLP, with one matrix product into the branches and one out.

    Parameters
    ----------
    weights
        Weight and bias of the LayerNorm, q_proj, k_proj, v_proj, dense, fc1 and fc2, in this order.
    places
        As `prepare` returned them.
    eps
        Of the LayerNorm.
    attention_dropout, residual_dropout
        Rates; 0 outside training.
    """
    assert places.cos is not None and places.sin is not None, "places that went through prepare"
    return block_kernel.block(
        x, block_kernel.BlockWeights(*weights), places.cos, places.sin, heads=heads, eps=eps,
        positions=None if places.bounds is None else places.positions, bounds=places.bounds,
        attention_dropout=attention_dropout, residual_dropout=residual_dropout, compute_dtype=product_dtype(x),
    )  # fmt: skip


FUSED = Operations(prepare, layer_norm, attention, mlp, residual, cross_entropy, block)
"""The kernels' operations; `PLAIN` defines what they compute."""
