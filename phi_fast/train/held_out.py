"""Windows that are never trained on, and the loss on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from phi_fast.errors import InputError
from phi_fast.model.operations import IGNORED
from phi_fast.train.loader import Batch, Loader
from phi_fast.train.order import Order, Split, Where, permuted
from phi_fast.train.step import batch_loss, compute_in, exchanges, target_count


class PartOrder(Order):
    """The order of a part of each store's windows: the held-out ones, or the others.

    Which are held out is the same for every seed, so that losses of several runs are of the same windows: of the
    windows in a fixed shuffled order the first `held` of each store.

    Parameters
    ----------
    windows, held
        Of each store: how many there are, and how many are held out.
    out
        The held-out part, in the stores' order; else the others, as `Order` with the rest of the parameters.
    """

    def __init__(
        self, windows: Sequence[int], held: Sequence[int], out: bool, weights: Sequence[float] | None, seed: int
    ) -> None:
        mine = list(held) if out else [all_ - some for all_, some in zip(windows, held, strict=True)]
        super().__init__(mine, weights=weights, seed=seed, shuffle=not out)
        self._all, self._first = list(windows), [0 if out else some for some in held]

    def at(self, samples: Any) -> Where:
        """See `Order.at`."""
        where = super().at(samples)
        for number, (count, first) in enumerate(zip(self._all, self._first, strict=True)):
            mine = where.store == number
            where.window[mine] = permuted(where.window[mine] + first, count, (-1, number))
        return where


def hold_out(loader: Loader, share: float, weights: Sequence[float] | None, seed: int, **same: Any) -> Loader | None:
    """Take a share of the windows out of a loader, and make the loader of these.

    Parameters
    ----------
    loader
        Of all windows; of the others after this.
    share
        At least one window of each store, at most all but one; 0: nothing is held out.
    weights, seed
        Those of `loader`.
    same
        What else the new loader shares with it: length, mask_documents, rank, world.

    Raises
    ------
    InputError
        A store of one window.
    """
    if not share:
        return None
    windows = loader.order.windows
    for store, count in zip(loader.stores, windows, strict=True):
        if count < 2:
            raise InputError(f"{store.folder}: one sequence, of which none can be held out: give held_out 0")
    held = [min(max(1, round(share * count)), count - 1) for count in windows]
    out = Loader(loader.stores, batch=loader.split.world, micro=1, **same)
    out.order = PartOrder(windows, held, True, weights, seed)
    loader.order = PartOrder(windows, held, False, weights, seed)
    return out


class _Labelled(NamedTuple):
    ids: Tensor
    labels: Tensor
    cu_seqlens: Tensor | None


@torch.no_grad()
def validation_loss(model: nn.Module, loader: Loader, sequences: int, micro: int, precision: str) -> float:
    """The mean loss over the targets of the first held-out sequences, dropout off; the same on any number of ranks.

    Parameters
    ----------
    model
        As for `train_step`.
    loader
        Of `hold_out`.
    sequences
        How many; all where there are fewer.
    micro
        Sequences of one forward pass.
    precision
        As for `train_step`.
    """
    count, world = min(sequences, loader.windows), loader.split.world
    parts = -(-count // (micro * world))
    loader.split = Split(parts * micro * world, micro, loader.split.rank, world)
    device = next(model.parameters()).device
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    was = bare.training
    bare.eval()
    try:
        for part in range(parts):
            batch = _only(loader.part(0, part), loader.split.samples(0, part) < count)
            with compute_in(device, precision):
                sums[0] += batch_loss(bare, batch, device, 1)
            sums[1] += target_count(batch)
    finally:
        bare.train(was)
        if hasattr(bare, "reshard"):  # of fully_shard, which keeps the head whole for a backward pass that never comes
            bare.reshard()  # type: ignore[operator]
    if exchanges(model):
        dist.all_reduce(sums)
    total, targets = (float(one) for one in sums)
    return total / max(targets, 1.0)


def _only(batch: Batch, rows: Any) -> _Labelled:
    """The batch with targets in some rows alone; every rank computes as many rows, wanted or not."""
    labels = batch.ids.clone()
    labels[torch.from_numpy(~rows)] = IGNORED
    return _Labelled(batch.ids, labels, batch.cu_seqlens)
