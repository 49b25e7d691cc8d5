"""Rows as tables: Markdown for the folder, rich for the terminal. One set of columns serves both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phi_fast.bench.ops import OPS, OURS
from phi_fast.bench.rows import FAILED, MISSING, Row, replacing

if TYPE_CHECKING:
    from rich.table import Table

_RULE = (
    "Rule: a kernel may err at most twice as much as eager PyTorch at the same precision, three times in gradients, "
    "both against fp64 on the same rounded inputs; one rounding of the largest number (16 in fp32) is free. Errors are "
    "those of the output or gradient that fares worst; RMS errors are relative. Some rivals fail it: it was made for "
    "phi_fast's kernels."
)
_TIMES = (
    "Time: median of CUDA events and, in brackets, its 20 % and 80 % quantiles, the second-level cache flushed and the "
    "cost of launching hidden. Forward runs without gradients. Work: operations of the matrix products, causal "
    "attention counted as causal; bytes if each input were read and each output written once. The limit is the longer "
    "of work / measured matrix-product rate and bytes / measured copy rate. MB: memory above the inputs."
)
_INTERPRETED = (
    "The Triton kernels run in Triton's interpreter on the CPU at small sizes: this shows that they are right, not how "
    "fast they are. bf16, which the interpreter computes wrongly, and speed need a GPU."
)


class Heading(NamedTuple):
    """What stands above the tables; `limits` and `problems` may be empty."""

    machine: str
    versions: str
    interpreted: bool
    limits: str
    problems: Sequence[str] = ()


def columns(interpreted: bool) -> list[str]:
    """Name the columns."""
    shared = ["case", "dtype", "pass", "implementation"]
    if interpreted:
        return [*shared, "max error", "eager's", "RMS error", "eager's", "rule"]
    return [*shared, "ms", "rate", "of limit", "MB", "max error", "eager's", "rule"]


def cells(row: Row, interpreted: bool) -> list[str]:
    """Give a row's text, column by column; what failed says so, with its reason below the table."""
    shared = [row.case, row.dtype, row.phase, row.implementation]
    errors = [_error(row.max_error), _error(row.eager_max_error)]
    verdict = "failed" if row.status == FAILED else row.verdict
    if interpreted:
        return [*shared, *errors, _error(row.rms_error), _error(row.eager_rms_error), verdict]
    time = "" if row.median_ms is None else f"{row.median_ms:.4g} ({row.low_ms:.4g}-{row.high_ms:.4g})"
    share = "" if row.share is None else f"{row.share:.0%}"
    peak = "" if row.peak_mb is None else f"{row.peak_mb:,.0f}"
    return [*shared, time, rate(row), share, peak, *errors, verdict]


def rate(row: Row) -> str:
    """Give TFLOP/s where there are products, GB/s where there are none."""
    if row.tflops is not None:
        return f"{row.tflops:,.1f} TFLOP/s"
    return "" if row.gbs is None else f"{row.gbs:,.0f} GB/s"


def _error(value: float | None) -> str:
    return "" if value is None else "nan" if math.isnan(value) else f"{value:.2g}"


def _sorted(rows: Iterable[Row]) -> list[Row]:
    """Order rows as they were measured, the passes of a case together."""
    listed = list(rows)
    orders = [list(dict.fromkeys(row.key[at] for row in listed)) for at in (1, 2)]
    passes = ("forward", "backward", "both")
    names = list(OPS[listed[0].op].implementations) if listed and listed[0].op in OPS else []

    def place(row: Row) -> tuple[int, ...]:
        known = names.index(row.implementation) if row.implementation in names else len(names)
        return orders[0].index(row.case), orders[1].index(row.dtype), passes.index(row.phase), known

    return sorted(listed, key=place)


def footnotes(rows: Sequence[Row]) -> list[str]:
    """Say what is not in the table or broke the rule, and why; and at which sizes errors were measured."""
    notes = []
    missing = {(row.implementation, row.reason): None for row in rows if row.status == MISSING}
    notes += [f"{name}: {reason}" for name, reason in missing]
    said: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status != MISSING and row.reason:
            said.setdefault((row.implementation, row.phase, row.reason), []).append(f"{row.case}, {row.dtype}")
    for (name, phase, reason), where in said.items():
        more = f" and {len(where) - 1} more" if len(where) > 1 else ""
        notes.append(f"{name}, {phase}: {reason} ({where[0]}{more})")
    smaller = {row.checked: None for row in rows if row.checked and row.checked != row.case}
    if smaller:
        notes.append(f"errors measured at: {'; '.join(smaller)}")
    return notes


def terminal_tables(rows: Sequence[Row], interpreted: bool, width: int) -> Iterator[Table]:
    """Draw an op's tables, one a case and dtype, phi_fast in bold, verdicts in colour.

    Where `width` is less than 120 columns, quantiles are left to the folder's tables.
    """
    from rich.table import Table
    from rich.text import Text

    rows = _sorted(row for row in rows if row.status != MISSING)
    longest = max((len(row.implementation) for row in rows), default=0)
    for case, dtype in dict.fromkeys((row.case, row.dtype) for row in rows):
        table = Table(
            title=f"{case}, {dtype}", title_justify="left", title_style="", box=None, pad_edge=False,
            header_style="bold", padding=(0, 2, 0, 0),
        )  # fmt: skip
        for at, column in enumerate(columns(interpreted)[2:]):
            words = at < 2 or column == "rule"
            table.add_column(
                column, justify="left" if words else "right", no_wrap=at != 1,
                min_width={0: 8, 1: min(longest, 20)}.get(at, 7 if at < 6 else None),
            )  # fmt: skip
        for row in rows:
            if (row.case, row.dtype) != (case, dtype):
                continue
            *texts, verdict = cells(row, interpreted)[2:]
            if width < 120:
                texts = [text.partition(" (")[0] if at == 2 else text for at, text in enumerate(texts)]
            colour = {"PASS": "green", "FAIL": "red", "failed": "red"}.get(verdict, "")
            table.add_row(*texts, Text(verdict, colour), style="bold" if row.implementation == OURS else "")
        yield table


def write_markdown(path: Path, heading: Heading, rows: Sequence[Row]) -> None:
    """Write all tables, op by op, with machine, versions and date."""
    rows = [row for row in rows if (row.machine, row.versions) == heading[:2]]
    dates = sorted({row.date for row in rows if row.date})
    lines = ["# Kernels, interpreted" if heading.interpreted else "# Kernels, measured", ""]
    lines += [f"{heading.machine}; {heading.versions}; {' to '.join(sorted({*dates[:1], *dates[-1:]}))}.", ""]
    if heading.limits:
        lines += [f"Measured limits: {heading.limits}.", ""]
    lines += [_INTERPRETED if heading.interpreted else _TIMES, "", _RULE, "", _tally(rows), ""]
    lines += [f"Not loaded: {problem}\n" for problem in heading.problems]
    for name in _ops(rows):
        mine = _sorted(row for row in rows if row.op == name)
        lines += [f"## {name}", ""]
        if name in OPS and OPS[name].summary:
            lines += [OPS[name].summary, ""]
        lines += _markdown_table(mine, heading.interpreted)
        notes = footnotes(mine)
        lines += ["", *(f"- {_escaped(note)}" for note in notes), ""] if notes else [""]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def _ops(rows: Sequence[Row]) -> list[str]:
    found = dict.fromkeys(row.op for row in rows)
    return [*(name for name in OPS if name in found), *(name for name in found if name not in OPS)]


def _tally(rows: Sequence[Row]) -> str:
    mine = [row for row in rows if row.implementation == OURS and row.verdict]
    good = sum(row.verdict == "PASS" for row in mine)
    return f"phi_fast keeps the rule in {good} of {len(mine)} measurements."


def _markdown_table(rows: Sequence[Row], interpreted: bool) -> list[str]:
    names = columns(interpreted)
    lines = ["| " + " | ".join(names) + " |"]
    lines.append("|" + "|".join("---" if at < 4 or name == "rule" else "---:" for at, name in enumerate(names)) + "|")
    for row in rows:
        if row.status == MISSING:
            continue
        texts = [_escaped(one) for one in cells(row, interpreted)]
        if row.implementation == OURS:
            texts[3] = f"**{texts[3]}**"
        lines.append("| " + " | ".join(texts) + " |")
    return lines


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
