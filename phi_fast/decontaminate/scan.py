"""Scan a corpus' units in threads, each finished unit into the journal."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from phi_fast.corpus import Batch, Buffer, Source, Unit, read, work
from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.outcome import FOUND, pack, rejected
from phi_fast.errors import InputError

if TYPE_CHECKING:
    from phi_fast.decontaminate.channels import Channels

SCANNED = "scanned"  # journal record: every unit of a source is done
_STOP_SECONDS = 0.7  # how long a stop waits for the units in hand


class Watcher(Protocol):
    """What is told of progress; may be called from any thread."""

    def stage(self, name: str) -> None:
        """Learn what is being done now."""

    def advance(
        self,
        *,
        bytes: int,
        text_bytes: int = 0,
        documents: int = 0,
        matches: int = 0,
        rejected: int = 0,
        resumed: bool = False,
    ) -> None:
        """Learn that something is finished; ``bytes`` as stored, compressed where compressed."""  # fmt: skip

    def wrote(self, bytes: int, *, resumed: bool = False) -> None:
        """Learn how much of the corpus, as stored, is gone through for its clean copy."""


Progressing = Callable[[int], AbstractContextManager[Watcher]]  # from the bytes there are


class Unwatched(AbstractContextManager["Unwatched"]):
    """A watcher that looks away."""

    def __init__(self, total_bytes: int) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def stage(self, name: str) -> None:
        """Do nothing."""

    def advance(self, **_: int) -> None:
        """Do nothing."""

    def wrote(self, bytes: int, *, resumed: bool = False) -> None:
        """Do nothing."""


def scan(
    sources: Sequence[Source],
    channels: Channels,
    journal: Journal,
    *,
    threads: int,
    unit_bytes: int,
    strict: bool,
    watcher: Watcher,
) -> None:
    """Scan what the journal does not hold yet.

    Parameters
    ----------
    sources, channels
        What is scanned, and with what.
    journal
        Gets a record a unit, and one more when a source is done.
    threads
        Units in hand at a time.
    unit_bytes
        Size of a unit.
    strict
        Stop at the first row that is no document.
    watcher
        Told of each finished unit.

    Raises
    ------
    InputError
        ``strict``, and a row is no document; or a file is damaged.
    RunError
        A file vanished, the disk is full, a source is lost: give the same command again to go on.
    """  # fmt: skip
    if strict and journal.totals["rejected"]:
        raise _first_rejected(journal, sources)
    pool = _Pool(sources, channels, journal, threads, unit_bytes, strict, watcher)
    workers = [threading.Thread(target=pool.work, daemon=True, name=f"scan-{number}") for number in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()  # a signal interrupts this
    finally:
        pool.end()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, deadline - time.monotonic()))
        pool.close()
    if pool.errors:
        raise min(pool.errors, key=lambda one: one[0])[1]
    if strict and journal.totals["rejected"]:
        raise _first_rejected(journal, sources)


class _Pool:
    """What the workers share: the steps of the work, handed out one at a time, and which sources are done."""

    def __init__(
        self, sources: Sequence[Source], channels: Channels, journal: Journal, threads: int, unit_bytes: int,
        strict: bool, watcher: Watcher,
    ) -> None:  # fmt: skip
        self.errors: list[tuple[tuple[int, int], BaseException]] = []
        self._sources, self._channels, self._journal = sources, channels, journal
        self._strict, self._watcher = strict, watcher
        self._ended = False
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self._done = Counter(source for source, _ in journal.units)  # finished units of each source
        for source, length in journal.lengths.items():
            if self._done[source] == length and source not in journal.sources.get(SCANNED, ()):
                journal.add_source(SCANNED, source)  # the run was killed just before it could say so
        self._steps = work(
            sources, frozenset(journal.units), frozenset(journal.sources.get(SCANNED, ())), threads=threads,
            unit_bytes=unit_bytes,
        )  # fmt: skip

    def end(self) -> None:
        """Let no further unit begin."""
        self._ended = True

    def close(self) -> None:
        """End what reads ahead. Left alone where a worker still waits for it: that ends with the process."""
        if self._asking.acquire(timeout=0.1):
            try:
                self._steps.close()
            finally:
                self._asking.release()

    def work(self) -> None:
        """Scan units until none is left: the body of a worker."""
        buffer = Buffer()
        at = (len(self._sources), 0)
        try:
            while (step := self._next()) is not None:
                unit, batch = step
                at = (unit.source, unit.index)
                self._scan(unit, batch, buffer)
        except BaseException as error:
            self.errors.append((at, error))
            self.end()

    def _next(self) -> tuple[Unit, Batch | None] | None:
        with self._asking:
            return None if self._ended else next(self._steps, None)

    def _scan(self, unit: Unit, batch: Batch | None, buffer: Buffer) -> None:
        source = self._sources[unit.source]
        if batch is None:
            batch = read(unit, source, buffer)
        counts, parts = pack(batch, self._channels.scan(batch, source), source)
        self._journal.add_unit(unit.source, unit.index, counts | {"size": unit.size}, parts, last=unit.last)
        self._watcher.advance(
            bytes=unit.size, text_bytes=counts["text_bytes"], documents=counts["documents"],
            matches=counts["matches"], rejected=counts["rejected"],
        )  # fmt: skip
        if self._strict and counts["rejected"]:
            self.end()
        with self._counting:
            self._done[unit.source] += 1
            complete = self._done[unit.source] == self._journal.lengths.get(unit.source)
        if complete:
            self._journal.add_source(SCANNED, unit.source)


def _first_rejected(journal: Journal, sources: Sequence[Source]) -> InputError:
    """Say which row is no document. Its number is known where all units before its own are done, as they mostly are."""
    base, expected = 0, 0
    for source, unit in sorted(journal.units):
        base, expected = (0, 0) if unit == 0 else (base, expected)
        counts, parts = journal.unit(source, unit, FOUND)
        if counts["rejected"]:
            bad = next(rejected(parts))
            said = place(sources[source], base + bad.row) if unit == expected else f"a row of {sources[source].name}"
            return InputError(f"{said}: {bad.reason}. Without --strict such rows are set aside in rejected.jsonl.")
        base, expected = base + counts["rows"], expected + 1
    raise AssertionError("no rejected row in the journal")


def place(source: Source, row: int) -> str:
    """Name a row as a person looks it up: lines are counted from 1."""
    if source.format == "jsonl":
        return f"{source.name} line {row + 1}"
    return f"{source.name} row {row}"


__all__ = ["SCANNED", "Progressing", "Unwatched", "Watcher", "place", "scan"]
