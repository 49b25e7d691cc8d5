"""Whole runs: exact resume after kills, signals, bad steps, bad input, what is logged and kept."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from phi_fast.errors import InputError, RunError  # noqa: E402
from phi_fast.train import checkpoint as checkpoints  # noqa: E402
from phi_fast.train import kept  # noqa: E402
from phi_fast.train import loop as loop_module  # noqa: E402
from phi_fast.train.loop import train  # noqa: E402
from phi_fast.train.tokens import TokenStore  # noqa: E402
from tests.train import runs  # noqa: E402
from tests.train.support import store  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_ends_at_its_stop_step_with_its_log_plot_and_checkpoints(data: TokenStore, tmp_path: Path) -> None:
    result = train(runs.settings(), [data], tmp_path / "run", console=False, profile=True)
    assert result.step == 12 and result.finished
    lines = runs.losses(tmp_path / "run")
    assert [step for step, key, _ in lines if key == "loss"] == list(range(1, 13))
    assert [step for step, key, _ in lines if key == "validation_loss"] == [4, 8, 12]
    assert lines[-1][2] == result.validation_loss and lines[-1][2] < lines[4][2]
    there = [one.name for one in kept.all_of(tmp_path / "run" / "checkpoints")]
    assert there == ["step-00000009", "step-00000012"]
    assert result.checkpoint == result.best == tmp_path / "run" / "checkpoints" / "step-00000012"
    assert (tmp_path / "run" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged[0]["tokens"] == 128 and logged[0]["mfu_causal"] is None and logged[0]["tokens_per_s"] > 0


@pytest.mark.parametrize("masked", [False, True])
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_that_was_not(
    data: TokenStore, tmp_path: Path, masked: bool
) -> None:
    given = runs.settings(
        attention_dropout=0.1, residual_dropout=0.1, document_masking=masked, schedule_steps=200, stop_step=160,
        eval_every=40, save_every=7,
    )  # fmt: skip
    train(given, [data], tmp_path / "whole", console=False)
    rng, kills = random.Random(int(masked)), 0
    for _ in range(3):
        log = tmp_path / "killed" / "log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        process = runs.begin(given, data.folder, tmp_path / "killed")
        while process.poll() is None and (not log.exists() or log.stat().st_size <= before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 1
    result = train(given, [data], tmp_path / "killed", console=False)
    assert result.finished
    assert runs.losses(tmp_path / "killed") == runs.losses(tmp_path / "whole")
    assert runs.same_bits(runs.weights(tmp_path / "killed", 160), runs.weights(tmp_path / "whole", 160))


def test_runs_of_the_same_seed_are_the_same_bits_and_of_another_are_not(data: TokenStore, tmp_path: Path) -> None:
    given = {"attention_dropout": 0.2, "stop_step": 3, "deterministic": True}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(runs.settings(seed=seed, **given), [data], tmp_path / name, console=False)
    assert not torch.are_deterministic_algorithms_enabled()
    a, b, c = (runs.weights(tmp_path / name, 3) for name in "abc")
    assert runs.same_bits(a, b) and not runs.same_bits(a, c)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_from_there(
    data: TokenStore, tmp_path: Path, number: signal.Signals
) -> None:
    given = runs.settings(schedule_steps=100_000, stop_step=100_000, save_every=100_000, eval_every=100_000)
    process = runs.begin(given, data.folder, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not log.exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    step, finished = out.split()
    assert finished == "False"
    last = runs.losses(tmp_path / "run")[-1]
    assert last[0] == int(step)
    assert checkpoints.damage(tmp_path / "run" / "checkpoints" / kept.name_of(int(step))) is None


def test_a_loss_that_is_not_a_number_stops_before_it_is_learnt_and_names_documents(
    data: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, seen = loop_module.train_step, [], {}

    def poisoned(model, optimiser, batches, **more):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():
                model.model.final_layernorm.bias[0] = float("nan")
            result = real(model, optimiser, batches, **more)
            seen.update({name: one.clone() for name, one in model.named_parameters()})
            return result
        return real(model, optimiser, batches, **more)

    monkeypatch.setattr(loop_module, "train_step", poisoned)
    with pytest.raises(RunError, match=r"step 5: the loss is nan; the step was not learnt from(.|\n)*a\.jsonl row \d+"):
        train(runs.settings(), [data], tmp_path / "run", console=False)
    before = runs.weights(tmp_path / "run", 3)
    assert before.keys() == seen.keys()
    assert not any(seen[name].isnan().any() for name in seen if name != "model.final_layernorm.bias")
    pieces = [json.loads(one) for one in (tmp_path / "run" / "stopped-at-step-5.jsonl").read_text().splitlines()]
    assert len({(one["part"], one["row"]) for one in pieces}) == 8  # all that the step held
    monkeypatch.setattr(loop_module, "train_step", real)
    assert train(runs.settings(), [data], tmp_path / "run", console=False).finished


def test_a_loss_that_explodes_stops_and_where_that_is_off_it_does_not(data: TokenStore, tmp_path: Path) -> None:
    wild = {"lr": 1.0, "stop_step": 40, "schedule_steps": 50, "warmup_steps": 30}
    with pytest.raises(RunError, match=r"its mean was \d"):
        train(runs.settings(explosion=0.05, **wild), [data], tmp_path / "run", console=False)
    assert len(runs.losses(tmp_path / "run")) >= 20
    # The folder's run goes on where the setting is another: it is one of those that may change.
    assert train(runs.settings(explosion=None, **wild), [data], tmp_path / "run", console=False).finished


def test_the_best_by_score_is_kept_and_a_score_that_fails_is_only_said(
    data: TokenStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scores = iter([3.0, 9.0, None, 1.0])

    def score(folder: Path) -> float:
        assert json.loads((folder / "config.json").read_text())["model_type"] == "phi"
        value = next(scores)
        if value is None:
            raise ValueError("no tests ran")
        return value

    result = train(runs.settings(keep_last=1), [data], tmp_path / "run", console=False, score=score)
    there = [one.name for one in kept.all_of(tmp_path / "run" / "checkpoints")]
    assert there == ["step-00000006", "step-00000012"]
    assert result.best is not None and result.best.name == "step-00000006"
    assert "step-00000009 has no score: no tests ran" in capfd.readouterr().err


def test_finetuning_begins_with_the_weights_of_a_run_or_of_hugging_face(data: TokenStore, tmp_path: Path) -> None:
    train(runs.settings(stop_step=3), [data], tmp_path / "base", console=False)
    first = tmp_path / "base" / "checkpoints" / "step-00000003"
    checkpoints.export(first, tmp_path / "exported")
    for name, start in (("a", first), ("b", tmp_path / "exported")):
        train(runs.settings(stop_step=1, lr=1e-9), [data], tmp_path / name, start=start, console=False)
        now, before = runs.weights(tmp_path / name, 1), runs.weights(tmp_path / "base", 3)
        assert all(torch.allclose(now[key], before[key], atol=1e-7) for key in now)
    with pytest.raises(InputError, match="its mlp is 128, the settings' 256"):
        other = runs.settings(fields=runs.FIELDS | {"mlp": 256})
        train(other, [data], tmp_path / "c", start=first, console=False)


def test_a_folder_of_another_run_is_refused_with_what_differs(data: TokenStore, tmp_path: Path) -> None:
    train(runs.settings(stop_step=1), [data], tmp_path / "run", console=False)
    with pytest.raises(InputError, match=r"its run has lr 0\.01, this one 0\.02"):
        train(runs.settings(lr=0.02), [data], tmp_path / "run", console=False)
    with pytest.raises(InputError, match="holds a run"):
        train(runs.settings(stop_step=1), [data], tmp_path / "run", resume="never", console=False)
    with pytest.raises(InputError, match="give the same tokens"):
        train(
            runs.settings(stop_step=1),
            [store(tmp_path / "other", [11] * 90, vocabulary=96)],
            tmp_path / "run",
            console=False,
        )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds files but no settings"):
        train(runs.settings(stop_step=1), [data], tmp_path / "mine", console=False)
    with pytest.raises(InputError, match="vocabulary of 200"):
        big = store(tmp_path / "big", [11] * 90, vocabulary=200)
        train(runs.settings(stop_step=1), [big], tmp_path / "new", console=False)


def test_half_a_line_of_the_log_and_lines_past_the_checkpoint_are_cut(data: TokenStore, tmp_path: Path) -> None:
    train(runs.settings(stop_step=5, save_every=5), [data], tmp_path / "run", console=False)
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    train(runs.settings(stop_step=7), [data], tmp_path / "run", console=False)
    assert [step for step, key, _ in runs.losses(tmp_path / "run") if key == "loss"] == list(range(1, 8))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_follows_float32(data: TokenStore, tmp_path: Path, precision: str) -> None:
    for one in ("fp32", precision):
        train(runs.settings(precision=one), [data], tmp_path / one, console=False)
    pairs = zip(runs.losses(tmp_path / "fp32"), runs.losses(tmp_path / precision), strict=True)
    assert all(abs(a[2] - b[2]) < 0.02 for a, b in pairs)


def test_checkpointing_and_the_kernels_references_change_nothing_but_rounding(data: TokenStore, tmp_path: Path) -> None:
    train(runs.settings(), [data], tmp_path / "a", console=False)
    train(runs.settings(checkpointing=True, kernels="fused"), [data], tmp_path / "b", console=False)
    pairs = zip(runs.losses(tmp_path / "a"), runs.losses(tmp_path / "b"), strict=True)
    assert all(abs(a[2] - b[2]) < 1e-4 for a, b in pairs)
