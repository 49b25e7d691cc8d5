"""What stands in examples/: each runs, and the exercises are right and of no benchmark."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.train.runs import environment
from tests.train.support import texts, write_lines

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
EXERCISES = [json.loads(line) for line in (EXAMPLES / "exercises.jsonl").read_text().splitlines()]


def run(*command: object, cwd: Path, **more: str) -> str:
    done = subprocess.run(
        [str(one) for one in command], cwd=cwd, env=environment(CUDA_VISIBLE_DEVICES="", **more), check=False,
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """Tokens of a corpus, by a tokenizer of 512."""
    from phi_fast.train import tokenize_corpus

    folder = tmp_path_factory.mktemp("examples")
    corpus = write_lines(folder / "c.jsonl", texts(400))
    tokenize_corpus([str(corpus)], folder / "tokens", str(trained), workers=1)
    return folder / "tokens"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: str(one["id"]))
def test_an_exercise_is_solved_by_its_solution(exercise: dict[str, str]) -> None:
    assert exercise["text"] == exercise["prompt"] + exercise["solution"]
    assert '"""' in exercise["prompt"] and ">>> " in exercise["prompt"]
    names: dict[str, object] = {}
    exec(exercise["text"], names)
    exec(exercise["tests"], names)
    for call, wanted in re.findall(r">>> (.*)\n    (.*)\n", exercise["prompt"]):
        assert repr(eval(call, names)) == wanted


def test_the_exercises_are_of_no_benchmark(tmp_path: Path) -> None:
    import phi_fast

    suites = ["humaneval"]
    if mbpp := os.environ.get("PHI_FAST_MBPP"):
        suites.append(f"mbpp={mbpp}")
    done = phi_fast.decontaminate(str(EXAMPLES / "exercises.jsonl"), suites, tmp_path / "run")
    assert {one["action"] for one in done.verdicts().to_pylist()} <= {"keep"}
    assert len((tmp_path / "run" / "clean" / "exercises.jsonl").read_text().splitlines()) == len(EXERCISES) == 60


def test_a_loop_of_ones_own_learns(tokens: Path, tmp_path: Path) -> None:
    said = run(sys.executable, EXAMPLES / "own_loop.py", tokens, "--steps", 20, "--length", 64, cwd=tmp_path)
    losses = [float(line.split()[2]) for line in said.splitlines()]
    assert len(losses) == 20 and 5.5 < losses[0] < 7 and losses[-1] < losses[0] - 1  # ln 512 is 6.24


def test_trainer_learns_on_our_tokens(tokens: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    said = run(sys.executable, EXAMPLES / "trainer.py", tokens, "--steps", 12, "--output", "out", cwd=tmp_path)
    losses = [float(one) for one in re.findall(r"'loss': '?([\d.]+)", said)]
    assert len(losses) == 12 and losses[-1] < losses[0]
    assert "phi_fast: 2 layers" in said and (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_tiny_from_nothing_to_text(tmp_path: Path) -> None:
    """The script as it stands, on less text and with fewer steps."""
    pytest.importorskip("transformers")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, words in (("python", ""), ("phi-fast", "-m phi_fast.cli ")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (commands / name).chmod(0o755)
    changes = "--set schedule_steps=6 --set warmup_steps=1 --set eval_every=3 --set save_every=3 --set eval_sequences=2"
    said = run(
        EXAMPLES / "tiny.sh", tmp_path / "out", cwd=tmp_path, MEGABYTES="0.5", CHANGES=changes,
        PATH=f"{commands}:{os.environ['PATH']}",
    )  # fmt: skip
    assert said.count("6 steps, loss ") == 2 and said.count("best: ") == 2
    assert "def total_price(prices, tax):" in said
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
