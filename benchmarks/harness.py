"""What every benchmark shares: where it runs, how it measures, how it reports."""

from __future__ import annotations

import functools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from phi_fast.doctor import machine

RESULTS = Path(__file__).parent / "results"
MB = 1e6


@dataclass(frozen=True)
class Child:
    """A finished child process. Memory is the largest resident size of it or one of its own children, in bytes."""

    seconds: float
    cpu_seconds: float
    peak_memory: int
    output: str


class ChildFailed(RuntimeError):
    """A child process ended with an error; holds the end of what it printed."""


def cache_dir() -> Path:
    """Folder for corpora, peers and scratch files: $PHI_FAST_BENCH_CACHE or a folder in the temporary one."""
    chosen = os.environ.get("PHI_FAST_BENCH_CACHE")
    folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "phi-fast-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cores(count: int) -> set[int]:
    """Give the first `count` cores this process may use.

    Raises
    ------
    SystemExit
        There are fewer.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < count:
        raise SystemExit(f"this benchmark needs {count} cores; {len(usable)} may be used here")
    return set(usable[:count])


# A small process of its own starts the command: a child's peak memory counts what it was before its exec, and a fork of
# the benchmark itself, which may hold a whole corpus, would be all that is seen.
_LAUNCHER = """
import json, os, sys
out, cores, command = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
if cores:
    os.sched_setaffinity(0, cores)
os.set_inheritable(out, False)
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
record = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
os.write(out, json.dumps(record).encode())
"""


def run_child(
    command: Sequence[str | os.PathLike[str]],
    *,
    on: set[int] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> Child:
    """Run a command pinned to some cores and measure wall time, processor time and peak memory.

    Raises
    ------
    ChildFailed
        It ended with an error, or passed `timeout` seconds.
    """
    parts = [os.fspath(part) for part in command]
    result, child_end = os.pipe()
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(child_end), json.dumps(sorted(on or ())), *parts],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(child_end,),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        os.close(child_end)
        try:
            process.wait(timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(result)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ChildFailed(f"{parts[0]}: not done after {timeout:.0f} s") from error
            raise
        seconds = time.perf_counter() - started - _launch_seconds()
        with os.fdopen(result) as pipe:
            written = pipe.read()
        output.seek(0)
        text = output.read().decode(errors="replace")
    code, cpu_seconds, peak = json.loads(written) if written else (process.returncode, 0.0, 0)
    if code != 0:
        raise ChildFailed(f"{Path(parts[0]).name} ended with {code}: …{text[-600:].strip()}")
    return Child(seconds, cpu_seconds, peak * (1 if platform.system() == "Darwin" else 1024), text)


@functools.cache
def _launch_seconds() -> float:
    """Time what starting the launcher itself costs, to take it off."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "import json, os, sys"], check=True)
        times.append(time.perf_counter() - started)
    return min(times)


def phi_fast_command() -> list[str]:
    """Give the `phi-fast` command of this interpreter."""
    return [str(Path(sys.executable).with_name("phi-fast"))]


def alternate(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run the cases in turn, `rounds` times over, so that a slow minute of the machine hits all alike."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, run in cases.items():
            values[name].append(run())
            print(f"  round {number + 1}/{rounds}  {name}: {values[name][-1]:,.4g}", flush=True)
    return values


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def shown(values: Sequence[float], digits: int = 3) -> str:
    """Print a median with its range, as in `1,030 (1,010-1,050)`."""
    if not values:
        return "-"
    middle, low, high = statistics.median(values), min(values), max(values)
    number = f"{{:,.{0 if middle >= 10 ** (digits - 1) else digits - 1 if middle < 10 else 1}f}}"
    return number.format(middle) + (
        f" ({number.format(low)}-{number.format(high)})" if len(values) > 1 and low != high else ""
    )


def machine_record() -> dict[str, Any]:
    """Say where and with what this was measured."""
    here = machine()
    return {
        "cpu": here.cpu,
        "cores": here.cores,
        "memory_gb": round((here.memory or 0) / 1e9, 1),
        "simd": here.simd,
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])} {platform.machine()}",
        "python": platform.python_version(),
        "phi_fast": version("phi-fast"),
        "numpy": version("numpy"),
        "pyarrow": version("pyarrow"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 2),
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a Markdown table: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(headings) + " |", "| --- |" + " ---: |" * (len(headings) - 1)]
    lines += [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows
    ]
    return "\n".join(lines)


def report(name: str, title: str, body: str, data: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
    """Print the result and write it to results/NAME.json and results/NAME.md; a try-out (--files) goes to the cache."""
    results = cache_dir() / "results" if "--files" in sys.argv else RESULTS
    where = machine_record()
    given = [Path(one).name if os.path.isabs(one) else one for one in sys.argv[1:]]  # another machine has other folders
    command = "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *given])
    text = f"# {title}\n\n{body}\n\n" + "".join(f"- {note}\n" for note in notes)
    text += "- Measured with: " + ", ".join(f"{key} {value}" for key, value in where.items()) + f"\n- By: `{command}`\n"
    results.mkdir(exist_ok=True)
    (results / f"{name}.md").write_text(text)
    record = {"title": title, "command": command, "machine": where, "notes": list(notes), **data}
    (results / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print("\n" + text)
