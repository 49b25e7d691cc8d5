"""Small runs for the tests of the training loop, in this process or in one of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from phi_fast.model import Phi, PhiConfig
from phi_fast.train.checkpoint import read_model
from phi_fast.train.log import read
from phi_fast.train.settings import Settings

ROOT = Path(__file__).parents[2]
FIELDS = {
    "vocab_size": 96, "rows": 96, "layers": 1, "hidden": 64, "mlp": 128, "heads": 2, "rotary_dim": 16,
    "max_positions": 32, "end_of_text": 0,
}  # fmt: skip
_MAIN = """
import json, sys, torch
torch.set_num_threads(1)
from pathlib import Path
from phi_fast.train.loop import train
from phi_fast.train.settings import Settings
said = json.loads(sys.argv[1])
result = train(Settings.from_dict(said["settings"]), said["data"], said["output"], console=False, **said["more"])
print(result.step, result.finished)
"""


def config(**changes: Any) -> PhiConfig:
    return PhiConfig.tiny(**FIELDS | changes)


def settings(**changes: Any) -> Settings:
    """A run of 12 steps of 8 sequences in two micro-batches, saved each 3."""
    base: dict[str, Any] = {
        "model": "tiny", "fields": FIELDS, "precision": "fp32", "length": 16, "batch": 8, "micro": 4,
        "schedule_steps": 14, "stop_step": 12, "warmup_steps": 2, "lr": 1e-2, "held_out": 0.1, "eval_every": 4,
        "eval_sequences": 6, "save_every": 3, "keep_last": 2,
    }  # fmt: skip
    return Settings(**base | changes)


def command(given: Settings, data: Path, output: Path, **more: Any) -> list[str]:
    said = {"settings": given.as_dict(), "data": [str(data)], "output": str(output), "more": more}
    return [sys.executable, "-c", _MAIN, json.dumps(said)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def begin(given: Settings, data: Path, output: Path, **more: Any) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    return subprocess.Popen(
        command(given, data, output, **more),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def on_two_ranks(
    program: list[str], meanwhile: Callable[[list[subprocess.Popen[str]]], None] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run a command on two ranks, as torchrun starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            program, env=environment(RANK=str(n), LOCAL_RANK=str(n), **shared), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for n in range(2)
    ]  # fmt: skip
    if meanwhile is not None:
        meanwhile(processes)
    ended = []
    for one in processes:
        out, err = one.communicate(timeout=120)
        ended.append(subprocess.CompletedProcess(program, one.returncode, out, err))
    return ended


def status(one: subprocess.CompletedProcess[str]) -> int:
    """The exit status of a rank that raised.

    An abort after the error was told counts as 1: while Python ends, the traceback still holds gloo's groups, whose
    threads are torn down late then, and on a busy machine that sometimes ends in std::terminate.
    """
    late = one.returncode == -signal.SIGABRT and one.stderr.endswith("terminate called without an active exception\n")
    return 1 if late and "Error: " in one.stderr else one.returncode


def losses(output: Path) -> list[tuple[int, str, float]]:
    """Step, kind and value of each loss in the log, in its order."""
    lines = read(output / "log.jsonl")
    return [(one["step"], key, one[key]) for one in lines for key in ("loss", "validation_loss") if key in one]


def weights(output: Path, step: int) -> dict[str, torch.Tensor]:
    """Parameters of a checkpoint."""
    return dict(read_model(output / "checkpoints" / f"step-{step:08d}").state_dict())


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fresh(seed: int = 0, **changes: Any) -> Phi:
    torch.manual_seed(seed)
    return Phi(config(**changes)).train()
