"""Rows that hold several documents: where each begins, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from phi_fast.errors import InputError


def document_bounds(ids: Tensor, end_of_text: int) -> Tensor:
    """Where documents begin and end in a batch of packed rows, for `cu_seqlens` of `Phi.forward`.

    A document ends with its end-of-text token, or with its row: what the next row goes on with is a document by itself.

    Parameters
    ----------
    ids
        (B, T) int64.
    end_of_text
        The token that closes a document.

    Returns
    -------
    Tensor
        (documents + 1,) int32 on the device of `ids`: starts in the rows read one after the other, and B · T last.
    """
    if ids.dim() != 2 or ids.numel() == 0:
        raise InputError(f"ids of shape {tuple(ids.shape)}: give (rows, tokens), at least one of each")
    last = ids == end_of_text
    last[:, -1] = True
    ends = last.flatten().nonzero().flatten() + 1
    return torch.cat([ends.new_zeros(1), ends]).to(torch.int32)


def check_bounds(cu_seqlens: Tensor, rows: int, length: int) -> None:
    """Refuse bounds that are none of a (rows, length) batch.

    The values of a tensor on a GPU are not looked at, for that would wait for all the GPU has to do.

    Raises
    ------
    InputError
        Wrong type or shape, not from 0 up to rows · length, an empty document, or one that reaches into another row.
    """
    if cu_seqlens.dtype != torch.int32:
        raise InputError(f"cu_seqlens of {cu_seqlens.dtype}: give torch.int32")
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2:
        raise InputError(f"cu_seqlens of shape {tuple(cu_seqlens.shape)}: give (documents + 1,)")
    if cu_seqlens.device.type != "cpu" or torch.compiler.is_compiling():
        return
    first, final = int(cu_seqlens[0]), int(cu_seqlens[-1])
    if first != 0 or final != rows * length:
        raise InputError(
            f"cu_seqlens from {first} to {final}: they go from 0 to {rows * length}, all tokens of the batch"
        )
    lengths = cu_seqlens.diff()
    if bool((lengths <= 0).any()):
        place = int((lengths <= 0).nonzero()[0])
        start, end = cu_seqlens[place : place + 2].tolist()
        raise InputError(
            f"cu_seqlens[{place}] is {start} and cu_seqlens[{place + 1}] {end}: each document holds a token or more"
        )
    across = cu_seqlens[:-1] // length != (cu_seqlens[1:] - 1) // length
    if bool(across.any()):
        place = int(across.nonzero()[0])
        start, end = cu_seqlens[place : place + 2].tolist()
        raise InputError(
            f"cu_seqlens: the document from {start} to {end} reaches over the end of a row of {length} tokens"
        )
