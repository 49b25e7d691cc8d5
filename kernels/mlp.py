"""The feed-forward branch: GELU with its bias in one pass, and its bias gradient in the same pass as its derivative.

gelu(z) = z/2 * (1 + tanh(u)) with u = sqrt(2/pi) * (z + 0.044715 z**3) (Hendrycks and Gimpel, "Gaussian error
linear units", 2016; `gelu_new` and ``approximate="tanh"`` elsewhere). As
(1 + tanh(u)) / 2 = sigmoid(2u) =: s, it is z * s, and

    gelu'(z) = s + z * s * (1 - s) * 2u',   u' = sqrt(2/pi) * (1 + 3 * 0.044715 z**2).

The matrix products stay with cuBLAS; `linear_bias_gelu` is one kernel for product, bias and GELU, to compare with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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

_FORWARD: Table = {80: [(1 << 62, {"ROWS": 4, "COLUMNS": 256, "num_warps": 4})]}
_BACKWARD: Table = {80: [(1 << 62, {"ROWS": 8, "COLUMNS": 256, "num_warps": 4})]}
_PRECISION = "ieee"  # fp32 operands are not rounded to tf32; of no effect on halves
_TILES = {"BLOCK_M": 128, "BLOCK_N": 128}
_LINEAR: Table = {
    80: [(1 << 62, {**_TILES, "BLOCK_K": 32, "GROUP": 8, "num_warps": 8, "num_stages": 3})],
    90: [(1 << 62, {**_TILES, "BLOCK_K": 64, "GROUP": 8, "num_warps": 8, "num_stages": 3})],
}


def mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Compute gelu(x weight1^T + bias1) weight2^T + bias2.

    Parameters
    ----------
    x
        (..., width) fp16, bf16 or fp32 (fp64 on the reference), contiguous.
    weight1, bias1
        (inner, width) and (inner,), dtype of `x`, contiguous.
    weight2, bias2
        (out, inner) and (out,), dtype of `x`, contiguous.

    Returns
    -------
    Tensor
        (..., out), dtype of `x`. Differentiable in all.

    Raises
    ------
    InputError
        Wrong dtype, shape, device or stride, naming the argument.
    """
    _check_linear(x, weight1, bias1, names=("x", "weight1", "bias1"))
    inner = weight1.shape[0]
    check_tensor("weight2", weight2, dtypes=(x.dtype,), shape=(None, inner), like=x, contiguous=True)
    check_tensor("bias2", bias2, dtypes=(x.dtype,), shape=(weight2.shape[0],), like=x, contiguous=True)
    return F.linear(bias_gelu(F.linear(x, weight1), bias1), weight2, bias2)


def reference(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """Compute `mlp` in plain PyTorch."""
    return F.linear(F.gelu(F.linear(x, weight1, bias1), approximate="tanh"), weight2, bias2)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Compute gelu(x + bias), tanh form.

    Parameters
    ----------
    x
        (..., width) fp16, bf16 or fp32 (fp64 on the reference), contiguous.
    bias
        (width,) of any of these dtypes.

    Returns
    -------
    Tensor
        Shape and dtype of `x`. Differentiable in both; the backward reads `x` again and writes dx and the bias gradient
        in one pass, fp32 sums.

    Raises
    ------
    InputError
        Wrong dtype, shape, device or stride, naming the argument.
    """
    check_tensor("x", x, dtypes=FLOATS, contiguous=True)
    check(x.dim() >= 1 and x.numel() > 0, "x", "at least one row and one column", f"shape {tuple(x.shape)}")
    check_tensor("bias", bias, dtypes=FLOATS, shape=(x.shape[-1],), like=x, contiguous=True)
    y: Tensor = _forward(x.view(-1, x.shape[-1]), bias)
    return y.view(x.shape)


def bias_gelu_reference(x: Tensor, bias: Tensor) -> Tensor:
    """Compute `bias_gelu` in plain PyTorch: fp32 inside (fp64 for fp64), rounded once."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return F.gelu(x.to(wide) + bias.to(wide), approximate="tanh").to(x.dtype)


def linear_bias_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute gelu(x weight^T + bias) in one kernel, the product accumulated in fp32.

    Parameters
    ----------
    x
        (..., width) fp16, bf16 or fp32 (fp64 on the reference), contiguous.
    weight, bias
        (out, width) and (out,), dtype of `x`, contiguous.

    Returns
    -------
    Tensor
        (..., out), dtype of `x`. Differentiable in all three; x weight^T is kept for the backward, in the dtype of `x`.

    Raises
    ------
    InputError
        Wrong dtype, shape, device or stride, naming the argument.
    """
    _check_linear(x, weight, bias, names=("x", "weight", "bias"))
    y: Tensor = _linear(x.view(-1, x.shape[-1]), weight, bias)[0]
    return y.view(*x.shape[:-1], weight.shape[0])


def linear_bias_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `linear_bias_gelu` in plain PyTorch."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def _check_linear(x: Tensor, weight: Tensor, bias: Tensor, names: tuple[str, str, str]) -> None:
    check_tensor(names[0], x, dtypes=FLOATS, contiguous=True)
    check(x.dim() >= 1 and x.numel() > 0, names[0], "at least one row and one column", f"shape {tuple(x.shape)}")
    check_tensor(names[1], weight, dtypes=(x.dtype,), shape=(None, x.shape[-1]), like=x, contiguous=True)
    check(weight.shape[0] > 0, names[1], "at least one row", f"shape {tuple(weight.shape)}")
    check_tensor(names[2], bias, dtypes=(x.dtype,), shape=(weight.shape[0],), like=x, contiguous=True)


@jit
def gate(z):  # type: ignore[no-untyped-def]
    """Give s = (1 + tanh(u)) / 2: a sigmoid, for tanh itself is a library call."""
    return tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))  # 2 * sqrt(2 / pi)


@jit
def gelu_derivative(z):  # type: ignore[no-untyped-def]
    s = gate(z)
    return s + z * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * z * z)


@jit
def forward_kernel(  # type: ignore[no-untyped-def]
    x, bias, y, rows, width, x_stride, y_stride, BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (row < rows)[:, None] & (column < width)[None, :]
    row = row.to(tl.int64)[:, None]
    z = tl.load(x + row * x_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
    if BIAS:
        z += tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    tl.store(y + row * y_stride + column[None, :], (z * gate(z)).to(y.dtype.element_ty), mask=mask)


@jit
def backward_kernel(  # type: ignore[no-untyped-def]
    x, bias, dy, dx, partial, rows, width, x_stride, dy_stride, dx_stride,
    BIAS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A block of columns and every n-th block of rows: dx, and its bias gradient into partial (slices, width)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    shift = tl.zeros((COLUMNS,), dtype=tl.float32)
    if BIAS:
        shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(tl.program_id(1) * ROWS, rows, tl.num_programs(1) * ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        row = row.to(tl.int64)[:, None]
        z = tl.load(x + row * x_stride + column[None, :], mask=mask, other=0.0).to(tl.float32) + shift[None, :]
        upstream = tl.load(dy + row * dy_stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
        gradient = upstream * gelu_derivative(z)
        tl.store(dx + row * dx_stride + column[None, :], gradient.to(dx.dtype.element_ty), mask=mask)
        total += tl.sum(gradient, axis=0)
    tl.store(partial + tl.program_id(1) * width + column, total, mask=inside)


@jit
def linear_kernel(  # type: ignore[no-untyped-def]
    x, weight, bias, before, y, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of y (M, N) = gelu(before + bias), before = x (M, K) weight (N, K)^T."""
    rows_of_tiles, columns_of_tiles = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = tl.program_id(0) // (GROUP * columns_of_tiles)  # GROUP rows of tiles share their columns in L2
    height = tl.minimum(rows_of_tiles - group * GROUP, GROUP)
    within = tl.program_id(0) % (GROUP * columns_of_tiles)
    row = (group * GROUP + within % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (within // height) * BLOCK_N + tl.arange(0, BLOCK_N)
    left = x + row.to(tl.int64)[:, None] * K
    right = weight + column.to(tl.int64)[None, :] * K
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(left + k[None, :], mask=(row < M)[:, None] & (k < K)[None, :], other=0.0)
        b = tl.load(right + k[:, None], mask=(k < K)[:, None] & (column < N)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    offset = row.to(tl.int64)[:, None] * N + column[None, :]
    mask = (row < M)[:, None] & (column < N)[None, :]
    tl.store(before + offset, total.to(before.dtype.element_ty), mask=mask)
    z = total + tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + offset, (z * gate(z)).to(y.dtype.element_ty), mask=mask)


@torch.library.custom_op("phi_fast::bias_gelu", mutates_args=(), schema="(Tensor x, Tensor bias) -> Tensor")
def _forward(x: Tensor, bias: Tensor) -> Tensor:
    if dispatch(x, bias) == "reference":
        return bias_gelu_reference(x, bias)
    y = torch.empty_like(x)
    _launch_forward(x, bias, y)
    return y


def _launch_forward(x: Tensor, bias: Tensor | None, y: Tensor) -> None:
    rows, width = x.shape
    config = config_for(_FORWARD, arch_of(x), width)
    with on_device(x):
        grid = (triton.cdiv(rows, config["ROWS"]), triton.cdiv(width, config["COLUMNS"]))
        forward_kernel[grid](
            x, x if bias is None else bias, y, rows, width, x.stride(0), y.stride(0), BIAS=bias is not None, **config
        )


def gelu_into(x: Tensor, y: Tensor) -> None:
    """Write gelu(x) to `y`, inside another op's body; both (rows, width), their rows any stride apart."""
    if dispatch(x, y) == "reference":
        wide = torch.promote_types(x.dtype, torch.float32)
        y.copy_(F.gelu(x.to(wide), approximate="tanh"))
        return
    _launch_forward(x, None, y)


@_forward.register_fake
def _(x: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op(
    "phi_fast::bias_gelu_backward", mutates_args=(), schema="(Tensor dy, Tensor x, Tensor bias) -> (Tensor, Tensor)"
)
def _backward(dy: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Give dx (rows, width) and dbias (width,) in the dtypes of x and bias."""
    dx = torch.empty_like(x)
    return dx, gelu_backward_into(dy.contiguous(), x, dx, bias.dtype, bias)


def gelu_backward_into(
    dy: Tensor, x: Tensor, dx: Tensor, bias_dtype: torch.dtype, bias: Tensor | None = None
) -> Tensor:
    """Write dy * gelu'(x + bias) to `dx` and give its column sums, inside an op's body.

    Parameters
    ----------
    dy, x, dx
        (rows, width), rows any stride apart; `dx` is written.
    bias
        (width,), or None where `x` holds it already.

    Returns
    -------
    Tensor
        (width,) in `bias_dtype`: the bias gradient.
    """
    if dispatch(x, bias) == "reference":
        wide = torch.promote_types(x.dtype, torch.float32)
        z = x.to(wide) if bias is None else x.to(wide) + bias.to(wide)
        s = torch.sigmoid(1.5957691216057308 * (z + 0.044715 * z**3))
        gradient = dy.to(wide) * (s + z * s * (1 - s) * 1.5957691216057308 * (1 + 0.134145 * z * z))
        dx.copy_(gradient)
        return gradient.sum(0).to(bias_dtype)
    rows, width = x.shape
    config = config_for(_BACKWARD, arch_of(x), width)
    across = triton.cdiv(width, config["COLUMNS"])
    count = slices(rows, config["ROWS"], x.device, across)
    partial = torch.empty((count, width), dtype=torch.float32, device=x.device)
    strides = (x.stride(0), dy.stride(0), dx.stride(0))
    with on_device(x):
        backward_kernel[(across, count)](
            x, x if bias is None else bias, dy, dx, partial, rows, width, *strides, BIAS=bias is not None, **config
        )
    return column_sum(partial, bias_dtype)


@_backward.register_fake
def _(dy: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(bias)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _gradients(ctx, dy):  # type: ignore[no-untyped-def]
    return _backward(dy, *ctx.saved_tensors)


_forward.register_autograd(_gradients, setup_context=_setup)


@torch.library.custom_op(
    "phi_fast::linear_bias_gelu", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor)"
)
def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Give gelu(x weight^T + bias) and x weight^T."""
    if dispatch(x, weight, bias) == "reference":
        before = F.linear(x, weight)
        return bias_gelu_reference(before, bias), before
    (m, k), n = x.shape, weight.shape[0]
    y, before = _linear_outputs(x, weight)
    config = config_for(_LINEAR, arch_of(x), k)
    config |= _narrower(x.dtype)
    grid = (triton.cdiv(m, config["BLOCK_M"]) * triton.cdiv(n, config["BLOCK_N"]),)
    with on_device(x):
        linear_kernel[grid](x, weight, bias, before, y, m, n, k, PRECISION=_PRECISION, **config)
    return y, before


def _narrower(dtype: torch.dtype) -> dict[str, int]:
    """fp32 operands take twice the shared memory, and exact products many registers: smaller tiles."""
    return {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "num_stages": 2} if dtype == torch.float32 else {}


def _linear_outputs(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], weight.shape[0])
    return torch.empty(shape, dtype=x.dtype, device=x.device), torch.empty(shape, dtype=x.dtype, device=x.device)


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return _linear_outputs(x, weight)


def _linear_setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _linear_gradients(ctx, dy, _before):  # type: ignore[no-untyped-def]
    x, weight, bias, before = ctx.saved_tensors
    dbefore, dbias = _backward(dy, before, bias)
    return dbefore @ weight, dbefore.t() @ x, dbias


_linear.register_autograd(_linear_gradients, setup_context=_linear_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernels as launched for phi-1."""
    cases = []
    for label, given in (("bias GELU", True), ("GELU", False)):
        config = config_for(_FORWARD, arch, 8192)
        numbers = ("rows", "width", "x_stride", "y_stride")
        types = {"x": "*fp16", "bias": "*fp16", "y": "*fp16", **dict.fromkeys(numbers, "i32")}
        warps = config.pop("num_warps")
        constants = {"BIAS": given, **config}
        cases.append(Case(f"{label} forward", forward_kernel, types, constants, warps, multiples=numbers))
        config = config_for(_BACKWARD, arch, 8192)
        numbers = ("rows", "width", "x_stride", "dy_stride", "dx_stride")
        types = dict.fromkeys(("x", "bias", "dy", "dx"), "*fp16") | {"partial": "*fp32"}
        types |= dict.fromkeys(numbers, "i32")
        warps = config.pop("num_warps")
        constants = {"BIAS": given, **config}
        cases.append(Case(f"{label} backward", backward_kernel, types, constants, warps, multiples=numbers))
    for label, pointer, dtype in (
        ("fp16", "*fp16", torch.float16),
        ("bf16", "*bf16", torch.bfloat16),
        ("fp32", "*fp32", torch.float32),
    ):
        types = dict.fromkeys(("x", "weight", "bias", "before", "y"), pointer) | dict.fromkeys("MNK", "i32")
        config = config_for(_LINEAR, arch, 2048) | _narrower(dtype)
        launch = {"num_warps": config.pop("num_warps"), "num_stages": config.pop("num_stages")}
        constants = {**config, "PRECISION": _PRECISION}
        cases.append(
            Case(f"linear bias GELU, {label}", linear_kernel, types, constants, **launch, multiples=("M", "N", "K"))
        )
    return cases
