"""Every kernel, compiled for three architectures without a GPU: nothing spills, and matrix units multiply matrices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # the most a block can have there
TENSOR_CORES = {80: "mma.sync", 90: "wgmma", 100: "tcgen05.mma"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    pytest.importorskip("triton", minversion="3.3", reason="no Triton of 3.3 or newer here")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, ROOT / "benchmarks" / "gpu" / "compile_table.py", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_every_op_is_compiled_for_every_architecture(rows: list[dict[str, Any]]) -> None:
    names = {row["kernel"] for row in rows}
    begun = ["column sum", "layer norm", "residual", "rotary", "bias GELU", "linear bias GELU", "cross-entropy"]
    begun += [f"attention {kernel}" for kernel in ("rotary", "forward", "delta", "keys", "queries")]
    begun += ["GELU", "block turn back", "block split gradient"]
    for title in begun:
        assert any(name.startswith(title) for name in names), title
    assert len(rows) == 3 * len(names)
    for name in names:
        assert {row["arch"] for row in rows if row["kernel"] == name} == {80, 90, 100}


def test_nothing_spills_and_everything_fits(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["spills"] == 0, row
        assert row["shared"] <= SHARED[row["arch"]], row
        assert row["registers"] * row["warps"] * 32 <= 65536, row


def test_matrix_units_multiply_halves(rows: list[dict[str, Any]]) -> None:
    halves = [row for row in rows if row["dot"] and "fp32" not in row["kernel"]]
    assert halves
    for row in halves:
        assert row["tensor_cores"] == TENSOR_CORES[row["arch"]], row


def test_the_committed_table_lists_what_is_compiled(rows: list[dict[str, Any]]) -> None:
    """Registers may differ by a version of Triton; the kernels and their settings may not."""
    committed = json.loads((ROOT / "benchmarks" / "results" / "kernels_compiled.json").read_text())
    settings = ("kernel", "arch", "warps", "stages", "dot")
    assert [{key: row[key] for key in settings} for row in rows] == [
        {key: row[key] for key in settings} for row in committed
    ], "run python benchmarks/gpu/compile_table.py"
