"""benchmarks/gpu/train_steps.py rehearsed on a CPU: it goes its road, and what fails stops nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_rehearsal_writes_every_way_it_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    ways = ["phi_fast", "Hugging Face, SDPA", "Hugging Face, Liger"]
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "train_steps.py", "--rehearse", "--recipe", "phi_1_small"]
    command += [part for way in ways for part in ("--way", way)]
    done = subprocess.run([*command, "--output", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "train_steps.json").read_text())
    found = {one["way"]: one for one in record["results"]}
    assert list(found) == ways and record["rehearsal"]
    for way in ways[:2]:
        assert len(found[way]["losses"]) == 3 and found[way]["losses"][0] == pytest.approx(4.5, abs=0.3)  # ln 90
        assert found[way]["mfu_causal"] is None and found[way]["peak_gb"] is None
    if "error" in found[ways[2]]:
        assert "liger_kernel" in found[ways[2]]["error"]
    assert (tmp_path / "train_steps.md").read_text().count("\n") == 2 + len(ways)
