"""The training loop, whole: set up, resume, train, validate, save, log.

    train(Settings(model="tiny", ...), ["tokens"], "run")

Run under torchrun it works on every rank. What it calls stands in files beside it, each of one idea; `train_step` is
the step.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from phi_fast.errors import InputError, PhiFastError, RunError
from phi_fast.train import checkpoint as checkpoints
from phi_fast.train import kept
from phi_fast.train.held_out import hold_out, validation_loss
from phi_fast.train.loader import Loader
from phi_fast.train.log import Clock, Log, cut, peak_flops
from phi_fast.train.optimiser import adamw, set_learning_rate
from phi_fast.train.ranks import Ranks, bare, joined, make_model, spread
from phi_fast.train.run_folder import check_same, claim, identity, open_data
from phi_fast.train.saver import Saver
from phi_fast.train.schedule import learning_rate
from phi_fast.train.settings import Settings
from phi_fast.train.step import LossScale, StepResult, train_step
from phi_fast.train.tokens import TokenStore
from phi_fast.train.watch import Average, deterministic, explained, profiling, signals, stop_for

CHECKPOINTS, TRACE = "checkpoints", "trace.json"


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
    data: Sequence[str | os.PathLike[str] | TokenStore],
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
        Called after each checkpoint, on rank 0, with a Hugging Face folder of the model; the checkpoint with the
        highest result is kept as the best. Without it the lowest validation loss decides.
    console
        Show progress at the terminal; what goes wrong is told there in any case.
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
        The loss exploded (the documents are named), memory did not suffice, a rank was lost, or the last checkpoint
        could not be written.
    """
    folder = Path(output)
    with deterministic(settings.deterministic), joined(settings.strategy, device) as ranks, explained(settings, folder):
        loader = open_data(settings, data, ranks)
        held_out = hold_out(
            loader, settings.held_out, settings.weights, settings.seed, length=settings.length, rank=ranks.rank,
            mask_documents=settings.document_masking, world=ranks.world,
        )  # fmt: skip
        facts: dict[str, Any] = {"settings": settings.as_dict(), "data": identity(loader)}
        facts["model"] = dict(vars(settings.config()))
        ranks.first(lambda: claim(folder, facts, resume))
        shown: dict[str, Any] = {"console": console, "tensorboard": tensorboard, "wandb": wandb}
        log = Log(folder, facts["settings"], on=ranks.rank == 0, **shown)
        try:
            run = _Run(settings, folder, ranks, loader, held_out, log, facts, score)
            run.set_up(start, resume)
            with profiling(folder / TRACE if profile and ranks.rank == 0 else None) as profiled:
                try:
                    return run.go(profiled)
                except PhiFastError:
                    run.saver.wait()  # what is being written is whole and worth having
                    raise
        finally:
            log.close()


class _Run:
    """What the steps of one run share."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        ranks: Ranks,
        loader: Loader,
        held_out: Loader | None,
        log: Log,
        facts: dict[str, Any],
        score: Callable[[Path], float] | None,
    ) -> None:
        self.settings, self.folder, self.ranks, self.log = settings, folder, ranks, log
        self.loader, self.held_out, self.facts, self.score = loader, held_out, facts, score
        self.saver = Saver(folder / CHECKPOINTS, settings.keep_last, ranks.writer)
        self.step, self.average = 0, Average()
        self.loss: float | None = None
        self.validation: float | None = None
        self.reported: str | None = None

    def set_up(self, start: str | os.PathLike[str] | None, resume: str | os.PathLike[str]) -> None:
        """Model and optimiser, from a checkpoint where there is one."""
        settings, ranks = self.settings, self.ranks
        begun = ranks.first(lambda: self._found(resume))
        # What the checkpoint holds need not be read twice.
        model = make_model(settings, start if begun is None else None, ranks.device)
        self.model, self.precision = spread(model, ranks, settings.precision)
        self.optimiser = adamw(
            self.model, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
        self.scale = LossScale(ranks.device) if settings.precision == "fp16" else None
        if ranks.rank == 0:
            cut(self.folder, 0 if begun is None else checkpoints.read_state(begun)["step"])
        if begun is None:
            return
        state = checkpoints.load(begun, bare(self.model), self.optimiser, ranks.control)
        self.step, self.loss, self.validation = state["step"], state["loss"], state["validation_loss"]
        self.average = Average(*state["average"])
        if self.scale is not None:
            self.scale.load(state["scale"])
        self.saver.written = begun
        self.log.say(f"going on from {begun}")
        if self.score is not None and ranks.rank == 0 and begun.name not in kept.read_scores(begun.parent):
            self._score(begun, self.score)

    def go(self, profiled: Callable[[], None]) -> Result:
        """Train until the end or a signal, and save."""
        settings, clock = self.settings, Clock()
        steps: Any = self.loader.steps(self.step, settings.steps)
        with signals() as asked, contextlib.closing(steps) as batches:
            stopped = self.ranks.any(asked())
            while self.step < settings.steps and not stopped:
                since = time.perf_counter()
                number, parts = next(batches)
                clock.waited += time.perf_counter() - since
                lr = learning_rate(
                    number, peak=settings.lr, warmup_steps=settings.warmup_steps, final=settings.min_lr,
                    schedule_steps=settings.schedule_steps,
                )  # fmt: skip
                set_learning_rate(self.optimiser, lr)
                result = train_step(
                    self.model, self.optimiser, parts, precision=self.precision, clip=settings.clip, scale=self.scale,
                    limit=self.average.limit(settings.explosion), seed=(settings.seed, number),
                )  # fmt: skip
                self._after(number, lr, result, clock)
                profiled()
                since = time.perf_counter()
                self._report_saving()
                last = self.step == settings.steps
                self.validation = None
                if self.held_out is not None and (last or self.step % settings.eval_every == 0):
                    self._validate(self.held_out)
                stopped = self.ranks.any(asked())
                if last or stopped or self.step % settings.save_every == 0:
                    self._save(wait=last or stopped)
                clock.pause(since)
        return self._result()

    def _after(self, number: int, lr: float, result: StepResult, clock: Clock) -> None:
        """Look at what the step came to, and log it. Here, once a step, the host waits for the GPU."""
        settings = self.settings
        loss, norm, skipped = (float(one) for one in (result.loss, result.grad_norm, result.skipped))
        overflow = self.scale is not None and math.isfinite(loss) and not math.isfinite(norm)
        if skipped and not overflow:
            stop_for(number, loss, norm, self.average, result.parts, self.loader, self.ranks, self.folder)
        self.step, self.loss, clock.steps = number + 1, loss, clock.steps + 1
        self.average = self.average.after(loss)
        if self.step % settings.log_every and self.step != settings.steps:
            return
        seconds, waited, done = clock.lap()
        rate = done * settings.tokens_per_step / seconds
        peak = memory = None
        if self.ranks.device.type == "cuda":
            peak = peak_flops(torch.cuda.get_device_name(self.ranks.device))
            memory = torch.cuda.max_memory_allocated(self.ranks.device) / 1e9
        flops = settings.config().flops_per_token(settings.length, causal=True)
        line = {
            "step": self.step, "loss": loss, "lr": lr, "grad_norm": norm,
            "tokens": self.step * settings.tokens_per_step,
            "epochs": self.loader.epochs(self.step), "tokens_per_s": rate,
            "mfu_causal": None if peak is None else rate * flops / peak / self.ranks.world,
            "memory_gb": memory, "seconds": seconds, "waited_for_data_s": waited,
            "eta_s": (settings.steps - self.step) * seconds / done,
        }  # fmt: skip
        if self.scale is not None:
            line |= {"loss_scale": float(self.scale.value), "skipped": bool(skipped)}
        self.log.step(line, settings.steps)

    def _validate(self, held_out: Loader) -> None:
        settings = self.settings
        loss = validation_loss(self.model, held_out, settings.eval_sequences, settings.micro, self.precision)
        self.validation = loss
        self.log.write({"step": self.step, "validation_loss": loss})
        self.log.say(f"step {self.step:,}: validation loss {loss:.4f}")

    def _save(self, wait: bool) -> None:
        """Begin to write a checkpoint; the last one is waited for, and must succeed."""
        self.saver.wait()
        self._report_saving()
        state = {
            **self.facts, "step": self.step, "loss": self.loss, "validation_loss": self.validation,
            "average": [self.average.value, self.average.count],
            "scale": None if self.scale is None else self.scale.state(),
        }  # fmt: skip
        self.saver.save(bare(self.model), self.optimiser, state)
        if wait or self.score is not None:
            self.saver.wait()
        if wait and self.saver.failed:
            raise RunError(f"{self.saver.failed}. Make room; the same command goes on from the checkpoint before.")
        if self.score is not None and self.saver.failed is None and self.ranks.rank == 0:
            self._score(self.saver.folder / kept.name_of(self.step), self.score)

    def _report_saving(self) -> None:
        """Say once that a checkpoint could not be written."""
        if self.saver.failed and self.saver.failed != self.reported:
            self.reported = self.saver.failed
            self.log.warn(f"{self.reported}. Training goes on, those before are kept, the next save tries again.")
            self.log.write({"step": self.step, "event": self.reported})

    def _score(self, path: Path, score: Callable[[Path], float]) -> None:
        exported = self.folder / "scored"
        try:
            checkpoints.export(path, exported)
            value = float(score(exported))
        except Exception as error:  # whatever a person's score does, the run goes on
            self.log.warn(f"{path.name} has no score: {error}")
            return
        kept.set_score(path, value)
        kept.prune(self.saver.folder, self.settings.keep_last)
        self.log.write({"step": self.step, "score": value})
        self.log.say(f"step {self.step:,}: score {value:g}")

    def _found(self, resume: str | os.PathLike[str]) -> Path | None:
        """The checkpoint to go on from; its settings and data are those of this run."""
        there = self.folder / CHECKPOINTS
        kept.sweep(there)
        if resume in ("auto", "never"):
            found = kept.newest(there, self.log.warn)
        else:
            found = Path(resume)
            if problem := checkpoints.damage(found):
                raise InputError(f"{found}: damaged: {problem}")
        if found is not None:
            check_same(self.facts, checkpoints.read_state(found), str(found))
        # What is newer would be taken for the newest of this run once it is whole again, or crowd out what is whole.
        kept.set_aside(there, found, self.log.warn)
        return found

    def _result(self) -> Result:
        best = kept.best(self.saver.folder)
        finished = self.step >= self.settings.steps
        return Result(self.step, finished, self.loss, self.validation, self.saver.written, best)
