"""Take over what a run on a GPU brought back: results and charts into benchmarks/results, table rows to change.

    python benchmarks/gpu/adopt.py FOLDER

It changes no kernel file: put the rows it prints into their tables (an architecture without rows of its own gets all
of those it has used so far), run `python benchmarks/gpu/compile_table.py` and the tests, and commit all of it with the
results.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
NAMES = ("REPORT.md", "limits.json", "checks.json", "tuning.json", "times.json", "steps.json")


class Refused(Exception):
    """The folder holds nothing that may be adopted."""


def place(machine: dict[str, Any]) -> str:
    """Name the folder of a machine's results: gpu-nvidia-h200-2026-11-24."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['gpu']} {machine['date'][:10]}".lower()).strip("-")
    return f"gpu-{name}"


def adopt(folder: Path, results: Path = RESULTS) -> tuple[Path, list[str]]:
    """Copy a run's files; give where they went and what to change by hand.

    Raises
    ------
    Refused
        No run's results, or a rehearsal's.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    stages = [json.loads(one.read_text()) for one in found if one.suffix == ".json"]
    if not stages:
        raise Refused(f"{folder}: holds none of {', '.join(NAMES)}")
    if any(one["rehearsal"] for one in stages) or not stages[0]["machine"].get("gpu"):
        raise Refused(f"{folder}: a rehearsal, not a measurement")
    target = results / place(stages[0]["machine"])
    target.mkdir(parents=True, exist_ok=True)
    for one in found:
        shutil.copyfile(one, target / one.name)
    for stage in stages:
        if stage["stage"] == "times":
            tabulate(target, stage)
    return target, [line for stage in stages if stage["stage"] == "tuning" for line in rows(stage["results"])]


def tabulate(target: Path, stage: dict[str, Any]) -> None:
    """Write the times as `phi-fast bench kernels` writes its own: kernels.csv, kernels.md and charts."""
    from phi_fast.bench import OPS
    from phi_fast.bench.charts import write_charts
    from phi_fast.bench.limits import Limits
    from phi_fast.bench.rows import Row, joined, write_rows
    from phi_fast.bench.tables import Heading, write_markdown

    machine = stage["machine"]
    versions = ", ".join(
        f"{name} {machine.get(name, 'unknown')}" for name in ("torch", "triton", "transformers", "python")
    )
    stamp = {"machine": machine["gpu"], "versions": versions, "date": machine["date"]}
    given = [row for answer in stage["results"] for row in (answer.get("value") or {}).get("rows", [])]
    measured = joined([Row(**{**row, **stamp}) for row in given])
    limits = str(Limits(**machine["limits"])) if "limits" in machine else ""
    write_rows(target / "kernels.csv", measured)
    write_markdown(target / "kernels.md", Heading(machine["gpu"], versions, False, limits), measured)
    write_charts(target, measured, list(OPS))


def rows(answers: list[dict[str, Any]]) -> list[str]:
    """List the rows that were beaten, and where two titles want one row."""
    lines: list[str] = []
    wanted: dict[tuple[str, str, int], str] = {}
    for answer in answers:
        one = answer.get("value") or {}
        if "best" not in one:
            continue
        key = (one["file"], one["table"], one["size"])
        gain = one["current_ms"] / one["best_ms"]
        if key in wanted:
            if wanted[key] != one["row"]:
                lines.append(f"{one['title']} would rather have {one['row']} there ({gain:.2f} times as fast)")
            continue
        wanted[key] = one["row"]
        if one["best"] != one["current"]:
            where = f"{one['file']}, {one['table']}[{one['arch']}]"
            lines.append(f"{where}: {one['row']}  # {one['title']}: {gain:.2f} times as fast")
    return lines


def main() -> None:
    """Copy, and say what to change."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="what run.py --output wrote")
    try:
        target, lines = adopt(parser.parse_args().folder)
    except Refused as refused:
        raise SystemExit(str(refused)) from None
    print(f"copied to {target}")
    print("\n".join(lines) or "no table needs another row")


if __name__ == "__main__":
    main()
