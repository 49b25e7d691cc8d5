"""The order of a `Loader` as a data set of torch, for transformers' Trainer and loops that bring their own loader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from phi_fast.errors import InputError
from phi_fast.train.loader import Loader


class Sequences(IterableDataset[dict[str, Any]]):
    """Sequences of a loader one by one: ``{"input_ids": (length,) int64, "labels": the same}``.

    Trainer deals out what it reads in the order in which `Split` does, so give every rank the whole (a loader with
    world 1) and let Trainer do the rest. ``dataloader_num_workers`` stays 0: a thread reads ahead as it is.

    Parameters
    ----------
    loader
        With world 1, without targets (the model shifts) and without masked documents.
    first, stop
        Steps, of `loader.split.batch` sequences each.
    """

    def __init__(self, loader: Loader, first: int = 0, stop: int | None = None) -> None:
        if loader.split.world != 1 or loader.mask_documents or loader.targets:
            raise InputError("loader: give one with world 1 (Trainer deals out), without targets and mask_documents")
        self.loader, self.first, self.stop = loader, first, stop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise InputError("dataloader_num_workers: give 0; the loader reads ahead in a thread")
        for _, parts in self.loader.steps(self.first, self.stop):
            for part in parts:
                for sequence in part.ids:
                    yield {"input_ids": sequence, "labels": sequence}
