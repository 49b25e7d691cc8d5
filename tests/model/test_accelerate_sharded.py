"""Two processes, DistributedDataParallel and fully_shard around an accelerated model: the same loss and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import phi_fast
from tests.model import hf

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this PyTorch has no gloo")


def wrapped(model: Any, how: str) -> Any:
    if how == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (2,))
    policy = MixedPrecisionPolicy()
    if how == "sharded, bfloat16":  # which casts what a layer is given, too
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def work(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    plain = hf.make().train()
    ids = hf.tokens(plain, 2, 11)
    wanted = plain(ids, labels=ids).loss
    wanted.backward()
    for how in ("ddp", "sharded", "sharded, bfloat16"):
        atol = 0.1 if how == "sharded, bfloat16" else 1e-5
        ours = hf.make().train()
        phi_fast.accelerate(ours)
        loss = wrapped(ours, how)(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.testing.assert_close(loss.detach(), wanted.detach(), atol=atol, rtol=0, msg=how)
        for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
            whole = one.grad.full_tensor() if hasattr(one.grad, "full_tensor") else one.grad
            torch.testing.assert_close(whole, other.grad, atol=atol, rtol=0, msg=f"{how}: {name}")
    dist.destroy_process_group()


@pytest.mark.usefixtures("reference")
def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(str(tmp_path / "meeting"),), nprocs=2)
