"""The parts of benchmarks/gpu that need no GPU: the pool of children, claims, adopting, the page of what waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
sys.path.insert(0, str(FOLDER))
import adopt  # noqa: E402
import verdict  # noqa: E402
from workers import OUT_OF_TIME, Pool, Task  # noqa: E402

TASKS = """
import os, sys, time
def add(left, right): return {"sum": left + right}
def sleep(seconds): time.sleep(seconds); return {}
def fail(): raise ValueError("first line\\nsecond")
def leave(): print("last words", file=sys.stderr, flush=True); os._exit(3)
def chat(): print("not an answer"); return {"pid": os.getpid()}
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "tasks_here.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Pool({})
    yield made
    made.keep(0)


def run(pool: Pool, *tasks: Task, width: int = 1, seconds: float = 60) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = []
    pool.run(tasks, width, time.monotonic() + seconds, found.append)
    assert len(found) == len(tasks)
    return {one["name"]: one for one in found}


def task(name: str, function: str, seconds: float = 30, **arguments: Any) -> Task:
    return Task(name, f"tasks_here:{function}", arguments, seconds)


def test_children_answer_fail_and_die_each_for_itself(pool: Pool) -> None:
    sums = [task(f"sum {number}", "add", left=number, right=1) for number in range(6)]
    found = run(pool, task("fail", "fail"), task("leave", "leave"), task("absent", "nothing"), *sums, width=2)
    assert found["fail"]["error"] == "ValueError: first line"
    assert "second" in found["fail"]["trace"] and str(FOLDER) not in found["fail"]["trace"]
    assert found["leave"]["error"] == "its process ended: exit status 3"
    assert "last words" in found["leave"]["trace"]
    assert found["absent"]["error"].startswith("AttributeError")
    assert [found[f"sum {number}"]["value"]["sum"] for number in range(6)] == list(range(1, 7))


def test_what_a_task_prints_is_no_answer_and_children_live_on(pool: Pool) -> None:
    first = run(pool, task("one", "chat"))["one"]["value"]["pid"]
    assert run(pool, task("two", "chat"))["two"]["value"]["pid"] == first


def test_time_ends_a_task_and_a_stage(pool: Pool) -> None:
    found = run(pool, Task("naps", "tasks_here:sleep", {"seconds": 0.01}), task("next", "add", left=1, right=1))
    assert found["next"]["value"] == {"sum": 2}
    began = time.monotonic()
    pool.keep(0)
    found = run(pool, Task("slow", "tasks_here:sleep", {"seconds": 60}, 1.5), task("after", "add", left=1, right=1))
    assert found["slow"]["error"] == "not done after 2 s" and found["after"]["value"] == {"sum": 2}
    found = run(
        pool, Task("long", "tasks_here:sleep", {"seconds": 60}, 60), task("never", "add", left=1, right=1), seconds=2
    )
    assert found["long"]["skipped"] == found["never"]["skipped"] == OUT_OF_TIME
    assert time.monotonic() - began < 30


def row(op: str, phase: str, who: str, case: str, **numbers: float) -> dict[str, Any]:
    empty = dict.fromkeys(("median_ms", "tflops", "share", "peak_mb"))
    return {"op": op, "phase": phase, "implementation": who, "case": case, "dtype": "bf16", **empty, **numbers}


def test_claims_are_read_off_the_rows() -> None:
    case = "length 2,048, head_dim 64"
    loss = "rows 32,768, width 2,048, vocabulary 51,200"
    rows = [
        row("attention", "forward", "phi_fast", "length 2,048, head_dim 128", median_ms=9.0, tflops=999.0),
        row("attention", "forward", "phi_fast", case, median_ms=0.4, tflops=343.0),
        row("attention", "forward", "SDPA, cuDNN", case, median_ms=0.38),
        row("layer_norm", "forward", "phi_fast", "rows 32,768, width 2,048", median_ms=1.0, share=0.85),
        row("layer_norm", "forward", "phi_fast", "rows 32,768, width 1,024", median_ms=1.0, share=0.1),
        row("cross_entropy", "both", "phi_fast", loss, median_ms=35.0, peak_mb=1000.0),
        row("cross_entropy", "both", "eager", loss, median_ms=40.0, peak_mb=27000.0),
    ]
    found = {one["what"]: one for one in verdict.verdicts(rows)}
    said = {name: (one["measured"], one["verdict"]) for name, one in found.items() if one["measured"] is not None}
    assert said == {
        "attention forward, causal, 2k, head 64": (343.0, "met"),
        "attention forward, times as fast as SDPA's cuDNN": (pytest.approx(0.95), "not met"),
        "layer_norm, forward, of the copy rate": (0.85, "met"),
        "loss head, times as fast as eager": (pytest.approx(40 / 35), "met"),
        "loss head, eager's memory over its own": (27.0, "met"),
    }
    assert {one["verdict"] for name, one in found.items() if name not in said} == {"not measured"}


def test_every_claim_names_an_op_and_a_case_that_are_timed() -> None:
    """A claim whose case is called otherwise would stay "not measured" for ever."""
    code = """
import json
from phi_fast.bench import OPS
import timings
plan = timings.plan(False)["tasks"]
print(json.dumps([[one["op"], OPS[one["op"]].cases[one["case"]].label, one["names"], list(OPS[one["op"]].passes)]
                  for one in plan if one["dtype"] == "bf16"]))
"""
    pytest.importorskip("torch", reason="the catalogue needs PyTorch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER)
    rows = [
        row(op, phase, name, case, median_ms=1.0, tflops=1.0, share=1.0, peak_mb=1.0)
        for op, case, names, passes in json.loads(done.stdout)
        for name in names
        for phase in passes
    ]
    missing = [one["what"] for one in verdict.verdicts(rows) if one["measured"] is None]
    ops = {one["op"] for one in rows}
    assert [one for one in missing if "block" not in one or "block" in ops] == []


def test_the_page_of_what_waits_lists_every_claim() -> None:
    page = (FOLDER / "TODO.md").read_text()
    for line in verdict.predictions():
        assert line in page, "run python benchmarks/gpu/verdict.py and put its table into TODO.md"


def stage_file(folder: Path, name: str, gpu: str, results: list[dict[str, Any]]) -> None:
    machine = {"gpu": gpu, "date": "2026-11-24 10:00 UTC"}
    record = {"stage": name, "rehearsal": False, "machine": machine, "results": results}
    (folder / f"{name}.json").write_text(json.dumps(record))


def race(title: str, best: int, current: int) -> dict[str, Any]:
    value = {
        "title": title, "file": "kernels/a.py", "table": "T", "arch": 90, "size": 64, "best": {"B": best},
        "best_ms": 1.0, "current": {"B": current}, "current_ms": 1.5, "row": f"(64, {{'B': {best}}}),",
    }  # fmt: skip
    return {"name": title, "value": value}


def test_adopting_copies_results_and_names_rows(tmp_path: Path) -> None:
    run_folder, results = tmp_path / "run", tmp_path / "results"
    run_folder.mkdir()
    with pytest.raises(adopt.Refused, match=r"holds none of REPORT\.md"):
        adopt.adopt(run_folder, results)
    stage_file(run_folder, "limits", "NVIDIA H200", [])
    stage_file(
        run_folder, "tuning", "NVIDIA H200", [race("plain", 2, 1), race("dropout", 3, 1), {"name": "x", "error": "y"}]
    )
    times = [
        {**row("layer_norm", "forward", who, f"rows {tokens:,}, width 2,048", median_ms=taken, gbs=100 / taken),
         "status": "measured", "reason": "", "low_ms": taken, "high_ms": taken}
        for who, tokens, taken in (("phi_fast", 2048, 0.1), ("eager", 2048, 0.2), ("phi_fast", 8192, 0.4))
    ]  # fmt: skip
    stage_file(run_folder, "times", "NVIDIA H200", [{"name": "layer_norm", "value": {"rows": times}}])
    (run_folder / "REPORT.md").write_text("# The kernels")
    target, lines = adopt.adopt(run_folder, results)
    assert target == results / "gpu-nvidia-h200-2026-11-24"
    written = [
        "REPORT.md",
        "kernels.csv",
        "kernels.md",
        "layer_norm_bf16.png",
        "limits.json",
        "times.json",
        "tuning.json",
    ]
    assert sorted(one.name for one in target.iterdir()) == written
    assert (target / "kernels.csv").read_text().count("NVIDIA H200") == 3
    assert "## layer_norm" in (target / "kernels.md").read_text()
    assert lines == [
        "kernels/a.py, T[90]: (64, {'B': 2}),  # plain: 1.50 times as fast",
        "dropout would rather have (64, {'B': 3}), there (1.50 times as fast)",
    ]
    stage_file(run_folder, "limits", "", [])
    with pytest.raises(adopt.Refused, match="a rehearsal"):
        adopt.adopt(run_folder, results)


def test_candidates_compile_for_hopper_without_spills() -> None:
    """A sample; `python benchmarks/gpu/tune.py` compiles them all."""
    pytest.importorskip("triton", minversion="3.3", reason="no Triton of 3.3 or newer here")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    names = ["column sum", "attention queries, head 64", "residual backward", "rotary", "bias GELU backward"]
    command = [sys.executable, FOLDER / "tune.py", "--most", "1", "--names", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 7  # attention with dropout too, rotary in place too
    assert all(" 0 bytes spilled" in line and '"num_warps"' in line for line in lines)
