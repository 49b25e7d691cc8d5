"""What an attention mask, position numbers or cumulative lengths say of a batch: where each token's document lies.

Everything stays on the device: nothing waits for a GPU to learn whether a batch is padded or packed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phi_fast.kernels._common import check_values
from phi_fast.kernels.attention import document_bounds


def batch_bounds(
    rows: int,
    length: int,
    device: torch.device,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """Give start and end of each token's document, as attention takes them.

    What is given decides, as in transformers: `cu_seqlens` first, then `mask` (padding is a document of its own, so
    that no token sees it), then `position_ids` (a document begins where they do not rise by one); else a row is one.

    Parameters
    ----------
    rows, length, device
        Of the batch.
    mask
        (rows, length), 0 or False where there is padding: on the left, on the right, or on both sides.
    position_ids
        (rows or 1, length), integers.
    cu_seqlens
        (documents + 1,), integers: from 0 to rows · length, rising.

    Returns
    -------
    Tensor
        int32 (2, rows · length)

    Raises
    ------
    InputError
        A mask with padding between tokens, or lengths that do not add up. Values on a GPU are checked there by an
        assertion on the stream, for which nothing waits.
    """
    if cu_seqlens is not None:
        return document_bounds(cu_seqlens.to(device, torch.int32).contiguous(), rows * length)
    if mask is not None:
        bounds: Tensor = _of_mask(mask.to(device, torch.bool))
    elif position_ids is not None:
        bounds = _of_positions(position_ids.to(device).expand(rows, length))
    else:
        tokens = torch.arange(rows * length, dtype=torch.int32, device=device)
        starts = tokens - tokens % length
        bounds = torch.stack((starts, starts + length))
    return bounds


def _spread(first: Tensor) -> Tensor:
    """Give the bounds of documents whose first tokens are marked; first (rows, length) bool, column 0 True."""
    first = first.flatten()
    tokens = torch.arange(first.numel(), dtype=torch.int32, device=first.device)
    starts = torch.where(first, tokens, 0).cummax(0).values
    # The end is the next first token: the least one behind, looked at from the back.
    ends = torch.where(first, tokens, first.numel()).flip(0).cummin(0).values.flip(0)
    ends = torch.cat((ends[1:], ends.new_full((1,), first.numel())))
    return torch.stack((starts, ends)).to(torch.int32)


def _bounds_like(given: Tensor) -> Tensor:
    return torch.empty((2, given.numel()), dtype=torch.int32, device=given.device)


# Operations of their own, so that torch.compile sees one node, in whose body values may be looked at.
@torch.library.custom_op("phi_fast::mask_bounds", mutates_args=(), schema="(Tensor mask) -> Tensor")
def _of_mask(mask: Tensor) -> Tensor:
    first = torch.ones_like(mask)
    first[:, 1:] = mask[:, 1:] != mask[:, :-1]
    runs = (first & mask).sum(1)
    check_values((runs <= 1).all(), "attention_mask", "padding before or after a row's tokens, none between them")
    return _spread(first)


@torch.library.custom_op("phi_fast::position_bounds", mutates_args=(), schema="(Tensor positions) -> Tensor")
def _of_positions(positions: Tensor) -> Tensor:
    first = torch.ones_like(positions, dtype=torch.bool)
    first[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
    return _spread(first)


_of_mask.register_fake(_bounds_like)
_of_positions.register_fake(_bounds_like)
