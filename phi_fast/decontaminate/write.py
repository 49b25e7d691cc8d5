"""Verdicts, what is removed, and the clean corpus."""

from __future__ import annotations

import heapq
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from phi_fast.corpus import Removal, Source, verify_unchanged, write_clean, write_companions
from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.kept import Kept, Origin, with_kept
from phi_fast.decontaminate.policy import Policy
from phi_fast.decontaminate.record import CLEAN, EVIDENCE, REJECTED, REMOVED, VERDICTS, WORK
from phi_fast.decontaminate.safely import replacing
from phi_fast.decontaminate.tables import TableFile
from phi_fast.decontaminate.verdicts import Condemned, condemned, cut, reason

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

VERDICTS_SCHEMA = pa.schema(
    [("id", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("verdict", pa.string()), ("reason", pa.string())]
)
_REMOVALS = "removals.jsonl"  # in work/: what the clean writer leaves out, source by source
_STOP_SECONDS = 0.7  # how long a stop waits for the writes in hand
_UNWRITABLE = "in_writing"  # key in rejected.jsonl: found when clean/ was written, not by the scan


@dataclass(slots=True)
class Decided:
    """What a policy decided: counts of drop, cut and flag, and what the clean writer must do for each source.

    ``by_source`` counts documents with a verdict, ``unwritable`` rows lost in writing. ``removals`` are the places in
    work/removals.jsonl where a source's lines begin; a source without has none to make.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    by_source: Counter[int] = field(default_factory=Counter)
    unwritable: Counter[int] = field(default_factory=Counter)
    removals: dict[int, int] = field(default_factory=dict)


def write_verdicts(
    folder: Path, journal: Journal, sources: Sequence[Origin], policy: Policy, parts: Sequence[PartInfo], *,
    removing: bool = True,
) -> Decided:  # fmt: skip
    """Write verdicts.parquet, removed.jsonl and the clean writer's list from evidence and rejected rows.

    Parameters
    ----------
    folder
        The run's folder; its evidence is complete.
    journal, sources
        The journal, which holds the matched documents, and what its source numbers stand for.
    policy, parts
        The rule, and what it can judge.
    removing
        False: write verdicts.parquet alone.
    """
    number = {origin.name: place for place, origin in enumerate(sources)}
    decided = Decided()
    with ExitStack() as stack:
        verdicts = stack.enter_context(TableFile(folder / VERDICTS, VERDICTS_SCHEMA))
        removed = removals = None
        if removing:
            (folder / WORK).mkdir(exist_ok=True)
            removed = stack.enter_context(stack.enter_context(replacing(folder / REMOVED)).open("wb"))
            removals = stack.enter_context((folder / WORK / _REMOVALS).open("wb"))

        def judge() -> Iterator[tuple[int, list[Any]]]:
            for document, verdict, kept, left in _judged(folder, journal, sources, policy, parts, removing):
                source, why = number[document.file], reason(document.matches)
                verdicts.add(document.id, document.file, document.row, verdict, why)
                decided.verdicts[verdict] += 1
                decided.by_source[source] += 1
                if removed is not None and kept is not None and verdict != "flag":
                    removed.write(_removed_line(document, verdict, why, kept.text_json))
                    yield source, [document.row, kept.offset, kept.length, 1, left]

        if removals is None:
            deque(judge(), maxlen=0)
        else:
            merged = heapq.merge(judge(), rejected_rows(folder, number), key=removal_order)
            for source, mine in groupby(merged, key=itemgetter(0)):
                decided.removals[source] = removals.tell()
                removals.writelines(_line(removal) for _, removal in mine)
                removals.write(b"\n")
    return decided


def write_corpus(
    folder: Path,
    sources: Sequence[Source],
    decided: Decided,
    *,
    threads: int,
    done: Mapping[int, Any],
    finished: Callable[[int, Any], object],
    wrote: Callable[..., object] = lambda bytes, resumed=False: None,
) -> list[str]:
    """Write clean/, several sources at a time.

    Parameters
    ----------
    folder, sources, decided
        The run, its sources, and what :func:`write_verdicts` decided about them.
    threads
        Sources written at a time.
    done
        Sources that are written already, with what ``finished`` was told of them.
    finished
        Told when a source is written, in the caller's thread: its number, and JSON of what came of it.
    wrote
        Told of progress, from any thread: bytes of the sources gone through, and with ``resumed=True`` those of sources
        that were written already.

    Returns
    -------
    list of str
        What a person should know, in sentences: say, that a file grew meanwhile.
    """
    told = write_copies(
        sources,
        folder / CLEAN,
        lambda number: _removals(folder, decided.removals.get(number)),
        changed={sources[number].name for number in decided.removals},
        threads=threads,
        done=done,
        finished=finished,
        wrote=wrote,
    )
    _reject_unwritable(folder, sources, told, decided)
    return [told[number]["note"] for number in sorted(told) if told[number]["note"]]


def write_copies(
    sources: Sequence[Source],
    into: Path,
    removals: Callable[[int], Iterable[Removal]],
    *,
    changed: Container[str],
    threads: int,
    done: Mapping[int, Any],
    finished: Callable[[int, Any], object],
    wrote: Callable[..., object] = lambda bytes, resumed=False: None,
) -> dict[int, dict[str, Any]]:
    """Write copies of sources without what is to be removed, several at a time, under their names in a folder.

    Parameters
    ----------
    sources, into
        What is copied, and the folder.
    removals
        Gives what a source's copy, by the source's number, leaves out; called from any thread.
    changed
        Names of the sources of which something is left out.
    threads, done, finished, wrote
        As for :func:`write_corpus`.

    Returns
    -------
    dict
        Of each source what came of it: ``note``, a sentence a person should read or None, and ``faults``, rows that
        could not be written (row, reason, how many rows).
    """
    into.mkdir(parents=True, exist_ok=True)
    stopped = threading.Event()

    def write(number: int) -> dict[str, Any]:
        source = sources[number]
        left = source.size  # a table's bytes are counted as unpacked, a file may have grown: never more than its size

        def beat(count: int) -> None:
            nonlocal left
            if stopped.is_set():
                raise _Stopped
            count = min(count, left)
            left -= count
            wrote(count)

        grew = verify_unchanged(source)
        written = write_clean(source, into / source.name, removals(number), tick=beat)
        wrote(left)
        return {"note": grew, "faults": [[row, fault.reason, fault.rows] for row, fault in written.faults]}

    told = {number: says for number, says in done.items() if (into / sources[number].name).exists()}
    if told:
        wrote(sum(sources[number].size for number in told), resumed=True)
    left = iter([number for number in range(len(sources)) if number not in told])
    pending: dict[Future[dict[str, Any]], int] = {}
    pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
    try:
        while True:
            while len(pending) < 2 * threads and (number := next(left, None)) is not None:
                pending[pool.submit(write, number)] = number
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                number = pending.pop(future)
                told[number] = future.result()
                finished(number, told[number])
    except BaseException:
        # A write in hand may be flushing gigabytes to the disk: a stop does not wait for that.
        stopped.set()
        wait(pending, timeout=_STOP_SECONDS)
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    write_companions(sources, into, changed)
    return told


def _reject_unwritable(folder: Path, sources: Sequence[Source], told: Mapping[int, Any], decided: Decided) -> None:
    """Put rows that were scanned but cannot be written (another column of theirs is damaged) with the rejected ones."""
    lines = []
    for number in sorted(told):
        for row, why, rows in told[number]["faults"]:
            decided.unwritable[number] += 1
            lost = {"file": sources[number].name, "row": row, "reason": why, "rows": rows, _UNWRITABLE: True}
            lines.append(_line(lost))
    if not lines:
        return
    with replacing(folder / REJECTED) as path, path.open("wb") as file:
        with (folder / REJECTED).open("rb") as old:
            file.writelines(line for line in old if not _is_unwritable(line))
        file.writelines(lines)


class _Stopped(Exception):
    """Ends a write in another thread because the run is being stopped."""


def _judged(
    folder: Path, journal: Journal, sources: Sequence[Origin], policy: Policy, parts: Sequence[PartInfo], removing: bool
) -> Iterator[tuple[Condemned, str, Kept | None, str | None]]:
    """Give each condemned document its verdict; with it, where needed, the document itself and what a cut leaves."""
    found = condemned(folder / EVIDENCE, policy, parts)
    if policy.mode == "flag" or (policy.mode == "drop" and not removing):
        for document in found:
            yield document, policy.mode, None, None
        return
    for document, kept in with_kept(journal, sources, found, lambda one: (one.file, one.row)):
        left = cut(kept.text, document.matches, policy) if policy.mode == "cut" else None
        yield document, "drop" if left is None else "cut", kept, left


def rejected_rows(folder: Path, number: Mapping[str, int]) -> Iterator[tuple[int, list[Any]]]:
    """Give the rows that the scan rejected as the clean writer's removals: source, and row, offset, length, rows, None.

    Parameters
    ----------
    folder
        The run's folder.
    number
        Name of a source to its number.
    """
    with (folder / REJECTED).open("rb") as file:
        for line in file:
            one = json.loads(line)
            if _UNWRITABLE in one:
                continue
            removal = [one["row"], one.get("offset", -1), one.get("length", -1), one.get("rows", 1), None]
            yield number[one["file"]], removal


def _is_unwritable(line: bytes) -> bool:
    return _UNWRITABLE.encode() in line and _UNWRITABLE in json.loads(line)


def removal_order(removal: tuple[int, list[Any]]) -> tuple[int, int]:
    """Order removals by source, then row."""
    return removal[0], removal[1][0]


def _removals(folder: Path, place: int | None) -> Iterator[Removal]:
    if place is None:
        return
    with (folder / WORK / _REMOVALS).open("rb") as file:
        file.seek(place)
        for line in file:
            if line == b"\n":
                return
            row, offset, length, rows, text = json.loads(line)
            yield Removal(row, offset, length, rows, None if text is None else _always(text))


def _always(text: str) -> Callable[[str], str]:
    return lambda _: text


def _removed_line(document: Condemned, verdict: str, why: str, text: bytes) -> bytes:
    record = {"id": document.id, "file": document.file, "row": document.row, "verdict": verdict, "reason": why}
    return _line(record)[:-2] + b',"text":' + text + b"}\n"


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
