"""One training step, of micro-batches, on one process or many. It is the heart of `loop.py`, and of any other loop:

optimiser = adamw(model, lr=1e-3)
for step in loader.steps():
    result = train_step(model, optimiser, step.parts, precision="bf16", clip=1.0)
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from phi_fast.errors import InputError
from phi_fast.model.operations import IGNORED

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class StepResult(NamedTuple):
    """What a step came to; tensors on the model's device, so that reading them is the caller's choice.

    Attributes
    ----------
    loss
        () float32, the mean over the targets of all micro-batches of all ranks.
    grad_norm
        () float32, of all gradients before clipping.
    skipped
        () bool: the loss was over its limit or something was not finite, and weights and moments are as before.
    parts
        (micro-batches of this rank,) float32, what each added to `loss`.
    """

    loss: Tensor
    grad_norm: Tensor
    skipped: Tensor
    parts: Tensor


class LossScale:
    """What a float16 loss is multiplied by, so that small gradients do not vanish.

    The rule of PyTorch's GradScaler (Micikevicius et al., arXiv 1710.03740): halved after a step whose gradients
    overflowed, doubled after `interval` steps without. It stays on the device: no step waits for it, and with
    gradients in parts on several ranks the norm, which all share, tells of an overflow on any.
    """

    def __init__(self, device: torch.device | str, value: float = 2.0**16, interval: int = 2000) -> None:
        self.value = torch.tensor(value, device=device)
        self.steps = torch.zeros((), device=device)
        self.interval = interval

    def update(self, overflow: Tensor) -> None:
        """Go on after a step; overflow () bool."""
        steps = torch.where(overflow, 0.0, self.steps + 1)
        grow = steps >= self.interval
        self.value = torch.where(overflow, self.value / 2, torch.where(grow, self.value * 2, self.value))
        self.steps = torch.where(grow, 0.0, steps)

    def state(self) -> dict[str, float]:
        """Scale and steps since it changed."""
        return {"value": float(self.value), "steps": float(self.steps)}

    def load(self, state: dict[str, float]) -> None:
        """Take what `state` gave."""
        self.value.fill_(state["value"])
        self.steps.fill_(state["steps"])


def train_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Any],
    *,
    precision: str = "fp32",
    clip: float | None = None,
    scale: LossScale | None = None,
    limit: float | None = None,
    seed: Sequence[int] | None = None,
) -> StepResult:
    """Gradients of all micro-batches, clipped, and one step of the optimiser. Nothing here waits for a GPU.

    Micro-batches may hold different numbers of targets: each loss is divided by those of the whole step, over all
    ranks, so that the gradient is that of one big batch. Between ranks gradients are exchanged once a step.

    Parameters
    ----------
    model
        A `Phi`, or one in DistributedDataParallel or fully_shard, in training mode.
    optimiser
        Its learning rate set for this step. A fused one leaves a bad step out on the device; with another, the host
        waits to know.
    batches
        `Batch`es of a `Loader`, or whatever has `ids` and `cu_seqlens` as `Phi.forward` takes them, on any device; the
        same number on each rank.
    precision
        bf16 and fp16: matrix products in it, under autocast; fp32. A model in fully_shard with a precision of its own
        is given "fp32".
    clip
        The largest norm of the gradient.
    scale
        For fp16.
    limit
        The largest loss that is learnt from.
    seed
        Numbers that dropout is drawn from, together with the place of the micro-batch in the step, so that it does not
        matter which rank computes it nor what was drawn before. Unless given, torch's generators go on.

    Raises
    ------
    InputError
        No micro-batch, or a precision that is none.
    """
    if not batches:
        raise InputError("batches: give one or more")
    if precision not in DTYPES:
        raise InputError(f"precision {precision!r}: give one of {', '.join(DTYPES)}")
    device = next(model.parameters()).device
    rank, world = (dist.get_rank(), dist.get_world_size()) if exchanges(model) else (0, 1)
    targets = torch.tensor(float(sum(target_count(one) for one in batches)), device=device)
    if world > 1:
        dist.all_reduce(targets)
    targets = targets.clamp(min=1)
    losses = []
    for number, batch in enumerate(batches):
        if seed is not None:
            torch.manual_seed(mixed(*seed, number * world + rank))
        with exchanging(model, number == len(batches) - 1):
            with compute_in(device, precision):
                loss = batch_loss(model, batch, device, targets)
            # Both ways to share gradients take their mean over ranks; what is wanted is their sum.
            scaled: Any = loss * (world if scale is None else world * scale.value)
            scaled.backward()
        losses.append(loss.detach())
    parts = torch.stack(losses)
    total = parts.sum()
    if world > 1:
        dist.all_reduce(total)
    with torch.no_grad():
        norm, bad = _prepare_gradients(model, clip, None if scale is None else scale.value)
        if scale is not None:
            scale.update(bad)
        bad = bad | ~total.isfinite()
        if limit is not None:
            bad = bad | (total > limit)
        _step_unless(optimiser, bad)
    optimiser.zero_grad(set_to_none=True)
    return StepResult(total, norm, bad, parts)


def batch_loss(model: nn.Module, batch: Any, device: torch.device, divisor: Tensor | int) -> Tensor:
    """The summed loss of a micro-batch, divided; () float32."""
    ids = batch.ids.to(device, non_blocking=True)
    labels = getattr(batch, "labels", None)
    labels = ids if labels is None else labels.to(device, non_blocking=True)
    loss: Tensor = model(ids, labels=labels, cu_seqlens=batch.cu_seqlens, num_items=divisor).loss
    return loss


def target_count(batch: Any) -> int:
    """How many tokens of a micro-batch are predicted: all but the first of each document.

    With `labels` of its own, those that are not -100; a document's first is not counted.
    """
    rows: int
    length: int
    rows, length = batch.ids.shape
    labels = getattr(batch, "labels", None)
    if labels is None:
        return rows * length - (rows if batch.cu_seqlens is None else len(batch.cu_seqlens) - 1)
    counted = (labels != IGNORED).flatten()
    first = torch.arange(0, rows * length, length) if batch.cu_seqlens is None else batch.cu_seqlens[:-1].long()
    return int(counted.sum()) - int(counted[first.to(counted.device)].sum())


def compute_in(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast to bf16 or fp16; for fp32 nothing."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def exchanges(model: nn.Module) -> bool:
    """Whether the model shares its gradients with other ranks."""
    return dist.is_initialized() and (isinstance(model, DistributedDataParallel) or _sharded(model))


@contextlib.contextmanager
def exchanging(model: nn.Module, now: bool) -> Iterator[None]:
    """Share gradients between ranks in this backward pass, or only add them up."""
    if _sharded(model):
        model.set_requires_gradient_sync(now)  # type: ignore[operator]
    if isinstance(model, DistributedDataParallel) and not now:
        with model.no_sync():
            yield
    else:
        yield


def mixed(*numbers: int) -> int:
    """A seed that is a function of several numbers: 63 bits of their BLAKE2."""
    said = " ".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little") >> 1


def _sharded(model: nn.Module) -> bool:
    return hasattr(model, "set_requires_gradient_sync")


def _prepare_gradients(model: nn.Module, clip: float | None, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unscale and clip; returns the norm before clipping and whether it is not finite."""
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    norm: Any = torch.nn.utils.get_total_norm(gradients)
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    if scale is not None:
        norm = norm / scale
    factor = None if scale is None else 1 / scale
    if clip is not None:
        least = (clip / (norm + 1e-6)).clamp(max=1.0)
        factor = least if factor is None else factor * least
    if factor is not None:
        torch._foreach_mul_([_local(one) for one in gradients], factor)
    return norm, ~norm.isfinite()


def _local(gradient: Any) -> Tensor:
    local: Tensor = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return local


def _step_unless(optimiser: Any, bad: Tensor) -> None:
    """Step, or leave moments and weights as they are; on the device where the optimiser can, as GradScaler does it."""
    if not getattr(optimiser, "_step_supports_amp_scaling", False):
        if not bool(bad):
            optimiser.step()
        return
    optimiser.grad_scale, optimiser.found_inf = None, bad.float()
    try:
        optimiser.step()
    finally:
        del optimiser.grad_scale, optimiser.found_inf
