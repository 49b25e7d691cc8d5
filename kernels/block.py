"""phi's parallel block: one LayerNorm feeds attention and MLP at once, and one matrix product each way serves both.

    y         = LayerNorm(x)
    q|k|v|h   = y W_in^T + b_in,        W_in  = [q; k; v; fc1] along rows
    a         = attention(rotary(q), rotary(k), v),   g = gelu_tanh(h)
    block     = x + [a|g] W_out^T + b,  W_out = [dense | fc2] along columns

`block` is the op and `reference` its definition in plain PyTorch. The steps stand in `block_steps`, the kernels that no
other op has in `block_kernels`, and laying weights side by side in `block_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.kernels import attention as attention_op
from phi_fast.kernels import block_kernels, block_steps, layer_norm, residual, rotary
from phi_fast.kernels._common import (
    FLOATS,
    HALVES_AND_FLOAT,
    Case,
    check,
    check_seed,
    check_tensor,
    dropout_threshold,
    new_seed,
)
from phi_fast.kernels.attention import document_bounds, row_bounds
from phi_fast.kernels.block_steps import Gradients, Kept, Settings
from phi_fast.kernels.block_weights import BlockWeights, check_weights, joined_

__all__ = ["BlockWeights", "block", "document_bounds", "joined_", "reference", "residual_seed", "row_bounds"]


def block(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    *,
    heads: int,
    eps: float = 1e-5,
    positions: Tensor | None = None,
    bounds: Tensor | None = None,
    attention_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    seed: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute x + attention(LayerNorm(x)) + mlp(LayerNorm(x)), forward and backward without a pass to spare.

    Kernels run on GPUs, plain PyTorch elsewhere; ``PHI_FAST_KERNELS=reference|triton`` forces one. torch.compile traces
    through it, torch.utils.checkpoint repeats it with the same masks, and an active autocast does not change it.

    Parameters
    ----------
    x
        (batch, length, hidden), contiguous; fp16, bf16 or fp32 (fp64 on the reference alone); hidden up to 8,192.
    weights
        `BlockWeights`; the matrices of one dtype, each vector of any. Where q, k, v and fc1 lie below each other in one
        storage (`joined_`), the joint product reads them there; else they are copied side by side first, each time:
        4 * (3 * hidden + mlp) * hidden bytes moved in halves, 117 MB for phi-1, once forward and once backward.
    cos, sin
        (positions, rotary_dim / 2) fp32, contiguous, as `rotary.rotary_tables` gives them.
    heads
        Of hidden / heads = head_dim, a multiple of 16 from 16 to 128.
    eps
        LayerNorm's.
    positions
        int32 (batch, length), each a row of `cos`; by default 0 to length - 1 in every row.
    bounds
        int32 (2, batch * length), as `document_bounds` makes it of cu_seqlens, or `row_bounds`, which is what None
        stands for: every row is one document. Given once for all layers they are made once.
    attention_dropout, residual_dropout
        Probabilities in [0, 1); give 0 when not training. The first drops attention's probabilities, the second both
        branches, each with a mask of its own; it needs two products out where 0 needs one.
    seed
        int64 (2,), as ``_common.new_seed`` draws it, by default from PyTorch's generator. Attention's mask is that of
        `attention` with `seed`, the branches' are those of `residual` with ``residual_seed(seed)``.
    compute_dtype
        What products are computed in and intermediates kept in; x's dtype by default. Under autocast x and weights may
        be fp32 and this a half: the weights are cast, the stream stays as it is, gradients come in each argument's
        dtype.

    Returns
    -------
    Tensor
        Shape and dtype of `x`, contiguous. Differentiable in `x` and all weights.

    Raises
    ------
    InputError
        An argument is not as described, by its name; nothing was launched. Values of `positions` on a GPU are checked
        there, unwaited for.

    Notes
    -----
    Memory from forward to backward, in bytes a token with mlp = 4 * hidden and halves: 26 * hidden + 4 * heads + 8
    beside x itself (`block_steps.Kept`), 53 KB for phi-1; 24 * hidden more within the backward. With x fp32 and a half
    to compute in it is the same.
    """
    dtype, threshold, drops = _checked(
        x, weights, cos, sin, heads, eps, positions, bounds, attention_dropout, residual_dropout, seed, compute_dtype
    )
    tokens, length = x.shape[0] * x.shape[1], x.shape[1]
    if bounds is None:
        bounds = row_bounds(tokens, length, x.device)
    if seed is None and (threshold or drops):
        seed = new_seed(x.device)
    out: Tensor = _forward(
        x.view(tokens, -1), *weights, cos, sin, None if positions is None else positions.view(-1), bounds,
        seed if threshold else None, residual_seed(seed) if drops and seed is not None else None,
        heads, length, eps, threshold, residual_dropout, dtype,
    )[0]  # fmt: skip
    return out.view(x.shape)


def reference(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    *,
    heads: int,
    eps: float = 1e-5,
    positions: Tensor | None = None,
    bounds: Tensor | None = None,
    attention_dropout: float = 0.0,
    residual_dropout: float = 0.0,
    seed: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Define `block` in plain PyTorch, product by product; the arguments are the same, and so are the masks of a seed.

    Products are taken and rounded in `compute_dtype`; LayerNorm, rotation, softmax and the last sum in at least
    float32.
    """
    dtype = x.dtype if compute_dtype is None else compute_dtype
    if seed is None and (attention_dropout > 0 or residual_dropout > 0):
        seed = new_seed(x.device)
    with torch.autocast(x.device.type, enabled=False):
        w = BlockWeights(*weights[:2], *(one.to(dtype) for one in weights[2:]))
        wide = torch.promote_types(x.dtype, torch.float32)
        y = layer_norm.reference(x.to(wide), w.norm_weight, w.norm_bias, eps).to(dtype)
        q, k, v = (
            F.linear(y, weight, bias).view(*x.shape[:-1], heads, -1)
            for weight, bias in ((w.q_weight, w.q_bias), (w.k_weight, w.k_bias), (w.v_weight, w.v_bias))
        )
        q, k = rotary.reference(q, k, cos, sin, positions=positions)
        attended = attention_op.reference(q, k, v, bounds=bounds, dropout=attention_dropout, seed=seed)
        attended = F.linear(attended.flatten(-2), w.dense_weight, w.dense_bias)
        transformed = F.gelu(F.linear(y, w.fc1_weight, w.fc1_bias), approximate="tanh")
        transformed = F.linear(transformed, w.fc2_weight, w.fc2_bias)
        return residual.reference(
            x, attended, transformed, residual_dropout, None if seed is None else residual_seed(seed)
        )


def residual_seed(seed: Tensor) -> Tensor:
    """Give the seed of the residual's masks, another than attention's, which `seed` itself rules."""
    return seed + 1


def _checked(
    x: Tensor,
    weights: BlockWeights,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
    positions: Tensor | None,
    bounds: Tensor | None,
    attention_dropout: float,
    residual_dropout: float,
    seed: Tensor | None,
    compute_dtype: torch.dtype | None,
) -> tuple[torch.dtype, int, bool]:
    """Check all arguments; give the dtype to compute in, attention's threshold, and whether the branches drop."""
    check_tensor("x", x, dtypes=FLOATS, shape=(None, None, None), contiguous=True)
    batch, length, hidden = x.shape
    check(x.numel() > 0, "x", "at least one token", f"shape {tuple(x.shape)}")
    check(hidden <= layer_norm.MAX_WIDTH, "x", f"hidden up to {layer_norm.MAX_WIDTH}", hidden)
    check(heads > 0 and hidden % heads == 0, "heads", f"a divisor of hidden, {hidden}", heads)
    head_dim = hidden // heads
    good = head_dim % 16 == 0 and 16 <= head_dim <= 128
    check(good, "heads", "a head_dim, hidden / heads, that is a multiple of 16 from 16 to 128", head_dim)
    check_weights(weights, x)
    tables = (torch.float32, torch.float64) if x.dtype == torch.float64 else (torch.float32,)
    check_tensor("cos", cos, dtypes=tables, shape=(None, None), like=x, contiguous=True)
    check_tensor("sin", sin, dtypes=(cos.dtype,), shape=tuple(cos.shape), like=x, contiguous=True)
    check(1 <= cos.shape[1] <= head_dim // 2, "cos", f"1 to {head_dim // 2} pairs (head_dim / 2)", cos.shape[1])
    if positions is None:
        check(length <= cos.shape[0], "cos", f"at least {length} positions (length)", cos.shape[0])
    else:
        check_tensor("positions", positions, dtypes=(torch.int32,), shape=(batch, length), like=x, contiguous=True)
    if bounds is not None:
        check_tensor("bounds", bounds, dtypes=(torch.int32,), shape=(2, batch * length), like=x, contiguous=True)
    check(eps > 0, "eps", "a positive number", eps)
    for name, p in (("attention_dropout", attention_dropout), ("residual_dropout", residual_dropout)):
        check(0.0 <= p < 1.0, name, "a probability in [0, 1)", p)
    if seed is not None:
        check_seed(seed, like=x)
    dtype = x.dtype if compute_dtype is None else compute_dtype
    allowed = (*HALVES_AND_FLOAT, *((x.dtype,) if x.dtype == torch.float64 else ()))
    check(dtype in allowed, "compute_dtype", " or ".join(str(one) for one in allowed), dtype)
    return dtype, min(round(attention_dropout * 65536), 65535), dropout_threshold(residual_dropout) > 0


_WEIGHTS = ", ".join(f"Tensor {name}" for name in BlockWeights._fields)
_PLACES = "Tensor cos, Tensor sin, Tensor? positions, Tensor bounds, Tensor? seed, Tensor? residual_seed"
_NUMBERS = "int heads, SymInt length, float eps, int threshold, float residual_dropout, ScalarType dtype"
_N = len(BlockWeights._fields)


@torch.library.custom_op(
    "phi_fast::block",
    mutates_args=(),
    schema=f"(Tensor x, {_WEIGHTS}, {_PLACES}, {_NUMBERS}) -> (Tensor, {', '.join(['Tensor'] * len(Kept._fields))})",
)
def _forward(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """(tokens, hidden) -> the output and `Kept`."""
    weights, (cos, sin, positions, bounds, seed, residual_seed), numbers = _parts(rest)
    # A product inside the op would be cast once more by an autocast around it.
    with torch.autocast(x.device.type, enabled=False):
        out, kept = block_steps.forward(
            x, weights, cos, sin, positions, bounds, seed, residual_seed, Settings(*numbers)
        )
    return out, *kept


def _parts(rest: Sequence[Any]) -> tuple[BlockWeights, Sequence[Any], Sequence[Any]]:
    return BlockWeights(*rest[:_N]), rest[_N : _N + 6], rest[_N + 6 :]


@_forward.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    weights, _, numbers = _parts(rest)
    settings = Settings(*numbers)
    (tokens, hidden), inner = x.shape, weights.fc1_weight.shape[0]
    wide = {"dtype": torch.promote_types(x.dtype, torch.float32), "device": x.device}
    dtype = {"dtype": settings.dtype, "device": x.device}
    softmax = {"dtype": torch.promote_types(settings.dtype, torch.float32), "device": x.device}
    return (
        torch.empty((tokens, hidden), dtype=x.dtype, device=x.device),
        torch.empty((tokens, hidden), **dtype),
        torch.empty(tokens, **wide),
        torch.empty(tokens, **wide),
        torch.empty((tokens, 3 * hidden + inner), **dtype),
        torch.empty((tokens, hidden + inner), **dtype),
        torch.empty((settings.heads, tokens), **softmax),
    )


@torch.library.custom_op(
    "phi_fast::block_backward",
    mutates_args=(),
    schema=f"(Tensor dout, Tensor x, {_WEIGHTS}, {', '.join(f'Tensor {name}' for name in Kept._fields)}, {_PLACES}, "
    f"{_NUMBERS}, bool[] wanted) -> ({', '.join(['Tensor'] * len(Gradients._fields))})",
)
def _backward(dout: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """Give `Gradients`."""
    weights, places, numbers = _parts(rest[:_N] + rest[_N + len(Kept._fields) :])
    kept = Kept(*rest[_N : _N + len(Kept._fields)])
    *numbers, wanted = numbers
    with torch.autocast(x.device.type, enabled=False):
        gradients = block_steps.backward(
            dout.contiguous(), x, weights, kept, *places, Settings(*numbers), tuple(wanted)
        )
    return tuple(gradients)


@_backward.register_fake
def _(dout: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    weights, wanted = BlockWeights(*rest[:_N]), rest[-1]
    hidden, inner = weights.fc2_weight.shape
    dtype, device = weights.q_weight.dtype, x.device

    def matrix(rows: int, columns: int, asked: bool) -> Tensor:
        if asked:
            return torch.empty((rows, columns), dtype=dtype, device=device)
        return torch.empty(0, dtype=x.dtype, device=device)

    def vector(width: int, like: Tensor) -> Tensor:
        return torch.empty(width, dtype=like.dtype, device=device)

    w = weights
    return (
        torch.empty(x.shape, dtype=x.dtype, device=device),
        vector(hidden, w.norm_weight),
        vector(hidden, w.norm_bias),
        matrix(3 * hidden + inner, hidden, wanted[0]),
        vector(3 * hidden + inner, w.q_bias),
        matrix(hidden, hidden, wanted[1]),
        vector(hidden, w.q_bias),
        matrix(hidden, inner, wanted[2]),
        vector(hidden, w.q_bias),
    )


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, *rest = inputs
    weights, places, ctx.numbers = _parts(rest)
    ctx.save_for_backward(x, *weights, *output[1:], *places)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx, dout, *_kept):  # type: ignore[no-untyped-def]
    x, *saved = ctx.saved_tensors
    weights = BlockWeights(*saved[:_N])
    needed = BlockWeights(*ctx.needs_input_grad[1 : 1 + _N])
    in_needed = needed.q_weight or needed.k_weight or needed.v_weight or needed.fc1_weight
    wanted = [in_needed, needed.dense_weight, needed.fc2_weight]
    g = Gradients(*_backward(dout, x, *saved, *ctx.numbers, wanted))
    rows = [part.shape[0] for part in (weights.q_bias, weights.k_bias, weights.v_bias, weights.fc1_bias)]
    # The joint gradient is handed out in views: rows of one matrix, which nothing copies.
    matrices = g.in_weight.split(rows) if in_needed else [None] * 4
    q_bias, k_bias, v_bias, fc1_bias = g.in_bias.split(rows)
    q, k, v, fc1 = matrices
    found = BlockWeights(
        g.norm_weight, g.norm_bias, q, q_bias, k, k_bias, v, v_bias,
        g.dense_weight if needed.dense_weight else None, g.dense_bias,
        fc1, fc1_bias, g.fc2_weight if needed.fc2_weight else None, g.fc2_bias,
    )  # fmt: skip
    cast = [
        one if one is None or not need else one.to(weight.dtype)
        for one, weight, need in zip(found, weights, needed, strict=True)
    ]
    return g.x, *cast, *[None] * (6 + len(ctx.numbers))


_forward.register_autograd(_gradients, setup_context=_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernels that are the block's own."""
    return block_kernels.compile_cases(arch)
