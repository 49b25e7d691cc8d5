"""Time, memory and error of one op at one case: `time` and `check`, a row each pass and implementation."""

from __future__ import annotations

import dataclasses
import gc
import os
import statistics
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phi_fast.bench.clock import Clock, clock_for
from phi_fast.bench.judge import judge
from phi_fast.bench.limits import Limits
from phi_fast.bench.ops import DTYPES, Case, Draw, Function, Implementation, Op, Work, label
from phi_fast.bench.rows import FAILED, MISSING, Row

SEED = 17
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_REASON = 200
_ROOM = Path(__file__).parents[1]
_NOT_THEIRS = (str(_ROOM), str(_ROOM.parent / "kernels"), os.path.dirname(os.__file__), "<")


def check(
    op: Op,
    case: Case,
    dtype: torch.dtype,
    device: str,
    *,
    implementations: Sequence[Implementation] | None = None,
    passes: Sequence[str] | None = None,
) -> list[Row]:
    """Measure errors against fp64 and apply the rule, at the case's `check` sizes where it has such.

    Parameters
    ----------
    op, case, dtype
        What is computed; dtype one of `DTYPES`.
    device
        ``"cuda"``, ``"cuda:1"``, ``"cpu"``.
    implementations
        By default all that run there without torch.compile on a CPU.
    passes
        Of "forward" and "backward"; both together has no error of its own. By default the op's; an op that is never
        measured backward alone has its gradients judged under "both".

    Returns
    -------
    list of Row
        One a pass and implementation, without times. What raises is a row with the reason.
    """
    sizes = case.check or case.sizes
    wanted = _judged(op, passes)
    base = [Row(op.name, case.label, _NAMES[dtype], one, "", checked=label(sizes)) for one in wanted]
    if not base:
        return []
    slopes = any(one != "forward" for one in wanted)
    rows: list[Row] = []
    chosen = _chosen(op, implementations, device)
    try:
        exact = _results(op.eager, [_double(one) for one in _inputs(op, sizes, dtype, device)], dtype, slopes)
        plain = _results(op.eager, _inputs(op, sizes, dtype, device), dtype, slopes)
    except Exception as error:  # nobody's fault but the definition's: times are measured all the same
        said = f"error not measured: {_said(error)}"
        return [_with(row, implementation=one.name, reason=said) for one in chosen for row in base]
    for one in chosen:
        reason, status = one.missing(), MISSING
        if not reason and one.exact:
            try:
                with _tidy(one):
                    found = _results(one.build(), _inputs(op, sizes, dtype, device), dtype, slopes)
                for row in base:
                    at = 0 if row.phase == "forward" else 1
                    judged = judge(found[at], plain[at], exact[at], "forward" if at == 0 else "backward")
                    rows.append(
                        _with(
                            row, implementation=one.name, reason=judged.reason, verdict=judged.verdict,
                            max_error=judged.error.largest, rms_error=judged.error.rms,
                            eager_max_error=judged.eager.largest, eager_rms_error=judged.eager.rms,
                        )
                    )  # fmt: skip
            except Exception as error:
                reason, status = _said(error, one), FAILED
        if reason:
            rows += [_with(row, implementation=one.name, status=status, reason=reason) for row in base]
    return rows


def time(
    op: Op,
    case: Case,
    dtype: torch.dtype,
    device: str,
    *,
    implementations: Sequence[Implementation] | None = None,
    passes: Sequence[str] | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    budget: float = 0.2,
) -> list[Row]:
    """Measure time and memory; rates and the share of the limit where `limits` are given.

    Forward runs without gradients; backward is timed alone, each after a forward of its own; both are timed as one. The
    parameters are those of `check`, `passes` may name "both", and `budget` is about how many seconds each may take.
    """
    clock = clock or clock_for(device)
    name = _NAMES[dtype]
    rows: list[Row] = []
    works = op.works(case.sizes, dtype) or {}
    for one in _chosen(op, implementations, device):
        base = [Row(op.name, case.label, name, phase, one.name) for phase in passes or op.passes if phase in op.passes]
        missing = one.missing()
        if missing:
            rows += [_with(row, status=MISSING, reason=missing) for row in base]
            continue
        with _tidy(one):
            try:
                function = one.build()
            except Exception as error:
                rows += [_with(row, status=FAILED, reason=_said(error, one)) for row in base]
                continue
            for row in base:
                try:
                    taken, peak, least = _taken(op, function, case, dtype, device, row.phase, clock, budget)
                    rows.append(_timed(row, taken, peak, works.get(row.phase, least), limits))
                except Exception as error:
                    rows.append(_with(row, status=FAILED, reason=_said(error, one)))
    return rows


def _taken(
    op: Op, function: Function, case: Case, dtype: torch.dtype, device: str, phase: str, clock: Clock, budget: float
) -> tuple[list[float], float | None, Work]:
    """Give sorted milliseconds, peak memory, and the bytes of the tensors; what it held goes with it."""
    run, setup, least = _prepared(op, function, case, dtype, device, phase)
    run(setup())  # what is compiled or tuned at the first call is neither time nor memory
    return sorted(clock.times(run, setup, budget)), _peak(device, run, setup), least


def _timed(row: Row, taken: Sequence[float], peak: float | None, work: Work, limits: Limits | None) -> Row:
    median, last = statistics.median(taken), len(taken) - 1
    bound = limits.milliseconds(work, row.dtype) if limits is not None else 0.0
    return _with(
        row, median_ms=median, low_ms=taken[round(0.2 * last)], high_ms=taken[round(0.8 * last)],
        tflops=work.flops / median / 1e9 if work.flops else None,
        gbs=work.bytes / median / 1e6 if work.bytes else None,
        share=bound / median if bound else None, peak_mb=peak,
    )  # fmt: skip


def _prepared(
    op: Op, function: Function, case: Case, dtype: torch.dtype, device: str, phase: str
) -> tuple[Callable[[Any], object], Callable[[], Any], Work]:
    """Give what is timed, what comes before it untimed, and the bytes of arguments, results and gradients."""
    args = _inputs(op, case.sizes, dtype, device)
    leaves = _leaves(args)
    with torch.no_grad():
        outputs = _listed(function(*args))
    upstream = _upstream(outputs, dtype)
    read, written = _bytes(_tensors(args)), _bytes(outputs)
    del outputs

    def forward(_: Any) -> object:
        with torch.no_grad():
            return function(*args)

    def recorded() -> list[Tensor]:
        return _listed(function(*args))

    def backward(results: list[Tensor]) -> object:
        return torch.autograd.grad(results, leaves, upstream, allow_unused=True)

    ahead, back = Work(0.0, read + written), Work(0.0, written + read + _bytes(leaves))
    if phase == "forward":
        return forward, lambda: None, ahead
    if phase == "backward":
        return backward, recorded, back
    return lambda _: backward(recorded()), lambda: None, ahead + back


def _inputs(op: Op, sizes: Any, dtype: torch.dtype, device: str) -> list[Any]:
    """Draw the arguments, anew each time: an implementation may have written into its own."""
    return list(op.inputs(sizes, Draw(dtype, device, SEED)))


def _results(
    function: Function, args: Sequence[Any], dtype: torch.dtype, gradients: bool
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Give outputs and gradients; the upstream gradient, too, is rounded to `dtype`."""
    outputs = _listed(function(*args))
    slopes: Sequence[Tensor | None] = []
    if gradients:
        slopes = torch.autograd.grad(outputs, _leaves(args), _upstream(outputs, dtype), allow_unused=True)
    return [one.detach() for one in outputs], list(slopes)


def _upstream(outputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    if all(one.dim() == 0 for one in outputs):
        return [torch.ones_like(one) for one in outputs]
    draws = [Draw(dtype, one.device, 100 + number) for number, one in enumerate(outputs)]
    return [draw.normal(*one.shape, leaf=False).to(one.dtype) for draw, one in zip(draws, outputs, strict=True)]


def _listed(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [one for one in args if isinstance(one, Tensor)]


def _leaves(args: Sequence[Any]) -> list[Tensor]:
    return [one for one in _tensors(args) if one.requires_grad]


def _bytes(tensors: Sequence[Tensor]) -> float:
    return float(sum(one.numel() * one.element_size() for one in tensors))


def _double(one: Any) -> Any:
    if isinstance(one, Tensor) and one.is_floating_point():
        return one.detach().double().requires_grad_(one.requires_grad)
    return one


def _peak(device: str, run: Callable[[Any], object], setup: Callable[[], Any]) -> float | None:
    """Measure 10⁶ bytes at the highest, above what stood there before (the inputs); None on a CPU."""
    if torch.device(device).type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(setup())
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _judged(op: Op, passes: Sequence[str] | None) -> list[str]:
    able = ("forward", "backward") if "backward" in op.passes else ("forward", "both")
    return [one for one in passes or op.passes if one in able and one in op.passes]


def _chosen(op: Op, given: Sequence[Implementation] | None, device: str) -> Sequence[Implementation]:
    return op.chosen(None, cpu=torch.device(device).type == "cpu") if given is None else given


@contextmanager
def _tidy(one: Implementation) -> Iterator[None]:
    """Compile for the sizes at hand, and give memory back afterwards, whatever went wrong."""
    if one.needs == "compile":
        torch._dynamo.reset()
    try:
        yield
    finally:
        if torch.cuda.is_available():  # a collection takes longer than many a case
            gc.collect()
            torch.cuda.empty_cache()


def _with(row: Row, **changes: Any) -> Row:
    return dataclasses.replace(row, **changes)


def _said(error: Exception, one: Implementation | None = None) -> str:
    """Say what went wrong in one line; for a person's own code with file and line."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    said = f"{type(error).__name__}: {next((line for line in str(error).splitlines() if line.strip()), '')}"
    where = ""
    if one is not None and one.own:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS) and frame.lineno]
        theirs = [frame for frame in theirs if "site-packages" not in frame.filename]
        where = f"{Path(theirs[-1].filename).name}:{theirs[-1].lineno}: " if theirs else ""
    return (where + said)[:_REASON]
