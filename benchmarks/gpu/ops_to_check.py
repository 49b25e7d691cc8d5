"""The ops and sizes that `checks` judges: phi-1's own, odd ones, and the edges."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from checks import device, normal
from torch import Tensor

Case = tuple[str, Callable[..., Any], Callable[..., Any], list[Tensor]]


def case(what: str, function: Any, reference: Any, inputs: list[Tensor], **options: Any) -> Case:
    """Give a case; both functions take the options."""
    return what, partial(function, **options), partial(reference, **options), inputs


def cumulated(lengths: list[int]) -> Tensor:
    """Give the bounds of documents of these lengths."""
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=device())


def seed() -> Tensor:
    """Give dropout's seed."""
    return torch.tensor([0x1234_5678_9ABC, 5], device=device())


def layer_norms(big: bool, dtype: str) -> Iterator[Case]:
    """LayerNorm, also of rows that lie apart."""
    from phi_fast.kernels.layer_norm import layer_norm, reference

    sizes = [(4096, 2048), (4095, 1024), (1, 2048), (3, 1), (257, 1000), (64, 8192)] if big else [(3, 20), (1, 1)]
    for rows, width in sizes:
        given = [normal(rows, width), normal(width, seed=1), normal(width, seed=2)]
        yield f"layer_norm {rows} x {width}", layer_norm, reference, given

    def slices(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, weight, bias: function(x[:, 8:-8], weight, bias)

    width = 1024 if big else 16
    given = [normal(33, width + 16), normal(width, seed=1), normal(width, seed=2)]
    yield "layer_norm of a slice", slices(layer_norm), slices(reference), given


def residuals(big: bool, dtype: str) -> Iterator[Case]:
    """The sum of three, with dropout and without."""
    from phi_fast.kernels.residual import reference, residual

    for shape in [(4096, 2048), (7, 333)] if big else [(3, 41)]:
        for p in (0.0, 0.1):
            given = [normal(*shape, seed=index) for index in range(3)]
            what = f"residual {shape[0]} x {shape[1]}, dropout {p}"
            yield case(what, residual, reference, given, p=p, seed=seed())


def rotaries(big: bool, dtype: str) -> Iterator[Case]:
    """Rotary: rows, packed documents, offsets, odd numbers of heads."""
    from phi_fast.kernels.rotary import document_positions, reference, rotary, rotary_tables

    tokens = 2048 if big else 9
    sizes = [(2, 32, 64, 32), (1, 5, 80, 80), (3, 1, 128, 2)] if big else [(2, 3, 16, 8)]
    for batch, heads, head_dim, rotary_dim in sizes:
        cos, sin = rotary_tables(tokens + 7, rotary_dim, device=device())
        given = [normal(batch, tokens, heads, head_dim, seed=index) for index in range(2)]
        what = f"rotary {heads} heads of {head_dim}, {rotary_dim} turned"
        yield case(what, rotary, reference, given, cos=cos, sin=sin, offset=7)
    positions = document_positions(cumulated([tokens // 3, 1, tokens - tokens // 3 - 1]), tokens)
    cos, sin = rotary_tables(tokens, 16, device=device())
    given = [normal(tokens, 4, 32, seed=index) for index in range(2)]
    yield case("rotary of packed documents", rotary, reference, given, cos=cos, sin=sin, positions=positions)


def mlps(big: bool, dtype: str) -> Iterator[Case]:
    """Bias and GELU alone, within the MLP, and as the epilogue of a product."""
    from phi_fast.kernels import mlp

    for rows, width in [(4096, 8192), (33, 1000), (1, 1)] if big else [(5, 33)]:
        given = [normal(rows, width, scale=2), normal(width, seed=1)]
        yield f"bias_gelu {rows} x {width}", mlp.bias_gelu, mlp.bias_gelu_reference, given
    for rows, width, inner in [(2048, 2048, 8192), (37, 100, 77)] if big else [(5, 20, 33)]:
        given = [normal(rows, width), normal(inner, width, seed=1, scale=width**-0.5), normal(inner, seed=2)]
        what = f"{rows} x {width} x {inner}"
        yield f"linear_bias_gelu {what}", mlp.linear_bias_gelu, mlp.linear_bias_gelu_reference, given
        given = [*given, normal(width, inner, seed=3, scale=inner**-0.5), normal(width, seed=4)]
        yield f"mlp {what}", mlp.mlp, mlp.reference, given


def losses(big: bool, dtype: str) -> Iterator[Case]:
    """The head and its loss, in chunks that do not come out even."""
    from phi_fast.kernels.cross_entropy import linear_cross_entropy, reference

    sizes = [(2048, 2048, 51200, None), (130, 64, 1000, 50)] if big else [(13, 16, 70, 5)]
    for rows, width, vocabulary, chunk in sizes:
        generator = torch.Generator(device()).manual_seed(9)
        labels = torch.randint(0, vocabulary, (rows,), device=device(), generator=generator)
        labels[::5] = -100
        given = [normal(rows, width), normal(vocabulary, width, seed=1, scale=width**-0.5), normal(vocabulary, seed=2)]
        options: dict[str, Any] = {"labels": labels, "chunk_rows": chunk}
        what = f"loss {rows} x {width} x {vocabulary}"
        for items in (None, 4096.0):
            yield case(f"{what}, items {items}", linear_cross_entropy, reference, given, num_items=items, **options)
        yield case(f"{what}, no bias", linear_cross_entropy, reference, given[:2], bias=None, **options)


def attentions(big: bool, dtype: str) -> Iterator[Case]:
    """Attention: long rows, every head dimension, ragged documents, dropout, views of a joint projection."""
    from phi_fast.kernels.attention import attention, reference

    def of(what: str, shape: tuple[int, ...], **options: Any) -> Case:
        given = [normal(*shape, seed=index) for index in range(3)]
        return case(f"attention {what}", attention, reference, given, **options)

    drop: dict[str, Any] = {"dropout": 0.1, "seed": seed()}
    if not big:
        yield of("ragged, dropout", (21, 2, 16), cu_seqlens=cumulated([1, 12, 8]), rotary_dim=8, **drop)
        return
    for lengths in ([2048, 2048], [1] * 100 + [700, 1, 301, 64, 63, 65, 128, 1]):
        bounds = cumulated(lengths)
        for options in (dict[str, Any](), drop):
            label = f"{len(lengths)} documents{', dropout' if options else ''}"
            yield of(label, (sum(lengths), 8, 64), cu_seqlens=bounds, rotary_dim=32, **options)
    yield of("length 8,192", (1, 8192, 2, 64))
    yield of("length 1", (3, 1, 2, 64), rotary_dim=32)
    for head_dim in (16, 32, 48, 80, 96, 112, 128):
        yield of(f"head {head_dim}", (2, 300, 2, head_dim), rotary_dim=16)
    yield of("head 128, dropout", (2, 777, 4, 128), **drop)

    def views(function: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda joint: function(*joint.view(*joint.shape[:-1], 3, 4, 64).unbind(-3), rotary_dim=32)

    yield "attention of a joint projection", views(attention), views(reference), [normal(2, 333, 3 * 4 * 64)]


def blocks(big: bool, dtype: str) -> Iterator[Case]:
    """The whole parallel block, plain, ragged and with both dropouts."""
    from phi_fast.kernels.attention import document_bounds
    from phi_fast.kernels.block import BlockWeights, block, reference
    from phi_fast.kernels.rotary import rotary_tables

    batch, length, hidden, heads = (2, 1024, 2048, 32) if big else (1, 12, 32, 2)
    tokens, inner = batch * length, 4 * hidden
    shapes: list[tuple[int, ...]] = [(hidden,), (hidden,), *[(hidden, hidden), (hidden,)] * 4]
    shapes += [(inner, hidden), (inner,), (hidden, inner), (hidden,)]
    scales = [shape[-1] ** -0.5 if len(shape) > 1 else 0.5 for shape in shapes]
    weights = [normal(*shape, seed=index, scale=scales[index]) for index, shape in enumerate(shapes)]
    weights[0] = weights[0] + 1
    cos, sin = rotary_tables(length, hidden // heads // 2, device=device())
    ragged = document_bounds(cumulated([1, tokens // 3, tokens - tokens // 3 - 1]), tokens)
    places = torch.arange(tokens, dtype=torch.int32, device=device()) - ragged[0]

    def of(function: Callable[..., Tensor], **options: Any) -> Callable[..., Tensor]:
        return lambda x, *rest: function(x, BlockWeights(*rest), cos, sin, heads=heads, **options)

    given = [normal(batch, length, hidden, seed=99), *weights]
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("rows", {}),
        ("ragged", {"bounds": ragged, "positions": places.view(batch, length).clamp(max=length - 1)}),
        ("dropout", {"attention_dropout": 0.1, "residual_dropout": 0.1, "seed": seed()}),
    )
    for what, options in cases:
        yield f"block, {what}", of(block, **options), of(reference, **options), given


CASES: dict[str, Callable[[bool, str], Iterator[Case]]] = {
    "attention": attentions,
    "layer_norm": layer_norms,
    "cross_entropy": losses,
    "mlp": mlps,
    "rotary": rotaries,
    "residual": residuals,
}
if importlib.util.find_spec("phi_fast.kernels.block") is not None:
    CASES["block"] = blocks
