"""What a run will take, before anyone pays: memory, time and cost, from the settings and a GPU's data sheet."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

from phi_fast.errors import InputError
from phi_fast.train.gpus import Gpu
from phi_fast.train.memory import Memory, memory, strategy_of
from phi_fast.train.settings import Settings


class Plan(NamedTuple):
    """What `plan` found.

    Attributes
    ----------
    parameters, tokens
        Of the model; of the whole run.
    strategy
        none, ddp or fsdp.
    memory
        Of each GPU.
    missing
        Bytes of each GPU that the run needs and has not; 0 where it fits.
    helps
        Settings with which it fits, as ``--set`` takes them, each with the bytes it then takes.
    flops_per_token, flops
        Causal, forward and backward; of the whole run.
    tokens_per_s
        Of all GPUs, at the assumed MFU.
    days, gpu_hours
        Of training alone: without validation, saving and what stops a run.
    cost
        In the currency of the price; None without one.
    checkpoint_bytes, checkpoints_bytes, export_bytes
        Of one checkpoint, of all that a run has at once, of the float32 safetensors.
    """

    parameters: int
    tokens: int
    strategy: str
    memory: Memory
    missing: float
    helps: list[tuple[str, float]]
    flops_per_token: float
    flops: float
    tokens_per_s: float
    days: float
    gpu_hours: float
    cost: float | None
    checkpoint_bytes: float
    checkpoints_bytes: float
    export_bytes: float


def plan(settings: Settings, gpu: Gpu, count: int = 1, *, mfu: float = 0.5, price: float | None = None) -> Plan:
    """Reckon memory, time and cost of a run.

    Parameters
    ----------
    settings
        The run; on a GPU the kernels "auto" are the fused ones.
    gpu
        One of `gpus.GPUS`.
    count
        How many.
    mfu
        Share of the data sheet's dense bf16 peak that the model's operations reach, attention counted as causal. The
        paper's own run comes to half (770 GPU-hours on A100s).
    price
        Of one GPU for an hour.

    Raises
    ------
    InputError
        A number that is none, or settings that cannot run on so many GPUs.
    """
    if count < 1:
        raise InputError(f"count {count}: give 1 or more")
    if not 0 < mfu <= 1:
        raise InputError(f"mfu {mfu}: give a share above 0, up to 1")
    if price is not None and not 0 < price < math.inf:
        raise InputError(f"price {price}: give what one GPU costs an hour, above 0")
    config, taken = settings.config(), memory(settings, count)
    tokens = settings.steps * settings.tokens_per_step
    per_token = config.flops_per_token(settings.length, causal=True)
    rate = count * mfu * gpu.peak / per_token
    hours = tokens / rate / 3600 * count
    checkpoint = 12.0 * config.parameters
    missing = max(0.0, taken.total - gpu.memory)
    return Plan(
        parameters=config.parameters, tokens=tokens, strategy=strategy_of(settings, count), memory=taken,
        missing=missing, helps=_helps(settings, gpu, count) if missing else [], flops_per_token=per_token,
        flops=per_token * tokens, tokens_per_s=rate, days=tokens / rate / 86_400, gpu_hours=hours,
        cost=None if price is None else price * hours, checkpoint_bytes=checkpoint,
        checkpoints_bytes=checkpoint * (settings.keep_last + 2),  # the best, and the one being written
        export_bytes=4.0 * config.parameters,
    )  # fmt: skip


def _helps(settings: Settings, gpu: Gpu, count: int) -> list[tuple[str, float]]:
    """What makes it fit: each remedy alone, dearer ones together only where that does not do."""
    remedies: list[dict[str, object]] = []
    smaller = [one for one in range(settings.micro - 1, 0, -1) if settings.batch % (one * count) == 0]
    fitting = next((one for one in smaller if _bytes(settings, count, micro=one) <= gpu.memory), None)
    if smaller:
        remedies.append({"micro": smaller[-1] if fitting is None else fitting})
    if settings.kernels == "plain":
        remedies.append({"kernels": "fused"})
    if not settings.checkpointing:
        remedies.append({"checkpointing": True})
    if count > 1 and settings.strategy != "fsdp":
        remedies.append({"strategy": "fsdp"})
    for size in range(1, len(remedies) + 1):
        found = []
        for some in itertools.combinations(remedies, size):
            changes = {name: value for one in some for name, value in one.items()}
            taken = _bytes(settings, count, **changes)
            if taken <= gpu.memory:
                said = " ".join(f"--set {name}={str(value).lower()}" for name, value in changes.items())
                found.append((said, taken))
        if found:
            return found
    return []


def _bytes(settings: Settings, count: int, **changes: object) -> float:
    return memory(dataclasses.replace(settings, **changes), count).total  # type: ignore[arg-type]
