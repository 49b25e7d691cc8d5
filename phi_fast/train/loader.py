"""The batches of a rank, step by step, read ahead in a thread; any step is reached at once."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from phi_fast.errors import InputError
from phi_fast.train.order import Order, Split
from phi_fast.train.tokens import TokenStore, open_tokens

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""What a target is where no loss is wanted; torch's cross_entropy leaves it out."""


class Batch(NamedTuple):
    """A micro-batch.

    Attributes
    ----------
    ids : Tensor
        (micro, length) int64. `phi_fast.model.Phi` and transformers take them as labels too and shift inside.
    targets : Tensor or None
        (micro, length) int64: the token after each, for a model that does not shift; -100 after the end of a document
        where documents are masked.
    cu_seqlens : Tensor or None
        (documents + 1,) int32 where documents are masked: where they begin in the rows read one after the other, and
        micro · length last. A row begins a document of its own.
    """

    ids: Tensor
    targets: Tensor | None = None
    cu_seqlens: Tensor | None = None


class Step(NamedTuple):
    """A step of a rank: its number, and the micro-batches gradients are accumulated over."""

    number: int
    parts: list[Batch]


class Held(NamedTuple):
    """A piece of a document in a micro-batch: tokens ``start`` to ``stop`` of row ``row`` of part ``part``.

    ``file`` and ``line`` are where it stands in the corpus (its row there, from 0), ``place`` where the document
    starts in the store ``store``.
    """

    part: int
    row: int
    start: int
    stop: int
    store: str
    file: str
    line: int
    place: int

    def __str__(self) -> str:
        return (
            f"{self.file} row {self.line} (part {self.part}, row {self.row}, tokens {self.start}-{self.stop}; "
            f"token {self.place:,} of {self.store})"
        )


class Loader:
    """Batches of one rank; what they hold depends on the seed and the step alone.

    Parameters
    ----------
    stores
        One store or several (or their folders), all of one tokenizer.
    length
        Tokens of a sequence. Stores are cut at multiples of it; the last tokens that fill no window are not seen.
    batch
        Sequences a step, over all ranks.
    micro
        Sequences of one forward pass; batch / world unless given.
    seed, weights, shuffle
        As for `Order`; epochs of each store are counted apart.
    rank, world
        As for `Split`.
    targets
        Windows of length + 1 tokens, cut into ids and targets.
    mask_documents
        Give `Batch.cu_seqlens`.
    vocabulary
        Rows of the model's embedding, to be checked.
    prefetch
        Steps made ahead; each is batch / world · length · 8 bytes.
    pin
        Page-locked memory, from which copies to a GPU do not wait; where there is CUDA, unless given.

    Raises
    ------
    InputError
        A store without a window, stores of several tokenizers, a vocabulary larger than the model's, or numbers that
        do not divide.
    """

    def __init__(
        self,
        stores: TokenStore | str | os.PathLike[str] | Sequence[TokenStore | str | os.PathLike[str]],
        *,
        length: int = 2048,
        batch: int,
        micro: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        weights: Sequence[float] | None = None,
        shuffle: bool = True,
        targets: bool = False,
        mask_documents: bool = False,
        vocabulary: int | None = None,
        prefetch: int = 2,
        pin: bool | None = None,
    ) -> None:
        named = [stores] if isinstance(stores, TokenStore | str | os.PathLike) else stores
        self.stores = [one if isinstance(one, TokenStore) else open_tokens(one) for one in named]
        if not self.stores:
            raise InputError("stores: give one or more")
        if length < 1 or prefetch < 1:
            raise InputError(f"length {length}, prefetch {prefetch}: each is 1 or more")
        for store in self.stores:
            self.stores[0].check_tokenizer(store.identity, str(store.folder))
            if vocabulary is not None:
                store.check_vocabulary(vocabulary)
        self.length, self.targets, self._more = length, targets, int(targets)
        windows = [(len(store) - self._more) // length for store in self.stores]
        for store, count in zip(self.stores, windows, strict=True):
            if count < 1:
                raise InputError(f"{store.folder}: {len(store):,} tokens, too few for one sequence of {length:,}")
        self.order = Order(windows, weights=weights, seed=seed, shuffle=shuffle)
        if world > 0 and micro is None and batch % world:
            raise InputError(f"batch {batch}: no multiple of {world} (world)")
        self.split = Split(batch, batch // max(world, 1) if micro is None else micro, rank, world)
        self.mask_documents, self.prefetch, self._pin = mask_documents, prefetch, pin

    @property
    def windows(self) -> int:
        """Sequences in one epoch of all stores."""
        return sum(self.order.windows)

    def epochs(self, step: int) -> list[float]:
        """How often each store has been gone through before a step."""
        drawn = self.order.drawn(step * self.split.batch)
        return [count / windows for count, windows in zip(drawn, self.order.windows, strict=True)]

    def part(self, step: int, part: int) -> Batch:
        """One micro-batch of a step, made now."""
        import torch

        length, where = self.length, self.order.at(self.split.samples(step, part))
        rows = np.empty((self.split.micro, length + self._more), np.int64)
        for row, (store, _, window) in enumerate(zip(*where, strict=True)):
            rows[row] = self.stores[store][window * length : (window + 1) * length + self._more]
        ids = rows[:, :length]
        targets = cu_seqlens = None
        if self._more:
            targets = rows[:, 1:].copy()
            ids = ids.copy()
        if self.mask_documents:
            last = ids == self.stores[0].end_of_text
            if targets is not None:
                targets[last] = IGNORED
            last[:, -1] = True
            cu_seqlens = np.concatenate([[0], np.flatnonzero(last) + 1]).astype(np.int32)
        pin = torch.cuda.is_available() if self._pin is None else self._pin

        def tensor(values: Any) -> Any:
            made = None if values is None else torch.from_numpy(values)
            return made.pin_memory() if pin and made is not None else made

        return Batch(tensor(ids), tensor(targets), tensor(cu_seqlens))

    def step(self, number: int) -> Step:
        """All micro-batches of a step, made now."""
        return Step(number, [self.part(number, part) for part in range(self.split.parts)])

    def steps(self, first: int = 0, stop: int | None = None) -> Iterator[Step]:
        """Steps from `first` up to `stop` (without end where None), made ahead in a thread.

        The state of a run is the number of the step it goes on with: give it as `first`. Close the iterator, or let it
        go, to end the thread.
        """
        if first < 0:
            raise InputError(f"first {first}: steps are counted from 0")
        ready: queue.Queue[Step | BaseException | None] = queue.Queue(self.prefetch)
        ended = threading.Event()

        def put(item: Step | BaseException | None) -> None:
            while not ended.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def produce() -> None:
            number = first
            try:
                while not ended.is_set() and (stop is None or number < stop):
                    put(self.step(number))
                    number += 1
                put(None)
            except BaseException as error:
                put(error)

        thread = threading.Thread(target=produce, name="phi-fast-loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            thread.join()

    def documents(self, step: int, part: int | None = None) -> list[Held]:
        """Which documents a step (or one part of it) of this rank holds, and where: for a batch whose loss is odd."""
        found = []
        for each in range(self.split.parts) if part is None else [part]:
            where = self.order.at(self.split.samples(step, each))
            for row, (number, _, window) in enumerate(zip(*where, strict=True)):
                store, first = self.stores[number], int(window) * self.length
                for one in store.documents_in(first, first + self.length):
                    start, stop = max(0, one.start - first), min(self.length, one.stop - first)
                    place = (store.folder.name, one.file, one.row, one.start)
                    found.append(Held(each, row, start, stop, *place))
        return found
