"""Backward kernels of `phi_fast.kernels.attention` (Dao, FlashAttention-2, 2023), without atomics.

Three launches: delta = rowsum(d_out * out); the gradients of keys and values, one program a block of keys, which walks
the rows that see it; the gradient of queries, one program a block of rows, which walks the keys it sees. Probabilities
and the dropout mask are made again from the saved log-sum-exp and the seed. Each result is the work of one program in
one order, so the same input gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from phi_fast.kernels._common import Case, Table, arch_of, config_for, jit, on_device, tl, triton
from phi_fast.kernels.attention_forward import LOG2_E, SHAPES, dot_precision, kept_tile, load_tile, padded

DELTA = {"BLOCK_M": 64, "num_warps": 4, "num_stages": 2}

# As in attention_forward: (largest padded head dimension, settings), for the keys' kernel and for the queries'.
KEYS_HALF: Table = {
    80: [
        (64, {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}),
        (128, {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}),
    ],
    90: [
        (64, {"BLOCK_M": 32, "BLOCK_N": 128, "num_warps": 8, "num_stages": 2}),
        (128, {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}),
    ],
}
KEYS_FLOAT: Table = {
    80: [
        (32, {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1}),
        (64, {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1}),
        (128, {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1}),
    ],
}
QUERIES_HALF: Table = {
    80: [
        (64, {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2}),
        (128, {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2}),
    ],
    90: [
        (64, {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2}),
        (128, {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2}),
    ],
}
QUERIES_FLOAT: Table = KEYS_FLOAT


@jit
def attention_delta_kernel(  # type: ignore[no-untyped-def]
    out, d_out, delta, total, stride_out, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr
):
    """Write delta (heads, tokens), the rows' sums of d_out * out: what the softmax's gradient subtracts."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    left = load_tile(out + head * HEAD_DIM, rows, dims, stride_out, total, HEAD_DIM, BLOCK_D, False)
    right = load_tile(d_out + head * HEAD_DIM, rows, dims, stride_out, total, HEAD_DIM, BLOCK_D, False)
    products = left.to(tl.float32) * right.to(tl.float32)
    tl.store(delta + head.to(tl.int64) * total + rows, tl.sum(products, 1), mask=rows < total)


@jit
def _keys_range(  # type: ignore[no-untyped-def]
    d_k,
    d_v,
    k_tile,
    v_tile,
    q_base,
    d_out_base,
    lse_base,
    delta_base,
    low,
    high,
    columns,
    ends,
    dims,
    stride_q,
    stride_out,
    total,
    scale_log2,
    keep_scale,
    key,
    offset,
    head,
    first_column,
    threshold,
    MASKED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add what the rows [low, high) give to the block's keys and values; tiles stand transposed, (keys, rows)."""
    for first in range(low, high, BLOCK_M):
        rows = first + tl.arange(0, BLOCK_M)
        q_tile = load_tile(q_base, rows, dims, stride_q, total, HEAD_DIM, BLOCK_D, not MASKED)
        d_out_tile = load_tile(d_out_base, rows, dims, stride_out, total, HEAD_DIM, BLOCK_D, not MASKED)
        if MASKED:
            lse_rows = tl.load(lse_base + rows, mask=rows < total, other=0.0)
            delta_rows = tl.load(delta_base + rows, mask=rows < total, other=0.0)
        else:
            lse_rows = tl.load(lse_base + rows)
            delta_rows = tl.load(delta_base + rows)
        scores = tl.dot(k_tile, tl.trans(q_tile), input_precision=PRECISION) * scale_log2
        if MASKED:
            visible = (columns[:, None] <= rows[None, :]) & (rows[None, :] < ends[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        weights = tl.exp2(scores - lse_rows[None, :])
        d_weights = tl.dot(v_tile, tl.trans(d_out_tile), input_precision=PRECISION)
        dropped = weights
        if DROPOUT:
            kept = tl.trans(kept_tile(key, offset, head, rows, first_column, threshold, BLOCK_M, BLOCK_N))
            dropped = tl.where(kept, weights, 0.0)
            d_weights = tl.where(kept, d_weights * keep_scale, 0.0)
        d_v = tl.dot(dropped.to(d_out_tile.dtype), d_out_tile, d_v, input_precision=PRECISION)
        d_scores = weights * (d_weights - delta_rows[None, :])
        d_k = tl.dot(d_scores.to(q_tile.dtype), q_tile, d_k, input_precision=PRECISION)
    return d_k, d_v


@jit
def attention_keys_kernel(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    d_out,
    lse,
    delta,
    bounds,
    seed,
    d_k,
    d_v,
    total,
    stride_q,
    stride_q_head,
    stride_k,
    stride_k_head,
    stride_v,
    stride_v_head,
    stride_out,
    stride_grad,
    scale,
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
    """Write d_k and d_v, rows `stride_grad` apart, from one block of keys a program."""
    block = tl.program_id(0)
    head = tl.program_id(1)
    first_column = block * BLOCK_N
    last_column = tl.minimum(first_column + BLOCK_N, total) - 1
    columns = first_column + tl.arange(0, BLOCK_N)
    dims = tl.arange(0, BLOCK_D)
    ends = tl.load(bounds + total + columns, mask=columns < total, other=0)
    wide = head.to(tl.int64)
    k_tile = load_tile(k + wide * stride_k_head, columns, dims, stride_k, total, HEAD_DIM, BLOCK_D, False)
    v_tile = load_tile(v + wide * stride_v_head, columns, dims, stride_v, total, HEAD_DIM, BLOCK_D, False)
    q_base = q + wide * stride_q_head
    d_out_base = d_out + head * HEAD_DIM
    lse_base = lse + wide * total
    delta_base = delta + wide * total

    key = 0
    offset = 0
    if DROPOUT:
        key = tl.load(seed)
        offset = tl.load(seed + 1).to(tl.int32)

    low = first_column // BLOCK_M * BLOCK_M
    # Whole blocks of rows: all below the diagonal, all within the first key's document, so within every key's.
    whole_low = tl.cdiv(first_column + BLOCK_N, BLOCK_M) * BLOCK_M
    high = tl.load(bounds + total + last_column)
    whole_high = tl.maximum(tl.load(bounds + total + first_column) // BLOCK_M * BLOCK_M, whole_low)
    d_k_tile = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    d_v_tile = tl.zeros((BLOCK_N, BLOCK_D), dtype=tl.float32)
    d_k_tile, d_v_tile = _keys_range(
        d_k_tile, d_v_tile, k_tile, v_tile, q_base, d_out_base, lse_base, delta_base, low, tl.minimum(whole_low, high),
        columns, ends, dims, stride_q, stride_out, total, scale_log2, keep_scale, key, offset, head, first_column,
        threshold, True, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    d_k_tile, d_v_tile = _keys_range(
        d_k_tile, d_v_tile, k_tile, v_tile, q_base, d_out_base, lse_base, delta_base, whole_low, whole_high,
        columns, ends, dims, stride_q, stride_out, total, scale_log2, keep_scale, key, offset, head, first_column,
        threshold, False, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    d_k_tile, d_v_tile = _keys_range(
        d_k_tile, d_v_tile, k_tile, v_tile, q_base, d_out_base, lse_base, delta_base, whole_high, high,
        columns, ends, dims, stride_q, stride_out, total, scale_log2, keep_scale, key, offset, head, first_column,
        threshold, True, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    places = head * HEAD_DIM + columns[:, None].to(tl.int64) * stride_grad + dims[None, :]
    inside = (columns[:, None] < total) & (dims[None, :] < HEAD_DIM)
    tl.store(d_k + places, (d_k_tile * scale).to(d_k.dtype.element_ty), mask=inside)
    tl.store(d_v + places, (d_v_tile * keep_scale).to(d_v.dtype.element_ty), mask=inside)


@jit
def _queries_range(  # type: ignore[no-untyped-def]
    d_q,
    q_tile,
    d_out_tile,
    lse_rows,
    delta_rows,
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
    keep_scale,
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
    """Add what the keys [low, high) give to the block's queries."""
    for first in range(low, high, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k_base, columns, dims, stride_k, total, HEAD_DIM, BLOCK_D, not MASKED)
        v_tile = load_tile(v_base, columns, dims, stride_v, total, HEAD_DIM, BLOCK_D, not MASKED)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * scale_log2
        if MASKED:
            visible = (columns[None, :] <= rows[:, None]) & (columns[None, :] >= starts[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        weights = tl.exp2(scores - lse_rows[:, None])
        d_weights = tl.dot(d_out_tile, tl.trans(v_tile), input_precision=PRECISION)
        if DROPOUT:
            kept = kept_tile(key, offset, head, rows, first, threshold, BLOCK_M, BLOCK_N)
            d_weights = tl.where(kept, d_weights * keep_scale, 0.0)
        d_scores = weights * (d_weights - delta_rows[:, None])
        d_q = tl.dot(d_scores.to(k_tile.dtype), k_tile, d_q, input_precision=PRECISION)
    return d_q


@jit
def attention_queries_kernel(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    d_out,
    lse,
    delta,
    bounds,
    seed,
    d_q,
    total,
    stride_q,
    stride_q_head,
    stride_k,
    stride_k_head,
    stride_v,
    stride_v_head,
    stride_out,
    stride_grad,
    scale,
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
    """Write d_q, rows `stride_grad` apart, from one block of rows a program; ranges as in the forward."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    first_row = block * BLOCK_M
    last_row = tl.minimum(first_row + BLOCK_M, total) - 1
    rows = first_row + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    starts = tl.load(bounds + rows, mask=rows < total, other=0)
    wide = head.to(tl.int64)
    q_tile = load_tile(q + wide * stride_q_head, rows, dims, stride_q, total, HEAD_DIM, BLOCK_D, False)
    d_out_tile = load_tile(d_out + head * HEAD_DIM, rows, dims, stride_out, total, HEAD_DIM, BLOCK_D, False)
    lse_rows = tl.load(lse + wide * total + rows, mask=rows < total, other=0.0)
    delta_rows = tl.load(delta + wide * total + rows, mask=rows < total, other=0.0)
    k_base = k + wide * stride_k_head
    v_base = v + wide * stride_v_head

    key = 0
    offset = 0
    if DROPOUT:
        key = tl.load(seed)
        offset = tl.load(seed + 1).to(tl.int32)

    low = tl.load(bounds + first_row) // BLOCK_N * BLOCK_N
    whole_high = first_row // BLOCK_N * BLOCK_N
    whole_low = tl.minimum(tl.cdiv(tl.load(bounds + last_row), BLOCK_N) * BLOCK_N, whole_high)
    d_q_tile = tl.zeros((BLOCK_M, BLOCK_D), dtype=tl.float32)
    d_q_tile = _queries_range(
        d_q_tile, q_tile, d_out_tile, lse_rows, delta_rows, k_base, v_base, low, whole_low, rows, starts, dims,
        stride_k, stride_v, total, scale_log2, keep_scale, key, offset, head, threshold,
        True, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    d_q_tile = _queries_range(
        d_q_tile, q_tile, d_out_tile, lse_rows, delta_rows, k_base, v_base, whole_low, whole_high, rows, starts, dims,
        stride_k, stride_v, total, scale_log2, keep_scale, key, offset, head, threshold,
        False, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    d_q_tile = _queries_range(
        d_q_tile, q_tile, d_out_tile, lse_rows, delta_rows, k_base, v_base, whole_high, last_row + 1, rows, starts,
        dims, stride_k, stride_v, total, scale_log2, keep_scale, key, offset, head, threshold,
        True, HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, DROPOUT, PRECISION,
    )  # fmt: skip
    places = head * HEAD_DIM + rows[:, None].to(tl.int64) * stride_grad + dims[None, :]
    inside = (rows[:, None] < total) & (dims[None, :] < HEAD_DIM)
    tl.store(d_q + places, (d_q_tile * scale).to(d_q.dtype.element_ty), mask=inside)


def backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bounds: Tensor,
    seed: Tensor | None,
    scale: float,
    threshold: int,
    into: tuple[Tensor, Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the three kernels on what the forward got and gave.

    Parameters
    ----------
    d_out, out
        (tokens, heads, head_dim), heads side by side, rows of both equally far apart.
    q, k, v, lse, bounds, seed, scale, threshold
        As in `phi_fast.kernels.attention_forward.forward`.
    into
        Where the gradients go, if not into new tensors: as q in shape and dtype, heads side by side, rows of all three
        equally far apart.

    Returns
    -------
    d_q, d_k, d_v
        (tokens, heads, head_dim) in the inputs' dtype; contiguous where they are new.
    """
    total, heads, head_dim = q.shape
    if into is None:
        d_q, d_k, d_v = (torch.empty((total, heads, head_dim), dtype=q.dtype, device=q.device) for _ in range(3))
    else:
        d_q, d_k, d_v = into
    delta = torch.empty_like(lse)
    block_d = padded(head_dim)
    exact = q.dtype == torch.float32
    keys: dict[str, Any] = config_for(KEYS_FLOAT if exact else KEYS_HALF, arch_of(q), block_d)
    queries: dict[str, Any] = config_for(QUERIES_FLOAT if exact else QUERIES_HALF, arch_of(q), block_d)
    inputs = (q, k, v, d_out, lse, delta, bounds, bounds if seed is None else seed)
    strides = (q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), out.stride(0))
    strides = (*strides, d_q.stride(0))
    numbers = (scale, scale * LOG2_E, 65536 / (65536 - threshold), threshold)
    common: dict[str, Any] = {"HEAD_DIM": head_dim, "BLOCK_D": block_d}
    products: dict[str, Any] = {"DROPOUT": threshold > 0, "PRECISION": dot_precision(q.dtype)}
    with on_device(q):
        attention_delta_kernel[(triton.cdiv(total, DELTA["BLOCK_M"]), heads)](
            out, d_out, delta, total, out.stride(0), **common, **DELTA
        )
        attention_keys_kernel[(triton.cdiv(total, keys["BLOCK_N"]), heads)](
            *inputs, d_k, d_v, total, *strides, *numbers, **common, **products, **keys
        )
        attention_queries_kernel[(triton.cdiv(total, queries["BLOCK_M"]), heads)](
            *inputs, d_q, total, *strides, *numbers, **common, **products, **queries
        )
    return d_q, d_k, d_v


def compile_cases(arch: int, shapes: Iterable[tuple[str, int, bool]] = SHAPES) -> list[Case]:
    """List the backward kernels as they are launched on `arch`, as `attention_forward.compile_cases` does."""
    cases = []
    for name, head_dim, dropout in shapes:
        constants: dict[str, Any] = {"HEAD_DIM": head_dim, "BLOCK_D": padded(head_dim)}
        title = f"{name}, head {head_dim}{', dropout' if dropout else ''}"
        if not dropout:  # of no concern to delta
            types = {"out": f"*{name}", "d_out": f"*{name}", "delta": "*fp32", "total": "i32", "stride_out": "i32"}
            settings = {**constants, "BLOCK_M": DELTA["BLOCK_M"]}
            warps, stages = DELTA["num_warps"], DELTA["num_stages"]
            multiples = ("total", "stride_out")
            cases.append(
                Case(f"attention delta, {title}", attention_delta_kernel, types, settings, warps, stages, multiples)
            )
        for side, kernel, outputs, tables in (
            ("keys", attention_keys_kernel, ("d_k", "d_v"), (KEYS_FLOAT, KEYS_HALF)),
            ("queries", attention_queries_kernel, ("d_q",), (QUERIES_FLOAT, QUERIES_HALF)),
        ):
            config = config_for(tables[name != "fp32"], arch, padded(head_dim))
            warps, stages = config.pop("num_warps"), config.pop("num_stages")
            types = dict.fromkeys(("q", "k", "v", "d_out"), f"*{name}")
            types |= {"lse": "*fp32", "delta": "*fp32", "bounds": "*i32", "seed": "*i64"}
            types |= dict.fromkeys(outputs, f"*{name}") | {"total": "i32"}
            strides = [f"stride_{one}" for one in ("q", "q_head", "k", "k_head", "v", "v_head", "out", "grad")]
            types |= dict.fromkeys(strides, "i32")
            types |= {"scale": "fp32", "scale_log2": "fp32", "keep_scale": "fp32", "threshold": "i32"}
            settings = {**constants, **config, "DROPOUT": bool(dropout), "PRECISION": "ieee"}
            cases.append(
                Case(f"attention {side}, {title}", kernel, types, settings, warps, stages, ("total", *strides))
            )
    return cases
