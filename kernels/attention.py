"""Causal flash attention: partial rotary embedding, packed documents, dropout; forward and backward.

`attention` is the op and `reference` its definition in plain PyTorch. The Triton kernels stand in `attention_forward`,
`attention_backward` and `attention_rotary`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from phi_fast.kernels import attention_backward, attention_forward, attention_rotary
from phi_fast.kernels._common import (
    FLOATS,
    Case,
    check,
    check_cu_seqlens,
    check_cu_seqlens_values,
    check_seed,
    check_tensor,
    dispatch,
    new_seed,
    philox,
)
from phi_fast.kernels.attention_rotary import rotary_angles, rotate, rotate_reference


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    *,
    bounds: Tensor | None = None,
    scale: float | None = None,
    rotary_dim: int = 0,
    rotary_base: float = 10000.0,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Attend causally within each document: ``softmax(scale * q k^T) v``, q and k turned by their positions first.

    Kernels run on GPUs, the reference elsewhere; ``PHI_FAST_KERNELS=reference|triton`` forces one. torch.compile traces
    through it. Gradients go to q, k and v.

    Parameters
    ----------
    q, k, v
        (tokens, heads, head_dim), or (batch, length, heads, head_dim). All three of one shape, dtype and device;
        float16, bfloat16 or float32 (float64 on the reference alone); head_dim a multiple of 16 from 16 to 128; stride
        1 in the last dimension, else any, so that views of one fused projection need no copy. At least one token; a
        document of one token gives its value.
    cu_seqlens
        int32 (documents + 1,), on the same device: boundaries of the documents among the tokens (of a batch: among the
        tokens of all its rows in order), 0 first, the number of tokens last, rising. Without it every row of a batch
        is one document, and so are tokens without a batch.
    bounds
        In place of `cu_seqlens`: what `document_bounds` made of it, so that the layers of a model share it.
    scale
        Of the scores; ``1 / sqrt(head_dim)`` by default.
    rotary_dim
        How many of the first dimensions of each head are turned, NeoX's way (dimension i with i + rotary_dim / 2);
        even; 0 turns none. Positions count from each document's start.
    rotary_base
        Of the rotary frequencies.
    dropout
        Share of probabilities dropped, in [0, 1), in steps of 1 / 65536; the others are scaled so that the mean stays.
    seed
        int64 (2,), (key, offset) as ``_common.new_seed`` gives it; the same seed gives the same mask. By default drawn
        from PyTorch's generator where dropout is not 0.

    Returns
    -------
    Tensor
        Of q's shape and dtype, contiguous.

    Raises
    ------
    InputError
        An argument is not as described; nothing was launched. On a GPU the values in `cu_seqlens` are checked by an
        assertion on the stream instead, in front of the kernels, so that nothing waits.
    """
    rows, bounds, scale, threshold = _checked(
        q, k, v, cu_seqlens, bounds, scale, rotary_dim, rotary_base, dropout, seed
    )
    shape = q.shape
    q, k, v = (one.reshape(rows, *shape[-2:]) for one in (q, k, v))
    if rotary_dim:
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        cosines, sines = rotary_angles(bounds, rotary_dim, rotary_base, wide)
        q, k = rotate(q, cosines, sines, False), rotate(k, cosines, sines, False)
    if threshold and seed is None:
        seed = new_seed(q.device)
    out: Tensor = _attend(q, k, v, bounds, seed if threshold else None, scale, threshold)[0]
    return out.view(shape)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None = None,
    *,
    bounds: Tensor | None = None,
    scale: float | None = None,
    rotary_dim: int = 0,
    rotary_base: float = 10000.0,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """Define `attention` in plain PyTorch: a masked softmax for each document.

    The arguments are the same, and the same seed gives the same mask. Products are taken in the inputs' dtype, the
    softmax in at least float32.
    """
    rows, bounds, scale, threshold = _checked(
        q, k, v, cu_seqlens, bounds, scale, rotary_dim, rotary_base, dropout, seed
    )
    shape = q.shape
    q, k, v = (one.reshape(rows, *shape[-2:]) for one in (q, k, v))
    if rotary_dim:
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        angles = rotary_angles(bounds, rotary_dim, rotary_base, wide)
        q, k = rotate_reference(q, *angles), rotate_reference(k, *angles)
    if threshold and seed is None:
        seed = new_seed(q.device)
    return _documents(q, k, v, bounds, seed if threshold else None, scale, threshold)[0].view(shape)


def kept_probabilities(seed: Tensor, heads: int, rows: Tensor, columns: Tensor, threshold: int) -> Tensor:
    """Make the dropout mask, equal to the kernels' bit for bit (`attention_forward.kept_tile`).

    Parameters
    ----------
    seed
        int64 (2,): the key, and an offset of which 32 bits count.
    rows, columns
        int64 (R,) and (C,): places of query and key among all tokens.
    threshold
        Numbers of 16 bits below it mean "drop".

    Returns
    -------
    Tensor
        bool (heads, R, C), True where a probability stays.
    """
    groups, group = torch.unique(columns // 8, return_inverse=True)
    head = torch.arange(heads, device=seed.device)[:, None, None]
    words = torch.stack(philox(seed[0], groups[None, None, :], rows[None, :, None], head, seed[1]), -1)
    halves = torch.stack((words & 0xFFFF, words >> 16), -1).flatten(-2)  # (heads, R, groups, 8)
    return halves[:, :, group, columns % 8] >= threshold


def document_bounds(cu_seqlens: Tensor, total: int) -> Tensor:
    """Check document boundaries and spread them over the tokens; once a batch, for all layers.

    Parameters
    ----------
    cu_seqlens
        int32 (documents + 1,), 0 first, `total` last, rising: no document is empty.
    total
        Number of tokens, at least 1.

    Returns
    -------
    Tensor
        int32 (2, total): where each token's document starts, and where it ends.

    Raises
    ------
    InputError
        cu_seqlens is not as described; on a GPU its values are checked by an assertion on the stream.
    """
    check_cu_seqlens(cu_seqlens, total, like=cu_seqlens)
    bounds: Tensor = _spread(cu_seqlens, total)
    return bounds


def row_bounds(total: int, length: int, device: torch.device) -> Tensor:
    """Give what `document_bounds` gives where every row of `length` tokens is one document: int32 (2, total)."""
    tokens = torch.arange(total, dtype=torch.int32, device=device)
    starts = tokens - tokens % length
    return torch.stack((starts, starts + length))


@torch.library.custom_op(
    "phi_fast::document_bounds", mutates_args=(), schema="(Tensor cu_seqlens, SymInt total) -> Tensor"
)
def _spread(cu_seqlens: Tensor, total: int) -> Tensor:
    check_cu_seqlens_values(cu_seqlens, total)
    tokens = torch.arange(total, dtype=torch.int32, device=cu_seqlens.device)
    document = torch.searchsorted(cu_seqlens, tokens, right=True, out_int32=True)
    # Clamped for boundaries that the assertion on the stream is about to refuse.
    ends = document.clamp(1, cu_seqlens.shape[0] - 1)
    return torch.stack((cu_seqlens[ends - 1], cu_seqlens[ends]))


@_spread.register_fake
def _(cu_seqlens: Tensor, total: int) -> Tensor:
    return torch.empty((2, total), dtype=torch.int32, device=cu_seqlens.device)


def _checked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    bounds: Tensor | None,
    scale: float | None,
    rotary_dim: int,
    rotary_base: float,
    dropout: float,
    seed: Tensor | None,
) -> tuple[int, Tensor, float, int]:
    """Check all arguments; give the number of tokens, the bounds, the scale and dropout's threshold of 16 bits."""
    check_tensor("q", q, dtypes=FLOATS, last_contiguous=True)
    check(q.dim() in (3, 4), "q", "(tokens, heads, head_dim) or (batch, length, heads, head_dim)", tuple(q.shape))
    for name, one in (("k", k), ("v", v)):
        check_tensor(name, one, dtypes=(q.dtype,), shape=q.shape, like=q, last_contiguous=True)
    total, heads, head_dim = math.prod(q.shape[:-2]), q.shape[-2], q.shape[-1]
    check(total > 0, "q", "at least one token", tuple(q.shape))
    check(heads > 0, "q", "at least one head", tuple(q.shape))
    check(
        head_dim % 16 == 0 and 16 <= head_dim <= 128,
        "q",
        "a head_dim that is a multiple of 16 from 16 to 128",
        head_dim,
    )
    check(
        0 <= rotary_dim <= head_dim and rotary_dim % 2 == 0,
        "rotary_dim",
        f"an even number from 0 to {head_dim}",
        rotary_dim,
    )
    check(rotary_base > 0 and math.isfinite(rotary_base), "rotary_base", "a positive number", rotary_base)
    scale = head_dim**-0.5 if scale is None else float(scale)
    check(math.isfinite(scale) and scale > 0, "scale", "a positive number", scale)
    check(0.0 <= dropout < 1.0, "dropout", "a probability in [0, 1)", dropout)
    if seed is not None:
        check_seed(seed, like=q)
    check(cu_seqlens is None or bounds is None, "bounds", "cu_seqlens or bounds, not both", "both")
    if cu_seqlens is not None:
        check_cu_seqlens(cu_seqlens, total, like=q)
        bounds = _spread(cu_seqlens, total)
    elif bounds is not None:
        check_tensor("bounds", bounds, dtypes=(torch.int32,), shape=(2, total), like=q, contiguous=True)
    else:
        bounds = row_bounds(total, q.shape[-3], q.device)
    return total, bounds, scale, min(round(dropout * 65536), 65535)


def _documents(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, seed: Tensor | None, scale: float, threshold: int
) -> tuple[Tensor, Tensor]:
    """Compute out (tokens, heads, head_dim) and the base-2 lse (heads, tokens), document by document."""
    outs, logs = [], []
    for start, end in _spans(bounds):
        scores, kept = _scores(q[start:end], k[start:end], start, seed, scale, threshold)
        weights = scores.softmax(-1)
        if kept is not None:
            weights = torch.where(kept, weights * (65536 / (65536 - threshold)), 0.0)
        outs.append(torch.einsum("hij,jhd->ihd", weights.to(v.dtype), v[start:end]))
        logs.append(scores.logsumexp(-1) / math.log(2.0))
    return torch.cat(outs).contiguous(), torch.cat(logs, 1)


def _documents_backward(
    d_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Tensor,
    seed: Tensor | None,
    scale: float,
    threshold: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `_documents`, rounded where autograd rounds them."""
    gradients = []
    for start, end in _spans(bounds):
        one_q, one_k, one_v, one_d = (one[start:end] for one in (q, k, v, d_out))
        scores, kept = _scores(one_q, one_k, start, seed, scale, threshold)
        weights = scores.softmax(-1)
        dropped = weights
        d_weights = torch.einsum("ihd,jhd->hij", one_d, one_v).to(weights.dtype)
        if kept is not None:
            keep_scale = 65536 / (65536 - threshold)
            dropped = torch.where(kept, weights * keep_scale, 0.0)
            d_weights = torch.where(kept, d_weights * keep_scale, 0.0)
        d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True)) * scale
        d_q = torch.einsum("hij,jhd->ihd", d_scores.to(q.dtype), one_k)
        d_k = torch.einsum("hij,ihd->jhd", d_scores.to(q.dtype), one_q)
        d_v = torch.einsum("hij,ihd->jhd", dropped.to(v.dtype), one_d)
        gradients.append((d_q, d_k, d_v))
    d_q, d_k, d_v = (torch.cat(parts).contiguous() for parts in zip(*gradients, strict=True))
    return d_q, d_k, d_v


def _spans(bounds: Tensor) -> list[tuple[int, int]]:
    first = bounds[0] == torch.arange(bounds.shape[1], dtype=bounds.dtype, device=bounds.device)
    return [(start, end) for start, end in bounds[:, first].t().tolist()]


def _scores(
    q: Tensor, k: Tensor, start: int, seed: Tensor | None, scale: float, threshold: int
) -> tuple[Tensor, Tensor | None]:
    """Compute one document's scaled scores, (heads, rows, keys), -inf where a key lies ahead; and its dropout mask."""
    length, heads = q.shape[0], q.shape[1]
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    ahead = torch.ones((length, length), dtype=torch.bool, device=q.device).triu(1)
    scores = torch.einsum("ihd,jhd->hij", q, k).to(wide) * scale
    kept = None
    if seed is not None:
        places = torch.arange(start, start + length, device=q.device)
        kept = kept_probabilities(seed, heads, places, places, threshold)
    return scores.masked_fill(ahead, -math.inf), kept


@torch.library.custom_op(
    "phi_fast::attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor bounds, Tensor? seed, float scale, int threshold) "
    "-> (Tensor, Tensor)",
)
def _attend(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, seed: Tensor | None, scale: float, threshold: int
) -> tuple[Tensor, Tensor]:
    if dispatch(q, k, v, bounds, seed) == "triton":
        return attention_forward.forward(q, k, v, bounds, seed, scale, threshold)
    return _documents(q, k, v, bounds, seed, scale, threshold)


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, seed: Tensor | None, scale: float, threshold: int
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    lse = torch.empty((q.shape[1], q.shape[0]), dtype=wide, device=q.device)
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), lse


@torch.library.custom_op(
    "phi_fast::attention_backward",
    mutates_args=(),
    schema="(Tensor d_out, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor bounds, Tensor? seed, "
    "float scale, int threshold) -> (Tensor, Tensor, Tensor)",
)
def _attend_backward(
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
) -> tuple[Tensor, Tensor, Tensor]:
    if dispatch(q, k, v, bounds, seed) == "triton":
        return attention_backward.backward(d_out.contiguous(), q, k, v, out, lse, bounds, seed, scale, threshold)
    return _documents_backward(d_out, q, k, v, bounds, seed, scale, threshold)


@_attend_backward.register_fake
def _(
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
) -> tuple[Tensor, Tensor, Tensor]:
    d_q, d_k, d_v = (torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(3))
    return d_q, d_k, d_v


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bounds, seed, ctx.scale, ctx.threshold = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(q, k, v, *output, bounds, seed)  # type: ignore[arg-type]
    # The log-sum-exp is the backward's own.
    ctx.mark_non_differentiable(output[1])


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, d_out: Tensor, d_lse: Tensor | None
) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # type: ignore[attr-defined]
    gradients = _attend_backward(d_out, *saved, ctx.scale, ctx.threshold)  # type: ignore[attr-defined]
    return (*gradients, None, None, None, None)


_attend.register_autograd(_differentiate, setup_context=_save)


def compile_cases(arch: int) -> list[Case]:
    """List every kernel of this op as it is launched on `arch` (80, 90, 100), for a table of compiled kernels."""
    modules = (attention_rotary, attention_forward, attention_backward)
    return [case for module in modules for case in module.compile_cases(arch)]
