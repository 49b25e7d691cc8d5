"""Checkpoints written while the training goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from phi_fast.train.checkpoint import local_bytes, tensors_of, write
from phi_fast.train.kept import name_of, prune


class Saver:
    """Writes checkpoints while the training goes on, one at a time, and keeps the newest and the best.

    Parameters
    ----------
    folder
        Of the checkpoints.
    keep_last
        How many of the newest are kept.
    group
        Of gloo, used for this alone, where there are several ranks.
    """

    def __init__(self, folder: Path, keep_last: int, group: Any = None) -> None:
        self.folder, self.keep_last, self.group = folder, keep_last, group
        self.failed: str | None = None
        self.written: Path | None = None
        self._copy: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Copy the state, which takes a moment, and write it in a thread; waits for the one before to be written."""
        self.wait()
        self.failed = None
        rank, world = (0, 1) if self.group is None else (dist.get_rank(self.group), dist.get_world_size(self.group))
        for name, tensor in share(tensors_of(model, optimiser), rank, world).items():
            if name in self._copy:
                self._copy[name].copy_(tensor)
            else:
                self._copy[name] = _host_copy(tensor)
        held = dict(state)  # its values are the caller's for good
        self._thread = threading.Thread(target=self._write, args=(held,), name="phi-fast-checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what is being written is on the disk, or has failed: see `failed`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, state: dict[str, Any]) -> None:
        path = self.folder / name_of(state["step"])
        try:
            write(path, self._copy, state, self.group)
        except BaseException as error:  # a thread that dies says nothing to the run
            self.failed = f"{path} was not written: {error}"
            return
        self.failed, self.written = None, path
        if self.group is None or dist.get_rank(self.group) == 0:
            with contextlib.suppress(OSError):  # what could not be removed is the next save's to remove
                prune(self.folder, self.keep_last)


def _host_copy(tensor: Any) -> Tensor:
    if tensor.device.type == "cuda" and not hasattr(tensor, "to_local"):
        with contextlib.suppress(RuntimeError):  # of a host that locks no more pages: the copy is only slower
            return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    copied: Tensor = tensor.to("cpu", copy=True)
    return copied


def share(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """What a rank writes: its parts of those that are in parts, and of those that all have whole an equal share."""
    load, mine = [0] * world, {}
    for name, one in sorted(tensors.items(), key=lambda pair: -pair[1].numel()):
        if hasattr(one, "to_local"):
            mine[name] = one
            continue
        least = load.index(min(load))
        load[least] += local_bytes(one) + 1
        if least == rank:
            mine[name] = one
    return mine
