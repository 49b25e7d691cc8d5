"""The weights of a parallel block, and laying them side by side in one storage, so that one product takes several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from phi_fast.kernels._common import FLOATS, check, check_tensor


class BlockWeights(NamedTuple):
    """All parameters of a block, named as the modules of Hugging Face's phi; matrices are (out, in), as nn.Linear's.

    Attributes
    ----------
    norm_weight, norm_bias
        (hidden,)
    q_weight, k_weight, v_weight, dense_weight
        (hidden, hidden), with biases (hidden,).
    fc1_weight, fc1_bias
        (mlp, hidden) and (mlp,)
    fc2_weight, fc2_bias
        (hidden, mlp) and (hidden,)
    """

    norm_weight: Tensor
    norm_bias: Tensor
    q_weight: Tensor
    q_bias: Tensor
    k_weight: Tensor
    k_bias: Tensor
    v_weight: Tensor
    v_bias: Tensor
    dense_weight: Tensor
    dense_bias: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor


def check_weights(weights: BlockWeights, x: Tensor) -> int:
    """Check every weight against x (batch, length, hidden); give the MLP's width.

    Raises
    ------
    InputError
        A weight of another dtype, shape, device or stride, by its name.
    """
    check(isinstance(weights, tuple) and len(weights) == len(BlockWeights._fields), "weights",
          "a BlockWeights", type(weights).__name__)  # fmt: skip
    weights = BlockWeights(*weights)
    hidden = x.shape[-1]
    check_tensor("fc1_weight", weights.fc1_weight, dtypes=FLOATS, shape=(None, hidden), like=x, contiguous=True)
    mlp: int = weights.fc1_weight.shape[0]
    check(mlp > 0, "fc1_weight", "at least one row", tuple(weights.fc1_weight.shape))
    for name, one in zip(BlockWeights._fields, weights, strict=True):
        wide = mlp if name == "fc1_bias" else hidden
        matrix = name.endswith("_weight") and name != "norm_weight"
        shape = {"fc1_weight": (mlp, hidden), "fc2_weight": (hidden, mlp)}.get(
            name, (hidden, hidden) if matrix else (wide,)
        )
        # Columns of a joint matrix lie apart; only within a row must the stride be 1.
        check_tensor(name, one, dtypes=FLOATS, shape=shape, like=x, last_contiguous=True)
        if matrix:
            check(one.dtype == weights.fc1_weight.dtype, name, f"{weights.fc1_weight.dtype}, fc1_weight's", one.dtype)
    return mlp


def joint_view(parts: Sequence[Tensor], dim: int) -> Tensor | None:
    """Give the parts, concatenated along `dim`, as a view where they lie so in one storage; else None.

    Parameters
    ----------
    parts
        Vectors (n_i,) or matrices, of one dtype.
    dim
        0 puts rows (or entries) below each other, 1 columns beside each other.
    """
    first = parts[0]
    place = first.storage_offset()
    storage = first.untyped_storage().data_ptr()
    for one in parts:
        if one.stride() != first.stride() or one.dtype != first.dtype or one.storage_offset() != place:
            return None
        if one.untyped_storage().data_ptr() != storage:
            return None
        place += one.shape[dim] * one.stride(dim)
    shape = list(first.shape)
    shape[dim] = sum(one.shape[dim] for one in parts)
    if dim == 1 and first.stride(0) < shape[1]:
        return None
    return first.as_strided(shape, first.stride())


def joint(parts: Sequence[Tensor], dim: int, dtype: torch.dtype) -> Tensor:
    """Concatenate along `dim` in `dtype`: a view where the parts lie side by side in that dtype, else a copy."""
    view = joint_view(parts, dim)
    if view is not None:
        return view.to(dtype)
    return torch.cat([one.to(dtype) for one in parts], dim)
