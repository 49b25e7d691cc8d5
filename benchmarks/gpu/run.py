"""Check, tune and time every kernel on this machine's GPU: one command, under eight minutes on one H200.

    python benchmarks/gpu/run.py --output results    # from a plain checkout: nothing is built or installed
    python benchmarks/gpu/run.py --rehearse          # the same road on a CPU, interpreted: measures nothing

Each stage writes its JSON into the folder after every result, and REPORT.md is written anew after every stage, so a
run that is cut short keeps what it has. What fails costs its own result: everything runs in child processes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import report
import verdict
from workers import Answer, Pool, Task

# Of all the time, up to the end of each stage: what one leaves goes on to the next.
STAGES = {"limits": 0.06, "checks": 0.28, "tuning": 0.55, "times": 0.8, "steps": 0.97}
TOKENS = 32768  # phi-1's batch of 16 rows
LAUNCHED_AT_ONCE = 3  # candidates a task: one that dies takes the others with it


class Run:
    """A run under way: its folder, its children, what is known so far."""

    def __init__(self, output: Path, minutes: float, stages: Sequence[str], rehearsal: bool, width: int) -> None:
        self.output, self.stages, self.rehearsal, self.width = output, stages, rehearsal, width
        self.began, self.seconds = time.monotonic(), minutes * 60
        self.machine: dict[str, Any] = {}
        self.known: dict[str, list[Answer]] = {}
        self.pool = Pool(_environment(rehearsal))

    @property
    def dtypes(self) -> tuple[str, ...]:
        """bf16 first, for that is what is trained in; the interpreter computes it wrongly."""
        return ("fp32", "fp16") if self.rehearsal else ("bf16", "fp16", "fp32")

    def until(self, stage: str, share: float = 1.0) -> float:
        """Give when a stage must end, or a `share` of it, counted from the end of the one before."""
        chosen = [one for one in STAGES if one in self.stages]
        ends = [STAGES[one] - ([0.0, *STAGES.values()][list(STAGES).index(one)]) for one in chosen]
        place = chosen.index(stage)
        before, here = sum(ends[:place]), ends[place]
        return self.began + self.seconds * 0.97 * (before + here * share) / sum(ends)

    def tasks(self, stage: str, tasks: Sequence[Task], width: int = 1, share: float = 1.0) -> list[Answer]:
        """Run tasks as part of a stage; give their answers."""
        if width == 1:
            self.pool.keep(1)
        mine: list[Answer] = []

        def done(answer: Answer) -> None:
            mine.append(answer)
            self.known.setdefault(stage, []).append(answer)
            self._write(stage)
            said = answer.get("error") or answer.get("skipped") or "; ".join(report.failures([answer])) or "ok"
            print(f"{time.monotonic() - self.began:5.0f} s  {stage}: {answer['name']}: {said}", flush=True)

        self.pool.run(tasks, width, self.until(stage, share), done)
        return mine

    def ask(self, stage: str, name: str, function: str, **arguments: Any) -> dict[str, Any]:
        """Run one task; give its value, empty where it failed."""
        (answer,) = self.tasks(stage, [Task(name, function, arguments, 90)])
        value: dict[str, Any] = answer.get("value", {})
        return value

    def values(self, stage: str, key: str) -> list[dict[str, Any]]:
        """Give the values of a stage that hold `key`."""
        found = [answer.get("value") or {} for answer in self.known.get(stage, [])]
        return [value for value in found if key in value]

    def settings(self) -> list[tuple[str, dict[str, int]]]:
        """Give the best settings found, the first title of a row before the others."""
        return [(one["title"], one["best"]) for one in self.values("tuning", "best")]

    def _write(self, stage: str) -> None:
        record = {
            "stage": stage,
            "rehearsal": "a rehearsal, not a measurement" if self.rehearsal else False,
            "machine": self.machine,
            "seconds": round(time.monotonic() - self.began, 1),
            "results": self.known[stage],
        }
        report.write(self.output / f"{stage}.json", json.dumps(record, indent=1) + "\n")


def _environment(rehearsal: bool) -> dict[str, str]:
    shared = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "8"}
    if rehearsal:
        return {**shared, "TRITON_INTERPRET": "1", "PHI_FAST_KERNELS": "triton", "CUDA_VISIBLE_DEVICES": ""}
    return {**shared, "TRITON_INTERPRET": "0", "PHI_FAST_KERNELS": ""}


def limits(run: Run) -> None:
    """Measure what the chip can do."""
    value = run.ask("limits", "copy and products", "machine:limits")
    if value:
        run.machine["limits"] = value


def checks(run: Run, plant: bool) -> None:
    """Check every op in every dtype, on all cores: most of the time goes into compiling."""
    big = not run.rehearsal
    cases = run.ask("checks", "cases", "checks:plan", big=big).get("cases", [])
    tasks = [
        Task(f"planted: {kind}", "checks:planted", {"kind": kind}) for kind in ("wrong", "raises", "dies") if plant
    ]
    tasks += [
        Task(f"{what}, {dtype}", "checks:op", {"name": name, "number": number, "dtype": dtype, "big": big}, 100)
        for dtype in run.dtypes
        for name, number, what in cases
    ]
    tasks += [Task("dropout masks", "checks:masks", {"big": big})]
    tasks += [
        Task(f"refused: {what}", "checks:refused", {"what": what}) for what in ("label", "cu_seqlens", "positions")
    ]
    tasks += [Task("torch.compile", "checks:compiled", {"big": big})]
    run.tasks("checks", tasks, run.width)


def tuning(run: Run) -> None:
    """Launch all candidates on all cores, race them one by one, check the winners."""
    tunables = run.ask("tuning", "candidates", "tune:plan").get("tunables", [])
    if run.rehearsal:
        tunables = [[title, every[:2]] for title, every in tunables if title in ("column sum", "rotary")]
    place = {"dtype": run.dtypes[0], "tokens": 24 if run.rehearsal else TOKENS}
    launches = [
        Task(
            f"{title}: {first}",
            "tune:launches",
            {"title": title, "candidates": every[first:][:LAUNCHED_AT_ONCE], **place},
        )
        for title, every in tunables
        for first in range(0, len(every), LAUNCHED_AT_ONCE)
    ]
    launched = {answer["name"]: answer.get("value") for answer in run.tasks("tuning", launches, run.width, 0.65)}
    able: dict[str, list[Any]] = {title: [] for title, _ in tunables}
    for task in launches:
        given, value = task.arguments, launched.get(task.name)
        if value:
            bad = [config for config, _ in value["failed"]]
            able[given["title"]] += [one for one in given["candidates"] if one not in bad]
    races = [
        Task(f"{title}: race", "tune:race", {"title": title, "candidates": able[title], **place}) for title in able
    ]
    run.tasks("tuning", races, share=0.93)
    settings = run.settings()
    named = {"name": "attention", "number": 0, "dtype": run.dtypes[0], "big": not run.rehearsal}
    shared = {"settings": settings, "function": "checks:op"}
    again = [
        Task(f"winners: {name}", "tune:under", {**shared, "arguments": {**named, "name": name, "number": number}})
        for name, number in (("attention", 0), ("attention", 1), ("layer_norm", 0), ("mlp", 0), ("rotary", 0),
                             ("residual", 1), ("cross_entropy", 0), ("block", 0))
        if settings and not (run.rehearsal and name not in ("rotary", "layer_norm"))
    ]  # fmt: skip
    run.tasks("tuning", again, run.width)


def times(run: Run) -> None:
    """Time ops and rivals, with the settings found."""
    listed = run.ask("times", "cases", "timings:plan", interpreted=run.rehearsal).get("tasks", [])
    rates = run.machine.get("limits")
    tasks = [
        Task(
            f"{one['op']} {one['case']}, {one['dtype']}: {', '.join(one['names'])}",
            "tune:under",
            {
                "settings": run.settings(),
                "function": "timings:timed",
                "arguments": {**one, "limits": rates, "budget": 0.0 if run.rehearsal else 0.05},
            },
            75,
        )
        for one in listed
    ]
    run.tasks("times", tasks)


def steps(run: Run) -> None:
    """Time whole training steps."""
    big = not run.rehearsal
    ways = list(verdict.STEPS)
    given: dict[str, Any] = {"big": big, "batches": [16, 8, 4], "length": 2048, "runs": 5}
    if run.rehearsal:
        given |= {"batches": [1], "length": 8, "runs": 1}
        ways.remove("Hugging Face, compiled")
    tasks = [Task(way, "steps:step", {"way": way, **given}, 75) for way in ways]
    tasks += [
        Task(f"loss head, {size} MiB", "steps:head", {"megabytes": size, "big": big}) for size in (256, 128, 512, 1024)
    ]
    under = {"settings": run.settings()}
    tasks = [
        Task(one.name, "tune:under", {**under, "function": one.function, "arguments": dict(one.arguments)}, one.seconds)
        for one in tasks
    ]
    run.tasks("steps", tasks)


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, help="an empty folder for the results; it is made")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument("--minutes", type=float, default=8.0, help="what is not done by then is left out")
    parser.add_argument("--workers", type=int, default=min(16, len(os.sched_getaffinity(0))), help="child processes")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, by Triton's interpreter, at tiny sizes")
    parser.add_argument("--plant", action="store_true", help="with --rehearse: add kernels that fail")
    given = parser.parse_args()
    chosen = given.stages.split(",")
    unknown = [one for one in chosen if one not in STAGES]
    if unknown:
        parser.error(f"--stages: no stage {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if given.minutes <= 0 or given.workers < 1:
        parser.error("--minutes and --workers: give more than 0")
    if given.plant and not given.rehearse:
        parser.error("--plant: only with --rehearse")
    if given.output is None and not given.rehearse:
        parser.error("--output: say where the results go")
    output = given.output or Path(tempfile.mkdtemp(prefix="phi-fast-rehearsal-"))
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        parser.error(f"--output: {output} is not empty")
    run = Run(output, given.minutes, chosen, given.rehearse, given.workers)
    try:
        _stages(run, given.plant)
    except KeyboardInterrupt:
        print("interrupted: what there is has been written", file=sys.stderr)
    finally:
        run.pool.keep(0)
        report.write(output / "REPORT.md", report.page(run.machine, run.known, run.rehearsal))
    print((output / "REPORT.md").read_text())
    bad = [line for answers in run.known.values() for line in report.failures(answers)]
    raise SystemExit(1 if bad else 0)


def _stages(run: Run, plant: bool) -> None:
    where: list[Answer] = []
    tasks = [Task("machine", "machine:environment", {}, 90), Task("imports", "machine:warm_up", {}, 90)]
    run.pool.run(tasks, 1, run.began + 180, where.append)
    if "value" not in where[0] or "value" not in where[1]:
        raise SystemExit("\n".join(str(one.get("trace") or one.get("error")) for one in where if "value" not in one))
    run.machine = where[0]["value"]
    if not run.rehearsal and not run.machine["gpu"]:
        raise SystemExit("no CUDA GPU here: --rehearse goes the same road on a CPU, and measures nothing")
    print(", ".join(f"{key} {value}" for key, value in run.machine.items()), flush=True)
    does: dict[str, Callable[[], None]] = {
        "limits": lambda: limits(run),
        "checks": lambda: checks(run, plant),
        "tuning": lambda: tuning(run),
        "times": lambda: times(run),
        "steps": lambda: steps(run),
    }
    for stage in STAGES:
        if stage in run.stages:
            does[stage]()
            report.write(run.output / "REPORT.md", report.page(run.machine, run.known, run.rehearsal))


if __name__ == "__main__":
    main()
