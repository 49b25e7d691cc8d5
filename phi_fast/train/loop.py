"""The training loop, whole: set up, resume, train, validate, save, log.

    train(Settings(model="tiny", ...), ["tokens"], "run")

Run under torchrun it works on every rank. What it calls stands in files beside it, each of one idea.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from phi_fast.train.settings import Settings


class Result(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    step
        Steps done.
    finished
        False where a signal stopped it before `Settings.steps`; the same call goes on from there.
    loss, validation_loss
        The last of each; None where there was none.
    checkpoint, best
        The newest checkpoint, and the one with the best score or else validation loss; None where there is none.
    """

    step: int
    finished: bool
    loss: float | None
    validation_loss: float | None
    checkpoint: Path | None
    best: Path | None


def train(
    settings: Settings,
    data: Sequence[str | os.PathLike[str] | Any],
    output: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] = "auto",
    device: str | None = None,
    score: Callable[[Path], float] | None = None,
    console: bool = True,
    tensorboard: bool = False,
    wandb: str | None = None,
    profile: bool = False,
) -> Result:
    """Train a phi, or go on with a run that stopped.

    Parameters
    ----------
    settings
        The run.
    data
        Folders of tokens, or `TokenStore`s.
    output
        Folder of the run: settings.json, log.jsonl, loss.png, checkpoints/.
    start
        Weights to begin with, for finetuning: a Hugging Face folder or name, or a checkpoint of another run; None:
        drawn from the seed.
    resume
        "auto": from the newest whole checkpoint of `output`, from the beginning where there is none; "never": refuse a
        folder that holds a run; or a checkpoint of this run.
    device
        "cuda" or "cpu"; None: a GPU where there is one.
    score
        Called after each checkpoint with a Hugging Face folder of the model; the checkpoint with the highest result is
        kept as the best. Without it the lowest validation loss decides.
    console
        Show progress at the terminal.
    tensorboard
        Write TensorBoard's events into `output`/tensorboard too.
    wandb
        Project of Weights & Biases to log to as well.
    profile
        Write a torch.profiler trace of a few steps to `output`/trace.json.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        Settings, data, folder or checkpoint that do not go together.
    RunError
        The loss exploded (the documents are named), a rank was lost, or the last checkpoint could not be written.
    """
    raise NotImplementedError
