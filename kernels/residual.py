"""The end of a parallel block in one pass: x + dropout(attention) + dropout(mlp).

Both masks come from one Philox number a position (two of its four words), so the backward makes them again from the
seed and nothing is stored. With p = 0 this is exactly the sum, rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phi_fast.kernels._common import (
    FLOATS,
    Case,
    Table,
    arch_of,
    check,
    check_seed,
    check_tensor,
    config_for,
    dispatch,
    dropout_threshold,
    jit,
    keeps,
    kept,
    new_seed,
    on_device,
    philox,
    tl,
    triton,
)

_CONFIG: Table = {80: [(1 << 62, {"BLOCK": 1024, "num_warps": 4})]}


def residual(x: Tensor, attention: Tensor, mlp: Tensor, p: float = 0.0, seed: Tensor | None = None) -> Tensor:
    """Add both branches of a block to the stream, each with dropout of its own.

    Parameters
    ----------
    x, attention, mlp
        One shape (any), one dtype (fp16, bf16 or fp32; fp64 on the reference), contiguous.
    p
        Probability to drop an element of `attention`, and of `mlp`, in [0, 1); what stays is divided by 1 - p. Give 0
        when not training.
    seed
        int64 (2,) as `new_seed` draws it; the same seed gives the same masks. By default a new one is drawn from
        PyTorch's generator.

    Returns
    -------
    Tensor
        Shape and dtype of `x`, contiguous. Differentiable in all three.

    Raises
    ------
    InputError
        Wrong dtype, shape, device, stride, seed, p, an empty `x`, or 2**48 elements and more, naming the argument.
    """
    threshold = _check(x, attention, mlp, p)
    if seed is None:
        seed = new_seed(x.device) if threshold else torch.zeros(2, dtype=torch.int64, device=x.device)
    check_seed(seed, like=x)
    out: Tensor = _forward(x, attention, mlp, seed, p)
    return out


def _check(x: Tensor, attention: Tensor, mlp: Tensor, p: float) -> int:
    check_tensor("x", x, dtypes=FLOATS, contiguous=True)
    check(0 < x.numel() < 1 << 48, "x", "at least one element and fewer than 2**48", f"shape {tuple(x.shape)}")
    for name, branch in (("attention", attention), ("mlp", mlp)):
        check_tensor(name, branch, dtypes=(x.dtype,), shape=tuple(x.shape), like=x, contiguous=True)
    return dropout_threshold(p)


def masks(shape: torch.Size, seed: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Give what stays of attention and of the MLP, two boolean tensors of `shape`, by `seed` (see `residual`)."""
    index = torch.arange(shape.numel(), dtype=torch.int64, device=seed.device)
    first, second, _, _ = philox(seed[0], index, index >> 32, seed[1])
    threshold = dropout_threshold(p)
    return kept(first, threshold).view(shape), kept(second, threshold).view(shape)


def reference(x: Tensor, attention: Tensor, mlp: Tensor, p: float = 0.0, seed: Tensor | None = None) -> Tensor:
    """Compute `residual` in plain PyTorch, the same masks from the same seed: fp32 inside, rounded once."""
    wide = torch.promote_types(x.dtype, torch.float32)
    one, other = attention.to(wide), mlp.to(wide)
    if dropout_threshold(p):
        keep_one, keep_other = masks(x.shape, new_seed(x.device) if seed is None else seed, p)
        one = torch.where(keep_one, one / (1 - p), 0.0)
        other = torch.where(keep_other, other / (1 - p), 0.0)
    return (x.to(wide) + one + other).to(x.dtype)


@jit
def numbers(seed, offset):  # type: ignore[no-untyped-def]
    """Give two random numbers for each position, as `masks` does."""
    low, high = offset.to(tl.int32), (offset >> 32).to(tl.int32)
    first, second, _, _ = tl.philox(tl.load(seed), low, high, tl.load(seed + 1).to(tl.int32) + low * 0, low * 0)
    return first, second


@jit
def forward_kernel(  # type: ignore[no-untyped-def]
    x, attention, mlp, out, seed, size, threshold, scale, DROP: tl.constexpr, BLOCK: tl.constexpr
):
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    one = tl.load(attention + offset, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(mlp + offset, mask=inside, other=0.0).to(tl.float32)
    if DROP:
        first, second = numbers(seed, offset)
        one = tl.where(keeps(first, threshold), one * scale, 0.0)
        other = tl.where(keeps(second, threshold), other * scale, 0.0)
    total = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32) + one + other
    tl.store(out + offset, total.to(out.dtype.element_ty), mask=inside)


@jit
def backward_kernel(dout, dattention, dmlp, seed, size, threshold, scale, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offset = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offset < size
    upstream = tl.load(dout + offset, mask=inside, other=0.0).to(tl.float32) * scale
    first, second = numbers(seed, offset)
    one = tl.where(keeps(first, threshold), upstream, 0.0)
    other = tl.where(keeps(second, threshold), upstream, 0.0)
    tl.store(dattention + offset, one.to(dattention.dtype.element_ty), mask=inside)
    tl.store(dmlp + offset, other.to(dmlp.dtype.element_ty), mask=inside)


@torch.library.custom_op(
    "phi_fast::residual",
    mutates_args=(),
    schema="(Tensor x, Tensor attention, Tensor mlp, Tensor seed, float p) -> Tensor",
)
def _forward(x: Tensor, attention: Tensor, mlp: Tensor, seed: Tensor, p: float) -> Tensor:
    return add(x, attention, mlp, seed, p)


def add(x: Tensor, attention: Tensor, mlp: Tensor, seed: Tensor, p: float) -> Tensor:
    """Do what `residual` does, inside another op's body: unchecked, and the branches' dtype may be another than x's."""
    if dispatch(x, attention, mlp) == "reference":
        return reference(x, attention, mlp, p, seed)
    out, size, threshold = torch.empty_like(x), x.numel(), dropout_threshold(p)
    config = config_for(_CONFIG, arch_of(x), size)
    with on_device(x):
        grid = (triton.cdiv(size, config["BLOCK"]),)
        forward_kernel[grid](x, attention, mlp, out, seed, size, threshold, 1 / (1 - p), DROP=threshold > 0, **config)
    return out


@_forward.register_fake
def _(x: Tensor, attention: Tensor, mlp: Tensor, seed: Tensor, p: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op(
    "phi_fast::residual_backward", mutates_args=(), schema="(Tensor dout, Tensor seed, float p) -> (Tensor, Tensor)"
)
def _backward(dout: Tensor, seed: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Give the gradients of attention and mlp, for p > 0; that of x is dout itself."""
    if dispatch(dout) == "reference":
        wide = dout.to(torch.promote_types(dout.dtype, torch.float32)) / (1 - p)
        one, other = (torch.where(keep, wide, 0.0).to(dout.dtype) for keep in masks(dout.shape, seed, p))
        return one.contiguous(), other.contiguous()
    dout = dout.contiguous()
    one, other, size = torch.empty_like(dout), torch.empty_like(dout), dout.numel()
    config = config_for(_CONFIG, arch_of(dout), size)
    with on_device(dout):
        grid = (triton.cdiv(size, config["BLOCK"]),)
        backward_kernel[grid](dout, one, other, seed, size, dropout_threshold(p), 1 / (1 - p), **config)
    return one, other


@_backward.register_fake
def _(dout: Tensor, seed: Tensor, p: float) -> tuple[Tensor, Tensor]:
    return torch.empty(dout.shape, dtype=dout.dtype, device=dout.device), torch.empty(
        dout.shape, dtype=dout.dtype, device=dout.device
    )


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *_, seed, ctx.p = inputs
    ctx.save_for_backward(seed)


def _gradients(ctx, dout):  # type: ignore[no-untyped-def]
    if dropout_threshold(ctx.p) == 0:
        return dout, dout, dout, None, None
    return dout, *_backward(dout, ctx.saved_tensors[0], ctx.p), None, None


_forward.register_autograd(_gradients, setup_context=_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernels as launched."""
    config = config_for(_CONFIG, arch, 1)
    block, warps = {"BLOCK": config["BLOCK"]}, config["num_warps"]
    last = {"seed": "*i64", "size": "i32", "threshold": "i32", "scale": "fp32"}
    types = dict.fromkeys(("x", "attention", "mlp", "out"), "*fp16") | last
    cases = [
        Case(f"residual forward, {label}", forward_kernel, types, {"DROP": drop, **block}, warps, multiples=("size",))
        for label, drop in (("dropout", True), ("no dropout", False))
    ]
    types = dict.fromkeys(("dout", "dattention", "dmlp"), "*fp16") | last
    return [*cases, Case("residual backward", backward_kernel, types, block, warps, multiples=("size",))]
