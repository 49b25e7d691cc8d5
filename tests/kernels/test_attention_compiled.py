"""The attention kernels compiled for GPUs, without one: nothing spills, and matrix units are used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_kernels_compile_without_spills_and_use_tensor_cores(arch: int) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    script = Path(__file__).parents[2] / "benchmarks" / "gpu" / "compile_table.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(script), "--modules", "attention", "--archs", str(arch), "--json", "-"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    records = json.loads(found.stdout)
    assert {name.split()[1].rstrip(",") for name in (one["kernel"] for one in records)} == {
        "rotary", "forward", "delta", "keys", "queries",
    }  # fmt: skip
    limit = {80: 163, 90: 227, 100: 227}[arch] * 1024  # shared memory a block may have
    for one in records:
        assert one["spills"] == 0, one
        assert one["shared"] <= limit, one
        if one["dot"] and "fp32" not in one["kernel"]:
            assert one["tensor_cores"], one
