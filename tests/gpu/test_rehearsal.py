"""benchmarks/gpu/run.py rehearsed on a CPU: every stage writes its file, and what fails stops nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the kernels need PyTorch")
pytest.importorskip("triton", reason="Triton is not installed here")
pytest.importorskip("transformers", reason="steps are compared with Hugging Face's")

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "gpu" / "run.py"
STAGES = ("limits", "checks", "tuning", "times", "steps")


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "PHI_FAST_KERNELS")
    }
    return subprocess.run(
        [sys.executable, RUN, *arguments], capture_output=True, text=True, env=environment, check=False
    )


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    output = tmp_path_factory.mktemp("gpu") / "results"
    done = call("--rehearse", "--plant", "--output", output, "--workers", "2", "--minutes", "4")
    assert (output / "REPORT.md").exists(), done.stderr[-3000:]
    return output, done


def stage(output: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / f"{name}.json").read_text())
    return found


def test_every_stage_writes_its_file_and_calls_itself_a_rehearsal(rehearsal: tuple[Path, Any]) -> None:
    output, _ = rehearsal
    assert sorted(one.name for one in output.iterdir()) == sorted(["REPORT.md", *(f"{one}.json" for one in STAGES)])
    for name in STAGES:
        found = stage(output, name)
        assert found["rehearsal"] == "a rehearsal, not a measurement" and found["results"]
    assert (output / "REPORT.md").read_text().startswith("# A rehearsal, not a measurement")


def test_planted_failures_are_reported_and_stop_nothing(rehearsal: tuple[Path, Any]) -> None:
    output, done = rehearsal
    assert done.returncode == 1
    answers = {one["name"]: one for one in stage(output, "checks")["results"]}
    assert [row["verdict"] for row in answers["planted: wrong"]["value"]["rows"]] == ["FAIL", "FAIL"]
    assert answers["planted: raises"]["error"] == "RuntimeError: planted"
    assert 'raise RuntimeError("planted")' in answers["planted: raises"]["trace"]
    assert answers["planted: dies"]["error"] == "its process ended: SIGABRT"
    report = (output / "REPORT.md").read_text()
    assert "- checks: planted: dies: its process ended: SIGABRT" in report
    failed = report.split("## What failed")[1].split("## Checks")[0]
    lines = [line for line in failed.splitlines() if line.startswith("- ")]
    assert all("planted" in line for line in lines), failed


def test_everything_that_was_not_planted_passes(rehearsal: tuple[Path, Any]) -> None:
    output, _ = rehearsal
    answers = [one for one in stage(output, "checks")["results"] if not one["name"].startswith("planted")]
    rows = [row for one in answers for row in one["value"].get("rows", [])]
    assert len(rows) > 50 and all(row["verdict"] == "PASS" for row in rows)
    judged = {row["what"].split()[0].rstrip(",") for row in rows}
    expected = {"attention", "layer_norm", "residual", "rotary", "bias_gelu", "mlp", "linear_bias_gelu", "loss", "mask"}
    assert expected <= judged


def test_tuning_names_table_and_row(rehearsal: tuple[Path, Any]) -> None:
    races = [one["value"] for one in stage(rehearsal[0], "tuning")["results"] if "race" in one["name"]]
    assert [one["table"] for one in races] == ["_CONFIG", "_CONFIG"]
    for one in races:
        assert (ROOT / one["file"]).exists()
        assert one["row"].startswith("(1 << 62, {") and len(one["timed"]) >= 2
    winners = [one for one in stage(rehearsal[0], "tuning")["results"] if one["name"].startswith("winners")]
    assert winners and all("value" in one for one in winners)


def test_times_and_steps_hold_every_way(rehearsal: tuple[Path, Any]) -> None:
    output, _ = rehearsal
    rows = [row for one in stage(output, "times")["results"] for row in one["value"].get("rows", [])]
    assert {row["implementation"] for row in rows} == {"phi_fast", "eager"}
    assert all(row["median_ms"] > 0 for row in rows)
    values = [one["value"] for one in stage(output, "steps")["results"] if "way" in one["value"]]
    losses = {one["way"]: one["losses"] for one in values}
    assert set(losses) == {"Hugging Face, accelerated", "Phi, fused", "Hugging Face", "Phi, plain"}
    assert losses["Hugging Face, accelerated"] == pytest.approx(losses["Hugging Face"], abs=1e-4)
    assert losses["Phi, fused"] == pytest.approx(losses["Phi, plain"], abs=1e-4)
    assert len({round(loss, 5) for loss in losses["Phi, plain"]}) == 3  # it learns: gradients and optimizer were met


def test_a_rehearsal_is_not_adopted(rehearsal: tuple[Path, Any]) -> None:
    done = subprocess.run(
        [sys.executable, RUN.with_name("adopt.py"), rehearsal[0]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "a rehearsal, not a measurement" in done.stderr


def test_what_the_time_does_not_hold_says_so(tmp_path: Path) -> None:
    done = call("--rehearse", "--stages", "limits,times", "--minutes", "0.01", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not measured: out of time" in (tmp_path / "out" / "REPORT.md").read_text().lower()
    assert not (tmp_path / "out" / "checks.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rehearse", "--stages", "tune"], "--stages: no stage tune; there are limits"),
        (["--minutes", "0", "--rehearse"], "give more than 0"),
        (["--plant", "--output", "x"], "--plant: only with --rehearse"),
        ([], "--output: say where the results go"),
        (["--rehearse", "--output", str(ROOT / "benchmarks")], "is not empty"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2 and message in done.stderr
