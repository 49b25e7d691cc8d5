"""Which of the processes of a run this one is, and the model over all of them."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from phi_fast.errors import InputError, PhiFastError
from phi_fast.model import Phi
from phi_fast.train.settings import Settings
from phi_fast.train.step import DTYPES

_PATIENCE = datetime.timedelta(hours=2)
"""How long ranks wait for one that scores or exports a checkpoint."""


class Ranks(NamedTuple):
    """This process among those of the run; the groups are of gloo, None where it is alone.

    `control` is for words between the main threads, `writer` for those between the threads that write checkpoints.
    """

    rank: int
    world: int
    device: torch.device
    strategy: str
    control: Any = None
    writer: Any = None

    def first(self, work: Callable[[], Any]) -> Any:
        """What rank 0 makes, on all ranks; an error of it is one of all."""
        if self.control is None:
            return work()
        held: list[Any] = [None, None]
        if self.rank == 0:
            try:
                held[0] = work()
            except PhiFastError as error:
                held[1] = error
        dist.broadcast_object_list(held, src=0, group=self.control)
        if held[1] is not None:
            raise held[1]
        return held[0]

    def gathered(self, value: Any) -> list[Any]:
        """What each rank gives, on all ranks."""
        if self.control is None:
            return [value]
        held: list[Any] = [None] * self.world
        dist.all_gather_object(held, value, group=self.control)
        return held

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank; does not wait for a GPU."""
        if self.control is None:
            return value
        flag = torch.tensor(int(value))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
        return bool(flag)


@contextlib.contextmanager
def joined(strategy: str, device: str | None) -> Iterator[Ranks]:
    """Join the other processes that torchrun started, if there are any.

    Raises
    ------
    InputError
        Several processes and a strategy for one, or a device that is not there.
    """
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    try:
        kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InputError(f"device {device!r}: give cuda or cpu") from error
    if kind.type not in ("cuda", "cpu") or (kind.type == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device {device!r}: {'there is no such GPU' if kind.type == 'cuda' else 'give cuda or cpu'}")
    if world == 1:
        yield Ranks(0, 1, kind, "none")
        return
    if strategy == "none":
        raise InputError(f"strategy 'none' on {world} ranks: give ddp or fsdp")
    if kind.type == "cuda":
        kind = torch.device("cuda", local)
        torch.cuda.set_device(kind)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        groups = [dist.new_group(backend="gloo", timeout=_PATIENCE) for _ in range(2)]
        yield Ranks(dist.get_rank(), world, kind, "ddp" if strategy == "auto" else strategy, *groups)
    finally:
        if ours:
            dist.destroy_process_group()


def spread(model: Phi, ranks: Ranks, precision: str) -> tuple[nn.Module, str]:
    """Move a model to its device and, on several ranks, into DistributedDataParallel or fully_shard.

    Returns
    -------
    (model, precision)
        The precision that `train_step` is to be told. fully_shard gathers parameters in bf16 or fp16 itself, half the
        bytes of float32, and adds gradients up in float32: its model needs no autocast.
    """
    if ranks.strategy == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        if ranks.device.type == "cuda":
            model.to(ranks.device)
        kept: dict[str, Any] = {"mesh": init_device_mesh(ranks.device.type, (ranks.world,))}
        if precision != "fp32":
            # Inputs are not cast: the count of targets would be rounded.
            kept["mp_policy"] = MixedPrecisionPolicy(DTYPES[precision], torch.float32, cast_forward_inputs=False)
        for block in model.model.layers:
            fully_shard(block, **kept)
        fully_shard(model, **kept)
        return model, "fp32"
    model.to(ranks.device)
    if ranks.strategy == "ddp":
        devices = [ranks.device.index] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True), precision
    return model, precision


def bare(model: nn.Module) -> nn.Module:
    """The model without what spreads it; parameter names are its own."""
    module: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
    return module


def make_model(settings: Settings, start: str | os.PathLike[str] | None, device: torch.device) -> Phi:
    """The model of a run on the CPU in float32: drawn from the seed, the same on every rank, or read.

    Raises
    ------
    InputError
        Weights of another size than the settings say; the message names the field.
    """
    from phi_fast.train.checkpoint import STATE, read_model

    config = settings.config()
    if start is None:
        torch.manual_seed(settings.seed)
        model = Phi(config)
    else:
        ours = os.path.isfile(os.path.join(start, STATE))
        read = read_model(start) if ours else Phi.from_pretrained(os.fspath(start), dtype=torch.float32)
        for name in ("rows", "layers", "hidden", "mlp", "heads", "rotary_dim", "rope_theta", "layer_norm_eps"):
            here, there = getattr(config, name), getattr(read.config, name)
            if here != there:
                raise InputError(f"{start}: its {name} is {there:,}, the settings' {here:,}: give the model it is of")
        with torch.device("meta"):
            model = Phi(config)
        model.load_state_dict(read.state_dict(), assign=True)
        model.requires_grad_()
    model.checkpointing = settings.checkpointing
    if settings.kernels == "fused" or (settings.kernels == "auto" and device.type == "cuda"):
        from phi_fast.model.fused import FUSED

        model.ops = FUSED
    return model.train()
