"""What can go wrong around the steps: signals, losses that explode, too little memory, a rank that is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from phi_fast.errors import PhiFastError, RunError
from phi_fast.train.loader import Held, Loader
from phi_fast.train.ranks import Ranks
from phi_fast.train.settings import Settings

_FIRST = 20
_NAMED = 5
_LOST = re.compile(r"closed by peer|reset by peer|broken pipe|nccl|gloo|timed out|connection", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Average:
    """Running mean of the losses: of all of the first twenty, then with a weight of 1/20 for the newest."""

    value: float = 0.0
    count: int = 0

    def after(self, loss: float) -> Average:
        """With one more loss."""
        count = min(self.count + 1, _FIRST)
        return Average(self.value + (loss - self.value) / count, count)

    def limit(self, explosion: float | None) -> float:
        """The largest loss that is no explosion; what is not finite always is."""
        return math.inf if explosion is None or self.count < _FIRST else self.value + explosion


def stop_for(
    step: int, loss: float, norm: float, average: Average, parts: Tensor, loader: Loader, ranks: Ranks, folder: Path
) -> None:
    """Stop for a step that was not learnt from, with the documents it held; all ranks call it.

    Micro-batches whose own loss is not finite come first, then the larger ones; all of them are in
    ``stopped-at-step-N.jsonl``.

    Raises
    ------
    RunError
        Always.
    """
    mine: list[tuple[float, list[Held]]] = []
    for part, value in enumerate(parts.tolist()):
        with contextlib.suppress(PhiFastError):
            mine.append((value if math.isfinite(value) else math.inf, loader.documents(step, part)))
    found = sorted((one for some in ranks.gathered(mine) for one in some), key=lambda one: -one[0])
    if math.inf in (value for value, _ in found):
        found = [one for one in found if one[0] == math.inf]
    path = folder / f"stopped-at-step-{step + 1}.jsonl"
    documents = [one for _, some in found for one in some]
    if ranks.rank == 0:
        with contextlib.suppress(OSError):
            path.write_text("".join(json.dumps(one._asdict()) + "\n" for one in documents))
    if not math.isfinite(loss):
        what = f"the loss is {loss}"
    elif not math.isfinite(norm):
        what = f"the gradient's norm is {norm}"
    else:
        what = f"the loss is {loss:.2f}, its mean was {average.value:.2f}"
    named = "\n".join(f"  {one}" for one in documents[:_NAMED])
    raise RunError(
        f"step {step + 1:,}: {what}; the step was not learnt from. It read, most suspect first:\n{named}\n"
        f"All {len(documents):,} pieces are in {path}. Look at them, or lower lr or raise explosion, and go on from "
        "the last checkpoint."
    )


@contextlib.contextmanager
def signals() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM and SIGINT: gives a function that says whether one came. A second SIGINT interrupts at once."""
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Let PyTorch take only algorithms that give the same bits each time; as before afterwards."""
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def explained(settings: Settings, folder: Path) -> Iterator[None]:
    """Say what to do where a GPU's memory does not suffice or another rank is gone.

    Raises
    ------
    RunError
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        wanted = str(error).split(". ")[:3]
        advice = [f"a smaller micro (now {settings.micro})"]
        if not settings.checkpointing:
            advice.append("checkpointing true")
        if settings.strategy != "fsdp":
            advice.append("strategy fsdp on several GPUs")
        raise RunError(f"too little GPU memory: {'. '.join(wanted)}. What helps: {', '.join(advice)}.") from error
    except RuntimeError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _LOST.search(str(error)):
            first = str(error).strip().split("\n")[0][:200]
            raise RunError(
                f"another rank is gone ({first}). The same command goes on from the newest checkpoint in {folder}."
            ) from error
        raise


@contextlib.contextmanager
def profiling(trace: Path | None) -> Iterator[Callable[[], None]]:
    """Record steps 3 to 5 as a trace for Perfetto or chrome://tracing; gives what to call after each step."""
    if trace is None:
        yield lambda: None
        return
    from torch.profiler import ProfilerActivity, profile, schedule

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with profile(
        activities=kinds,
        schedule=schedule(wait=1, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda one: one.export_chrome_trace(str(trace)),
    ) as recorded:
        yield recorded.step
