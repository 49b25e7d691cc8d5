"""REPORT.md: claims first, then what failed, what to change in the tables, times, and what was not measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import verdict

Answer = dict[str, Any]


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def rows_of(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Give all rows that answers hold."""
    return [row for answer in answers for row in (answer.get("value") or {}).get("rows", [])]


def failures(answers: Sequence[Answer]) -> list[str]:
    """List what went wrong, a line each: tasks that failed, rows judged FAIL, our own ops that could not be timed."""
    found = [f"{one['name']}: {one['error']}" for one in answers if "error" in one]
    for row in rows_of(answers):
        where = ", ".join(str(row[key]) for key in ("what", "op", "case", "dtype", "pass", "phase") if row.get(key))
        if row.get("verdict") == "FAIL":
            found.append(f"{where}: FAIL: {row['reason']}")
        if row.get("status") == "failed" and row["implementation"] == verdict.OURS:
            found.append(f"{where}: {row['reason']}")
    return found


def page(machine: dict[str, Any], known: dict[str, list[Answer]], rehearsal: bool) -> str:
    """Lay the report out."""
    title = "# A rehearsal, not a measurement" if rehearsal else f"# The kernels on {machine.get('gpu')}"
    where = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "limits")
    lines = [title, "", f"- {where}"]
    if "limits" in machine:
        products = ", ".join(f"{name} {rate:,.3g}" for name, rate in machine["limits"]["matmul_tflops"].items())
        lines.append(f"- measured: copy {machine['limits']['copy_gbs']:,.0f} GB/s; products {products} TFLOP/s")
    lines.append("")
    timed = rows_of(known.get("times", []))
    if "times" in known:
        lines += ["## Claims", "", *verdict.lines(verdict.verdicts(timed)), ""]
    wrong = [f"{stage}: {line}" for stage, answers in known.items() for line in failures(answers)]
    lines += ["## What failed", "", *([f"- {one}" for one in wrong] or ["Nothing."]), ""]
    checked = [row for row in rows_of(known.get("checks", [])) + rows_of(known.get("tuning", []))]
    if checked:
        passed = sum(row["verdict"] == "PASS" for row in checked)
        lines += ["## Checks", "", f"{passed} of {len(checked)} passed.", "", *_worst(checked), ""]
    if "tuning" in known:
        lines += ["## Settings", "", *_settings(known["tuning"]), ""]
    if timed:
        lines += ["## Times", "", *_times(timed), ""]
    if "steps" in known:
        lines += ["## Steps of phi-1", "", *_steps(known["steps"]), ""]
    late = [f"{stage}: {one['name']}" for stage, answers in known.items() for one in answers if "skipped" in one]
    if late:
        lines += ["## Not measured: out of time", "", *[f"- {one}" for one in late], ""]
    return "\n".join(lines)


def _worst(rows: list[dict[str, Any]]) -> list[str]:
    """The largest ratio of our error to the reference's, an op's each."""
    ratios: dict[tuple[str, str], float] = {}
    for row in rows:
        if row.get("eager"):
            key = (row["what"].split()[0].rstrip(","), row["pass"])
            ratios[key] = max(ratios.get(key, 0.0), row["error"] / row["eager"])
    head = ["| op | pass | error, times the reference's, at worst |", "| --- | --- | ---: |"]
    return head + [f"| {op} | {phase} | {ratio:.2f} |" for (op, phase), ratio in ratios.items()] if ratios else []


def _settings(answers: list[Answer]) -> list[str]:
    lines = ["| table | row to put there | ms | was, ms |", "| --- | --- | ---: | ---: |"]
    for answer in answers:
        one = answer.get("value") or {}
        if "best" in one:
            kept = " (as it is)" if one["best"] == one["current"] else ""
            name = f"{one['title']}: {one['file']} `{one['table']}[{one['arch']}]`"
            lines.append(f"| {name} | `{one['row']}`{kept} | {one['best_ms']:.4g} | {one['current_ms']:.4g} |")
    return lines


def _times(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| op, sizes, dtype, pass | who | ms (20 % to 80 %) | TFLOP/s | GB/s | of the limit | MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        what = f"{row['op']}, {row['case']}, {row['dtype']}, {row['phase']} | {row['implementation']}"
        if row["median_ms"] is None:
            lines.append(f"| {what} | {row['status']}: {row['reason']} | | | | |")
            continue
        numbers = [verdict.shown(row[key], "") for key in ("tflops", "gbs", "share", "peak_mb")]
        spread = f"{row['median_ms']:.4g} ({row['low_ms']:.4g} to {row['high_ms']:.4g})"
        lines.append(f"| {what} | {spread} | " + " | ".join(numbers) + " |")
    return lines


def _steps(answers: list[Answer]) -> list[str]:
    lines = [
        "Operations are counted causal, forward and backward, over the datasheet's 989 TFLOP/s.",
        "",
        "| way | batch x length | tokens/s | predicted | MFU | peak GB | last loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    heads = ["", "| loss head, MiB of logits at once | ms | MB above inputs |", "| ---: | ---: | ---: |"]
    for answer in answers:
        one = answer.get("value") or {}
        if "way" in one:
            expected = f"{verdict.STEPS[one['way']]:.0f} k"
            peak = verdict.shown(one["peak_gb"], "")
            lines.append(
                f"| {one['way']} | {one['batch']} x {one['length']:,} | {one['tokens_a_second']:,.0f} | {expected} "
                f"| {one['share']:.1%} | {peak} | {one['losses'][-1]:.4f} |"
            )
        if "megabytes" in one:
            heads.append(f"| {one['megabytes']} | {one['milliseconds']:.4g} | {verdict.shown(one['peak_mb'], '')} |")
    return lines + (heads if len(heads) > 3 else [])
