"""Hands out work units: positions to be read by the workers, and batches from sources that must be read in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby

from phi_fast.corpus.blocks import plain_units, read_lines, stream_units
from phi_fast.corpus.files import Buffer, source_errors
from phi_fast.corpus.source import UNIT_BYTES, Batch, Fault, Lines, Source, Unit
from phi_fast.corpus.tables import arrow_units, empty_column, parquet_units, read_row_group, read_slices
from phi_fast.corpus.trees import read_files, tree_units

READERS = 4
"""Sources decompressed or decoded at the same time, at most: each holds a few units in memory."""

Produced = Iterator[tuple[Unit, Batch]]
Work = Generator[tuple[Unit, Batch | None], None, None]


def work(
    sources: Sequence[Source],
    done: Container[tuple[int, int]] = (),
    complete: Container[int] = (),
    *,
    threads: int = 1,
    unit_bytes: int = UNIT_BYTES,
) -> Work:
    """The units of all sources that are still to be done, in no particular order.

    Parameters
    ----------
    sources
        As `discover` gave them.
    done
        Units finished before, as (source, index): they are left out.
    complete
        Numbers of sources of which every unit is done: they are not opened.
    threads
        Workers that wait for units; so many sources at most (and no more than four) are decompressed side by side.
    unit_bytes
        Size of a unit. A resumed run must use the size it began with.

    Yields
    ------
    (Unit, Batch or None)
        None: the worker calls `read`. Close the generator to stop its threads; at most about `threads` + 8 units are
        held by it at any time.

    Raises
    ------
    RunError
        When a source vanished, shrank or cannot be reached.
    """
    numbered = [(number, source) for number, source in enumerate(sources) if number not in complete]
    return _work(numbered, done, threads, unit_bytes)


def units(number: int, source: Source, done: Container[tuple[int, int]] = (), *, unit_bytes: int = UNIT_BYTES) -> Work:
    """The units of one source, as `work`, in order of their index."""
    if source.format != "parquet" or source.fault is not None:
        return _work([(number, source)], done, 1, unit_bytes)
    return _in_turn(number, source, done, unit_bytes)


def _in_turn(number: int, source: Source, done: Container[tuple[int, int]], unit_bytes: int) -> Work:
    """Row groups, large ones (read slice by slice) and small ones (left to the worker), as they lie in the file."""
    with source_errors(source):
        plan = parquet_units(number, source, unit_bytes)
    for (_, step), group in groupby(plan, key=lambda entry: (entry[0].start, entry[1])):
        slices = [unit for unit, _ in group if step or (number, unit.index) not in done]
        if not step:
            for unit in slices:
                yield unit, None
        elif any((number, unit.index) not in done for unit in slices):
            with source_errors(source):
                for unit, batch in read_slices(source, slices, step):
                    if (number, unit.index) not in done:
                        yield unit, batch


def read(unit: Unit, source: Source, buffer: Buffer) -> Batch:
    """Read a unit that came without its batch.

    Parameters
    ----------
    unit, source
        As `work` gave them. For plain JSONL any byte range will do.
    buffer
        The calling thread's own; what it held before is overwritten.

    Raises
    ------
    RunError
        When the file vanished, shrank, was modified or cannot be reached.
    """
    if source.fault is not None:
        return broken(source)
    if source.format == "jsonl" and source.compression is None:
        return read_lines(unit, source, buffer)
    with source_errors(source):
        if source.format == "parquet":
            return read_row_group(unit, source)
        if source.format == "tree":
            return read_files(unit, source)
    raise ValueError(f"{source.path} is read in order: its batches come with its units")


def broken(source: Source) -> Batch:
    """The one, empty batch of a source that cannot be read at all."""
    fault = Fault(str(source.fault), 0)
    return Lines(memoryview(b""), 0, fault) if source.format == "jsonl" else empty_column(fault)


def _plan(
    number: int, source: Source, done: Container[tuple[int, int]], unit_bytes: int
) -> tuple[Iterable[Unit], list[Callable[[], Produced]]]:
    """Units that can be read at once, and the readers of those that cannot."""
    if source.fault is not None:
        return [Unit(number, 0, 0, 0, source.size, True)], []
    if source.format == "tree":
        return tree_units(number, source, unit_bytes), []
    if source.format == "jsonl" and source.compression is None:
        return plain_units(number, source, unit_bytes), []
    if source.format == "jsonl":
        return [], [partial(stream_units, number, source, unit_bytes)]
    if source.format == "arrow":
        return [], [partial(arrow_units, number, source, unit_bytes)]
    with source_errors(source):
        plan = parquet_units(number, source, unit_bytes)
    readers: list[Callable[[], Produced]] = []
    for (_, step), group in groupby(plan, key=lambda entry: (entry[0].start, entry[1])):
        slices = [unit for unit, _ in group]
        if step and any((number, unit.index) not in done for unit in slices):
            readers.append(partial(read_slices, source, slices, step))
    return [unit for unit, step in plan if not step], readers


def _work(numbered: list[tuple[int, Source]], done: Container[tuple[int, int]], threads: int, unit_bytes: int) -> Work:
    readers = iter(_readers(numbered, done, unit_bytes))
    ready: queue.Queue[tuple[Unit, Batch] | BaseException | None] = queue.Queue(maxsize=max(2, min(threads, 8)))
    stop, lock = threading.Event(), threading.Lock()

    def put(item: tuple[Unit, Batch] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            while not stop.is_set():
                with lock:
                    source, reader = next(readers, (None, None))
                if source is None or reader is None:
                    break
                with source_errors(source):
                    for unit, batch in reader():
                        if stop.is_set():
                            break
                        if (unit.source, unit.index) not in done:
                            put((unit, batch))
        except BaseException as error:
            put(error)
        else:
            put(None)

    count = min(threads, READERS, sum(1 for _, source in numbered if _in_order(source)))
    pool = [threading.Thread(target=produce, name=f"phi-fast-reader-{i}", daemon=True) for i in range(count)]
    for thread in pool:
        thread.start()
    running = count
    try:
        positions = (
            unit
            for number, source in numbered
            for unit in _plan(number, source, done, unit_bytes)[0]
            if (number, unit.index) not in done
        )
        more = True
        while running or more:
            unit = None
            if more and (not running or ready.empty()):
                unit = next(positions, None)
                more = unit is not None
            if unit is not None:
                yield unit, None
            elif running:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    running -= 1
                else:
                    yield item
    finally:
        stop.set()
        for thread in pool:
            thread.join(timeout=5)


def _in_order(source: Source) -> bool:
    return source.fault is None and (source.compression is not None or source.format in ("arrow", "parquet"))


def _readers(
    numbered: list[tuple[int, Source]], done: Container[tuple[int, int]], unit_bytes: int
) -> Iterator[tuple[Source, Callable[[], Produced]]]:
    for number, source in numbered:
        if _in_order(source):
            for reader in _plan(number, source, done, unit_bytes)[1]:
                yield source, reader
