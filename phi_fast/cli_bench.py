"""``phi-fast bench``, thin: parse, call, print."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi_fast.cli_options import console, guarded, option
from phi_fast.errors import InputError

if TYPE_CHECKING:
    from phi_fast.bench.ops import Op
    from phi_fast.bench.rows import Row

app = typer.Typer(help="Measure phi_fast's kernels.", no_args_is_help=True, rich_markup_mode="rich")
_WHAT, _HOW = "What is measured", "How"


@app.callback()
def _group() -> None:
    pass


@app.command()
@guarded
def kernels(
    op: Annotated[
        list[str] | None,
        option("--op", metavar="NAME", panel=_WHAT, help="An op, as --list names it; repeat; else all"),
    ] = None,
    case: Annotated[
        str, option("--case", panel=_WHAT, help="Sizes: full unless given, or small: one or two an op.")
    ] = "full",
    dtype: Annotated[
        list[str] | None, option("--dtype", metavar="NAME", panel=_WHAT, help="fp16, bf16 or fp32; repeat; else all")
    ] = None,
    passes: Annotated[
        list[str] | None,
        option("--pass", metavar="NAME", panel=_WHAT, help="forward, backward or both; repeat; else all"),
    ] = None,
    rivals: Annotated[
        list[str] | None,
        option("--rivals", metavar="NAME", panel=_WHAT, help="Beside phi_fast and eager, this alone; repeat; else all"),
    ] = None,
    own: Annotated[
        list[Path] | None, option("--with", metavar="FILE", panel=_WHAT, help="Python file of ops of your own; repeat.")
    ] = None,
    interpret: Annotated[
        bool, option("--interpret", panel=_HOW, help="Errors alone, without a GPU, in Triton's interpreter.")
    ] = False,
    device: Annotated[str, option("--device", panel=_HOW, help="Which GPU: cuda unless given, cuda:1, ...")] = "cuda",
    output: Annotated[
        Path | None, option("--output", "-o", metavar="FOLDER", panel=_HOW, help="Folder for tables and charts.")
    ] = None,
    again: Annotated[
        bool, option("--again", panel=_HOW, help="Measure again what FOLDER has of this machine and these versions.")
    ] = False,
    listed: Annotated[bool, option("--list", help="List ops, sizes and implementations, and end.")] = False,
) -> None:
    """Measure every kernel against its rivals, the chip's limit and fp64.

    Each op forward, backward and both, beside eager PyTorch, torch.compile and what else computes it: time, TFLOP/s or
    GB/s, share of the limit, memory, error. FOLDER gets kernels.md, kernels.csv and charts as they are measured; the
    same command goes on from there. Exits with 1 where phi_fast or an op of your own breaks the rule of errors.

    [bold]Examples[/]

    phi-fast bench kernels --output measured

    phi-fast bench kernels --op attention --dtype bf16 --pass forward

    phi-fast bench kernels --interpret --op layer_norm --with mine.py
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError("the kernels need torch, which is not installed: pip install 'phi-fast[train]'")
    _check(case, passes)
    if interpret:
        from phi_fast.bench.run import ask_for_interpreter

        ask_for_interpreter()
        device = "cpu"
    from phi_fast.bench import catalogue as _catalogue  # noqa: F401  (fills the ops)
    from phi_fast.bench.own import load
    from phi_fast.bench.run import Settings, failures, run, select

    screen = console()
    problems = [said for said in (load(path) for path in own or []) if said]
    for said in problems:
        console(stderr=True).print(f"not loaded: {said}", style="red", markup=False, soft_wrap=True)
    ops = select(op)
    _check_rivals(rivals, ops)
    if listed:
        _list(ops, interpret)
        raise typer.Exit(1 if problems else 0)
    if not interpret:
        _need_gpu(device)
        os.environ["PHI_FAST_KERNELS"] = "triton"  # what is measured as phi_fast is never its reference
    settings = Settings(device, interpret, case, dtype, passes, rivals, output, again)
    with _Progress(interpret) as watch:
        rows = run(ops, settings, watch, problems)
    broken = failures([row for row in rows if row.op in {one.name for one in ops}])
    for row in broken:
        said = f"{row.op}, {row.implementation}, {row.case}, {row.dtype}, {row.phase}: {row.reason}"
        screen.print(said, style="red", markup=False, soft_wrap=True)
    if output is not None:
        screen.print(f"{output / 'kernels.md'}", markup=False, soft_wrap=True)
    if broken or problems:
        raise typer.Exit(1)


def _check(case: str, passes: list[str] | None) -> None:
    if case not in ("small", "full"):
        raise InputError(f'--case: expected small or full, got "{case}"')
    for one in passes or ():
        if one not in ("forward", "backward", "both"):
            raise InputError(f'--pass: expected forward, backward or both, got "{one}"')


def _check_rivals(rivals: list[str] | None, ops: Sequence[Op]) -> None:
    known = dict.fromkeys(name for one in ops for name in one.implementations)
    for one in rivals or ():
        if one not in known:
            raise InputError(f'--rivals: nothing here is called "{one}"; known are {"; ".join(known)}')


def _need_gpu(device: str) -> None:
    import torch

    if not device.startswith("cuda"):
        raise InputError(
            f'--device: expected cuda or cuda:N, got "{device}": off a GPU phi_fast runs plain PyTorch, which would '
            "be measured against itself"
        )
    if not torch.cuda.is_available():
        raise InputError(
            "the kernels run on an NVIDIA GPU, and PyTorch sees none here.\n"
            "--interpret runs them on the CPU, in Triton's interpreter: it shows their errors, not their speed."
        )
    try:
        torch.cuda.get_device_properties(device)
    except (AssertionError, RuntimeError) as error:
        raise InputError(f"--device: no {device}; there are {torch.cuda.device_count()} GPUs") from error


def _list(ops: Sequence[Op], interpret: bool) -> None:
    from rich.text import Text

    screen = console()
    for one in ops:
        cases = [case.label for case in (one.interpreted if interpret else one.cases)]
        lacks = {way.name: way.missing() for way in one.implementations.values()}
        ways = [f"{name} ({said})" if said else name for name, said in lacks.items()]
        screen.print(Text.assemble((one.name, "bold"), f"  {one.summary}"), soft_wrap=True)
        screen.print(Text(f"  by     {'; '.join(ways)}"), soft_wrap=True)
        screen.print(Text(f"  sizes  {'; '.join(cases)}"), soft_wrap=True)


class _Progress:
    """A bar with the op at hand and the time left on a terminal, tables as ops are finished; lines elsewhere."""

    def __init__(self, interpreted: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._screen, self._error = console(), console(stderr=True)
        self._interpreted = interpreted
        self._bar: Progress | None = None
        if self._error.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                console=self._error, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=None)
        self._cases = self._done = 0
        self._began = self._said = time.monotonic()

    def begin(self, cases: int) -> None:
        """Learn how much there is."""
        self._cases = cases
        if self._bar is not None:
            self._bar.update(self._task, total=cases)

    def case(self, op: str, case: str, dtype: str) -> None:
        """Say what is measured now."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"{op}, {case}, {dtype}")
            return
        now = time.monotonic()
        if now - self._said >= 5 and self._done:
            self._said = now
            left = (self._cases - self._done) * (now - self._began) / self._done
            said = f"{op}, {case}, {dtype}: {self._done + 1} of {self._cases} cases, about {left:,.0f} s left"
            self._error.print(said, markup=False, soft_wrap=True)

    def advance(self, rows: Sequence[Row]) -> None:
        """Count one."""
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._task)

    def finished(self, op: Op, rows: Sequence[Row]) -> None:
        """Show an op's table and what is to be said of it."""
        from rich.text import Text

        from phi_fast.bench.tables import footnotes, terminal_tables

        if not rows:
            return
        self._screen.print(Text.assemble((op.name, "bold"), f"  {op.summary}"), soft_wrap=True)
        for table in terminal_tables(rows, self._interpreted, self._screen.width):
            self._screen.print(table)
        for note in footnotes(rows):
            self._screen.print(note, style="dim", markup=False, soft_wrap=True)
        self._screen.print()

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
