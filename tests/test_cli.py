"""The command line: what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phi_fast.cli import app
from tests.decontaminate.corpora import documents, exam_file, jsonl, lines

COMMANDS = [
    ["decontaminate"], ["calibrate"], ["decide"], ["similar"], ["reproduce"], ["report"], ["suites", "list"],
    ["suites", "show"], ["index", "build"], ["index", "info"], ["embed"], ["bench", "kernels"], ["demo"], ["doctor"],
    ["train"], ["finetune"], ["export"], ["plan"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PHI_FAST_DEBUG", raising=False)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def there(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A corpus with 20 leaks among 200 documents, a suite, and a folder for the run."""
    corpus = jsonl(tmp_path / "corpus/a.jsonl", documents(200))
    return corpus.parent, exam_file(tmp_path / "exam.jsonl"), tmp_path / "run"


@pytest.fixture
def run(there: tuple[Path, Path, Path]) -> Path:
    corpus, suite, output = there
    result = call("decontaminate", corpus, "--against", suite, "--output", output, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output == ""
    return output


def test_import_is_quick_and_lazy() -> None:
    code = "import sys, phi_fast; print(sorted({'numpy', 'pyarrow', 'rich', 'torch', 'typer'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    total = next(line for line in found.stderr.splitlines() if line.endswith("| phi_fast"))
    assert int(total.split("|")[1]) < 100_000  # microseconds


def test_version() -> None:
    result = call("--version")
    assert re.fullmatch(r"phi_fast \d+\.\d+.*\n", result.output)
    assert result.exit_code == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_examples(command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert f"phi-fast {' '.join(command)}" in result.output


def test_no_command_prints_help() -> None:
    output = call().output
    assert all(command[0] in output for command in COMMANDS)


def test_decontaminate_prints_the_result(there: tuple[Path, Path, Path]) -> None:
    corpus, suite, output = there
    result = call("decontaminate", corpus, "-a", f"test-suite={suite}", "-o", output)
    assert result.exit_code == 0, result.output
    for said in ("20 of 200 documents", "test-suite", "report.html", "phi-fast decide"):
        assert said in result.output
    again = call("decontaminate", corpus, "-a", f"test-suite={suite}", "-o", output)
    assert again.exit_code == 0
    assert again.output.startswith("This run is finished, so nothing was scanned again.")
    assert "20 of 200 documents" in again.output


def test_options_reach_the_policy(there: tuple[Path, Path, Path]) -> None:
    corpus, suite, output = there
    result = call(
        "decontaminate", corpus, "--suite", f"own={suite}", "--question", "prompt", "--output", output, "--mode", "cut",
        "--n", 8, "--n", 6, "--coverage", 0.6, "--run", 20, "--words", 9, "--part", "question",
        "--weight", "question=0.9", "--allow", "own/1",
        "--window", 10, "--min-piece", 5, "--max-pieces", 9, "--threads", 1, "--text", "text",
        "--id", "stars", "--tau", 0.9, "--alpha", 0.8, "--nodes", 18,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    settings = json.loads((output / "run.json").read_bytes())["settings"]
    assert settings["policy"] == {
        "preset": "default", "mode": "cut", "n": 6, "coverage": 0.6, "run": 20, "words": 9, "tau": 0.9,
        "alpha": 0.8, "nodes": 18, "distance": None, "both": False, "parts": ["question"],
        "weights": {"question": 0.9}, "allow": ["own/1"], "window": 10, "min_piece": 5, "max_pieces": 9,
    }  # fmt: skip
    assert settings["n"] == [8, 6]
    assert settings["fields"]["question"] == "prompt"
    assert {one["id"] for one in lines(output / "removed.jsonl")} <= {str(number) for number in range(3, 200, 10)}


def test_gate_exits_with_3_after_writing(there: tuple[Path, Path, Path]) -> None:
    corpus, suite, output = there
    arguments = ("decontaminate", corpus, "-a", suite, "-o", output, "--mode", "flag", "--fail-above")
    result = call(*arguments, 0.05)
    assert result.exit_code == 3
    assert "20 of 200 documents (10.0000%) have a verdict, over the 5.0000%" in result.output
    assert (output / "report.html").exists()
    assert call(*arguments, 0.1).exit_code == 0


def test_errors_are_a_line_a_hint_and_a_code(there: tuple[Path, Path, Path], run: Path) -> None:
    corpus, suite, output = there
    other = call("decontaminate", corpus, "-a", suite, "-o", output, "--coverage", 0.5)
    assert other.exit_code == 2
    assert other.stderr.splitlines()[:2] == [f"error: {output} holds another run:", "  coverage: 0.7 there, 0.5 now"]
    assert "Traceback" not in other.output
    assert "--overwrite" in other.stderr
    assert call("decontaminate", corpus, "-o", output / "x").exit_code == 2
    nothing = call("decontaminate", corpus, "-o", corpus.parent / "new")
    assert "nothing to decontaminate against: give --against humaneval" in nothing.stderr
    assert call("decide", corpus).stderr == f"error: {corpus}: holds no run (no run.json)\n"
    assert "give PART=NUMBER" in call("decide", run, "--weight", "tests").stderr


def test_debug_shows_the_traceback(there: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI_FAST_DEBUG", "1")
    result = call("decide", there[0])
    assert type(result.exception).__name__ == "InputError"


def test_decide(run: Path) -> None:
    result = call("decide", run, "--coverage", 0.9, "--mode", "cut")
    assert result.exit_code == 0, result.output
    assert "clean/ and removed.jsonl still follow the policy before: add --write" in result.output
    assert len(lines(run / "clean/a.jsonl")) == 180
    written = call("decide", run, "--write")
    assert written.exit_code == 0, written.output
    assert "still follow" not in written.output
    assert len(lines(run / "clean/a.jsonl")) == 200


def test_reproduce_exits_with_1_where_something_differs(there: tuple[Path, Path, Path], run: Path) -> None:
    same = call("reproduce", run)
    assert same.exit_code == 0, same.output
    assert "evidence: the same, sha256" in same.output
    assert "verdicts: the same, sha256" in same.output
    jsonl(there[0] / "a.jsonl", documents(100))
    other = call("reproduce", run)
    assert other.exit_code == 1
    assert "evidence: different" in other.output
    assert "input a.jsonl has changed since" in other.output


def test_report_is_written_anew(run: Path) -> None:
    (run / "report.md").unlink()
    (run / "report.html").unlink()
    result = call("report", run)
    assert result.exit_code == 0, result.output
    assert (run / "report.md").exists()
    assert (run / "report.html").exists()


def test_suites(there: tuple[Path, Path, Path]) -> None:
    listed = call("suites")
    assert listed.exit_code == 0
    assert "humaneval" in listed.output
    assert call("suites", "list").output == listed.output
    shown = call("suites", "show", f"own={there[1]}", "--question", "prompt")
    assert shown.exit_code == 0, shown.output
    assert "6 items" in shown.output
    everything = call("suites", "show", "humaneval", "--all")
    assert "HumanEval/163" in everything.output
    assert "HumanEval/163" not in call("suites", "show", "humaneval").output


def test_index(there: tuple[Path, Path, Path], tmp_path: Path) -> None:
    from phi_fast import NgramIndex

    built = call("index", "build", "--against", f"own={there[1]}", "--n", 7, "--output", tmp_path / "x.phifast")
    assert built.exit_code == 0, built.output
    assert "n = 7" in built.output
    assert NgramIndex.load(tmp_path / "x.phifast").n == (7,)
    assert call("index", "info", tmp_path / "x.phifast").output == built.output
    missing = call("index", "info", tmp_path / "y.phifast")
    assert missing.exit_code == 2
    assert "y.phifast" in missing.stderr
    assert "nothing to index" in call("index", "build", "-o", tmp_path / "z").stderr


def test_doctor() -> None:
    result = call("doctor")
    assert result.exit_code == 0, result.output
    assert "SIMD" in result.output


def test_a_reader_that_has_seen_enough_is_no_error(run: Path) -> None:
    command = f'"{sys.executable}" -m phi_fast.cli report "{run}" | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"})
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
