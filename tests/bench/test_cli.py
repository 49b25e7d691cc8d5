"""phi-fast bench kernels, as a person gives it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phi_fast.bench.own import load
from phi_fast.bench.rows import read_rows
from phi_fast.errors import InputError

PAGE = Path(__file__).parents[2] / "docs/bench.md"


def call(*arguments: object, **changed: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "COLUMNS")}
    environment |= {"COLUMNS": "160", "CUDA_VISIBLE_DEVICES": "", **changed}
    command = [sys.executable, "-m", "phi_fast.cli", "bench", "kernels", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def example() -> str:
    """Give docs/bench.md's file of a person's own ops."""
    found = re.search(r"```python\n(# mine\.py\n.*?)```", PAGE.read_text(), re.S)
    assert found
    return found[1]


def test_the_page_s_example_in_the_interpreter(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(example())
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from phi_fast.bench import rival\n\n@rival('layer_norm')\ndef mine_too(x, weight, bias, eps):\n")
    with wrong.open("a") as file:
        file.write("    return x * weight + bias\n")
    bad = tmp_path / "bad.py"
    bad.write_text("import phi_fast\n\nphi_fast.nonsense\n")
    done = call(
        "--interpret", "--op", "layer_norm", "--op", "softmax", "--with", mine, "--with", bad, "--with", wrong,
        "--dtype", "fp32", "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"not loaded: {bad}:3: AttributeError" in done.stderr
    rows = read_rows(tmp_path / "out/kernels.csv")
    assert {row.op for row in rows} == {"layer_norm", "softmax"}
    verdicts = {(row.op, row.implementation): row.verdict for row in rows if row.phase == "forward"}
    assert verdicts[("layer_norm", "phi_fast")] == verdicts[("layer_norm", "mine")] == "PASS"
    assert verdicts[("layer_norm", "mine_too")] == "FAIL" and verdicts[("softmax", "by hand")] == "PASS"
    assert "layer_norm, mine_too" in done.stdout and "layer_norm, phi_fast" not in done.stdout
    assert all(row.median_ms is None and "interpreter" in row.machine for row in rows)
    assert "Not loaded:" in (tmp_path / "out/kernels.md").read_text()

    again = call("--interpret", "--op", "layer_norm", "--dtype", "fp32", "--output", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert "kernels.md" in again.stdout


def test_the_page_s_commands_are_understood() -> None:
    from typer.testing import CliRunner

    from phi_fast.cli import app

    options = set(re.findall(r"(?<!\S)(--[a-z]+)", PAGE.read_text()))
    said = CliRunner().invoke(app, ["bench", "kernels", "--help"], env={"COLUMNS": "200"}).output
    assert {"--interpret", "--output", "--with"} <= options
    assert [option for option in options if option not in said] == []


def test_without_a_gpu_it_says_what_there_is() -> None:
    done = call()
    assert done.returncode == 2
    assert "PyTorch sees none here" in done.stderr and "--interpret runs them on the CPU" in done.stderr
    done = call("--device", "cpu")
    assert done.returncode == 2 and "--device: expected cuda or cuda:N" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--op", "atention"], '--op: no op "atention"; known are attention'),
        (["--case", "tiny"], '--case: expected small or full, got "tiny"'),
        (["--pass", "sideways"], '--pass: expected forward, backward or both, got "sideways"'),
        (["--dtype", "bf16", "--interpret"], "--dtype: bf16 needs a GPU"),
        (["--rivals", "Apex", "--op", "rotary"], '--rivals: nothing here is called "Apex"; known are phi_fast; eager'),
        (["--with", "nowhere.py"], "--with: no file nowhere.py"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())


def test_the_list_names_what_is_missing() -> None:
    done = call("--list", "--op", "attention")
    assert done.returncode == 0
    assert "SDPA, cuDNN" in done.stdout and "length 2,048, head_dim 64" in done.stdout


def test_the_interpreter_must_be_asked_for_before_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from phi_fast.bench.run import ask_for_interpreter

    monkeypatch.setitem(sys.modules, "triton", sys)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(InputError, match="set TRITON_INTERPRET=1 before Python starts"):
        ask_for_interpreter()


def test_half_a_file_is_none(tmp_path: Path) -> None:
    from phi_fast.bench import OPS

    path = tmp_path / "half.py"
    path.write_text("from phi_fast.bench import rival\nrival('rotary', name='half')(print)\n1 / 0\n")
    assert load(path) == f"{path}:3: ZeroDivisionError: division by zero"
    assert "half" not in OPS["rotary"].implementations
    path.write_text("def half(:\n")
    assert load(path).startswith(f"{path}:1: SyntaxError")


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from typer.testing import CliRunner

    import phi_fast.bench
    from phi_fast.cli import app

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    done = CliRunner().invoke(app, ["bench", "kernels"], env={"COLUMNS": "160"})
    assert done.exit_code == 2 and "pip install 'phi-fast[train]'" in done.output
    with pytest.raises(InputError, match="the benchmark needs torch"):
        _ = phi_fast.bench.op
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = phi_fast.bench.nonsense


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from phi_fast.cli import app;"
        "print(CliRunner().invoke(app, ['bench', 'kernels', '--help']).exit_code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 False"
