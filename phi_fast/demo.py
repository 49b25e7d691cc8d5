"""``phi-fast demo``: hide a benchmark in Python's own library, decontaminate it, and show what was found."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from phi_fast.disguise import DISGUISES
from phi_fast.errors import InputError
from phi_fast.suites import load_suite
from phi_fast.trial import (
    Hidden,
    Host,
    Recall,
    by_any,
    condemned,
    findable,
    hide_all,
    library_files,
    only,
    recall_by_disguise,
)

if TYPE_CHECKING:
    from phi_fast.decontaminate.record import Run

DEFAULT_OUTPUT = "phi-fast-demo"
_MARK = "demo.json"  # says that the folder is a demo's, so the next demo may replace it
_LIBRARY_BYTES = 32_000_000
_HOST_BYTES = (2_000, 24_000)
_FILES = 4
_SHOWN = 5
_BY = {"ngram": "by words", "syntax": "by syntax", "embedding": "by embedding"}


@dataclass(frozen=True, slots=True)
class FalsePositive:
    """A clean file that the policy condemned, and the passage that did it."""

    document: str
    reason: str
    passage: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found; ``channels`` is what each channel finds alone. Speeds: 10**6 bytes of text a second."""

    output: Path
    run: Run
    clean_documents: int
    text_bytes: int
    recall: tuple[Recall, ...]
    channels: dict[str, tuple[Recall, ...]]
    false_positives: tuple[FalsePositive, ...]
    scan_speed: float
    command_seconds: float
    seconds: float


def run_demo(
    output: str | os.PathLike[str] = DEFAULT_OUTPUT,
    *,
    threads: int | None = None,
    console: Console | None = None,
    library_bytes: int = _LIBRARY_BYTES,
    disguises: Sequence[str] = tuple(DISGUISES),
) -> DemoResult:
    """Hide HumanEval in the Python library's source, decontaminate it for real, print and return what came of it.

    Parameters
    ----------
    output
        Folder for the corpus and the run. A folder of an earlier demo is replaced; any other must be empty.
    threads
        As in ``phi-fast decontaminate``.
    console
        Where to print.
    library_bytes
        How much of the library to take.
    disguises
        Which disguises to try, keys of ``DISGUISES``.

    Raises
    ------
    InputError
        The folder holds something else, or this Python has no library source.
    """
    from phi_fast.decontaminate.run import decontaminate

    console = console or Console()
    started = time.perf_counter()
    folder = _prepare(Path(output))
    console.print("[bold]phi-fast demo[/]: HumanEval hidden in the Python library's own source, and found again\n")
    suite = load_suite("humaneval")
    clean = library_files(library_bytes)
    hosts = [host for host in clean if _HOST_BYTES[0] <= len(host.text) <= _HOST_BYTES[1]]
    if not hosts:
        raise InputError("this Python has no library source (*.py) to make a corpus of; use another Python")
    hidden = list(hide_all(suite, hosts, disguises))
    corpus = folder / "corpus"
    text_bytes = _write(corpus, clean, hidden)
    console.print(
        f"corpus    {len(clean) + len(hidden):,} documents, {text_bytes / 1e6:.0f} MB: {len(clean):,} library files as "
        f"they are\n          and {len(hidden):,} copies of such files, each with one item hidden in it",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"command   [bold]{escape(command_line(folder))}[/]\n", highlight=False, soft_wrap=True)

    before = time.perf_counter()
    run = decontaminate([str(corpus)], ["humaneval"], str(folder / "run"), threads=threads)
    command_seconds = time.perf_counter() - before

    could, names = findable(hidden, run.parts()), run.policy.channels
    recall = recall_by_disguise(hidden, condemned(run), by_any(could, names))
    apart = {name: recall_by_disguise(hidden, condemned(run, only(run.policy, [name])), could[name]) for name in names}
    result = DemoResult(
        output=folder,
        run=run,
        clean_documents=len(clean),
        text_bytes=text_bytes,
        recall=tuple(recall),
        channels={name: tuple(rows) for name, rows in apart.items()},
        false_positives=tuple(_false_positives(run, {host.name: host.text for host in clean})),
        scan_speed=_scan_speed(run, corpus),
        command_seconds=command_seconds,
        seconds=time.perf_counter() - started,
    )
    _show(console, result)
    return result


def command_line(folder: Path) -> str:
    """Give the command that does the demo's decontamination again."""
    corpus, run = shlex.quote(str(folder / "corpus")), shlex.quote(str(folder / "run"))
    return f"phi-fast decontaminate {corpus} --against humaneval --output {run}"


def _prepare(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give the demo a folder with --output")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / _MARK).is_file():
            raise InputError(f"{folder}: holds something that is not a demo's; give another folder with --output")
        for name in ("corpus", "run"):
            shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "corpus").mkdir(parents=True)
    (folder / _MARK).write_text('{"made_by": "phi-fast demo", "holds": ["corpus", "run"]}\n')
    return folder


def _write(corpus: Path, clean: Iterable[Host], hidden: Iterable[Hidden]) -> int:
    documents = [(host.name, host.text) for host in clean] + [(one.id, one.text) for one in hidden]
    random.Random(1).shuffle(documents)
    for number in range(_FILES):
        with open(corpus / f"part-{number}.jsonl", "w", encoding="utf-8") as file:
            for name, text in documents[number::_FILES]:
                file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
    return sum(len(text.encode()) for _, text in documents)


def _scan_speed(run: Run, corpus: Path) -> float:
    """Scan the corpus once more, from memory and on one thread: what the engine alone does."""
    index = run.index()
    blocks = [path.read_bytes() for path in sorted(corpus.iterdir())]
    index.scan_jsonl(blocks[0], "text", "id")  # touches the index and the code once, as a long run would have
    before = time.perf_counter()
    text = sum(index.scan_jsonl(block, "text", "id").text_bytes for block in blocks)
    return text / 1e6 / (time.perf_counter() - before)


def _false_positives(run: Run, clean: dict[str, str]) -> Iterable[FalsePositive]:
    from phi_fast.decontaminate.record import EVIDENCE
    from phi_fast.decontaminate.verdicts import condemned, reason

    for document in condemned(run.path / EVIDENCE, run.policy, run.index().parts):
        text = clean.get(document.id)
        if text is not None:
            best = max(document.matches, key=lambda match: match.strength)
            yield FalsePositive(document.id, reason(document.matches), text[best.doc_start : best.doc_end])


def _show(console: Console, result: DemoResult) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("disguise")
    for heading in (*(_BY[name] for name in result.channels), "found", "of testable", "recall", "untestable"):
        table.add_column(heading, justify="right")
    for number, row in enumerate(result.recall):
        colour = "green" if row.share >= 0.95 else "yellow" if row.share >= 0.8 else "red"
        apart = [rows[number] for rows in result.channels.values()]
        shares = [f"{one.found} of {one.testable}" if one.testable else "-" for one in apart]
        said = f"[{colour}]{row.share:.1%}[/]" if row.testable else "-"
        table.add_row(row.disguise, *shares, f"{row.found}", f"{row.testable}", said, f"{len(row.untestable)}")
    console.print("[bold]Recall by disguise[/]")
    console.print(table)
    for line in _remarks(result.recall):
        console.print(f"[dim]{escape(line)}[/]", highlight=False)
    count = len(result.false_positives)
    console.print(f"\n[bold]False positives[/]: {count} of {result.clean_documents:,} library files condemned")
    for wrong in result.false_positives:
        console.print(f"  {escape(wrong.document)}: {escape(wrong.reason)}", soft_wrap=True)
        for line in wrong.passage.splitlines()[:_SHOWN]:
            console.print(f"      [dim]{escape(line)}[/]", soft_wrap=True, highlight=False)
    timing = result.run.record["timing"]
    console.print(
        f"\n[bold]Speed[/]: the scan by words alone {result.scan_speed:,.0f} MB/s on one core ({timing['simd']}, from "
        f"memory); the whole command {result.command_seconds:.1f} s on {timing['threads']} core(s), with learning, "
        f"clean corpus and report; this demo {result.seconds:.1f} s",
        highlight=False,
    )
    report = escape(str(result.run.path / "report.html"))
    console.print(f"[bold]Report[/]: {report}", highlight=False, soft_wrap=True)
    again = shlex.quote(str(result.run.path))
    console.print("\n[bold]Next[/]")
    for command, why in (
        (f"phi-fast decide {again} --coverage 0.5", "another threshold, without scanning again"),
        ("phi-fast decontaminate YOUR_CORPUS --against humaneval --output RUN", "your own corpus"),
    ):
        console.print(f"  {command}   # {why}", markup=False, highlight=False, soft_wrap=True)


def _remarks(recall: Iterable[Recall]) -> Iterable[str]:
    """Say what was missed, and name the items that no channel can tell."""
    too_short: dict[tuple[str, ...], list[str]] = {}
    for row in recall:
        if row.missed:
            yield f"Missed, {row.disguise}: {_listed(row.missed)}"
        if row.untestable:
            too_short.setdefault(row.untestable, []).append(row.disguise)
    for items, names in too_short.items():
        why = "what is left is too short to tell a leak from an idiom"
        yield f"Untestable, {'; '.join(names)}: {why}: {_listed(items)}"


def _listed(items: Sequence[str]) -> str:
    """Name items, what their names share said once: `HumanEval/2, 7, 13`."""
    first = items[0]
    prefix = first[: first.rfind("/") + 1]
    return ", ".join([first, *(item.removeprefix(prefix) for item in items[1:])])
