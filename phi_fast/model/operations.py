"""The operations a phi is computed with, in plain PyTorch. A faster set of the same functions can take their place.

`Phi` calls these and nothing else that is heavy, so that a fused kernel is one field of `Operations`:

    model.ops = PLAIN._replace(layer_norm=faster)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The target that is no target, as in PyTorch and Hugging Face."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the tokens of a batch stand; made once a forward pass, read by every block's attention.

    Attributes
    ----------
    positions
        (B or 1, T) int64, from 0 in each document.
    rotary_dim, rope_theta
        What rotation needs besides the positions.
    documents
        (B, T) int32, the number of each token's document; None where every row is one document.
    cu_seqlens
        (documents + 1,) int32 on the model's device, bounds of the documents in the rows read one after the other; None
        where every row is one document.
    cos, sin, mask, bounds
        What `prepare` adds: the plain one the first three, a fused one tables and bounds as its kernels take them.
    """

    positions: Tensor
    rotary_dim: int
    rope_theta: float
    documents: Tensor | None = None
    cu_seqlens: Tensor | None = None
    cos: Tensor | None = None
    sin: Tensor | None = None
    mask: Tensor | None = None
    bounds: Tensor | None = None


class Operations(NamedTuple):
    """One function an operation; each is called as its twin in this file is, whose docstring says what it computes.

    `block`, where there is one, takes the place of all between a block's input and its output; see `fused.block`.
    """

    prepare: Callable[[Places], Places]
    layer_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Places, float], Tensor]
    mlp: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    residual: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    cross_entropy: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | int | None], Tensor]
    block: Callable[[Tensor, Sequence[Tensor], Places, int, float, float, float], Tensor] | None = None


def prepare(places: Places) -> Places:
    """What every block's attention needs of the places, computed once; a kernel may need nothing of it.

    Returns
    -------
    Places
        With `cos` and `sin`, (B or 1, T, 1, rotary_dim / 2) float32, of position · theta^(-2i / rotary_dim); and with
        `mask`, (B, 1, T, T) bool, what each token sees, None where that is its row up to itself.
    """
    exponents = torch.arange(0, places.rotary_dim, 2, dtype=torch.float32, device=places.positions.device)
    frequencies = 1.0 / places.rope_theta ** (exponents / places.rotary_dim)
    angles = (places.positions[..., None].float() * frequencies)[:, :, None]
    mask = None
    if places.documents is not None:
        mask = (places.documents[:, None, :, None] == places.documents[:, None, None, :]).tril()
    return dataclasses.replace(places, cos=angles.cos(), sin=angles.sin(), mask=mask)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last dimension; x (..., hidden)."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def rotate(x: Tensor, places: Places) -> Tensor:
    """Turn the first rotary_dim dimensions of each head by the token's angles: NeoX's halves, in float32.

    Dimension i of the first half and i of the second are one pair (Su et al., arXiv 2104.09864, paired as in GPT-NeoX).

    Parameters
    ----------
    x
        (B, T, heads, head_dim) of any floating type, which the result has too.
    """
    cos, sin = places.cos, places.sin
    assert cos is not None and sin is not None, "places that went through prepare"
    turned, rest = x[..., : places.rotary_dim], x[..., places.rotary_dim :]
    first, second = turned.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, places: Places, dropout: float) -> Tensor:
    """Rotary, then causal softmax attention within each document, scaled by 1 / sqrt(head_dim).

    Parameters
    ----------
    q, k, v
        (B, T, heads, head_dim), not yet rotated.
    places
        Positions and documents, as `prepare` returned them.
    dropout
        Rate at which attention weights are dropped.

    Returns
    -------
    Tensor
        (B, T, heads, head_dim)
    """
    q, k, v = (x.transpose(1, 2) for x in (rotate(q, places), rotate(k, places), v))
    causal = places.mask is None
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=places.mask, dropout_p=dropout, is_causal=causal)
    return mixed.transpose(1, 2)


def mlp(x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
    """weight2 · gelu(weight1 · x + bias1) + bias2 with the tanh form of GELU ("gelu_new"); x (..., hidden)."""
    return F.linear(F.gelu(F.linear(x, weight1, bias1), approximate="tanh"), weight2, bias2)


def residual(x: Tensor, attended: Tensor, transformed: Tensor, dropout: float) -> Tensor:
    """x + drop(attended) + drop(transformed), each branch with a mask of its own; all (B, T, hidden)."""
    # Added in Hugging Face's order, so that float32 results agree as closely as they can.
    on = dropout > 0
    return F.dropout(attended, dropout, on) + F.dropout(transformed, dropout, on) + x


def cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, num_items: Tensor | int | None = None
) -> Tensor:
    """Cross entropy of the head's softmax in float32, added up over the targets and divided.

    Parameters
    ----------
    x
        (B, T, hidden), what the head reads.
    weight, bias
        (rows, hidden) and (rows,), the head.
    targets
        (B, T) int64, the token that follows each; -100 where none counts.
    num_items
        What the sum is divided by: the targets that count by default (0 where none does), or a number or scalar tensor,
        such as the targets of all the micro-batches of a step.

    Returns
    -------
    Tensor
        () float32
    """
    logits = F.linear(x, weight, bias).float()
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    if num_items is None:
        num_items = (targets != IGNORED).sum().clamp(min=1)
    return total / num_items


PLAIN = Operations(prepare, layer_norm, attention, mlp, residual, cross_entropy)
"""PyTorch's own operations: they run on every device, and define what faster ones must compute."""
