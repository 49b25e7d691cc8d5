"""The pruned share of the corpus and the similar items, drawn over τ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from phi_fast.decontaminate.policy import FLOOR_TAU
from phi_fast.decontaminate.safely import replacing
from phi_fast.decontaminate.similar import Pruned, Similar
from phi_fast.decontaminate.wording import counted, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#e4572e", "#2e6fe4", "#2a9d5c", "#8f4ad1", "#b8860b", "#4a5560")
_ROOM = 0.03  # of τ that a label needs to its neighbour


def draw(found: Similar, paths: Sequence[Path]) -> None:
    """Draw what was found as pictures, in the formats that the paths' endings name."""
    style: Any = {
        "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "phi_fast",
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(8.4, 6.6), facecolor="white", layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _documents(above, found)
        _items(below, found)
        for axes in (above, below):
            axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
            axes.set_axisbelow(True)
            for one in found.at:
                axes.axvline(one.tau, color="#9aa5b1", linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        below.set_xlim(FLOOR_TAU - 0.004, 1.004)
        below.xaxis.set_major_locator(MultipleLocator(0.05))
        below.xaxis.set_minor_locator(MultipleLocator(0.01))
        near = "" if found.distance is None else f", at embedding distance {found.distance:g} or less"
        below.set_xlabel(f"τ: match rate by syntax node types{near}; functions of {found.min_nodes} nodes or more")
        for path in paths:
            vector = path.suffix == ".svg"
            with replacing(path) as temporary:
                figure.savefig(
                    temporary,
                    format=path.suffix[1:],
                    dpi=160,
                    metadata={"Date": None} if vector else {"Software": None},
                )


def _documents(axes: Axes, found: Similar) -> None:
    total = max(found.documents, 1)
    taus = [point.tau for point in found.curve]
    shares = [100 * point.documents / total for point in found.curve]
    # A count holds from its own τ down to above the next lower one.
    axes.step(taus, shares, where="pre", color=_COLOURS[0], linewidth=1.8)
    axes.plot([one.tau for one in found.at], [100 * one.share for one in found.at], "o", color=_COLOURS[0])
    if _room(found.at):
        for one in found.at:
            said = f"τ {one.tau:g}: {one.documents:,}\n({share(one.documents, found.documents)})"
            _label(axes, one.tau, 100 * one.share, said, "#333333")
    highest = max(shares, default=0.0)
    axes.set_ylim(0, 1.22 * highest if highest else 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_ylabel("documents pruned")
    axes.set_title(
        f"Documents that hold a function like an item's, of {counted(found.documents, 'document')}",
        loc="left",
        fontsize=11,
    )


def _items(axes: Axes, found: Similar) -> None:
    taus = [point.tau for point in found.curve]
    highest = 0
    for number, suite in enumerate(found.suites):
        colour = _COLOURS[number % len(_COLOURS)]
        alike = [point.similar[number] for point in found.curve]
        splits = [next(split for split in one.suites if split.suite == suite) for one in found.at]
        said = f"{suite}, of {counted(splits[0].items, 'item')} ({len(splits[0].untestable):,} untestable)"
        axes.step(taus, alike, where="pre", color=colour, linewidth=1.8, label=said)
        marks = [len(split.similar) for split in splits]
        axes.plot([one.tau for one in found.at], marks, "o", color=colour)
        if _room(found.at):
            for one, mark in zip(found.at, marks, strict=True):
                _label(axes, one.tau, mark, f"{mark:,}", colour)
        highest = max(highest, *alike)
    axes.set_ylim(0, 1.45 * highest if highest else 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_ylabel("similar items")
    axes.legend(loc="upper right", edgecolor="none", framealpha=0.85, fontsize=9)


def _room(at: Sequence[Pruned]) -> bool:
    """Whether labels at these τ would not run into each other."""
    return bool(np.all(np.diff(sorted(one.tau for one in at)) > _ROOM))


def _label(axes: Axes, tau: float, value: float, said: str, colour: str) -> None:
    right = tau < 1 - _ROOM
    options: dict[str, Any] = {"ha": "left" if right else "right", "va": "bottom", "color": colour, "fontsize": 9}
    axes.annotate(said, (tau, value), xytext=(5 if right else -5, 4), textcoords="offset points", **options)
