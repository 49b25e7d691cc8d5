"""Rotary embedding of `phi_fast.kernels.attention`: queries and keys are turned once, before the products.

Turning keys while they are loaded would turn each of them again for every block of rows that sees it, and would pull
tiles through registers that otherwise go from memory straight to the matrix units. One pass over q and k moves each
of them once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phi_fast.kernels._common import Case, dispatch, jit, on_device, tl, triton

CONFIG = {"BLOCK_M": 32, "num_warps": 4, "num_stages": 1}


def rotary_angles(bounds: Tensor, rotary_dim: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compute cosines and sines of every token's angles; positions count from the document's start.

    Frequencies are ``base ** (-2 i / rotary_dim)`` (Su et al., RoFormer, 2021).

    Parameters
    ----------
    bounds
        int32 (2, tokens).
    dtype
        float32, or float64 for the reference in float64.

    Returns
    -------
    cosines, sines
        (tokens, rotary_dim / 2).
    """
    starts = bounds[0]
    positions = torch.arange(starts.shape[0], device=starts.device) - starts
    exponents = torch.arange(0, rotary_dim, 2, dtype=dtype, device=starts.device) / rotary_dim
    angles = positions.to(dtype)[:, None] / base**exponents
    return angles.cos(), angles.sin()


def rotate_reference(x: Tensor, cosines: Tensor, sines: Tensor, inverse: bool = False) -> Tensor:
    """Turn the first dimensions of every head, NeoX's way: dimension i with i + rotary_dim / 2. Plain PyTorch.

    Parameters
    ----------
    x
        (tokens, heads, head_dim).
    cosines, sines
        (tokens, rotary_dim / 2), as `rotary_angles` gives them.
    inverse
        Turn back, which is also the gradient.
    """
    half = cosines.shape[1]
    cos, sin = cosines[:, None, :], sines[:, None, :]
    if inverse:
        sin = -sin
    first, second = x[..., :half].to(cos.dtype), x[..., half : 2 * half].to(cos.dtype)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return torch.cat((turned.to(x.dtype), x[..., 2 * half :]), -1)


@jit
def attention_rotate_kernel(  # type: ignore[no-untyped-def]
    x,
    cosines,
    sines,
    out,
    total,
    stride_x,
    stride_x_head,
    stride_out,
    sign,
    HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Write the turned copy of x, contiguous (tokens, heads, HEAD_DIM)."""
    head = tl.program_id(1)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = rows[:, None] < total
    source = x + head.to(tl.int64) * stride_x_head + rows[:, None].to(tl.int64) * stride_x
    target = out + head * HEAD_DIM + rows[:, None].to(tl.int64) * stride_out
    pair = tl.arange(0, BLOCK_HALF)[None, :]
    here = inside & (pair < HALF)
    cos = tl.load(cosines + rows[:, None] * HALF + pair, mask=here, other=0.0)
    sin = tl.load(sines + rows[:, None] * HALF + pair, mask=here, other=0.0) * sign
    first = tl.load(source + pair, mask=here, other=0.0).to(tl.float32)
    second = tl.load(source + HALF + pair, mask=here, other=0.0).to(tl.float32)
    tl.store(target + pair, (first * cos - second * sin).to(out.dtype.element_ty), mask=here)
    tl.store(target + HALF + pair, (second * cos + first * sin).to(out.dtype.element_ty), mask=here)
    if 2 * HALF < HEAD_DIM:
        rest = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
        there = inside & (rest < HEAD_DIM)
        tl.store(target + rest, tl.load(source + rest, mask=there, other=0.0), mask=there)


def _widths(head_dim: int, half: int) -> dict[str, int]:
    rest = head_dim - 2 * half
    return {
        "HALF": half,
        "BLOCK_HALF": 1 << (half - 1).bit_length(),
        "HEAD_DIM": head_dim,
        "BLOCK_REST": 1 << max(rest - 1, 0).bit_length(),
    }


@torch.library.custom_op(
    "phi_fast::attention_rotate",
    mutates_args=(),
    schema="(Tensor x, Tensor cosines, Tensor sines, bool inverse) -> Tensor",
)
def rotate(x: Tensor, cosines: Tensor, sines: Tensor, inverse: bool) -> Tensor:
    """Turn q or k, as `rotate_reference`, by the implementation `dispatch` chooses."""
    if dispatch(x, cosines, sines) == "reference":
        return rotate_reference(x, cosines, sines, inverse).contiguous()
    total, heads, head_dim = x.shape
    out = torch.empty((total, heads, head_dim), dtype=x.dtype, device=x.device)
    with on_device(x):
        attention_rotate_kernel[(triton.cdiv(total, CONFIG["BLOCK_M"]), heads)](
            x, cosines, sines, out, total, x.stride(0), x.stride(1), out.stride(0), -1.0 if inverse else 1.0,
            **_widths(head_dim, cosines.shape[1]), **CONFIG,
        )  # fmt: skip
    return out


@rotate.register_fake
def _(x: Tensor, cosines: Tensor, sines: Tensor, inverse: bool) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor) -> None:
    _, cosines, sines, ctx.inverse = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(cosines, sines)  # type: ignore[arg-type]


def _turn_back(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    cosines, sines = ctx.saved_tensors  # type: ignore[attr-defined]
    if gradient.stride(-1) != 1:
        gradient = gradient.contiguous()
    return rotate(gradient, cosines, sines, not ctx.inverse), None, None, None  # type: ignore[attr-defined]


rotate.register_autograd(_turn_back, setup_context=_save)


def compile_cases(arch: int) -> list[Case]:
    """List the kernel as phi launches it, 32 of 64 dimensions, and with all dimensions turned."""
    cases = []
    for name, head_dim, half in (("fp16", 64, 16), ("bf16", 128, 64), ("fp32", 64, 16)):
        types = {"x": f"*{name}", "cosines": "*fp32", "sines": "*fp32", "out": f"*{name}", "total": "i32"}
        strides = ("stride_x", "stride_x_head", "stride_out")
        types |= dict.fromkeys(strides, "i32") | {"sign": "fp32"}
        constants = {**_widths(head_dim, half), "BLOCK_M": CONFIG["BLOCK_M"]}
        title = f"attention rotary, {name}, {2 * half} of {head_dim}"
        warps, stages = CONFIG["num_warps"], CONFIG["num_stages"]
        cases.append(Case(title, attention_rotate_kernel, types, constants, warps, stages, ("total", *strides)))
    return cases
