"""Removals taken in order, and the count of what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from phi_fast.corpus.source import Fault, Removal, Source
from phi_fast.errors import RunError


@dataclass(slots=True)
class Tally:
    """Rows dropped and cut, and (row, fault) for those that could not be read."""

    dropped: int = 0
    cut: int = 0
    faults: list[tuple[int, Fault]] = field(default_factory=list)


def changed(source: Source) -> RunError:
    """The error of a source whose content does not fit what the scan found in it."""
    return RunError(f"{source.path} is not what was scanned: start again with a new output folder")


class Edits:
    """An ordered stream of removals of which only the next one is held."""

    def __init__(self, removals: Iterable[Removal], source: Source) -> None:
        self._rest = iter(removals)
        self._next = next(self._rest, None)
        self._source = source
        self.without_rows: set[int] = set()

    def _take(self) -> Removal:
        taken = self._next
        assert taken is not None
        self._next = next(self._rest, None)
        if self._next is not None and self._next.row < taken.row:
            raise ValueError(f"{self._source.name}: removals must come in order of their rows")
        return taken

    def __iter__(self) -> Iterator[Removal]:
        while self._next is not None:
            yield self._take()

    def before_offset(self, stop: int) -> Iterator[Removal]:
        """Those whose line starts before this byte."""
        while self._next is not None and self._next.offset < stop:
            yield self._take()

    def next_at_offset(self, offset: int) -> Removal | None:
        """The next one, if its line starts here."""
        return self._take() if self._next is not None and self._next.offset == offset else None

    def before(self, stop: int) -> list[Removal]:
        """Those of rows before `stop`; one that goes on after it is split there, one without rows is only noted."""
        taken = []
        while self._next is not None and self._next.row < stop:
            removal = self._next
            if not removal.rows:
                self.without_rows.add(self._take().row)
                continue
            beyond = removal.row + removal.rows - stop
            if beyond > 0:
                taken.append(removal._replace(rows=removal.rows - beyond))
                self._next = removal._replace(row=stop, rows=beyond)
                break
            taken.append(self._take())
        return taken

    @property
    def done(self) -> bool:
        return self._next is None

    def finish(self) -> None:
        """Every removal must have met its row; one without rows may lie at the very end."""
        for removal in self:
            if removal.rows:
                raise changed(self._source)
            self.without_rows.add(removal.row)
