"""A calibration in two pictures: recall by disguise, and recall against false positives over all policies tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.calibrate.search import interval
from phi_fast.calibrate.telling import BY, TOGETHER
from phi_fast.decontaminate.safely import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"ngram": "#2a6fbb", "syntax": "#d9822b", "embedding": "#7a5195", TOGETHER: "#1b1b1b"}
_MARKS = {"ngram": "o", "syntax": "s", "embedding": "^", TOGETHER: "D"}


def draw_recall(record: Mapping[str, Any], path: Path) -> None:
    """Draw the chosen rule's recall by disguise, a panel a suite, a dot a channel, with 95 % intervals."""
    policy = record["policies"]["chosen"]
    suites = list(dict.fromkeys(row["suite"] for row in policy["rows"]))
    ways = [*record["channels"], TOGETHER]
    most = max(sum(row["suite"] == suite for row in policy["rows"]) for suite in suites)
    shares = [row[way][0] / row[way][1] for row in policy["rows"] for way in ways if row[way][1]]
    left = min(0.9, math.floor(10 * min(shares, default=0) - 0.5) / 10)
    figure = _figure(4.2 * len(suites) + 2.2, 0.42 * most + 1.4)
    for number, suite in enumerate(suites):
        axes = figure.add_subplot(1, len(suites), number + 1)
        rows = [row for row in policy["rows"] if row["suite"] == suite]
        for at, way in enumerate(ways):
            shift = (at - (len(ways) - 1) / 2) * 0.2
            some = [(place + shift, *row[way]) for place, row in enumerate(rows) if row[way][1]]
            spans = [interval(found, of) for _, found, of in some]
            middle = [found / of for _, found, of in some]
            below = [max(0.0, share - low) for share, (low, _) in zip(middle, spans, strict=True)]
            above = [max(0.0, high - share) for share, (_, high) in zip(middle, spans, strict=True)]
            axes.errorbar(
                middle, [place for place, *_ in some], xerr=[below, above], fmt=_MARKS[way], color=_COLOURS[way],
                markersize=4.5, elinewidth=1, label=BY[way],
            )  # fmt: skip
        axes.axvline(0.95, color="#bbbbbb", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_yticks(range(len(rows)), [row["disguise"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left - 0.02 * (1 - left), 1 + 0.02 * (1 - left))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_title(suite, fontsize=10, loc="left")
        axes.set_xlabel("found of what the channel could find")
        axes.grid(axis="y", color="#eeeeee", zorder=0)
        if number == 0:
            figure.legend(loc="outside lower center", ncols=len(ways), frameon=False)
    _save(figure, path)


def draw_tradeoff(record: Mapping[str, Any], path: Path) -> None:
    """Draw every policy tried: mean recall against the share of the clean documents that it flags."""
    clean = record["clean"]
    figure = _figure(7.2, 4.6)
    axes = figure.add_subplot()
    sets: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for coverage, tau, alpha, _, distance, recall, flagged in record["grid"]:
        on = {
            "ngram": coverage is not None,
            "syntax": tau is not None or alpha is not None,
            "embedding": distance is not None,
        }
        sets.setdefault(tuple(name for name, one in on.items() if one), []).append((flagged / clean, recall))
    for chosen, points in sets.items():
        colour = (
            _COLOURS[chosen[0]]
            if len(chosen) == 1
            else _COLOURS[TOGETHER]
            if len(chosen) == len(record["channels"])
            else "#8c8c8c"
        )
        some = sorted(set(points))
        label = " and ".join(BY[name] for name in chosen)
        axes.plot(*zip(*some, strict=True), ".", color=colour, markersize=4, alpha=0.35, label=label)
        front = _front(some)
        axes.plot(*zip(*front, strict=True), "-", color=colour, linewidth=1.1, drawstyle="steps-post")
    styles = {"default": ("o", "none", "default rule"), "chosen": ("*", "#c0282d", "chosen rule")}
    for name, (mark, fill, label) in styles.items():
        policy = record["policies"][name]
        place = policy["false_positives"][TOGETHER] / clean
        axes.plot([place], [policy["recall"]], mark, markersize=13, markerfacecolor=fill, markeredgecolor="#c0282d",
                  markeredgewidth=1.3, linestyle="none", label=label, zorder=5)  # fmt: skip
    axes.axvline(record["wanted"], color="#c0282d", linewidth=0.9, linestyle="--", label="wanted at most")
    axes.set_xscale("symlog", linthresh=max(1 / clean, 1e-6))
    axes.set_xlim(left=-0.2 / clean)
    decades = range(math.ceil(math.log10(1.5 / clean)), 1)
    axes.set_xticks([0.0, *(10.0**power for power in decades)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"share of {clean:,} clean documents flagged")
    axes.set_ylabel("mean recall over suites and disguises")
    axes.grid(color="#eeeeee", zorder=0)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    _save(figure, path)


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points, sorted, that no other beats: more recall with each false positive more."""
    front: list[tuple[float, float]] = []
    for place, recall in points:
        if not front or recall > front[-1][1]:
            if front and front[-1][0] == place:
                front.pop()
            front.append((place, recall))
    return [*front, (points[-1][0], front[-1][1])]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "phi_fast", "svg.fonttype": "path"}):
        figure.savefig(temporary, format="svg", metadata={"Date": None})
