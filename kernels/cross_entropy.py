"""The head and its loss, chunk of rows by chunk, so that the logits of a whole batch never stand in memory.

For a row with logits z = hidden weight^T + bias and label y the loss is logsumexp(z) - z[y], and its gradient in z is
softmax(z) - onehot(y) (0 where the label is ignored). A chunk's logits are overwritten by that gradient, from which the
chunk's part of dhidden = dz weight, dweight += dz^T hidden and dbias += sum of dz follow, all within the forward.

The division by the number of items is left to the very end: 1/32,768 would push fp16 gradients below what fp16 holds,
whereas softmax - onehot lies in [-1, 1]. dweight and dbias add up in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.kernels._common import (
    FLOATS,
    Case,
    Table,
    Tunable,
    arch_of,
    check,
    check_tensor,
    check_values,
    choices,
    config_for,
    dispatch,
    jit,
    on_device,
    tl,
)

_CHUNK_BYTES = 1 << 28  # logits in memory at once, unless chunk_rows says otherwise: 2,621 rows of phi-1 in fp16
_CONFIG: Table = {
    80: [(1024, {"BLOCK": 1024, "num_warps": 4}), (1 << 62, {"BLOCK": 4096, "num_warps": 8})],
}


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Tensor | float | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Compute the cross-entropy of hidden weight^T + bias against labels.

    Parameters
    ----------
    hidden
        (..., width) fp16, bf16 or fp32 (fp64 on the reference), contiguous.
    weight
        (vocabulary, width), dtype of `hidden`, contiguous.
    bias
        (vocabulary,), dtype of `hidden`, contiguous; or None.
    labels
        int64, hidden's leading dimensions: 0 to vocabulary - 1, or `ignore_index`.
    ignore_index
        The label of rows that count for nothing.
    reduction
        ``"mean"`` over the rows that count (nan when there is none, as in PyTorch), or ``"sum"``.
    num_items
        Divide the sum by this instead, a number or a scalar tensor: what a step with gradient accumulation needs.
    chunk_rows
        Rows whose logits stand in memory at once; by default as many as 256 MiB hold.

    Returns
    -------
    Tensor
        Scalar, fp32 (fp64 for fp64). Differentiable once, in `hidden`, `weight` and `bias`; the gradients are computed
        in the forward, if any is needed.

    Raises
    ------
    InputError
        Wrong dtype, shape, device, stride, reduction or number, naming the argument. A label out of range: on the CPU
        at once; on a GPU by a device-side assertion with the same message, for which nothing waits: it stands on the
        stream in front of the kernels, which themselves take such a label as ignored and read nothing out of bounds.
    """
    check_tensor("hidden", hidden, dtypes=FLOATS, contiguous=True)
    check(hidden.dim() >= 2 and hidden.numel() > 0, "hidden", "(..., width), not empty", tuple(hidden.shape))
    check_tensor("weight", weight, dtypes=(hidden.dtype,), shape=(None, hidden.shape[-1]), like=hidden, contiguous=True)
    vocabulary = weight.shape[0]
    check(1 <= vocabulary < 2**31, "weight", "1 to 2**31 - 1 rows", vocabulary)
    if bias is not None:
        check_tensor("bias", bias, dtypes=(hidden.dtype,), shape=(vocabulary,), like=hidden, contiguous=True)
    check_tensor("labels", labels, dtypes=(torch.int64,), shape=tuple(hidden.shape[:-1]), like=hidden, contiguous=True)
    check(reduction in ("mean", "sum"), "reduction", '"mean" or "sum"', repr(reduction))
    check(chunk_rows is None or chunk_rows >= 1, "chunk_rows", "at least 1", chunk_rows)
    if num_items is not None and not isinstance(num_items, Tensor):
        check(num_items > 0, "num_items", "a positive number", num_items)
    flat = labels.view(-1)
    rows = chunk_rows or max(1, _CHUNK_BYTES // (vocabulary * hidden.element_size()))
    needed = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (hidden, weight, bias))
    total: Tensor = _forward(hidden.view(-1, hidden.shape[-1]), weight, bias, flat, ignore_index, rows, needed)[0]
    return _reduced(total, flat, ignore_index, reduction, num_items)


def _reduced(
    total: Tensor, labels: Tensor, ignore_index: int, reduction: str, num_items: Tensor | float | None
) -> Tensor:
    if num_items is not None:
        return total / num_items
    return total if reduction == "sum" else total / (labels != ignore_index).sum()


def reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    num_items: Tensor | float | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Compute `linear_cross_entropy` in plain PyTorch, with all logits in memory; the loss from fp32 logits."""
    logits = F.linear(hidden, weight, bias).flatten(0, -2)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    total = F.cross_entropy(logits.to(wide), labels.flatten(), ignore_index=ignore_index, reduction="sum")
    return _reduced(total, labels, ignore_index, reduction, num_items)


@jit
def loss_kernel(  # type: ignore[no-untyped-def]
    logits, labels, loss, vocabulary, ignore_index, GRADIENT: tl.constexpr, BLOCK: tl.constexpr
):
    """One row: its loss, and, in place of its logits, their gradient."""
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    start_of_row = logits + row * vocabulary
    # A label out of range has been reported; here it must only not be used as an address.
    counts = (label != ignore_index) & (label >= 0) & (label < vocabulary)
    if counts:
        column = tl.arange(0, BLOCK)
        highest = tl.full((BLOCK,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, vocabulary, BLOCK):  # running maximum and sum, one of each a lane
            value = tl.load(start_of_row + start + column, mask=start + column < vocabulary, other=float("-inf"))
            value = value.to(tl.float32)
            larger = tl.maximum(highest, value)
            shift = tl.where(larger == float("-inf"), 0.0, larger)
            total = total * tl.exp(highest - shift) + tl.exp(value - shift)
            highest = larger
        top = tl.max(highest, axis=0)
        lse = top + tl.log(tl.sum(total * tl.exp(highest - top), axis=0))
        tl.store(loss + row, lse - tl.load(start_of_row + label).to(tl.float32))
        if GRADIENT:
            tl.debug_barrier()  # the label's logit is read above and overwritten below, by other threads
            for start in range(0, vocabulary, BLOCK):
                inside = start + column < vocabulary
                value = tl.load(start_of_row + start + column, mask=inside, other=float("-inf")).to(tl.float32)
                gradient = tl.exp(value - lse) - tl.where(start + column == label, 1.0, 0.0)
                tl.store(start_of_row + start + column, gradient.to(logits.dtype.element_ty), mask=inside)
    else:
        tl.store(loss + row, 0.0)
        if GRADIENT:
            column = tl.arange(0, BLOCK)
            for start in range(0, vocabulary, BLOCK):
                zero = tl.zeros((BLOCK,), logits.dtype.element_ty)
                tl.store(start_of_row + start + column, zero, mask=start + column < vocabulary)


def _loss_of_chunk(logits: Tensor, labels: Tensor, ignore_index: int, gradient: bool) -> Tensor:
    """Give the losses (rows,) of logits (rows, vocabulary), which become their gradients."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    if dispatch(logits) == "reference":
        counts = labels != ignore_index
        value, target = logits.to(wide), torch.where(counts, labels, 0)[:, None]
        logarithm = value.log_softmax(-1)
        loss = torch.where(counts, -logarithm.gather(1, target)[:, 0], 0.0)
        if gradient:
            slope = logarithm.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=wide))
            logits.copy_(torch.where(counts[:, None], slope, 0.0))
        return loss
    loss = torch.empty(labels.shape, dtype=wide, device=logits.device)
    rows, vocabulary = logits.shape
    config = config_for(_CONFIG, arch_of(logits), vocabulary)
    with on_device(logits):
        loss_kernel[(rows,)](logits, labels, loss, vocabulary, ignore_index, GRADIENT=gradient, **config)
    return loss


@functools.cache
def _products_in_fp32() -> bool:
    """Say whether this PyTorch multiplies halves into fp32 on a GPU (2.8 and later)."""
    return hasattr(torch.ops.aten.mm, "dtype")


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left right to fp32 `total`; a product rounded to halves, or summed in them, could overflow fp16."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and _products_in_fp32():
        total += torch.mm(left, right, out_dtype=total.dtype)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


@torch.library.custom_op(
    "phi_fast::linear_cross_entropy",
    mutates_args=(),
    schema="(Tensor hidden, Tensor weight, Tensor? bias, Tensor labels, int ignore_index, SymInt chunk_rows,"
    " bool gradient) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    ignore_index: int,
    chunk_rows: int,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give the sum of losses and its gradients: dhidden in hidden's dtype, dweight and dbias in fp32; or empty."""
    vocabulary = weight.shape[0]
    good = ((labels >= 0) & (labels < vocabulary)) | (labels == ignore_index)
    check_values(good.all(), "labels", f"0 to {vocabulary - 1}, or ignore_index {ignore_index}")
    total, dhidden, dweight, dbias = _outputs(hidden, weight, bias, gradient)
    for one in (total, dweight, dbias):
        one.zero_()
    for start in range(0, hidden.shape[0], chunk_rows):
        chunk = hidden[start : start + chunk_rows]
        logits = chunk @ weight.t() if bias is None else torch.addmm(bias, chunk, weight.t())
        total += _loss_of_chunk(logits, labels[start : start + chunk_rows], ignore_index, gradient).sum()
        if gradient:
            torch.mm(logits, weight, out=dhidden[start : start + chunk_rows])
            _add_product(dweight, logits.t(), chunk)
            if bias is not None:
                dbias += logits.sum(0, dtype=dbias.dtype)
    return total, dhidden, dweight, dbias


def _outputs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    shapes = ((), hidden.shape, weight.shape, weight.shape[:1])
    wanted = (True, gradient, gradient, gradient and bias is not None)
    dtypes = (wide, hidden.dtype, wide, wide)
    total, dhidden, dweight, dbias = (
        torch.empty(shape if want else (0,), dtype=dtype, device=hidden.device)
        for shape, want, dtype in zip(shapes, wanted, dtypes, strict=True)
    )
    return total, dhidden, dweight, dbias


@_forward.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    ignore_index: int,
    chunk_rows: int,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(hidden, weight, bias, gradient)


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.has_bias = inputs[2] is not None
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, dtotal, *_unused):  # type: ignore[no-untyped-def]
    dhidden, dweight, dbias = ctx.saved_tensors
    dtype = dhidden.dtype
    return (
        (dhidden.to(dtotal.dtype) * dtotal).to(dtype),  # dtotal may be too small a number for halves
        (dweight * dtotal).to(dtype),
        (dbias * dtotal).to(dtype) if ctx.has_bias else None,
        *[None] * 4,
    )


_forward.register_autograd(_gradients, setup_context=_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernel as launched for phi-1's vocabulary."""
    config = config_for(_CONFIG, arch, 51200)
    types = {"logits": "*fp16", "labels": "*i64", "loss": "*fp32", "vocabulary": "i32", "ignore_index": "i32"}
    constants, warps = {"BLOCK": config["BLOCK"]}, config["num_warps"]
    return [
        Case(
            f"cross-entropy, {label}",
            loss_kernel,
            types,
            {"GRADIENT": gradient, **constants},
            warps,
            multiples=["vocabulary"],
        )
        for label, gradient in (("loss and gradient", True), ("loss alone", False))
    ]


def tunables() -> list[Tunable]:
    """List what to measure: loss and gradient of one chunk of phi-1's logits."""

    def launch(device: torch.device, dtype: torch.dtype, tokens: int) -> Callable[[], Tensor]:
        vocabulary = 51200 if device.type == "cuda" else 3000
        rows = min(tokens, max(1, _CHUNK_BYTES // (vocabulary * dtype.itemsize)))
        logits = torch.randn(rows, vocabulary, device=device, dtype=dtype)
        labels = torch.randint(0, vocabulary, (rows,), device=device)
        # The gradient takes the logits' place: the next launch reads numbers between -1 and 1, which costs the same.
        return lambda: _loss_of_chunk(logits, labels, -100, True)

    candidates = choices(BLOCK=(1024, 2048, 4096, 8192), num_warps=(4, 8, 16, 32))
    return [Tunable("cross-entropy, loss and gradient", _CONFIG, 51200, candidates, launch)]
