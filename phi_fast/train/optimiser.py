"""AdamW as the recipes use it: matrices decay, biases and LayerNorms do not."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from phi_fast.errors import InputError


def adamw(
    model: nn.Module,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """PyTorch's AdamW over the parameters of a model, in two groups: those with two dimensions or more decay.

    Parameters
    ----------
    model
        Plain, or in DistributedDataParallel or fully_shard.
    lr, betas, eps, weight_decay
        As AdamW's.
    fused
        One kernel for all parameters; unless given, where PyTorch has it. Only the fused one can leave a step out
        without waiting for the device; see `train_step`.

    Raises
    ------
    InputError
        No parameter requires a gradient.
    """
    trained = [one for one in model.parameters() if one.requires_grad]
    if not trained:
        raise InputError("model: none of its parameters requires a gradient")
    groups = [
        {"params": [one for one in trained if one.dim() >= 2], "weight_decay": weight_decay},
        {"params": [one for one in trained if one.dim() < 2], "weight_decay": 0.0},
    ]
    if fused is None:
        fused = "fused" in inspect.signature(torch.optim.AdamW).parameters and all(
            one.device.type in ("cuda", "cpu") and one.is_floating_point() for one in trained
        )
    return torch.optim.AdamW([one for one in groups if one["params"]], lr=lr, betas=betas, eps=eps, fused=fused)


def fill_state(optimiser: torch.optim.Optimizer) -> None:
    """Make the moments that AdamW makes at its first step, all 0, so that a checkpoint can be read into them."""
    for group in optimiser.param_groups:
        for one in group["params"]:
            if one.requires_grad and not optimiser.state[one]:
                optimiser.state[one] = {
                    "step": torch.zeros((), device=one.device if group.get("fused") else "cpu"),
                    "exp_avg": torch.zeros_like(one, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(one, memory_format=torch.preserve_format),
                }


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate of a step."""
    for group in optimiser.param_groups:
        group["lr"] = lr
