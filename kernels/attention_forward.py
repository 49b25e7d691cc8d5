"""Forward kernel of `phi_fast.kernels.attention`: one program a block of query rows and a head.

Documents need no grid of their own. All tokens stand in one row, blocks are cut from it wherever they fall, and every
token carries the bounds of its document; so short documents share a block, no program starts in vain, and nothing has
to know the longest document. For the rows of a block, keys fall into three ranges; only the outer two are masked::

    keys   [ first row's document starts ... last row's starts | every row sees every key | the diagonal ]
             masked                                              not masked                 masked
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from phi_fast.kernels._common import Case, Table, arch_of, config_for, jit, on_device, tl, triton

LOG2_E = 1.4426950408889634

# Rows are (largest head dimension, padded to a power of two; settings), chosen by what compiles without spills with
# dropout or without.
HALF: Table = {
    80: [
        (64, {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}),
        (128, {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 4, "num_stages": 3}),
    ],
    90: [
        (64, {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}),
        (128, {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}),
    ],
}
FLOAT: Table = {
    80: [
        (32, {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}),
        (64, {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1}),
        (128, {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1}),
    ],
}


@jit
def load_tile(  # type: ignore[no-untyped-def]
    base, rows, dims, stride, total, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, WHOLE: tl.constexpr
):
    """Load rows of a head, (rows, BLOCK_D); 0 stands beyond HEAD_DIM, and beyond `total` rows unless WHOLE."""
    pointers = base + rows[:, None].to(tl.int64) * stride + dims[None, :]
    if WHOLE:
        if HEAD_DIM == BLOCK_D:
            return tl.load(pointers)
        return tl.load(pointers, mask=dims[None, :] < HEAD_DIM, other=0.0)
    return tl.load(pointers, mask=(rows[:, None] < total) & (dims[None, :] < HEAD_DIM), other=0.0)


@jit
def kept_tile(  # type: ignore[no-untyped-def]
    key, offset, head, rows, first_column, threshold, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Make a tile of the dropout mask, (BLOCK_M, BLOCK_N), True where a probability stays.

    One Philox call gives eight columns, 16 bits each: the generator's integer arithmetic is what dropout costs, and
    would otherwise exceed the matrix products'. `phi_fast.kernels.attention.kept_probabilities` is the twin in PyTorch.
    """
    groups = first_column // 8 + tl.arange(0, BLOCK_N // 8)
    c0 = groups[None, :] + tl.zeros((BLOCK_M, 1), dtype=tl.int32)
    c1 = rows[:, None] + tl.zeros((1, BLOCK_N // 8), dtype=tl.int32)
    r0, r1, r2, r3 = tl.philox(key, c0, c1, tl.zeros_like(c0) + head, tl.zeros_like(c0) + offset)
    words = tl.join(tl.join(r0, r2), tl.join(r1, r3)).to(tl.uint32, bitcast=True)
    halves = tl.join((words & 0xFFFF).to(tl.int32), (words >> 16).to(tl.int32))
    return tl.reshape(halves, (BLOCK_M, BLOCK_N)) >= threshold


@jit
def _forward_range(  # type: ignore[no-untyped-def]
    acc,
    total_weight,
    maximum,
    q_tile,
    k_base,
    v_base,
    low,
    high,
    rows,
    starts,
    dims,
    stride_k,
    stride_v,
    total,
    scale_log2,
    key,
    offset,
    head,
    threshold,
    MASKED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Take the keys [low, high) into the running softmax (Milakov and Gimelshein, 2018; Dao et al., 2022)."""
    for first in range(low, high, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k_base, columns, dims, stride_k, total, HEAD_DIM, BLOCK_D, not MASKED)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale_log2
        if MASKED:
            visible = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= starts[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1))
        shrink = tl.exp2(maximum - new_maximum)
        weights = tl.exp2(scores - new_maximum[:, None])
        # The sum counts dropped weights too: dropout acts on the finished probabilities.
        total_weight = total_weight * shrink + tl.sum(weights, 1)
        if DROPOUT:
            kept = kept_tile(key, offset, head, rows, first, threshold, BLOCK_M, BLOCK_N)
            weights = tl.where(kept, weights, 0.0)
        v_tile = load_tile(v_base, columns, dims, stride_v, total, HEAD_DIM, BLOCK_D, not MASKED)
        acc = tl.dot(weights.to(v_tile.dtype), v_tile, acc * shrink[:, None], input_precision=PRECISION)
        maximum = new_maximum
    return acc, total_weight, maximum


@jit
def attention_forward_kernel(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    bounds,
    seed,
    out,
    lse,
    total,
    stride_q,
    stride_q_head,
    stride_k,
    stride_k_head,
    stride_v,
    stride_v_head,
    stride_out,
    scale_log2,
    keep_scale,
    threshold,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write out (tokens, heads, HEAD_DIM) and lse (heads, tokens), the base-2 log of the sum of exp2(scaled scores)."""
    # Late rows see the most keys: they start first, so that the grid does not end on them.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    first_row = block * BLOCK_M
    last_row = tl.minimum(first_row + BLOCK_M, total) - 1
    rows = first_row + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    starts = tl.load(bounds + rows, mask=rows < total, other=0)
    k_base = k + head.to(tl.int64) * stride_k_head
    v_base = v + head.to(tl.int64) * stride_v_head
    q_tile = load_tile(q + head.to(tl.int64) * stride_q_head, rows, dims, stride_q, total, HEAD_DIM, BLOCK_D, False)

    key = 0
    offset = 0
    if DROPOUT:
        key = tl.load(seed)
        offset = tl.load(seed + 1).to(tl.int32)

    low = tl.load(bounds + first_row) // BLOCK_N * BLOCK_N
    whole_high = first_row // BLOCK_N * BLOCK_N
    whole_low = tl.minimum(tl.cdiv(tl.load(bounds + last_row), BLOCK_N) * BLOCK_N, whole_high)
    acc = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    total_weight = tl.zeros((BLOCK_M,), dtype=tl.float32)
    # Finite, for a row may see nothing of its first blocks, and -inf minus -inf is no number.
    maximum = tl.full((BLOCK_M,), -1.0e30, dtype=tl.float32)
    acc, total_weight, maximum = _forward_range(
        acc, total_weight, maximum, q_tile, k_base, v_base, low, whole_low, rows, starts, dims, stride_k,
        stride_v, total, scale_log2, key, offset, head, threshold, True, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N,
        DROPOUT, PRECISION,
    )  # fmt: skip
    acc, total_weight, maximum = _forward_range(
        acc, total_weight, maximum, q_tile, k_base, v_base, whole_low, whole_high, rows, starts, dims,
        stride_k, stride_v, total, scale_log2, key, offset, head, threshold, False, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N,
        DROPOUT, PRECISION,
    )  # fmt: skip
    acc, total_weight, maximum = _forward_range(
        acc, total_weight, maximum, q_tile, k_base, v_base, whole_high, last_row + 1, rows, starts,
        dims, stride_k, stride_v, total, scale_log2, key, offset, head, threshold, True, HEAD_DIM, BLOCK_D, BLOCK_M,
        BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip

    result = acc * (keep_scale / total_weight)[:, None]
    pointers = out + head * HEAD_DIM + rows[:, None].to(tl.int64) * stride_out + dims[None, :]
    tl.store(pointers, result.to(out.dtype.element_ty), mask=(rows[:, None] < total) & (dims[None, :] < HEAD_DIM))
    tl.store(lse + head.to(tl.int64) * total + rows, maximum + tl.log2(total_weight), mask=rows < total)


def dot_precision(dtype: torch.dtype) -> str:
    """Give the arithmetic of float32 products: exact, or tf32 where `torch.set_float32_matmul_precision` allows it."""
    return "ieee" if dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest" else "tf32"


def padded(head_dim: int) -> int:
    """Give the power of two a tile is wide."""
    return max(16, 1 << (head_dim - 1).bit_length())


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Tensor,
    seed: Tensor | None,
    scale: float,
    threshold: int,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Launch the forward kernel on checked arguments.

    Parameters
    ----------
    q, k, v
        (tokens, heads, head_dim), float16, bfloat16 or float32, stride 1 in the last dimension.
    bounds
        int32 (2, tokens): where each token's document starts and ends.
    seed
        int64 (2,), or None without dropout.
    scale
        Of the scores, in natural units.
    threshold
        Of 16-bit numbers: those below it are dropped.
    out
        Written to where it is given: as q in shape and dtype, heads side by side, rows any stride apart.

    Returns
    -------
    out, lse
        (tokens, heads, head_dim) in the inputs' dtype; float32 (heads, tokens), in base 2.
    """
    total, heads, head_dim = q.shape
    if out is None:
        out = torch.empty((total, heads, head_dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((heads, total), dtype=torch.float32, device=q.device)
    config: dict[str, Any] = config_for(FLOAT if q.dtype == torch.float32 else HALF, arch_of(q), padded(head_dim))
    with on_device(q):
        attention_forward_kernel[(triton.cdiv(total, config["BLOCK_M"]), heads)](
            q, k, v, bounds, bounds if seed is None else seed, out, lse, total,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), out.stride(0),
            scale * LOG2_E, 65536 / (65536 - threshold), threshold,
            HEAD_DIM=head_dim, BLOCK_D=padded(head_dim), DROPOUT=threshold > 0, PRECISION=dot_precision(q.dtype),
            **config,
        )  # fmt: skip
    return out, lse


NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


# What a table of compiled kernels lists: phi's own head dimension with dropout and without, and the heaviest.
SHAPES = (("fp16", 64, True), ("bf16", 64, False), ("bf16", 128, True), ("fp32", 64, False), ("fp32", 128, True))


def compile_cases(arch: int, shapes: Iterable[tuple[str, int, bool]] = SHAPES) -> list[Case]:
    """List the forward kernel as it is launched on `arch`, for (dtype, head dimension, dropout) of `shapes`."""
    cases = []
    for name, head_dim, dropout in shapes:
        config = config_for(FLOAT if name == "fp32" else HALF, arch, padded(head_dim))
        warps, stages = config.pop("num_warps"), config.pop("num_stages")
        types = dict.fromkeys(("q", "k", "v"), f"*{name}") | {"bounds": "*i32", "seed": "*i64"}
        types |= {"out": f"*{name}", "lse": "*fp32", "total": "i32"}
        strides = [f"stride_{one}" for one in ("q", "q_head", "k", "k_head", "v", "v_head", "out")]
        types |= dict.fromkeys(strides, "i32")
        types |= {"scale_log2": "fp32", "keep_scale": "fp32", "threshold": "i32"}
        constants: dict[str, Any] = {"HEAD_DIM": head_dim, "BLOCK_D": padded(head_dim), **config}
        constants |= {"DROPOUT": bool(dropout), "PRECISION": "ieee"}
        title = f"attention forward, {name}, head {head_dim}{', dropout' if dropout else ''}"
        cases.append(Case(title, attention_forward_kernel, types, constants, warps, stages, ("total", *strides)))
    return cases
