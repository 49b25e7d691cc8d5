"""Checkpoints of a run: whole or not there, damage, full disks, other shapes, what is kept, export."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from phi_fast.errors import InputError, RunError  # noqa: E402
from phi_fast.train import checkpoint as checkpoints  # noqa: E402
from phi_fast.train import kept  # noqa: E402
from phi_fast.train.loop import train  # noqa: E402
from phi_fast.train.optimiser import adamw  # noqa: E402
from phi_fast.train.saver import Saver  # noqa: E402
from phi_fast.train.tokens import TokenStore  # noqa: E402
from tests.train import runs  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(data: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with checkpoints at 6, 9 and 12."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(runs.settings(keep_last=3), [data], folder, console=False)
    return folder


def largest(checkpoint: Path) -> Path:
    return max(checkpoint.glob("*.distcp"), key=lambda one: one.stat().st_size)


def cut_short(checkpoint: Path) -> None:
    os.truncate(largest(checkpoint), largest(checkpoint).stat().st_size - 1)


def flip(path: Path) -> None:
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 4
    path.write_bytes(held)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a file cut short": (cut_short, r"\.distcp has [\d,]+ bytes of"),
    "a flipped bit of the weights": (lambda one: flip(largest(one)), "SHA-256 differs"),
    "a flipped bit of the state": (lambda one: flip(one / "state.json"), "SHA-256 differs"),
    "a missing file": (lambda one: (one / ".metadata").unlink(), r"\.metadata is missing"),
    "no manifest": (lambda one: (one / "manifest.json").unlink(), "manifest.json cannot be read"),
    "half a manifest": (lambda one: os.truncate(one / "manifest.json", 20), "manifest.json cannot be read"),
    "an empty folder": (lambda one: (shutil.rmtree(one), one.mkdir()), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    data: TokenStore, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage, said = DAMAGES[how]
    damage(run / "checkpoints" / "step-00000012")
    assert re.search(said, checkpoints.damage(run / "checkpoints" / "step-00000012") or "")
    result = train(runs.settings(keep_last=1), [data], run)
    told = capfd.readouterr().err
    assert "step-00000012: damaged" in told and f"going on from {run / 'checkpoints' / 'step-00000009'}" in told
    assert re.search(r"step 12/12  loss 4\.\d{4}  lr \d\.\d\de-0\d", told) and "step 9/12" not in told
    assert result.step == 12 and runs.losses(run) == runs.losses(finished)
    assert runs.same_bits(runs.weights(run, 12), runs.weights(finished, 12))
    assert [one.name for one in kept.all_of(run / "checkpoints")] == ["step-00000012"]


def test_where_all_are_damaged_the_run_begins_anew(data: TokenStore, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for one in kept.all_of(run / "checkpoints"):
        cut_short(one)
    train(runs.settings(), [data], run, console=False)
    assert runs.losses(run) == runs.losses(finished)
    assert len(list((run / "checkpoints").glob("aside-step-*"))) == 3


def test_a_checkpoint_given_is_gone_on_from_and_newer_ones_set_aside(
    data: TokenStore, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    given = run / "checkpoints" / "step-00000009"
    train(runs.settings(), [data], run, resume=given, console=False)
    assert (run / "checkpoints" / "aside-step-00000012").is_dir()
    assert runs.same_bits(runs.weights(run, 12), runs.weights(finished, 12))
    cut_short(given)
    with pytest.raises(InputError, match="step-00000009: damaged"):
        train(runs.settings(), [data], run, resume=given, console=False)


def test_a_disk_that_is_full_for_a_while_costs_no_step(
    data: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real, times = checkpoints.dcp.save, []

    def full(*given: Any, **more: Any) -> Any:
        times.append(1)
        if len(times) == 2:
            real(*given, **more)  # what was written before the disk was full
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **more)

    monkeypatch.setattr(checkpoints.dcp, "save", full)
    result = train(runs.settings(keep_last=9), [data], tmp_path / "run", console=False)
    told = capfd.readouterr().err
    assert told.count("step-00000006 was not written: [Errno 28] No space left on device. Training goes on") == 1
    assert result.finished
    there = [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()]
    assert sorted(there) == ["step-00000003", "step-00000009", "step-00000012"]


def test_a_disk_without_room_for_the_last_checkpoint_is_an_error_that_says_how_much(
    data: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(runs.settings(stop_step=3), [data], tmp_path / "run", console=False)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10))
    with pytest.raises(RunError, match=r"the disk has 0\.00 GB free, a checkpoint needs 0\.00(.|\n)*the same command"):
        train(runs.settings(), [data], tmp_path / "run", console=False)
    assert [one.name for one in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_checkpoint_of_another_shape_names_the_tensor(finished: Path) -> None:
    path = finished / "checkpoints" / "step-00000012"
    with pytest.raises(InputError, match=r'"model\.model\.layers\.0\.mlp\.fc1\.weight" has shape \(128, 64\), this'):
        checkpoints.load(path, runs.fresh(mlp=256))
    with pytest.raises(InputError, match=r'has no tensor "model\.model\.layers\.1\.'):
        checkpoints.load(path, runs.fresh(layers=2))
    with pytest.raises(InputError, match="is no checkpoint"):
        checkpoints.export(finished, finished / "x")


def test_training_goes_on_while_a_checkpoint_is_written_of_the_state_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, go = checkpoints.dcp.save, threading.Event()

    def slow(*given: Any, **more: Any) -> Any:
        assert go.wait(30)
        return real(*given, **more)

    monkeypatch.setattr(checkpoints.dcp, "save", slow)
    model = runs.fresh()
    optimiser = adamw(model, lr=1.0)
    saver = Saver(tmp_path, keep_last=2)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    saver.save(model, optimiser, {"step": 1, "model": dict(vars(model.config))})
    with torch.no_grad():
        for one in model.parameters():
            one += 1.0  # while nothing is written yet
    assert kept.all_of(tmp_path) == []
    go.set()
    saver.wait()
    assert saver.failed is None and saver.written == tmp_path / "step-00000001"
    assert runs.same_bits(dict(checkpoints.read_model(saver.written).state_dict()), before)


def test_what_a_kill_leaves_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    for name in (".step-00000003.part", ".step-00000001.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    assert kept.all_of(tmp_path) == [] and kept.newest(tmp_path, print) is None
    kept.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_exported_checkpoint_generates_in_transformers(finished: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = finished / "checkpoints" / "step-00000009"
    checkpoints.export(path, tmp_path / "model")
    theirs = transformers.PhiForCausalLM.from_pretrained(tmp_path / "model")
    ours = checkpoints.read_model(path)
    prompt = torch.tensor([[5, 17, 3]])
    answer = theirs.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, 3:].tolist()
    assert answer[: len(mine := ours.generate(prompt, 8)[0])] == mine and len(mine) > 0
    checkpoints.export(path, tmp_path / "half", dtype="bfloat16")
    assert transformers.PhiForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.bfloat16
    with pytest.raises(InputError, match="dtype 'int8'"):
        checkpoints.export(path, tmp_path / "x", dtype="int8")
