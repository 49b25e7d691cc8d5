"""``phi-fast train``, ``finetune``, ``export`` and ``plan``: what they write, print and refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from phi_fast.cli import app  # noqa: E402
from phi_fast.train import kept  # noqa: E402
from tests.train import runs  # noqa: E402
from tests.train.support import store, texts, write_lines  # noqa: E402


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("PHI_FAST_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["phi-fast"])


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of one's own: twelve steps of a model of 40,000 parameters."""
    path = tmp_path / "small.py"
    given = {name: value for name, value in runs.settings().as_dict().items()}
    path.write_text(f"from phi_fast.train.settings import Settings\nSETTINGS = Settings.from_dict({given!r})\n")
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    store(tmp_path / "tokens", [40] * 30, vocabulary=96)
    return tmp_path / "tokens"


def test_train_finetune_and_export(recipe: Path, tokens: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    done = call("train", recipe, "--data", tokens, "--output", run, "--set", "stop_step=6", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "6 steps, loss " in done.output and "newest: " in done.output and "step 1/6  loss" in done.output
    first = (run / "log.jsonl").read_text()

    again = call("train", recipe, "--data", tokens, "--output", run, "--set", "stop_step=9", "--quiet")
    assert again.exit_code == 0 and again.output == ""
    log = (run / "log.jsonl").read_text()
    assert log.startswith(first) and [one["step"] for one in map(json.loads, log.splitlines()) if "loss" in one] == [
        *range(1, 10)
    ]

    # The highest score is that of step 6: neither the newest nor the lowest loss.
    text = "import sys, pathlib, json; p = pathlib.Path(sys.argv[2]); n = int(p.read_text() or 0) + 1; "
    text += (
        "p.write_text(str(n)); json.load(open(sys.argv[1] + '/config.json')); print('words'); print([1, 5, 2][n - 1])"
    )
    (tmp_path / "count").write_text("")
    score = f"{shlex.quote(sys.executable)} -c {shlex.quote(text)} {{model}} {shlex.quote(str(tmp_path / 'count'))}"
    more = ("--set", "stop_step=9", "--set", "save_every=3", "--set", "keep_last=1")
    done = call("finetune", recipe, "--from", run, "--data", tokens, "--output", tuned, "--score", score, *more)
    assert done.exit_code == 0, done.output
    assert kept.read_scores(tuned / "checkpoints") == {"step-00000003": 1, "step-00000006": 5, "step-00000009": 2}
    assert [one.name for one in kept.all_of(tuned / "checkpoints")] == ["step-00000006", "step-00000009"]
    assert re.search(r"best: .*step-00000006", done.output)

    for more, step in ((("--best",), 6), ((), 9)):
        out = tmp_path / f"hf-{step}"
        done = call("export", tuned, *more, "--output", out)
        assert done.exit_code == 0 and f"step-{step:08d}" in done.output
        from phi_fast.model import Phi

        assert runs.same_bits(dict(Phi.from_pretrained(out).state_dict()), runs.weights(tuned, step))


def test_finetuning_takes_the_model_of_its_start(recipe: Path, tokens: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = ("--set", "stop_step=3", "--set", "fields.layers=2")
    assert call("train", recipe, "--data", tokens, "--output", run, *changes, "-q").exit_code == 0
    done = call("finetune", recipe, "--from", run, "--data", tokens, "-o", tmp_path / "t", "--set", "stop_step=1", "-q")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "t" / "settings.json").read_text())["model"]["layers"] == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--set": "lr=0.5"}, "has lr 0.01, this one 0.5"),
        ({"--resume": "never"}, "holds a run"),
        ({"--data": "other"}, "read 1,200 tokens as data 1"),
        ({"RECIPE": "tini"}, 'is "tiny" meant'),
        ({"--score": "python score.py"}, "{model}"),
        ({"--device": "tpu"}, "tpu"),
    ],
)
def test_what_does_not_go_together_is_refused(
    change: dict[str, str], said: str, recipe: Path, tokens: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert call("train", recipe, "--data", tokens, "-o", run, "--set", "stop_step=1", "-q").exit_code == 0
    store(tmp_path / "other", [41] * 30, vocabulary=96)
    given = {"RECIPE": str(recipe), "--data": str(tokens), "--output": str(run)} | change
    if change.get("--data"):
        given["--data"] = str(tmp_path / change["--data"])
    name = given.pop("RECIPE")
    done = call("train", name, *(part for pair in given.items() for part in pair))
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_another_tokenizer_is_refused_where_it_would_make_nonsense(recipe: Path, tokens: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("train", recipe, "--data", tokens, "-o", run, "--set", "stop_step=1", "-q").exit_code == 0
    store(tmp_path / "other", [40] * 30, vocabulary=95)
    done = call("finetune", recipe, "--from", run, "--data", tmp_path / "other", "-o", tmp_path / "t")
    assert done.exit_code == 2 and "its tokenizer" in done.output and "is not that of" in done.output
    done = call("export", run, "--tokens", tmp_path / "other", "-o", tmp_path / "hf")
    assert done.exit_code == 2 and "another tokenizer" in done.output and not (tmp_path / "hf").exists()


def test_a_score_that_fails_stops_nothing(recipe: Path, tokens: Path, tmp_path: Path) -> None:
    for number, (command, said) in enumerate([("false {model}", "ended with 1"), ("echo hm {model}", "no number")]):
        given = ("--data", tokens, "-o", tmp_path / f"run{number}", "--set", "stop_step=1")
        done = call("train", recipe, *given, "--score", command)
        assert done.exit_code == 0
        assert "has no score" in done.output and said in done.output


def test_what_is_no_checkpoint_is_refused(recipe: Path, tokens: Path, tmp_path: Path) -> None:
    done = call("export", tmp_path, "-o", tmp_path / "hf")
    assert done.exit_code == 2 and "neither a checkpoint nor a run" in done.output
    run = tmp_path / "run"
    assert call("train", recipe, "--data", tokens, "-o", run, "--set", "stop_step=1", "-q").exit_code == 0
    (part,) = (run / "checkpoints").glob("step-*/*.distcp")
    os.truncate(part, 10)
    done = call("export", run, "-o", tmp_path / "hf")
    assert done.exit_code == 2 and "without a whole checkpoint" in done.output and "10 bytes" in done.output


def test_the_exported_model_writes_in_plain_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    corpus = write_lines(tmp_path / "c.jsonl", texts(300))
    tokenizer, tokens, run, out = (tmp_path / one for one in ("tokenizer.json", "tokens", "run", "hf"))
    assert call("tokenizer", "train", corpus, "--vocab", 512, "--runs", "-o", tokenizer, "-q").exit_code == 0
    given = ("--tokenizer", tokenizer, "--output", tokens, "--workers", 1, "-q")
    assert call("tokenize", corpus, *given).exit_code == 0
    small = {"vocab_size": 512, "rows": 512, "layers": 1, "hidden": 64, "mlp": 128, "heads": 1}
    changes = [f"fields.{name}={value}" for name, value in small.items()]
    changes += ["schedule_steps=20", "warmup_steps=2", "batch=8", "micro=8", "length=64", "lr=0.01", "eval_sequences=4"]
    sets = [part for one in changes for part in ("--set", one)]
    done = call("train", "tiny", "--data", tokens, "-o", run, *sets, "-q")
    assert done.exit_code == 0, done.output
    assert call("export", run, "--tokens", tokens, "-o", out).exit_code == 0
    words = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    text = "def f(x):\n    y0 = x + 0\n"
    assert words.decode(words(text)["input_ids"]) == text and words.eos_token == "<|endoftext|>"
    prompt = words("word1", return_tensors="pt")["input_ids"]
    written = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert written.shape[1] > prompt.shape[1] and isinstance(words.decode(written[0]), str)


def test_the_page_shows_the_plan_as_it_is_printed() -> None:
    page = (runs.ROOT / "docs" / "recipes.md").read_text()
    found = re.search(r"^\$ phi-fast (plan .*)\n((?:.*\n)*?)```", page, re.MULTILINE)
    assert found is not None
    assert call(*shlex.split(found[1])).output == found[2]


def test_plan_prints_all_that_is_paid_for() -> None:
    said = call("plan", "phi_1_base", "--gpu", "a100", "--count", 8, "--price", 2).output
    for one in ("1,418,270,720 parameters", "8.48 GFLOP", "50.3 B", "fits, ", "4.0 d, 760 GPU-hours", "cost     1,5"):
        assert one in said
    assert "cost" not in call("plan", "phi_1_base", "--gpu", "a100", "--count", 8).output
    small = call("plan", "phi_1_base", "--gpu", "l4", "--count", 8).output
    assert "does not fit: 27." in small and "--set checkpointing=true --set strategy=fsdp: 15." in small
    assert "No setting suffices" in call("plan", "phi_1_base", "--gpu", "l4").output
    listed = call("plan", "--gpus").output
    assert "h200" in listed and "989 TFLOP/s" in listed and "data sheet" in listed
    done = call("plan", "phi_1_base", "--gpu", "h2000")
    assert done.exit_code == 2 and 'is "h200" meant' in done.output
