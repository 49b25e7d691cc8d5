"""Progress of what goes through a corpus: a bar with rate and time left on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from phi_fast.cli_options import console

_EVERY = 5.0  # seconds between lines where the output is no terminal


class CorpusProgress:
    """Progress through a corpus, as a context manager.

    Parameters
    ----------
    what
        What is done, in a word: "embedding".
    quiet
        Show nothing.
    rate
        Says how fast it goes, of bytes read and things made a second: ``lambda bytes, made: f"{made:,.0f} vectors/s"``.
    """

    def __init__(self, what: str, quiet: bool, rate: Callable[[float, float], str]) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._what, self._console, self._quiet, self._rate = what, console(stderr=True), quiet, rate
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
                TextColumn("{task.fields[counts]}", style="dim"), TimeRemainingColumn(), console=self._console,
                transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(what, total=None, counts="")
        self.made = self.rejected = 0
        self._total = self._bytes = self._fresh = self._documents = 0
        self._began = self._printed = time.monotonic()

    def begin(self, total: int) -> None:
        """Learn how large the corpus is, in bytes as stored."""
        self._total = total
        self._began = self._printed = time.monotonic()

    def add(self, bytes: int, documents: int, made: int = 0, rejected: int = 0, resumed: bool = False) -> None:
        """Learn what was done; what an earlier command did does not count towards the rate."""
        self._bytes += bytes
        self.rejected += rejected
        if not resumed:
            self._fresh += bytes
            self._documents += documents
            self.made += made
        now = time.monotonic()
        spent = self.seconds
        counts = f"{self._documents:,} documents · {self._rate(self._fresh / spent, self.made / spent)}"
        if self.rejected:
            counts += f" · {self.rejected:,} rejected"
        if self._bar:
            self._bar.update(self._task, completed=self._bytes, total=self._total or None, counts=counts)
        elif not self._quiet and now - self._printed >= _EVERY and self._fresh:
            self._printed = now
            left = max(0, self._total - self._bytes) * spent / self._fresh
            share = min(1.0, self._bytes / max(self._total, 1))
            said = f"{self._what} {share:.0%}, {counts.replace(' · ', ', ')}, {left:,.0f} s left"
            self._console.print(said, markup=False)

    @property
    def seconds(self) -> float:
        """Since it began; never 0."""
        return max(time.monotonic() - self._began, 1e-6)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()


def advancing(progress: CorpusProgress, made: str) -> Callable[[Any], None]:
    """What a stage tells its progress to; ``made`` names the field of what it tells that counts what was made."""
    return lambda told: progress.add(
        told.bytes, told.documents, getattr(told, made), told.rejected, resumed=told.resumed
    )
