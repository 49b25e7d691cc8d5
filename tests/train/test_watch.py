"""The log, the running mean, signals, memory that does not suffice, and which windows are held out."""

from __future__ import annotations

import json
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from phi_fast.errors import InputError, RunError  # noqa: E402
from phi_fast.train import log as logs  # noqa: E402
from phi_fast.train.held_out import PartOrder, hold_out, validation_loss  # noqa: E402
from phi_fast.train.loader import Loader  # noqa: E402
from phi_fast.train.watch import Average, explained, signals  # noqa: E402
from tests.train import runs  # noqa: E402
from tests.train.support import store  # noqa: E402

LINE: dict[str, Any] = {
    "step": 3, "loss": 2.5, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_s": 64_000.0, "mfu_causal": 0.55, "eta_s": 7200.0,
    "memory_gb": 99.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA H200 MIG 1g.18gb", None),
        ("Some other chip", None),
    ],
)
def test_the_peak_is_looked_up_by_the_words_of_the_name(name: str, peak: float | None) -> None:
    assert logs.peak_flops(name) == peak


def test_a_line_says_its_convention_and_is_left_out_where_unknown() -> None:
    assert logs.shown(LINE, 10) == (
        "step 3/10  loss 2.5000  lr 1.00e-03  norm 0.50  64,000 tokens/s  55.0% MFU (causal)  99.5 GB  2.0 h left"
    )
    assert "MFU" not in logs.shown(LINE | {"mfu_causal": None}, 10)
    assert [logs.duration(one) for one in (5, 119, 120, 200_000)] == ["5 s", "119 s", "2.0 min", "2.3 d"]


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    log = logs.Log(tmp_path, {}, console=False)
    log.write(LINE | {"grad_norm": float("inf"), "loss": float("nan")})
    held = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=lambda one: pytest.fail(one))
    assert held["grad_norm"] is None and held["loss"] is None and held["lr"] == 1e-3


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logs.Log(tmp_path, {}, console=False)
    (tmp_path / "log.jsonl").mkdir()
    log.write(LINE)
    log.write(LINE)
    assert capfd.readouterr().err.count("cannot be written") == 1


def test_weights_and_biases_and_tensorboard_get_what_the_log_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    client = types.SimpleNamespace(log=lambda held, step: told.append((step, held)), finish=lambda: told.append("end"))
    module: Any = types.ModuleType("wandb")
    module.init = lambda **more: told.append(more) or client
    monkeypatch.setitem(sys.modules, "wandb", module)
    board: Any = types.ModuleType("torch.utils.tensorboard")

    class SummaryWriter:
        def __init__(self, folder: Path, purge_step: int) -> None:
            told.append(("board", folder.name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self) -> None:
            told.append("closed")

    board.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    log = logs.Log(tmp_path, {"lr": 1}, console=False, wandb="phi", tensorboard=True)
    log.write({"step": 3, "loss": 2.5, "event": "no number"})
    log.close()
    assert told[0]["project"] == "phi" and told[0]["config"] == {"lr": 1} and told[0]["resume"] == "allow"
    assert told[1:] == [("board", "tensorboard", 3), ("loss", 2.5, 3), (3, {"loss": 2.5}), "closed", "end"]


@pytest.mark.parametrize(("module", "how"), [("wandb", {"wandb": "x"}), ("tensorboard", {"tensorboard": True})])
def test_a_logger_that_is_not_installed_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, how: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=f"pip install {module}"):
        logs.Log(tmp_path, {}, console=False, **how)


def test_the_mean_by_hand_and_its_limit() -> None:
    average = Average()
    for loss in (4.0, 2.0):
        average = average.after(loss)
    assert average == Average(3.0, 2) and average.limit(1.0) == float("inf")
    for _ in range(18):
        average = average.after(3.0)
    assert average.limit(1.5) == pytest.approx(4.5) and average.limit(None) == float("inf")
    assert average.after(5.0).value == pytest.approx(3.0 + 2.0 / 20)


def test_the_first_signal_is_noticed_and_a_second_interrupt_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with signals() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_too_little_memory_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(RunError, match=r"Tried to allocate 2\.00 GiB(.|\n)*smaller micro \(now 4\), checkpointing true"),
        explained(runs.settings(), tmp_path),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free. Process 7")
    with pytest.raises(RuntimeError, match=r"^Connection closed by peer$"), explained(runs.settings(), tmp_path):
        raise RuntimeError("Connection closed by peer")  # alone, it is no rank's
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="another rank is gone"), explained(runs.settings(), tmp_path):
        raise RuntimeError("Connection closed by peer")


def test_held_out_windows_are_the_same_for_every_seed_and_never_trained_on() -> None:
    windows, held = [50, 7], [5, 1]
    out = [PartOrder(windows, held, True, None, seed).at(np.arange(6)) for seed in (0, 1)]
    assert all(np.array_equal(a, b) for a, b in zip(*out, strict=True))
    apart = set(zip(out[0].store.tolist(), out[0].window.tolist(), strict=True))
    assert len(apart) == 6
    for seed in (0, 1):
        epoch = PartOrder(windows, held, False, None, seed).at(np.arange(51))
        trained = set(zip(epoch.store.tolist(), epoch.window.tolist(), strict=True))
        assert len(trained) == 51 and not trained & apart
        assert trained | apart == {(n, w) for n, count in enumerate(windows) for w in range(count)}


@pytest.mark.parametrize("masked", [False, True])
def test_the_validation_loss_is_that_of_the_held_out_windows_one_by_one(tmp_path: Path, masked: bool) -> None:
    tokens = store(tmp_path / "tokens", [11] * 127, vocabulary=96)
    loader = Loader([tokens], length=16, batch=8, mask_documents=masked)
    held = hold_out(loader, 0.1, None, 0, length=16, mask_documents=masked)
    assert held is not None and held.windows == 9 and loader.windows == 78
    model = runs.fresh(attention_dropout=0.5)
    found = validation_loss(model, held, 7, 3, "fp32")  # three micro-batches, of the last only one row
    assert model.training
    total, targets = 0.0, 0
    for window in held.order.at(np.arange(7)).window.tolist():
        ids = torch.from_numpy(tokens[window * 16 : window * 16 + 16].astype(np.int64))[None]
        bounds = None
        if masked:
            ends = torch.nonzero(ids[0, :-1] == 0).flatten() + 1
            bounds = torch.cat([torch.tensor([0]), ends, torch.tensor([16])]).int()
        with torch.no_grad():
            total += float(model.eval()(ids, labels=ids, cu_seqlens=bounds, num_items=1).loss)
        targets += 15 if bounds is None else 16 - (len(bounds) - 1)
    assert found == pytest.approx(total / targets, abs=1e-5)
    with pytest.raises(InputError, match="give held_out 0"):
        hold_out(Loader([store(tmp_path / "one", [17])], length=16, batch=1), 0.1, None, 0, length=16)
    assert hold_out(loader, 0.0, None, 0) is None
