"""Two processes of gloo, in DistributedDataParallel and in fully_shard, give what one process gives."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from phi_fast.train import checkpoint as checkpoints  # noqa: E402
from phi_fast.train import kept  # noqa: E402
from phi_fast.train.loop import train  # noqa: E402
from phi_fast.train.tokens import TokenStore  # noqa: E402
from tests.train import runs  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def close(a: Path, b: Path, step: int) -> None:
    pairs = list(zip(runs.losses(a), runs.losses(b), strict=True))
    assert pairs and all(x[:2] == y[:2] and abs(x[2] - y[2]) < 1e-5 for x, y in pairs)
    here, there = runs.weights(a, step), runs.weights(b, step)
    assert all(torch.allclose(here[name], there[name], atol=1e-5) for name in here)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_give_what_one_gives_and_go_on_with_each_others_checkpoints(
    data: TokenStore, tmp_path: Path, strategy: str
) -> None:
    # Of a batch of 8 and micro 2, each of two ranks accumulates over two micro-batches; with dropout and ragged
    # documents, whose masks and counts do not depend on who computes them.
    given = runs.settings(
        micro=2, attention_dropout=0.1, residual_dropout=0.1, document_masking=True, strategy=strategy, eps=1e-5,
        checkpointing=strategy == "fsdp", eval_every=3,
    )  # fmt: skip
    train(given, [data], tmp_path / "one", console=False)
    half = runs.Settings.from_dict(given.as_dict() | {"stop_step": 6})
    for one in runs.on_two_ranks(runs.command(half, data.folder, tmp_path / "two")):
        assert one.returncode == 0, one.stderr
        assert one.stdout.split() == ["6", "True"]
    middle = tmp_path / "two" / "checkpoints" / "step-00000006"
    assert len(list(middle.glob("*.distcp"))) == 2 and checkpoints.damage(middle) is None
    if strategy == "ddp":  # the rest alone, from two ranks' checkpoint
        train(given, [data], tmp_path / "two", console=False)
    else:  # the rest as ddp, from fsdp's
        other = runs.Settings.from_dict(given.as_dict() | {"strategy": "ddp"})
        for one in runs.on_two_ranks(runs.command(other, data.folder, tmp_path / "two")):
            assert one.returncode == 0, one.stderr
    close(tmp_path / "one", tmp_path / "two", 12)


@pytest.mark.parametrize(("precision", "kernels"), [("bf16", "fused"), ("fp16", "plain")])
def test_lower_precision_in_parts_follows_one_process(
    data: TokenStore, tmp_path: Path, precision: str, kernels: str
) -> None:
    given = runs.settings(precision=precision, kernels=kernels, strategy="fsdp", stop_step=4, eps=1e-5)
    train(given, [data], tmp_path / "one", console=False)
    for one in runs.on_two_ranks(runs.command(given, data.folder, tmp_path / "two")):
        assert one.returncode == 0, one.stderr
    pairs = list(zip(runs.losses(tmp_path / "one"), runs.losses(tmp_path / "two"), strict=True))
    assert len(pairs) == 5 and all(abs(x[2] - y[2]) < 0.02 for x, y in pairs)


def test_what_one_rank_refuses_all_refuse(data: TokenStore, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for one in runs.on_two_ranks(runs.command(runs.settings(), data.folder, tmp_path / "mine")):
        assert runs.status(one) == 1 and "holds files but no settings.json" in one.stderr
    for one in runs.on_two_ranks(runs.command(runs.settings(strategy="none"), data.folder, tmp_path / "new")):
        assert runs.status(one) == 1 and "strategy 'none' on 2 ranks: give ddp or fsdp" in one.stderr


def test_a_rank_that_is_lost_is_said_and_the_run_goes_on_from_its_checkpoint(data: TokenStore, tmp_path: Path) -> None:
    given = runs.settings(micro=2, schedule_steps=9000, stop_step=9000, save_every=5, eval_every=5000, strategy="ddp")

    def kill(processes: list[subprocess.Popen[str]]) -> None:
        while not kept.all_of(tmp_path / "run" / "checkpoints"):
            assert processes[0].poll() is None
            time.sleep(0.02)
        processes[1].kill()

    first, second = runs.on_two_ranks(runs.command(given, data.folder, tmp_path / "run"), kill)
    assert second.returncode == -9
    assert runs.status(first) == 1 and "another rank is gone" in first.stderr
    there = kept.all_of(tmp_path / "run" / "checkpoints")
    assert there and checkpoints.damage(there[-1]) is None
    step = checkpoints.read_state(there[-1])["step"]
    short = runs.Settings.from_dict(given.as_dict() | {"stop_step": step + 2})
    assert train(short, [data], tmp_path / "run", console=False).finished


@pytest.mark.parametrize("world", [1, 2])
def test_files_that_cannot_grow_cost_no_step_but_the_last_save_says_so(
    data: TokenStore, tmp_path: Path, world: int
) -> None:
    """A real failure of the disk in the midst of a file, by the limit on a file's size."""
    python, flag, code, said = runs.command(runs.settings(micro=2, strategy="auto"), data.folder, tmp_path / "run")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    program = [python, flag, limit + code, said]
    if world == 1:
        done = [subprocess.run(program, env=runs.environment(), text=True, capture_output=True, timeout=120)]
    else:
        done = runs.on_two_ranks(program)
    for one in done:
        assert runs.status(one) == 1
        assert re.search(r"RunError: \S+step-00000012 was not written: (.|\n)*File too large", one.stderr), one.stderr
    for step in (3, 6, 9):
        assert f"step-{step:08d} was not written" in done[0].stderr
    assert len([line for line in runs.losses(tmp_path / "run") if line[1] == "loss"]) == 12
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
