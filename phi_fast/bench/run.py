"""Measure what was asked for, case by case, and keep it: a kill loses the case at hand, a second run repeats none."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import torch

from phi_fast.bench import measure
from phi_fast.bench.charts import write_charts
from phi_fast.bench.limits import Limits
from phi_fast.bench.limits import measure as measure_limits
from phi_fast.bench.ops import DTYPES, OPS, OURS, Case, Implementation, Op
from phi_fast.bench.rows import FAILED, MEASURED, Row, joined, read_rows, write_rows
from phi_fast.bench.tables import Heading, write_markdown
from phi_fast.bench.where import machine, versions
from phi_fast.errors import InputError

TABLE = "kernels.csv"


class Watch(Protocol):
    """Is told how the run goes."""

    def begin(self, cases: int) -> None:
        """So many cases are to be measured."""

    def case(self, op: str, case: str, dtype: str) -> None:
        """This one is next."""

    def advance(self, rows: Sequence[Row]) -> None:
        """That one is done."""

    def finished(self, op: Op, rows: Sequence[Row]) -> None:
        """All of an op is done, or was before."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes
    ----------
    device
        Where.
    interpreted
        Errors alone, in Triton's interpreter, at each op's `interpreted` cases.
    which
        "small" or "full".
    dtypes, passes, rivals
        Names; None: all that make sense.
    output
        The folder for tables and charts; None: nothing is kept.
    again
        Measure what the folder has already, too.
    budget
        Seconds each timing may take, about.
    """

    device: str = "cuda"
    interpreted: bool = False
    which: str = "full"
    dtypes: Sequence[str] | None = None
    passes: Sequence[str] | None = None
    rivals: Sequence[str] | None = None
    output: Path | None = None
    again: bool = False
    budget: float = 0.2


def select(names: Sequence[str] | None) -> list[Op]:
    """Give the ops of these names, in the catalogue's order; all by default.

    Raises
    ------
    InputError
        One is unknown.
    """
    unknown = [one for one in names or () if one not in OPS]
    if unknown:
        raise InputError(f'--op: no op "{unknown[0]}"; known are {", ".join(OPS)}')
    return [one for one in OPS.values() if not names or one.name in names]


def dtypes_of(settings: Settings) -> list[str]:
    """Give the dtypes to measure: all three; of the interpreter fp32 and fp16, for it computes bf16 wrongly.

    Raises
    ------
    InputError
        One is unknown, or bf16 was asked of the interpreter.
    """
    able = ["fp32", "fp16"] if settings.interpreted else list(DTYPES)
    for one in settings.dtypes or ():
        if one not in DTYPES:
            raise InputError(f'--dtype: expected one of {", ".join(DTYPES)}, got "{one}"')
        if one not in able:
            raise InputError(f"--dtype: {one} needs a GPU: Triton's interpreter computes it wrongly")
    return [one for one in able if not settings.dtypes or one in settings.dtypes]


def ask_for_interpreter() -> None:
    """Have the kernels run in Triton's interpreter; before anything imports Triton.

    Raises
    ------
    InputError
        Triton is imported already, without its interpreter.
    """
    on = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
    if "triton" in sys.modules and not on:
        raise InputError("--interpret: Triton is imported already; set TRITON_INTERPRET=1 before Python starts")
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["PHI_FAST_KERNELS"] = "triton"


def run(ops: Sequence[Op], settings: Settings, watch: Watch, problems: Sequence[str] = ()) -> list[Row]:
    """Measure ops; give every row that holds for this machine and these versions, new and kept ones.

    With an output folder the CSV is written after every case, tables and charts after every op, and once more when
    something ends the run early.
    """
    names = dtypes_of(settings)
    here = (machine(settings.device, settings.interpreted), versions())
    table = settings.output / TABLE if settings.output is not None else None
    if settings.output is not None:
        settings.output.mkdir(parents=True, exist_ok=True)
    before = read_rows(table) if table is not None else []
    others = [row for row in before if row.where != here]
    rows = [row for row in before if row.where == here]
    limits = None if settings.interpreted else measure_limits(settings.device)
    heading = Heading(*here, settings.interpreted, str(limits) if limits is not None else "", tuple(problems))
    todo = {one.name: _cases(one, settings, names) for one in ops}
    watch.begin(sum(map(len, todo.values())))
    try:
        for one in ops:
            for case, name in todo[one.name]:
                watch.case(one.name, case.label, name)
                fresh = _measured(one, case, name, settings, limits, [] if settings.again else rows)
                stamped = [_stamped(row, here) for row in fresh]
                keys = {row.key for row in stamped}
                rows = [row for row in rows if row.key not in keys] + stamped
                if table is not None and stamped:
                    write_rows(table, [*others, *rows])
                watch.advance(stamped)
            watch.finished(one, [row for row in rows if row.op == one.name])
            if settings.output is not None:
                write_markdown(settings.output / "kernels.md", heading, rows)
                write_charts(settings.output, rows, [one.name])
    except KeyboardInterrupt:
        if settings.output is not None:
            write_markdown(settings.output / "kernels.md", heading, rows)
        raise
    return rows


def failures(rows: Sequence[Row]) -> list[Row]:
    """Give the rows of phi_fast, or of a person's own, that break the rule or raise."""
    own = {(one.name, two.name) for one in OPS.values() for two in one.implementations.values() if two.own}
    mine = [row for row in rows if row.implementation == OURS or (row.op, row.implementation) in own]
    return [row for row in mine if row.verdict == "FAIL" or row.status == FAILED]


def _cases(one: Op, settings: Settings, names: Sequence[str]) -> list[tuple[Case, str]]:
    cases = one.interpreted if settings.interpreted else one.small if settings.which == "small" else one.cases
    return [(case, name) for case in cases for name in names]


def _passes(one: Op, settings: Settings) -> list[str]:
    judged = [phase for phase in one.passes if not ("backward" in one.passes and phase == "both")]
    wanted = judged if settings.interpreted else one.passes
    return [phase for phase in wanted if not settings.passes or phase in settings.passes]


def _measured(
    one: Op, case: Case, name: str, settings: Settings, limits: Limits | None, known: Sequence[Row]
) -> list[Row]:
    passes = _passes(one, settings)
    cpu = settings.interpreted or torch.device(settings.device).type == "cpu"
    done = {row.key for row in known if row.status == MEASURED and not row.reason.startswith("error not")}

    def wanted(way: Implementation) -> bool:
        return any((one.name, case.label, name, phase, way.name) not in done for phase in passes)

    ways = [way for way in one.chosen(settings.rivals, cpu=cpu) if one.own or way.own or wanted(way)]
    if not ways or not passes:
        return []
    dtype, device = DTYPES[name], settings.device
    errors = measure.check(one, case, dtype, device, implementations=ways, passes=passes)
    if settings.interpreted:
        return errors
    times = measure.time(
        one, case, dtype, device, implementations=ways, passes=passes, limits=limits, budget=settings.budget
    )
    return joined(times, errors)


def _stamped(row: Row, here: tuple[str, str]) -> Row:
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    return dataclasses.replace(row, machine=here[0], versions=here[1], date=today)
