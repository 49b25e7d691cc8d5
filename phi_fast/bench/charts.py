"""Rows as pictures: an op's rate by size, rivals as lines, the limit as a line; and errors beside eager's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.bench.ops import EAGER, OPS, OURS, PASSES, Case, Op
from phi_fast.bench.ops import label as label_of
from phi_fast.bench.rows import Row, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OURS, _EAGER, _LIMIT = "#e4572e", "#8c8c8c", "#1b1b1b"
_OTHERS = ("#2a6fbb", "#3a9d5d", "#7a5195", "#d9a22b", "#17a2b8", "#b03a7a", "#6b4c2a", "#94b447")
_MARKS = "so^vDP<>X*"


def write_charts(folder: Path, rows: Sequence[Row], ops: Sequence[str]) -> list[Path]:
    """Write ``OP_DTYPE.png`` for each op of `ops` that has times, and ``errors.png`` over all rows; give the paths."""
    written = []
    for name in ops:
        mine = [row for row in rows if row.op == name and row.median_ms is not None]
        for dtype in dict.fromkeys(row.dtype for row in mine):
            if name in OPS:
                path = folder / f"{name}_{dtype}.png"
                draw_rates(OPS[name], [row for row in mine if row.dtype == dtype], path)
                written.append(path)
    if any(row.implementation == OURS and row.max_error for row in rows):
        draw_errors(rows, folder / "errors.png")
        written.append(folder / "errors.png")
    return written


def draw_rates(op: Op, rows: Sequence[Row], path: Path) -> Figure:
    """Draw one op at one dtype: a column a pass, a line of panels for each of the other sizes.

    Gives the figure it wrote, so that what is in its axes can be looked at.
    """
    cases = {case.label: case for case in (*op.cases, *op.small, *op.interpreted)}
    rows = [row for row in rows if row.case in cases]
    variants = list(dict.fromkeys(_variant(op, cases[row.case]) for row in rows))
    passes = [one for one in PASSES if any(row.phase == one and _rate(row) for row in rows)]
    names = [one for one in op.implementations if any(row.implementation == one for row in rows)]
    names += [one for one in dict.fromkeys(row.implementation for row in rows) if one not in names]
    unit = "TFLOP/s" if any(row.tflops is not None for row in rows) else "GB/s"
    across, down = max(1, len(passes)), max(1, len(variants))
    figure = _figure(4.0 * across + 0.6, 3.0 * down + 1.1)
    panels: dict[str, Any] = {}
    for index, variant in enumerate(variants):
        for column, phase in enumerate(passes):
            axes = figure.add_subplot(down, across, index * across + column + 1)
            here = [row for row in rows if row.phase == phase and _variant(op, cases[row.case]) == variant]
            for name in names:
                points = sorted(
                    (cases[row.case].sizes[op.axis], value)
                    for row in here
                    if row.implementation == name and (value := _rate(row))
                )
                if points:
                    panels[name] = axes.plot(*zip(*points, strict=True), label=name, **_style(name, names))[0]
            limit = sorted(
                {cases[row.case].sizes[op.axis]: _rate(row) / row.share for row in here if row.share}.items()
            )
            if limit:
                panels["limit"] = axes.plot(
                    *zip(*limit, strict=True), color=_LIMIT, linestyle="--", linewidth=1.1, label="limit", zorder=1,
                    marker="_" if len(limit) == 1 else "", markersize=40,
                )[0]  # fmt: skip
            _label(
                axes, op, variant, phase, [cases[row.case].sizes[op.axis] for row in here], unit if not column else ""
            )
    if panels:
        figure.legend(
            panels.values(), panels.keys(), loc="outside lower center", ncols=min(len(panels), 2 + across),
            frameon=False, fontsize=9,
        )  # fmt: skip
    figure.suptitle(f"{op.name}, {rows[0].dtype if rows else ''}\n{_where(rows)}", fontsize=9)
    _save(figure, path)
    return figure


def draw_errors(rows: Sequence[Row], path: Path) -> Figure:
    """Draw phi_fast's largest error divided by eager's, a dot a case and dtype, beside what the rule allows."""
    mine = [
        row for row in rows if row.implementation == OURS and row.max_error is not None and row.eager_max_error
    ]  # what is exact in both has no ratio
    places = list(dict.fromkeys((row.op, row.phase == "forward") for row in mine))
    figure = _figure(7.6, 0.34 * len(places) + 1.7)
    axes = figure.add_subplot()
    dtypes = list(dict.fromkeys(row.dtype for row in mine))
    for number, dtype in enumerate(dtypes):
        some = [row for row in mine if row.dtype == dtype]
        shift = (number - (len(dtypes) - 1) / 2) * 0.22
        axes.plot(
            [(row.max_error or 0.0) / (row.eager_max_error or 1.0) for row in some],
            [places.index((row.op, row.phase == "forward")) + shift for row in some],
            _MARKS[number], color=(_OURS, *_OTHERS)[number], markersize=5, label=dtype,
        )  # fmt: skip
    for at, (_, forward) in enumerate(places):
        allowed = 2 if forward else 3
        axes.plot([allowed, allowed], [at - 0.42, at + 0.42], color=_LIMIT, linewidth=1.4, label="_")
    axes.plot([], [], color=_LIMIT, linewidth=1.4, label="allowed (or one rounding, 16 in fp32)")
    axes.axvline(1, color="#bbbbbb", linewidth=0.9, linestyle=":", zorder=0)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.4), max(high, 4.5))
    ticks = [one for one in (0.01, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 100) if min(low, 0.4) <= one <= max(high, 4.5)]
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(places)), [f"{name}, {'output' if ahead else 'gradients'}" for name, ahead in places])
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.set_xlabel("phi_fast's largest error / eager PyTorch's, both against fp64: less is better")
    figure.legend(loc="outside lower center", ncols=len(dtypes) + 1, frameon=False, fontsize=9)
    figure.suptitle(_where(mine).replace("; ", "\n", 1), fontsize=8)
    _save(figure, path)
    return figure


def _where(rows: Sequence[Row]) -> str:
    """Say machine, versions and date; the last row's, which is the newest."""
    return f"{rows[-1].machine}; {rows[-1].versions}; {rows[-1].date}" if rows else ""


def _rate(row: Row) -> float:
    return row.tflops or row.gbs or 0.0


def _variant(op: Op, case: Case) -> str:
    return label_of({name: size for name, size in case.sizes.items() if name != op.axis})


def _style(name: str, names: Sequence[str]) -> dict[str, Any]:
    at = names.index(name)
    if name == OURS:
        return {"color": _OURS, "linewidth": 2.4, "marker": "o", "markersize": 6, "zorder": 5}
    colour = _EAGER if name == EAGER else _OTHERS[at % len(_OTHERS)]
    return {"color": colour, "linewidth": 1.3, "marker": _MARKS[at % len(_MARKS)], "markersize": 4.5, "zorder": 3}


def _label(axes: Any, op: Op, variant: str, phase: str, sizes: Sequence[float], unit: str) -> None:
    said = "forward and backward" if phase == "both" else phase
    axes.set_title(f"{said}; {variant}" if variant else said, fontsize=9, loc="left")
    ticks = sorted(set(sizes))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axes.minorticks_off()
    axes.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(op.axis, fontsize=9)
    if unit:
        axes.set_ylabel(f"{unit}: more is better", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
