"""The two kernels that `phi_fast.kernels.block` needs beside the ops', each with its twin in plain PyTorch.

`turn_back` ends attention's backward, `split_gradient` begins the block's where residual dropout is on; both take the
bias gradients, column sums, from what they hold in registers anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phi_fast.kernels import residual, rotary
from phi_fast.kernels._common import (
    Case,
    Table,
    arch_of,
    config_for,
    dispatch,
    dropout_threshold,
    jit,
    keeps,
    on_device,
    tl,
    triton,
)
from phi_fast.kernels._reduce import column_sum, slices

_TURN: Table = {80: [(1 << 62, {"ROWS": 32, "num_warps": 4})]}
_SPLIT: Table = {80: [(1 << 62, {"ROWS": 4, "COLUMNS": 256, "num_warps": 4})]}


@jit
def turn_back_kernel(  # type: ignore[no-untyped-def]
    gradient, cos, sin, positions, partial, rows, length, stride, heads,
    GIVEN: tl.constexpr, HEAD_DIM: tl.constexpr, HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr, BLOCK_REST: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One of 3 * heads heads (q's, k's, v's) and every n-th block of rows; partial is (slices, 3 * heads * HEAD_DIM)."""
    head = tl.program_id(0)
    base = gradient + head * HEAD_DIM
    pair = tl.arange(0, BLOCK_HALF)
    rest = 2 * HALF + tl.arange(0, BLOCK_REST)
    first_sum = tl.zeros((BLOCK_HALF,), dtype=tl.float32)
    second_sum = tl.zeros((BLOCK_HALF,), dtype=tl.float32)
    rest_sum = tl.zeros((BLOCK_REST,), dtype=tl.float32)
    for start in range(tl.program_id(1) * ROWS, rows, tl.num_programs(1) * ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & (pair < HALF)[None, :]
        place = base + row[:, None].to(tl.int64) * stride + pair[None, :]
        first = tl.load(place, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(place + HALF, mask=mask, other=0.0).to(tl.float32)
        if head < 2 * heads:
            if GIVEN:
                position = tl.load(positions + row, mask=row < rows, other=0)
            else:
                position = row % length
            angle = position[:, None].to(tl.int64) * HALF + pair[None, :]
            c = tl.load(cos + angle, mask=mask, other=0.0).to(tl.float32)
            s = tl.load(sin + angle, mask=mask, other=0.0).to(tl.float32)
            turned = first * c + second * s
            second = second * c - first * s
            first = turned
            tl.store(place, first.to(gradient.dtype.element_ty), mask=mask)
            tl.store(place + HALF, second.to(gradient.dtype.element_ty), mask=mask)
        first_sum += tl.sum(first, axis=0)
        second_sum += tl.sum(second, axis=0)
        if 2 * HALF < HEAD_DIM:
            beyond = (row < rows)[:, None] & (rest < HEAD_DIM)[None, :]
            others = tl.load(base + row[:, None].to(tl.int64) * stride + rest[None, :], mask=beyond, other=0.0)
            rest_sum += tl.sum(others.to(tl.float32), axis=0)
    out = partial + tl.program_id(1) * 3 * heads * HEAD_DIM + head * HEAD_DIM
    tl.store(out + pair, first_sum, mask=pair < HALF)
    tl.store(out + HALF + pair, second_sum, mask=pair < HALF)
    if 2 * HALF < HEAD_DIM:
        tl.store(out + rest, rest_sum, mask=rest < HEAD_DIM)


def _widths(head_dim: int, half: int) -> dict[str, int]:
    rest = max(1, head_dim - 2 * half)
    return {
        "HEAD_DIM": head_dim,
        "HALF": half,
        "BLOCK_HALF": 1 << (half - 1).bit_length(),
        "BLOCK_REST": 1 << (rest - 1).bit_length(),
    }


def turn_back(
    gradient: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    length: int,
    heads: int,
    bias_dtype: torch.dtype,
) -> Tensor:
    """Turn the gradients of rotated q and k back, in place, and sum all columns: the bias gradients of q, k and v.

    Parameters
    ----------
    gradient
        (tokens, 3 * heads * head_dim), those of q, k and v side by side; rows any stride apart.
    cos, sin, positions
        As in `rotary`; positions (tokens,) or None: a token's place in its row of `length`.

    Returns
    -------
    Tensor
        (3 * heads * head_dim,) in `bias_dtype`; sums in at least fp32.
    """
    rows, head_dim, half = gradient.shape[0], gradient.shape[1] // (3 * heads), cos.shape[1]
    if dispatch(gradient) == "reference":
        q, k, _ = (part.view(rows, heads, head_dim) for part in gradient.chunk(3, 1))
        if positions is None:
            positions = torch.arange(rows, device=gradient.device) % length
        for part in (q, k):
            part.copy_(rotary.reference(part, part, cos, -sin, positions=positions)[0])
        return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).sum(0).to(bias_dtype)
    config = config_for(_TURN, arch_of(gradient), head_dim)
    count = slices(rows, config["ROWS"], gradient.device, 3 * heads)
    partial = torch.empty((count, gradient.shape[1]), dtype=torch.float32, device=gradient.device)
    with on_device(gradient):
        turn_back_kernel[(3 * heads, count)](
            gradient, cos, sin, cos if positions is None else positions, partial, rows, length, gradient.stride(0),
            heads, GIVEN=positions is not None, **_widths(head_dim, half), **config,
        )  # fmt: skip
    return column_sum(partial, bias_dtype)


@jit
def split_gradient_kernel(  # type: ignore[no-untyped-def]
    dout, attention, mlp, partial, seed, rows, width, threshold, scale, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """A block of columns and every n-th block of rows; partial is (slices, 2 * width)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    one_sum = tl.zeros((COLUMNS,), dtype=tl.float32)
    other_sum = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(tl.program_id(1) * ROWS, rows, tl.num_programs(1) * ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        offset = row[:, None].to(tl.int64) * width + column[None, :]
        upstream = tl.load(dout + offset, mask=mask, other=0.0).to(tl.float32) * scale
        first, second = residual.numbers(seed, offset)
        one = tl.where(keeps(first, threshold), upstream, 0.0)
        other = tl.where(keeps(second, threshold), upstream, 0.0)
        tl.store(attention + offset, one.to(attention.dtype.element_ty), mask=mask)
        tl.store(mlp + offset, other.to(mlp.dtype.element_ty), mask=mask)
        one_sum += tl.sum(one, axis=0)
        other_sum += tl.sum(other, axis=0)
    out = partial + tl.program_id(1) * 2 * width + column
    tl.store(out, one_sum, mask=inside)
    tl.store(out + width, other_sum, mask=inside)


def split_gradient(
    dout: Tensor, seed: Tensor, p: float, dtype: torch.dtype, bias_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of `residual`'s two branches, for p > 0, and their column sums: the branches' bias gradients.

    Parameters
    ----------
    dout
        (tokens, width), contiguous.
    dtype, bias_dtype
        Of the gradients, and of the sums.

    Returns
    -------
    attention, mlp
        (tokens, width)
    sums
        (2 * width,), attention's first.
    """
    rows, width = dout.shape
    if dispatch(dout) == "reference":
        wide = dout.to(torch.promote_types(dout.dtype, torch.float32)) / (1 - p)
        one, other = (torch.where(keep, wide, 0.0) for keep in residual.masks(dout.shape, seed, p))
        return one.to(dtype), other.to(dtype), torch.cat((one.sum(0), other.sum(0))).to(bias_dtype)
    one, other = (torch.empty(dout.shape, dtype=dtype, device=dout.device) for _ in range(2))
    config = config_for(_SPLIT, arch_of(dout), width)
    across = triton.cdiv(width, config["COLUMNS"])
    count = slices(rows, config["ROWS"], dout.device, across)
    partial = torch.empty((count, 2 * width), dtype=torch.float32, device=dout.device)
    with on_device(dout):
        split_gradient_kernel[(across, count)](
            dout, one, other, partial, seed, rows, width, dropout_threshold(p), 1 / (1 - p), **config
        )
    return one, other, column_sum(partial, bias_dtype)


def compile_cases(arch: int) -> list[Case]:
    """List both kernels as launched for phi-1: 32 heads of 64, 32 of them turned."""
    cases = []
    config: dict[str, Any] = config_for(_TURN, arch, 64)
    warps = config.pop("num_warps")
    types = {"gradient": "*fp16", "cos": "*fp32", "sin": "*fp32", "positions": "*i32", "partial": "*fp32"}
    types |= dict.fromkeys(("rows", "length", "stride", "heads"), "i32")
    for label, given, head_dim, half in (("", False, 64, 16), (", positions", True, 64, 16), (", 128", True, 128, 64)):
        constants = {"GIVEN": given, **_widths(head_dim, half), **config}
        cases.append(
            Case(f"block turn back{label}", turn_back_kernel, types, constants, warps, multiples=("rows", "stride"))
        )
    config = config_for(_SPLIT, arch, 2048)
    warps = config.pop("num_warps")
    types = dict.fromkeys(("dout", "attention", "mlp"), "*fp16") | {"partial": "*fp32", "seed": "*i64"}
    types |= {"rows": "i32", "width": "i32", "threshold": "i32", "scale": "fp32"}
    title = "block split gradient"
    return [*cases, Case(title, split_gradient_kernel, types, config, warps, multiples=("rows", "width"))]
