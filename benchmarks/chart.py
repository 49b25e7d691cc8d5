"""Draw the README's chart from what command_speed.py measured.

python benchmarks/chart.py
"""

from __future__ import annotations

import json

import matplotlib as mpl
from harness import RESULTS

mpl.use("svg")
from matplotlib import pyplot as plt


def main() -> None:
    record = json.loads((RESULTS / "command_speed.json").read_text())
    cases = {
        name: case
        for name, case in record["cases"].items()
        if isinstance(case, dict) and "median" in case and "cleaning" not in name
    }
    ordered = sorted(cases.items(), key=lambda pair: pair[1]["median"])
    names = [name for name, _ in ordered]
    speeds = [case["median"] for _, case in ordered]
    mpl.rcParams.update(
        {"font.family": "sans-serif", "font.size": 11, "svg.hashsalt": "phi_fast", "svg.fonttype": "none"}
    )
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(names) + 1.1))
    figure.patch.set_facecolor("white")  # GitHub's dark page shows through a transparent one
    bars = axes.barh(names, speeds, color=["#e4572e" if name.startswith("phi_fast") else "#9aa5b1" for name in names])
    for bar, speed, (name, case) in zip(bars, speeds, ordered, strict=True):
        number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
        wrong = f"{case['clean_flagged']:,} clean flagged"
        label = f"{number} MB/s · finds {case['planted_found']} of {record['planted']}, {wrong}"
        if name.endswith("large corpus"):
            label = f"{number} MB/s · on {case['text_mb'] / 1000:.1f} GB, where the start no longer counts"
        inside = speed > 0.5 * max(speeds)
        axes.annotate(
            label,
            (speed, bar.get_y() + bar.get_height() / 2),
            xytext=(-7 if inside else 5, 0),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "#333333",
        )
    axes.set_xlabel("MB of text a second on one core, whole command: more is better")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    figure.tight_layout()
    figure.savefig(RESULTS / "command_speed.svg", metadata={"Date": None})
    print(RESULTS / "command_speed.svg")


if __name__ == "__main__":
    main()
