"""The steps of `phi_fast.kernels.block`, forward and backward, on checked arguments and real tensors.

Each step is one launch or one matrix product, and writes where the next one reads: the products stay with cuBLAS, which
takes and writes slices by their leading dimension. A step runs as a kernel or in plain PyTorch, as `dispatch` says of
its tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from phi_fast.kernels import attention as attention_op
from phi_fast.kernels import attention_backward, attention_forward, layer_norm, mlp, residual, rotary
from phi_fast.kernels._common import dispatch
from phi_fast.kernels._reduce import column_sum
from phi_fast.kernels.block_kernels import split_gradient, turn_back
from phi_fast.kernels.block_weights import BlockWeights, joint, joint_view

# From so many tokens on the out-projection copies dense|fc2 side by side where they do not lie so: the copy moves
# 4 * hidden * (hidden + mlp) bytes, two products instead of one 4 * hidden more a token, halves assumed. For phi-1 they
# are even at 10,240 tokens.
COPY_FROM = 8192


class Kept(NamedTuple):
    """What the forward leaves to the backward; bytes a token in halves with mlp = 4 * hidden beside each.

    Attributes
    ----------
    y
        (tokens, hidden), LayerNorm's output: 2 * hidden. The gradient of W_in is a product with it; making it again
        from x, mean and rstd would save 1/14 of the memory and move twice its bytes.
    mean, rstd
        (tokens,) fp32: 8.
    proj
        (tokens, 3 * hidden + mlp): rotated q, rotated k, v, and h before GELU: 14 * hidden.
    merged
        (tokens, hidden + mlp): attention's output and GELU's, side by side: 10 * hidden.
    lse
        (heads, tokens) fp32, of attention's softmax: 4 * heads.
    """

    y: Tensor
    mean: Tensor
    rstd: Tensor
    proj: Tensor
    merged: Tensor
    lse: Tensor


class Settings(NamedTuple):
    """Numbers of a block; dropout of attention as a threshold of 16 bits."""

    heads: int
    length: int
    eps: float
    threshold: int
    residual_dropout: float
    dtype: torch.dtype


def _heads(proj: Tensor, hidden: int, heads: int) -> list[Tensor]:
    """View q, k and v in (tokens, 3 * hidden + ...) as (tokens, heads, head_dim)."""
    shape = (proj.shape[0], heads, hidden // heads)
    return [part.view(shape) for part in proj[:, : 3 * hidden].split(hidden, 1)]  # type: ignore[no-untyped-call]


def forward(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    bounds: Tensor,
    seed: Tensor | None,
    residual_seed: Tensor | None,
    settings: Settings,
) -> tuple[Tensor, Kept]:
    """Compute the block's output (tokens, hidden), in x's dtype, and what the backward needs.

    Parameters
    ----------
    x
        (tokens, hidden), contiguous.
    positions
        int32 (tokens,), or None: a token's place in its row of `settings.length`.
    bounds
        int32 (2, tokens).
    seed, residual_seed
        int64 (2,), for attention's mask and for the residual's; None where nothing is dropped there.
    """
    (tokens, hidden), w, dtype = x.shape, weights, settings.dtype
    y, mean, rstd = layer_norm.forward(x, w.norm_weight, w.norm_bias, settings.eps, dtype)
    w_in = joint((w.q_weight, w.k_weight, w.v_weight, w.fc1_weight), 0, dtype)
    b_in = joint((w.q_bias, w.k_bias, w.v_bias, w.fc1_bias), 0, dtype)
    # All four biases ride on the product's epilogue: GELU's pass and the rotation, which touches only some columns,
    # need not know them.
    proj = torch.addmm(b_in, y, w_in.t())
    del w_in
    q, k, v = _heads(proj, hidden, settings.heads)
    if positions is None:
        by_row = (-1, settings.length, *q.shape[1:])
        rotary.turn_(q.view(by_row), k.view(by_row), cos, sin, None, 0)
    else:
        rotary.turn_(q, k, cos, sin, positions, 0)
    merged = torch.empty((tokens, w.dense_weight.shape[1] + w.fc2_weight.shape[1]), dtype=dtype, device=x.device)
    attended, activated = merged[:, :hidden], merged[:, hidden:]
    scale = (hidden // settings.heads) ** -0.5
    into = attended.view(q.shape)
    if dispatch(q) == "triton":
        _, lse = attention_forward.forward(q, k, v, bounds, seed, scale, settings.threshold, into)
    else:
        made, lse = attention_op._documents(q, k, v, bounds, seed, scale, settings.threshold)
        into.copy_(made)
    mlp.gelu_into(proj[:, 3 * hidden :], activated)
    kept = Kept(y, mean, rstd, proj, merged, lse)
    if residual_seed is not None:
        one = torch.addmm(w.dense_bias.to(dtype), attended, w.dense_weight.to(dtype).t())
        other = torch.addmm(w.fc2_bias.to(dtype), activated, w.fc2_weight.to(dtype).t())
        return residual.add(x, one, other, residual_seed, settings.residual_dropout), kept
    branches = _out_product(merged, w, dtype)
    return torch.add(x, branches, out=branches if x.dtype == dtype else torch.empty_like(x)), kept


def _out_product(merged: Tensor, w: BlockWeights, dtype: torch.dtype) -> Tensor:
    """[a|g] W_out^T + b_dense + b_fc2: one product where dense|fc2 lie side by side or are many rows' worth a copy."""
    hidden = w.dense_weight.shape[1]
    bias = (w.dense_bias + w.fc2_bias).to(dtype)
    parts = (w.dense_weight, w.fc2_weight)
    if merged.shape[0] >= COPY_FROM or joint_view(parts, 1) is not None:
        return torch.addmm(bias, merged, joint(parts, 1, dtype).t())
    out = torch.addmm(bias, merged[:, :hidden], w.dense_weight.to(dtype).t())
    return out.addmm_(merged[:, hidden:], w.fc2_weight.to(dtype).t())


class Gradients(NamedTuple):
    """Of x and of all weights, in their dtypes; those of the in-projection as one, rows of q, k, v and fc1.

    A matrix's gradient that is not wanted is empty. Biases of the joint products come in `q_bias`'s dtype.
    """

    x: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    in_weight: Tensor
    in_bias: Tensor
    dense_weight: Tensor
    dense_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


def backward(
    dout: Tensor,
    x: Tensor,
    weights: BlockWeights,
    kept: Kept,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    bounds: Tensor,
    seed: Tensor | None,
    residual_seed: Tensor | None,
    settings: Settings,
    wanted: tuple[bool, bool, bool],
) -> Gradients:
    """Compute all gradients from that of the output, (tokens, hidden) contiguous; arguments as the forward's.

    `wanted` says whether the in-projection's matrix, dense's and fc2's gradients are.
    """
    (tokens, hidden), w, dtype = x.shape, weights, settings.dtype
    proj, merged = kept.proj, kept.merged
    attended, activated, h = merged[:, :hidden], merged[:, hidden:], proj[:, 3 * hidden :]
    bias_dtype = w.q_bias.dtype
    nothing = x.new_empty(0)

    sums = nothing
    if residual_seed is None:
        to_attention = to_mlp = dout.to(dtype)
    else:
        to_attention, to_mlp, sums = split_gradient(dout, residual_seed, settings.residual_dropout, dtype, bias_dtype)
    d_merged = torch.empty_like(merged)
    torch.mm(to_attention, w.dense_weight.to(dtype), out=d_merged[:, :hidden])
    torch.mm(to_mlp, w.fc2_weight.to(dtype), out=d_merged[:, hidden:])
    d_dense = torch.mm(to_attention.t(), attended).to(w.dense_weight.dtype) if wanted[1] else nothing
    d_fc2 = torch.mm(to_mlp.t(), activated).to(w.fc2_weight.dtype) if wanted[2] else nothing
    del to_attention, to_mlp

    d_proj = torch.empty_like(proj)
    d_fc1_bias = mlp.gelu_backward_into(d_merged[:, hidden:], h, d_proj[:, 3 * hidden :], bias_dtype)
    q, k, v = _heads(proj, hidden, settings.heads)
    d_q, d_k, d_v = _heads(d_proj, hidden, settings.heads)
    scale = (hidden // settings.heads) ** -0.5
    d_out, out = d_merged[:, :hidden].view(q.shape), attended.view(q.shape)
    numbers = (bounds, seed, scale, settings.threshold)
    if dispatch(q) == "triton":
        attention_backward.backward(d_out, q, k, v, out, kept.lse, *numbers, (d_q, d_k, d_v))
    else:
        for into, made in zip((d_q, d_k, d_v), attention_op._documents_backward(d_out, q, k, v, *numbers), strict=True):
            into.copy_(made)
    del d_merged, d_out
    d_qkv_bias = turn_back(d_proj[:, : 3 * hidden], cos, sin, positions, settings.length, settings.heads, bias_dtype)

    d_in = torch.mm(d_proj.t(), kept.y).to(w.q_weight.dtype) if wanted[0] else nothing
    d_y = torch.mm(d_proj, joint((w.q_weight, w.k_weight, w.v_weight, w.fc1_weight), 0, dtype))
    del d_proj
    d_x, d_norm_weight, d_norm_bias, partial = layer_norm.backward(
        d_y, x, w.norm_weight, kept.mean, kept.rstd, w.norm_bias.dtype, dout
    )
    if residual_seed is None:
        d_dense_bias = column_sum(partial, bias_dtype) if dispatch(x) == "triton" else partial.sum(0).to(bias_dtype)
        d_fc2_bias = d_dense_bias.clone()
    else:
        d_dense_bias, d_fc2_bias = sums[:hidden].clone(), sums[hidden:].clone()
    in_bias = torch.cat((d_qkv_bias, d_fc1_bias))
    return Gradients(d_x, d_norm_weight, d_norm_bias, d_in, in_bias, d_dense, d_dense_bias, d_fc2, d_fc2_bias)
