"""Attention: rows of one length, and documents packed into one row with rotary positions.

Causal attention is counted as causal: half of the full square's products, that is 2 · length² · head_dim operations
forward a head and document, and 2.5 times as many backward (five products to two).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phi_fast.bench.ops import OURS, Case, Draw, Sizes, Work, op, rival
from phi_fast.kernels import attention as kernels

_TOKENS, _WIDTH = 16384, 2048
ROTARY_DIM = 32


def _shape(sizes: Sizes) -> tuple[int, int, int, int]:
    """(batch, length, heads, head_dim): by default 16,384 tokens of phi-1's width."""
    length, head_dim = int(sizes["length"]), int(sizes["head_dim"])
    batch = int(sizes.get("batch", max(1, _TOKENS // length)))
    return batch, length, int(sizes.get("heads", _WIDTH // head_dim)), head_dim


def _inputs(sizes: Sizes, draw: Draw) -> Sequence[Tensor]:
    return [draw.normal(*_shape(sizes)) for _ in range(3)]


def attention_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """q, k, v in and out written; then d_out, q, k, v, out in and three gradients out."""
    batch, length, heads, head_dim = _shape(sizes)
    one, flops = batch * length * heads * head_dim * size, 2.0 * batch * heads * length**2 * head_dim
    return {"forward": Work(flops, 4 * one), "backward": Work(2.5 * flops, 8 * one)}


def _case(length: int, head_dim: int) -> Case:
    sizes = {"length": length, "head_dim": head_dim}
    return Case(sizes, {**sizes, "batch": 1, "heads": 2})


_CASES = [_case(length, head_dim) for head_dim in (64, 128) for length in (512, 1024, 2048, 4096, 8192)]


@op(
    "attention", inputs=_inputs, cases=_CASES, small=[_CASES[2]], work=attention_work, axis="length",
    interpreted=[
        {"length": 150, "head_dim": 64, "batch": 1, "heads": 2}, {"length": 70, "head_dim": 128, "batch": 2, "heads": 1}
    ],
)  # fmt: skip
def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over rows of one length; 16,384 tokens of width 2,048 unless the case says otherwise."""
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    ahead = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.mT).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
    mixed: Tensor = scores.masked_fill(ahead, -math.inf).softmax(-1).to(v.dtype) @ v
    return mixed.transpose(1, 2)


rival("attention", name=OURS)(kernels.attention)


@functools.cache
def _ends(tokens: int, documents: int) -> tuple[int, ...]:
    """Draw where documents end, always the same: lengths as uneven as those of source files."""
    cuts = torch.randperm(tokens - 1, generator=torch.Generator().manual_seed(5))[: documents - 1] + 1
    return 0, *sorted(cuts.tolist()), tokens


def _packed_inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    tokens, head_dim = int(sizes["tokens"]), int(sizes["head_dim"])
    shape = tokens, int(sizes.get("heads", _WIDTH // head_dim)), head_dim
    ends = _ends(tokens, int(sizes["documents"]))
    cu_seqlens = torch.tensor(ends, dtype=torch.int32, device=draw.device)
    return *(draw.normal(*shape) for _ in range(3)), cu_seqlens


def packed_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """As `attention_work`, over the squares of the documents' lengths; what rotary computes is not counted."""
    head_dim = sizes["head_dim"]
    heads = sizes.get("heads", _WIDTH // head_dim)
    ends = _ends(int(sizes["tokens"]), int(sizes["documents"]))
    squares = sum((end - start) ** 2 for start, end in itertools.pairwise(ends))
    one, flops = sizes["tokens"] * heads * head_dim * size, 2.0 * squares * heads * head_dim
    return {"forward": Work(flops, 4 * one), "backward": Work(2.5 * flops, 8 * one)}


_PACKED = [
    Case(sizes, {**sizes, "heads": 2})
    for sizes in ({"documents": count, "tokens": 16384, "head_dim": 64} for count in (8, 32, 128))
]


@op(
    "attention_packed", inputs=_packed_inputs, cases=_PACKED, small=_PACKED[1:2], work=packed_work,
    interpreted=[{"documents": 5, "tokens": 180, "head_dim": 64, "heads": 2}],
    compiles=False,  # each document's length would be compiled for
)  # fmt: skip
def _attention_packed(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Causal attention within packed documents, 32 dimensions of each head turned by rotary positions first."""
    return kernels.reference(q, k, v, cu_seqlens, rotary_dim=ROTARY_DIM)


@rival("attention_packed", name=OURS)
def _ours_packed(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    return kernels.attention(q, k, v, cu_seqlens, rotary_dim=ROTARY_DIM)
