"""LayerNorm over the last dimension, in one pass forward and one backward.

y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(var + eps), var the biased variance (Ba et al., "Layer
Normalization", 2016). With g = dy * weight and n = (x - mean) * rstd the gradients are

    dx = rstd * (g - avg(g) - n * avg(g * n)),   dweight = sum over rows of dy * n,   dbias = sum over rows of dy

Statistics and sums are fp32 whatever the dtype of x.
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
    check_tensor,
    config_for,
    dispatch,
    jit,
    on_device,
    tl,
    triton,
)
from phi_fast.kernels._reduce import column_sum, slices

MAX_WIDTH = 8192  # a row is held in one program's registers; twice as much spills in the backward

# The backward holds x, dy, the gain and two running sums; a thread keeps at most 16 columns of each.
_FORWARD: Table = {80: [(512, {"num_warps": 1}), (2048, {"num_warps": 4}), (MAX_WIDTH, {"num_warps": 8})]}
_BACKWARD: Table = {80: [(512, {"num_warps": 2}), (2048, {"num_warps": 8}), (MAX_WIDTH, {"num_warps": 16})]}
_BACKWARD_ADD: Table = {80: [(512, {"num_warps": 2}), (2048, {"num_warps": 8}), (MAX_WIDTH, {"num_warps": 32})]}


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise the last dimension of `x`, scale it and shift it.

    Parameters
    ----------
    x
        (..., width), fp16, bf16 or fp32 (fp64 on the reference), width 1 to 8,192. Rows may lie apart, as in a slice;
        within a row the stride must be 1.
    weight, bias
        (width,), contiguous, of any of these dtypes: fp32 beside a half-precision `x` is allowed.
    eps
        Added to the variance; positive.

    Returns
    -------
    Tensor
        Shape and dtype of `x`, contiguous. Differentiable in `x`, `weight` and `bias`.

    Raises
    ------
    InputError
        Wrong dtype, device, stride, width, an empty `x` or eps, naming the argument.
    """
    check_tensor("x", x, dtypes=FLOATS, last_contiguous=True)
    check(x.dim() >= 1 and x.numel() > 0, "x", "at least one row and one column", f"shape {tuple(x.shape)}")
    width = x.shape[-1]
    check(width <= MAX_WIDTH, "x", f"rows of at most {MAX_WIDTH} columns", width)
    check_tensor("weight", weight, dtypes=FLOATS, shape=(width,), like=x, contiguous=True)
    check_tensor("bias", bias, dtypes=FLOATS, shape=(width,), like=x, contiguous=True)
    check(eps > 0, "eps", "a positive number", eps)
    y: Tensor = _forward(x.reshape(-1, width), weight, bias, eps)[0]
    return y.view(x.shape)


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Compute `layer_norm` in plain PyTorch: statistics in fp32 (fp64 for fp64), rounded once at the end."""
    wide = torch.promote_types(x.dtype, torch.float32)
    value = x.to(wide)
    centred = value - value.mean(-1, keepdim=True)
    normal = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    return (normal * weight.to(wide) + bias.to(wide)).to(x.dtype)


@jit
def forward_kernel(x, weight, bias, y, mean, rstd, stride, width, eps, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    average = tl.sum(value, axis=0) / width
    centred = tl.where(inside, value - average, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / width + eps)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    result = centred * scale * gain + shift
    tl.store(y + row * width + column, result.to(y.dtype.element_ty), mask=inside)
    tl.store(mean + row, average)
    tl.store(rstd + row, scale)


@jit
def backward_kernel(  # type: ignore[no-untyped-def]
    x, weight, dy, addend, mean, rstd, dx, dweight, dbias, dsum, stride, dy_stride, rows, width,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One slice of rows, every n-th: dx row by row, and the slice's sums for dweight and dbias (slices, width) fp32.

    With ADD `addend` (rows, width) is added to dx, and its own sums go into dsum.
    """
    column = tl.arange(0, BLOCK)
    inside = column < width
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    gain_sum = tl.zeros((BLOCK,), dtype=tl.float32)
    shift_sum = tl.zeros((BLOCK,), dtype=tl.float32)
    addend_sum = tl.zeros((BLOCK,), dtype=tl.float32)
    for index in range(tl.program_id(0), rows, tl.num_programs(0)):
        row = tl.full((), 0, tl.int64) + index
        value = tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)
        upstream = tl.load(dy + row * dy_stride + column, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(rstd + row)
        normal = tl.where(inside, (value - tl.load(mean + row)) * scale, 0.0)
        gained = upstream * gain
        along_one = tl.sum(gained, axis=0) / width
        along_normal = tl.sum(gained * normal, axis=0) / width
        result = (gained - along_one - normal * along_normal) * scale
        if ADD:
            more = tl.load(addend + row * width + column, mask=inside, other=0.0).to(tl.float32)
            result += more
            addend_sum += more
        tl.store(dx + row * width + column, result.to(dx.dtype.element_ty), mask=inside)
        gain_sum += upstream * normal
        shift_sum += upstream
    tl.store(dweight + tl.program_id(0) * width + column, gain_sum, mask=inside)
    tl.store(dbias + tl.program_id(0) * width + column, shift_sum, mask=inside)
    if ADD:
        tl.store(dsum + tl.program_id(0) * width + column, addend_sum, mask=inside)


@torch.library.custom_op(
    "phi_fast::layer_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor, Tensor, Tensor)",
)
def _forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return forward(x, weight, bias, eps, x.dtype)


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, width) -> y in `dtype`, and mean and rstd (rows,) in fp32 (fp64 for fp64); for another op's body."""
    rows, width = x.shape
    if dispatch(x, weight, bias) == "reference":
        wide = torch.promote_types(x.dtype, torch.float32)
        variance, mean = torch.var_mean(x.to(wide), dim=-1, correction=0)
        return reference(x.to(wide), weight, bias, eps).to(dtype).contiguous(), mean, torch.rsqrt(variance + eps)
    y, mean, rstd = _outputs(x, dtype)
    config = config_for(_FORWARD, arch_of(x), width)
    with on_device(x):
        forward_kernel[(rows,)](
            x, weight, bias, y, mean, rstd, x.stride(0), width, eps, BLOCK=triton.next_power_of_2(width), **config
        )
    return y, mean, rstd


def _outputs(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    statistics = torch.promote_types(x.dtype, torch.float32)
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    mean, rstd = (torch.empty(x.shape[0], dtype=statistics, device=x.device) for _ in range(2))
    return y, mean, rstd


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, x.dtype)


@torch.library.custom_op(
    "phi_fast::layer_norm_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor weight, Tensor mean, Tensor rstd, ScalarType bias_dtype)"
    " -> (Tensor, Tensor, Tensor)",
)
def _backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, bias_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Give dx (rows, width), dweight and dbias (width,) in the dtypes of x, weight and bias."""
    return backward(dy, x, weight, mean, rstd, bias_dtype)[:3]


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    bias_dtype: torch.dtype,
    addend: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do what `_backward` does, inside another op's body; dy may have another dtype than x.

    An `addend` (rows, width), contiguous, is added to dx in the same pass.

    Returns
    -------
    dx, dweight, dbias
        (rows, width) and (width,), in the dtypes of x and weight and in `bias_dtype`.
    sums
        (slices, width) fp32: what adds up to the addend's column sums (`column_sum`); empty without one. On the
        reference one row, in fp64 for fp64.
    """
    rows, width = x.shape
    if dispatch(x, weight) == "reference":
        wide = mean.dtype
        upstream, normal = dy.to(wide), (x.to(wide) - mean[:, None]) * rstd[:, None]
        gained = upstream * weight.to(wide)
        inner = gained - gained.mean(-1, keepdim=True) - normal * (gained * normal).mean(-1, keepdim=True)
        dx, sums = inner * rstd[:, None], inner[:0]
        if addend is not None:
            dx, sums = dx + addend, addend.to(wide).sum(0, keepdim=True)
        dx = dx.to(x.dtype).contiguous()
        return dx, (upstream * normal).sum(0).to(weight.dtype), upstream.sum(0).to(bias_dtype), sums
    if dy.stride(-1) != 1 and width > 1:
        dy = dy.contiguous()
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    count = slices(rows, 1, x.device)
    add = addend is not None
    partial = torch.empty((3 if add else 2, count, width), dtype=torch.float32, device=x.device)
    config = config_for(_BACKWARD_ADD if add else _BACKWARD, arch_of(x), width)
    strides = (x.stride(0), dy.stride(0))
    block = triton.next_power_of_2(width)
    with on_device(x):
        backward_kernel[(count,)](
            x, weight, dy, addend if add else dy, mean, rstd, dx, partial[0], partial[1], partial[-1], *strides,
            rows, width, ADD=add, BLOCK=block, **config,
        )  # fmt: skip
    sums = partial[2] if add else partial[0, :0]
    return dx, column_sum(partial[0], weight.dtype), column_sum(partial[1], bias_dtype), sums


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, bias_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return dx, torch.empty_like(weight), torch.empty(weight.shape, dtype=bias_dtype, device=x.device)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight, *output[1:])
    ctx.bias_dtype = bias.dtype
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, dy, *_statistics):  # type: ignore[no-untyped-def]
    return *_backward(dy, *ctx.saved_tensors, ctx.bias_dtype), None


_forward.register_autograd(_gradients, setup_context=_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernels as launched for phi-1's width phi-1-small's and the widest allowed."""
    cases = []
    statistics = {"mean": "*fp32", "rstd": "*fp32"}
    for width in (1024, 2048, MAX_WIDTH):
        types = {"x": "*fp16", "weight": "*fp32", "bias": "*fp32", "y": "*fp16", **statistics}
        types |= {"stride": "i32", "width": "i32", "eps": "fp32"}
        config = config_for(_FORWARD, arch, width)
        multiples = ("stride", "dy_stride", "width")
        cases.append(
            Case(f"layer norm forward, {width}", forward_kernel, types, {"BLOCK": width}, **config, multiples=multiples)
        )
        types = dict.fromkeys(("x", "dy", "addend", "dx"), "*fp16") | {"weight": "*fp32", **statistics}
        types |= {"dweight": "*fp32", "dbias": "*fp32", "dsum": "*fp32"}
        types |= dict.fromkeys(("stride", "dy_stride", "rows", "width"), "i32")
        for label, table in (("", _BACKWARD), (", addend", _BACKWARD_ADD)):
            constants = {"BLOCK": width, "ADD": bool(label)}
            config = config_for(table, arch, width)
            title = f"layer norm backward{label}, {width}"
            cases.append(Case(title, backward_kernel, types, constants, **config, multiples=multiples))
    return cases
