"""One measurement a row, kept as CSV: what tables, charts and a later run are made from."""

from __future__ import annotations

import csv
import dataclasses
import os
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from phi_fast.errors import InputError

MEASURED, FAILED, MISSING = "measured", "failed", "missing"
_HEADINGS = {"phase": "pass"}  # a word Python keeps for itself


@dataclasses.dataclass(frozen=True)
class Row:
    """One op, case, dtype, pass and implementation.

    Attributes
    ----------
    status, reason
        measured; failed, with why; or missing: a package that is not installed.
    median_ms, low_ms, high_ms
        Time, and its 20 % and 80 % quantiles, milliseconds.
    tflops, gbs, share
        10¹² operations and 10⁹ bytes a second, of the least work; and the limit's time divided by the median.
    peak_mb
        Memory above the inputs at its highest, 10⁶ bytes.
    max_error, rms_error, eager_max_error, eager_rms_error
        Largest error, and root mean square error relative to that of the truth, of outputs (forward) or gradients
        (backward) against fp64, for the tensor that fares worst; and eager's for the same tensor.
    verdict
        PASS or FAIL of the rule; "" where it does not apply.
    checked
        The sizes the error was measured at.
    """

    op: str
    case: str
    dtype: str
    phase: str
    implementation: str
    status: str = MEASURED
    reason: str = ""
    median_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    tflops: float | None = None
    gbs: float | None = None
    share: float | None = None
    peak_mb: float | None = None
    max_error: float | None = None
    rms_error: float | None = None
    eager_max_error: float | None = None
    eager_rms_error: float | None = None
    verdict: str = ""
    checked: str = ""
    machine: str = ""
    versions: str = ""
    date: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What is measured once on one machine."""
        return self.op, self.case, self.dtype, self.phase, self.implementation

    @property
    def where(self) -> tuple[str, str]:
        """What a measurement holds for."""
        return self.machine, self.versions

    def joined(self, other: Row) -> Row:
        """Take what `other` knows of the same key and this one does not; a failure of either is one of both."""
        known = {
            field.name: getattr(other, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) in (None, "") and getattr(other, field.name) not in (None, "")
        }
        worse = self if self.status != MEASURED else other
        return dataclasses.replace(self, **known, status=worse.status)


def joined(*groups: Iterable[Row]) -> list[Row]:
    """Make one row of those with one key, in the order they first appear."""
    found: dict[tuple[str, ...], Row] = {}
    for group in groups:
        for row in group:
            found[row.key] = found[row.key].joined(row) if row.key in found else row
    return list(found.values())


_FIELDS = [field.name for field in dataclasses.fields(Row)]
_NUMBERS = {name for name, kind in typing.get_type_hints(Row).items() if kind == float | None}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; what stands there in the end takes its place at once."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a CSV with a heading; numbers with six digits that count."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADINGS.get(name, name) for name in _FIELDS)
        for row in rows:
            values = (getattr(row, name) for name in _FIELDS)
            writer.writerow("" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values)


def read_rows(path: Path) -> list[Row]:
    """Read what `write_rows` wrote; nothing where there is no file.

    Raises
    ------
    InputError
        The file is no such table; the message names the line.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if next(reader, None) != [_HEADINGS.get(name, name) for name in _FIELDS]:
            raise InputError(f"{path}: line 1 is not the heading of this table; choose another folder")
        for values in reader:
            if len(values) != len(_FIELDS):
                raise InputError(f"{path}: line {reader.line_num} has {len(values)} fields instead of {len(_FIELDS)}")
            try:
                pairs = zip(_FIELDS, values, strict=True)
                rows.append(Row(**{n: (float(v) if v else None) if n in _NUMBERS else v for n, v in pairs}))  # type: ignore[arg-type]
            except ValueError as error:
                raise InputError(f"{path}: line {reader.line_num}: {error}") from error
    return rows
