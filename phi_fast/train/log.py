"""What a person sees of a run: lines of JSON, a line at the terminal, TensorBoard, Weights & Biases, a plot."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi_fast.errors import InputError

LOG, PLOT = "log.jsonl", "loss.png"
_INFINITE = (math.inf, -math.inf)

PEAKS = {
    "GB200": 2500e12, "B200": 2250e12, "H200": 989e12, "GH200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12,
    "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12, "L40": 181e12, "L4": 121e12,
    "A40": 150e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip
"""bf16 FLOP/s of NVIDIA's data sheets, dense, float32 sums, by words of the device's name; the longest is looked up."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by its name; None where the table has none, as for a part of a GPU (MIG)."""
    words = f" {' '.join(device_name.replace('-', ' ').split())} "
    if " MIG " in words:
        return None
    return next((PEAKS[name] for name in sorted(PEAKS, key=len, reverse=True) if f" {name} " in words), None)


class Log:
    """Writes the log of a run; only rank 0 has one that does anything.

    A disk that is full stops no run: it is said once, and the file goes on when there is room.

    Parameters
    ----------
    folder
        Of the run.
    settings
        For Weights & Biases.
    on
        Whether this process logs at all.
    console
        Show lines at the terminal.
    tensorboard, wandb
        See `train`.

    Raises
    ------
    InputError
        TensorBoard or Weights & Biases is wanted and not installed.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        on: bool = True,
        console: bool = True,
        tensorboard: bool = False,
        wandb: str | None = None,
    ) -> None:
        self._path, self._on, self._said = folder / LOG, on, False
        self._console: Any = None
        self._board: Any = None
        self._board_class: Any = None
        self._wandb: Any = None
        if not on:
            return
        if console:
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError("TensorBoard is not installed: pip install tensorboard") from error
            self._board_class = SummaryWriter
        if wandb is not None:
            try:
                import wandb as client  # type: ignore[import-not-found,unused-ignore]
            except ImportError as error:
                raise InputError("Weights & Biases is not installed: pip install wandb") from error
            # One run for all resumptions: its id is the folder's.
            self._wandb = client.init(
                project=wandb, id=_wandb_id(folder), resume="allow", dir=str(folder), config=dict(settings)
            )

    def step(self, line: Mapping[str, Any], steps: int) -> None:
        """A line of a training step; `steps` is where the run ends."""
        self.write(line)
        if self._console:
            self._console.print(shown(line, steps), soft_wrap=True)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line, on the disk's side of the process at once: a kill takes none back."""
        if not self._on:
            return
        held = {name: None if value != value or value in _INFINITE else value for name, value in line.items()}
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(held) + "\n")
            self._said = False
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, size)  # of a full disk, so that half a line is not gone on with
            if not self._said:
                self.warn(f"{self._path}: cannot be written ({error.strerror}); the run goes on without it")
            self._said = True
        numbers = {name: value for name, value in line.items() if type(value) in (int, float) and name != "step"}
        if self._board_class and not self._board:
            # What an earlier process logged of this step and later ones is done again.
            self._board = self._board_class(self._path.with_name("tensorboard"), purge_step=line["step"])
        if self._board:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, line["step"])
        if self._wandb:
            self._wandb.log(numbers, step=line["step"])

    def say(self, sentence: str) -> None:
        """Tell the person at the terminal."""
        if self._console:
            self._console.print(sentence, soft_wrap=True, markup=False)

    def warn(self, sentence: str) -> None:
        """Tell it with or without a console: something went wrong, and the run goes on."""
        if self._console:
            self._console.print(sentence, style="yellow", soft_wrap=True, markup=False)
        elif self._on:
            print(sentence, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Finish, and draw the plot."""
        if not self._on:
            return
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()
        try:
            plot(self._path, self._path.with_name(PLOT))
        except OSError as error:
            self.warn(f"{self._path.with_name(PLOT)}: {error.strerror}")


def _wandb_id(folder: Path) -> str:
    import hashlib

    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def cut(folder: Path, step: int) -> None:
    """Take out of the log what came after a step, which is about to be done again, and a line a kill left half."""
    path = folder / LOG
    if not path.exists():
        return
    kept = [line for line in read(path) if line["step"] <= step]
    temporary = path.with_name(f".{LOG}.part")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(temporary, path)


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


def shown(line: Mapping[str, Any], steps: int) -> str:
    """A step's line at the terminal."""
    parts = [f"step {line['step']:,}/{steps:,}", f"loss {line['loss']:.4f}", f"lr {line['lr']:.2e}"]
    parts.append(f"norm {line['grad_norm']:.2f}")
    if line.get("tokens_per_s"):
        parts.append(f"{line['tokens_per_s']:,.0f} tokens/s")
    if line.get("mfu_causal") is not None:
        parts.append(f"{line['mfu_causal']:.1%} MFU (causal)")
    if line.get("memory_gb") is not None:
        parts.append(f"{line['memory_gb']:.1f} GB")
    if line.get("eta_s") is not None:
        parts.append(f"{duration(line['eta_s'])} left")
    if line.get("skipped"):
        parts.append("skipped: fp16 overflow")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """A time in the unit a person would use."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


class Clock:
    """Time between lines of the log, without validation and saving, and what of it went to waiting for data."""

    def __init__(self) -> None:
        self._last, self._outside, self.waited, self.steps = time.perf_counter(), 0.0, 0.0, 0

    def pause(self, since: float) -> None:
        """Leave out the time since a moment of time.perf_counter."""
        self._outside += time.perf_counter() - since

    def lap(self) -> tuple[float, float, int]:
        """Seconds since the last lap, those of them that steps waited for data, and how many steps there were."""
        now = time.perf_counter()
        seconds, waited, steps = now - self._last - self._outside, self.waited, self.steps
        self._last, self._outside, self.waited, self.steps = now, 0.0, 0.0, 0
        return seconds, waited, steps


def plot(log: Path, picture: Path) -> None:
    """Draw the losses of a log by step; nothing where there are none."""
    if not log.exists():
        return
    lines = read(log)
    curves = {
        name: [(one["step"], one[key]) for one in lines if isinstance(one.get(key), float)]
        for name, key in (("training", "loss"), ("held out", "validation_loss"))
    }
    if not curves["training"]:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, points in curves.items():
        if points:
            marks = {"marker": "o", "markersize": 3} if name == "held out" else {"linewidth": 1}
            axes.plot(*zip(*points, strict=True), label=name, **marks)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=150)
