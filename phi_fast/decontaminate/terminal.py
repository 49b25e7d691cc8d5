"""What a person sees while a run goes on and when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from phi_fast.decontaminate.record import (
    CLEAN,
    EVIDENCE,
    REJECTED,
    REMOVED,
    REPORT_HTML,
    REPORT_MD,
    VERDICTS,
)
from phi_fast.decontaminate.summary import Match, Summary, summarise_run
from phi_fast.decontaminate.wording import (
    ASIDE,
    DONE,
    VERBS,
    counted,
    duration,
    found_by,
    headline,
    likeness,
    measures,
    place,
    printable,
    size,
)

_EVERY = 5.0  # seconds between lines where the output is no terminal
_LINES = 10  # of a passage shown
_AROUND = 2  # lines of the document shown before and after it
_REACH = 40  # characters shown before a passage that begins late in its line
SCANNING, COPYING = "scanning", "writing clean/"  # the stages that have a bar, a speed and an end in sight
_STYLE = {"drop": "red", "cut": "yellow", "flag": "magenta", "keep": "green"}


class Progress:
    """Progress of a run, as a context manager; its methods may be called from any thread.

    On a terminal two lines that renew themselves; elsewhere a line every few seconds at most.

    Parameters
    ----------
    total_bytes
        Size of the input as stored (compressed where compressed), or None where unknown.
    console
        Where to print; standard error by default.
    quiet
        Print nothing.
    """

    def __init__(self, total_bytes: int | None, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._total, self._quiet = total_bytes, quiet
        self._lock = threading.Lock()
        self._stage = ""
        self._bytes = self._resumed = self._fresh_text = 0
        self._documents = self._matches = self._rejected = 0
        self._began = self._printed = time.monotonic()
        self._spinner = Spinner("dots")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        elif self._documents and kind is None:
            self._line(time.monotonic())

    def stage(self, name: str) -> None:
        """Name what is done now; scanning and writing the clean corpus have a bar, a speed and an end in sight."""
        with self._lock:
            self._stage = name
            if name == COPYING:  # the corpus is gone through once more
                self._bytes = self._resumed = 0
            self._began = self._printed = time.monotonic()
            if not self._live and not self._quiet:
                self._console.print(Text(f"{name} …"))

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
        """Add a finished unit.

        Parameters
        ----------
        bytes
            As stored: moves the bar.
        text_bytes, documents, matches, rejected
            What the unit held.
        resumed
            An earlier command did this unit: it moves the bar and does not count towards the speed.
        """
        with self._lock:
            self._bytes += bytes
            if resumed:
                self._resumed += bytes
            else:
                self._fresh_text += text_bytes
            self._documents += documents
            self._matches += matches
            self._rejected += rejected
            now = time.monotonic()
            if not self._live and now - self._printed >= _EVERY:
                self._line(now)

    def wrote(self, bytes: int, *, resumed: bool = False) -> None:
        """Add what is gone through for the clean copy: bytes of the corpus as stored."""
        self.advance(bytes=bytes, resumed=resumed)

    def _line(self, now: float) -> None:
        self._printed = now
        if not self._quiet:
            ahead = f"{self._stage} {self._share:.0%}" if self._measured and self._total else self._stage
            self._console.print(Text(", ".join([ahead, *self._counts(now)])), soft_wrap=True)

    @property
    def _measured(self) -> bool:
        return self._stage in (SCANNING, COPYING)

    @property
    def _share(self) -> float:
        return min(1.0, self._bytes / self._total) if self._total else 0.0

    def _counts(self, now: float) -> list[str]:
        spent = max(now - self._began, 1e-6)
        fresh = self._bytes - self._resumed
        done = self._fresh_text if self._stage == SCANNING else fresh if self._stage == COPYING else 0
        said = [f"{done / spent / 1e6:,.0f} MB/s"] if done else []
        said += [
            counted(self._documents, "document"),
            f"{self._matches:,} {'match' if self._matches == 1 else 'matches'}",
        ]
        if self._rejected:
            said.append(f"{self._rejected:,} rejected")
        if self._measured and self._total and fresh > 0 and self._bytes < self._total and spent > 0.5:
            said.append(f"{duration((self._total - self._bytes) * spent / fresh)} left")
        return said

    def _render(self) -> RenderableType:
        with self._lock:
            now = time.monotonic()
            head = Table.grid(padding=(0, 1), expand=False)
            stage = Text(self._stage, "bold")
            if self._measured and self._total:
                head.add_row(self._spinner, stage, ProgressBar(1.0, self._share, width=36), Text(f"{self._share:.0%}"))
            else:
                head.add_row(self._spinner, stage)
            if not self._documents:
                return head
            counts = Text("  " + " · ".join(self._counts(now)), "dim", no_wrap=True, overflow="ellipsis")
            return Group(head, counts)


def print_summary(
    run_dir: str | Path,
    console: Console | None = None,
    *,
    summary: Summary | None = None,
    items: int = 10,
    worst: int = 3,
) -> None:
    """Print a finished run: counts, tables by suite and item, the worst documents, and where everything is.

    Parameters
    ----------
    run_dir
        The run's folder.
    console
        Where to print; standard output by default.
    summary
        What ``summarise_run`` gave for the folder, where it is at hand.
    items, worst
        Items and documents shown at most.
    """
    console = console or Console()
    summary = summary or summarise_run(run_dir, listed=1_000)
    counts, record = summary.run.counts, summary.run.record
    acted = next((verdict for verdict in ("drop", "cut", "flag") if counts[verdict]), None)
    console.print()
    console.print(Text(headline(summary), f"bold {_STYLE[acted]}" if acted else "bold green"))
    timing = record.get("timing", {})
    said = [size(counts["text_bytes"]) + " of text", counted(counts["files"], "file")]
    if timing.get("seconds") is not None:
        speed = f" at {timing['mb_per_second']:,.0f} MB/s" if timing.get("mb_per_second") else ""
        said.append(f"{duration(timing['seconds'])}{speed}, {counted(timing['threads'], 'thread')}, {timing['simd']}")
    console.print(Text(", ".join(said), "dim"))
    for note in record.get("notes", ()):
        console.print(Text(printable(note), "yellow"))
    if counts["rejected"]:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in summary.rejected[:3])
        console.print(Text(f"{counted(counts['rejected'], 'row')} rejected: {printable(reasons)}", "yellow"))
    console.print()
    console.print(_suites(summary))
    if by_channel := found_by(summary):
        console.print(Text(by_channel, "dim"))
    if summary.items:
        console.print()
        console.print(_items(summary, items))
        if len(summary.items) > items:
            console.print(Text(f"and {len(summary.items) - items:,} more items: {REPORT_MD}", "dim"))
    console.print()
    _print_limits(summary, console)
    _print_worst(summary, worst, console)
    _print_paths(Path(run_dir), summary, console)


def _table(columns: Sequence[str], numbers_from: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number >= numbers_from else "left", overflow="fold")
    return table


def _suites(summary: Summary) -> Table:
    verb = DONE[summary.run.policy.mode]
    table = _table(("suite", "items", "found", "below policy", "untestable", f"documents {verb}", "matches"), 1)
    for one in summary.suites:
        counts = (one.items, one.items_condemned, one.items_seen, one.items_untestable, one.condemned, one.matches)
        cells = [Text(f"{count:,}", "bold" if at == 1 and count else "") for at, count in enumerate(counts)]
        table.add_row(Text(printable(one.name), "bold"), *cells)
    return table


def _items(summary: Summary, limit: int) -> Table:
    verb = DONE[summary.run.policy.mode]
    several = len(summary.suites) > 1
    columns = measures(summary)
    first = ("suite",) if several else ()
    table = _table((*first, "item", verb, "documents", *(short for short, _, _ in columns)), 1 + several)
    for one in summary.items[:limit]:
        names = [Text(printable(name)) for name in ((one.suite,) if several else ()) + (one.item,)]
        counts = (f"{one.condemned:,}", f"{one.documents:,}", *(value(one) for _, _, value in columns))
        table.add_row(*names, *(Text(cell, "" if one.condemned else "dim") for cell in counts))
    return table


def _print_limits(summary: Summary, console: Console) -> None:
    untestable, aside = len(summary.untestable), summary.set_aside
    if untestable:
        console.print(
            Text(f"{untestable:,} of {counted(len(summary.parts), 'part')} untestable ({REPORT_MD} names them)")
        )
    if aside.total():
        said = ", ".join(f"{aside[key]:,} {text}" for key, text in ASIDE.items() if aside[key])
        console.print(Text(f"n-grams set aside: {said}"))
    if untestable or aside.total():
        console.print()


def _print_worst(summary: Summary, limit: int, console: Console) -> None:
    worst = summary.worst(limit)
    if not worst:
        return
    guilty = any(match.condemns for match in worst)
    console.print(Text("Worst documents" if guilty else "Closest documents, all kept", "bold"))
    for match in worst:
        document, part = summary.documents[match.document], summary.parts[match.part]
        said = likeness(match, part.item, part.part)
        console.print()
        console.print(
            Text.assemble(
                (VERBS[document.verdict], f"bold {_STYLE[document.verdict]}"), "  ", (printable(said), "bold")
            )
        )
        for other in summary.also(match):
            also = likeness(other, part.item, summary.parts[other.part].part)
            console.print(Text(printable(f"and {also}"), "dim"))
        console.print(Text(printable(place(summary, document)), "dim"), soft_wrap=True)
        if document.id != f"{document.file}:{document.row}":
            console.print(Text(f"id {printable(document.id)}", "dim"), no_wrap=True, overflow="ellipsis")
        for line in excerpt_lines(summary, match):
            console.print(line, no_wrap=True, overflow="ellipsis")
    console.print()


def excerpt_lines(summary: Summary, match: Match) -> list[Text]:
    """The lines around a match, the passage in colour and behind a bold bar, so that it shows without colour too."""
    if match.excerpt < 0:
        return []
    first, text = summary.excerpts[match.excerpt]
    start, end = match.doc_start - first, match.doc_end - first
    lines: list[Text] = []
    at = 0
    for raw in text.split("\n"):
        lines.append(_line_of(raw, start - at, end - at))
        at += len(raw) + 1
    begin, finish = text.count("\n", 0, start), text.count("\n", 0, end)
    above, below = lines[max(0, begin - _AROUND) : begin], lines[finish + 1 : finish + 1 + _AROUND]
    inside = lines[begin : finish + 1]
    if len(inside) > _LINES:
        left_out = Text(f"┃ … {len(inside) - _LINES:,} more lines …", "dim")
        inside = [*inside[: _LINES - 2], left_out, *inside[-2:]]
    return [*_without_blank(above), *inside, *reversed(_without_blank(below[::-1]))]


def _without_blank(lines: list[Text]) -> list[Text]:
    """The lines but for blank ones at the beginning."""
    first = next((at for at, line in enumerate(lines) if line.plain[1:].strip()), len(lines))
    return lines[first:]


def _line_of(raw: str, start: int, end: int) -> Text:
    """A line whose characters `start` to `end` are matched; either may lie outside of it."""
    inside = end > 0 and start <= len(raw)
    head, tail = max(0, min(start, len(raw))), max(0, min(end, len(raw)))
    skip = max(0, head - _REACH) if inside and head > 2 * _REACH else 0
    line = Text.assemble(("┃ ", "bold yellow") if inside else ("│ ", "dim"))
    pieces = (("…" if skip else "") + raw[skip:head], raw[head:tail], raw[tail : tail + 1_000])
    styles = ("dim", "bold yellow", "dim") if inside else ("dim", "dim", "dim")
    for piece, style in zip(pieces, styles, strict=True):
        line.append(printable(piece.removesuffix("\r").expandtabs(4)), style)
    return line


def _print_paths(run_dir: Path, summary: Summary, console: Console) -> None:
    what = {
        REPORT_HTML: "every match, document beside item",
        REPORT_MD: "to paste",
        CLEAN: "the corpus without them",
        REMOVED: "what was taken out",
        REJECTED: "rows that are no documents",
        EVIDENCE: "every match as a table",
        VERDICTS: "every verdict",
    }
    here = [(name, said) for name, said in what.items() if _worth(run_dir / name)]
    width = max((len(str(run_dir / name)) for name, _ in here), default=0)
    for name, said in here:
        path = f"{run_dir / name}{'/' if name == CLEAN else ''}"
        line = Text(printable(path).ljust(width + 3))
        if width + 3 + len(said) <= console.width:
            line.append(said, "dim")
        console.print(line, soft_wrap=True)
    console.print()
    coverage = summary.run.policy.coverage
    example = "0.5" if coverage is None or coverage != 0.5 else "0.4"
    console.print(Text("Another threshold, without scanning again:", "dim"))
    console.print(Text(printable(f"phi-fast decide {run_dir} --coverage {example}"), "bold"), soft_wrap=True)


def _worth(path: Path) -> bool:
    return path.is_dir() or (path.is_file() and path.stat().st_size > 0)
