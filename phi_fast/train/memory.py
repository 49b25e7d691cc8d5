"""What a training step takes of a GPU's memory, reckoned from the settings.

It follows what the code keeps: float32 parameters, gradients and moments (`optimiser`), what a block leaves to its
backward pass (`kernels.block_steps.Kept`), and the loss head's chunk (`kernels.cross_entropy`). Tests hold the
activations to what autograd saves.
"""

from __future__ import annotations

from typing import NamedTuple

from phi_fast.errors import InputError
from phi_fast.train.settings import Settings

_CHUNK = 1 << 28  # of logits: kernels.cross_entropy._CHUNK_BYTES
_ASIDE = 2e9  # CUDA's context, cuBLAS's and NCCL's buffers, and what the allocator cannot use: ours, not reckoned


class Memory(NamedTuple):
    """Bytes on each GPU at the fullest moment of a step."""

    parameters: float
    gradients: float
    moments: float
    weights_in_halves: float
    activations: float
    workspace: float
    logits: float
    aside: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def strategy_of(settings: Settings, count: int) -> str:
    """none, ddp or fsdp on so many GPUs.

    Raises
    ------
    InputError
        Several GPUs and the strategy none.
    """
    if count == 1:
        return "none"
    if settings.strategy == "none":
        raise InputError(f"strategy 'none' on {count} GPUs: give ddp or fsdp")
    return "ddp" if settings.strategy == "auto" else settings.strategy


def activation_bytes(settings: Settings, strategy: str = "none") -> float:
    """What one block keeps of each token from its forward to its backward pass, its input included; in bytes."""
    config, stream, half = settings.config(), *_widths(settings, strategy)
    h, m, heads = config.hidden, config.mlp, config.heads
    if settings.kernels != "plain":  # x, and Kept: y; q, k, v and h; attention's output and GELU's; mean, rstd; lse;
        # and where documents begin and end, two int32
        return stream * h + half * (h + 3 * h + m + h + m) + 8 + 4 * heads + 8
    # x and LayerNorm's float32 statistics; y as each of four products reads it; rotated q, k and v; attention's output;
    # fc1's output, and GELU's; masks of dropout, a byte each.
    copies = 4 if half < 4 else 1
    masks = 2 * h if config.residual_dropout else 0
    return stream * h + 8 + half * (copies * h + 3 * h + h + 2 * m) + 4 * heads + masks


def memory(settings: Settings, count: int = 1) -> Memory:
    """The memory of each of `count` GPUs.

    Raises
    ------
    InputError
        Settings that cannot run on so many.
    """
    strategy = strategy_of(settings, count)
    if settings.batch % (settings.micro * count):
        raise InputError(
            f"batch {settings.batch}: no multiple of micro, {settings.micro}, times {count} GPUs: give another"
        )
    config, stream, half = settings.config(), *_widths(settings, strategy)
    h, m, tokens = config.hidden, config.mlp, settings.micro * settings.length
    count_of_weights, head = config.parameters, config.rows * config.hidden
    block = 2 * h * (2 * h + m)
    parts = count if strategy == "fsdp" else 1
    # fully_shard adds gradients up whole on each rank until it exchanges them, once a step.
    whole_gradients = parts == 1 or settings.batch > settings.micro * count
    fused = settings.kernels != "plain"

    if parts > 1:  # embedding and head, two blocks, and a block's gradient, gathered
        halves = float(half * (2 * head + 2 * block) + (half + 4) * block)
    elif half == 4:
        halves = float(4 * h * (3 * h + m)) if fused else 0.0  # the weights of a joint product, copied side by side
    else:
        halves = float(2 * (head + block)) if fused else 2.0 * (count_of_weights - head)  # autocast holds its casts

    kept = activation_bytes(settings, strategy)
    layers = config.layers * stream * h + kept if settings.checkpointing else config.layers * kept
    ends = (2 * stream + half) * h  # around the last LayerNorm
    work = half * (h + m + 3 * h + m) + 2 * stream * h + (2 * half * h if config.residual_dropout else 0)
    # A chunk of logits, and gradients of the head and of what it read, made in the forward pass; or all logits.
    logits = _CHUNK + 4.0 * head + half * h * tokens if fused else tokens * config.rows * (8.0 + half)
    return Memory(
        parameters=4 * count_of_weights / parts,
        gradients=4 * count_of_weights / (1 if whole_gradients else parts),
        moments=8 * count_of_weights / parts,
        weights_in_halves=halves,
        activations=float(tokens * (layers + ends)),
        workspace=float(tokens * work),
        logits=logits,
        aside=_ASIDE,
    )


def _widths(settings: Settings, strategy: str) -> tuple[int, int]:
    """Bytes a number of the residual stream, and of what products read and write."""
    half = 4 if settings.precision == "fp32" else 2
    return half if strategy == "fsdp" else 4, half  # fully_shard gathers the embedding in halves
