"""All a training run is made of, in one place: what a recipe fills in and what a checkpoint is held against."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phi_fast.errors import InputError
from phi_fast.model.config import PhiConfig

MODELS = ("phi_1", "phi_1_small", "tiny")
PRECISIONS = ("bf16", "fp16", "fp32")
STRATEGIES = ("auto", "none", "ddp", "fsdp")
KERNELS = ("auto", "plain", "fused")

FREE = frozenset({
    "stop_step", "micro", "eval_every", "eval_sequences", "save_every", "keep_last", "log_every", "explosion",
    "strategy", "checkpointing", "kernels", "deterministic",
})  # fmt: skip
"""Fields that a resumed run may change: they decide when and how it is computed, not what (but for rounding and, with
`micro`, which units are dropped)."""


@dataclass(frozen=True)
class Settings:
    """A training run: model, batch, schedule, optimiser, and when it looks and saves.

    The defaults are the paper's pretraining of phi-1-base where it says (arXiv 2306.11644), else as marked: *ours*.

    Parameters
    ----------
    model
        Preset of `PhiConfig`: phi_1, phi_1_small or tiny.
    fields
        Fields of `PhiConfig` that differ from the preset, by name.
    attention_dropout, residual_dropout
        Rates; None: the preset's, which for phi_1 and phi_1_small is the paper's 0.1.
    precision
        Of matrix products. bf16 (*ours*) and fp16 (the paper) keep parameters, gradients and moments in float32 and
        compute under autocast, fp16 with a loss scale; fp32 computes in float32.
    length
        Tokens of a sequence.
    batch
        Sequences a step, over all ranks and micro-batches.
    micro
        Sequences of one forward pass of one rank (*ours*); `batch` is a multiple of it and the number of ranks.
    document_masking
        Attention, positions and loss stay within documents; the paper lets them cross (*ours*: off).
    weights
        Share of each token folder in the mixture; None: by their sizes.
    schedule_steps
        Where the learning rate would reach `min_lr`.
    stop_step
        Where the run ends; None: with the schedule. The paper schedules 36,000 steps and uses the model at 24,000.
    warmup_steps
        Steps in which the learning rate rises to `lr`.
    lr, min_lr
        Peak and final learning rate; the fall between is linear.
    betas, eps, clip
        Of AdamW, and the largest gradient norm (None: not clipped), which the paper leaves open (*ours*).
    weight_decay
        Of matrices, embedding included; biases and LayerNorms have none (*ours*).
    seed
        Of the weights, the data's order and dropout.
    held_out
        Share of the windows kept out of training for the validation loss (*ours*); 0: no validation.
    eval_every, eval_sequences
        Steps between validations, and how many held-out sequences each reads.
    save_every, keep_last
        Steps between checkpoints, and how many of the newest are kept, besides the best.
    log_every
        Steps between lines of the log.
    explosion
        The run stops where the loss is not finite, or this far (nats) above its running mean; None: only the first.
    strategy
        Over several ranks: ddp (whole model on each) or fsdp (each holds its part); auto: ddp where there are several.
    checkpointing
        Keep each block's input only and compute the rest again in the backward pass: less memory, a third more work.
    kernels
        plain: PyTorch's operations; fused: phi_fast's kernels; auto: fused on a GPU.
    deterministic
        Only algorithms that give the same bits each time, where PyTorch has them.

    Raises
    ------
    InputError
        A value that is none; the message names the field.
    """

    model: str = "phi_1"
    fields: Mapping[str, Any] = field(default_factory=dict)
    attention_dropout: float | None = None
    residual_dropout: float | None = None
    precision: str = "bf16"
    length: int = 2048
    batch: int = 1024
    micro: int = 8
    document_masking: bool = False
    weights: tuple[float, ...] | None = None
    schedule_steps: int = 36_000
    stop_step: int | None = None
    warmup_steps: int = 750
    lr: float = 1e-3
    min_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float | None = 1.0
    seed: int = 0
    held_out: float = 0.001
    eval_every: int = 500
    eval_sequences: int = 256
    save_every: int = 1000
    keep_last: int = 3
    log_every: int = 1
    explosion: float | None = 3.0
    strategy: str = "auto"
    checkpointing: bool = False
    kernels: str = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        chosen = (("model", MODELS), ("precision", PRECISIONS), ("strategy", STRATEGIES), ("kernels", KERNELS))
        for name, known in chosen:
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r}: give one of {', '.join(known)}")
        for name in ("length", "batch", "micro", "schedule_steps", "eval_every", "eval_sequences", "save_every",
                     "keep_last", "log_every"):  # fmt: skip
            self._whole(name, 1)
        for name in ("warmup_steps", "seed"):
            self._whole(name, 0)
        for name in ("document_masking", "checkpointing", "deterministic"):
            if type(getattr(self, name)) is not bool:
                raise InputError(f"{name} {getattr(self, name)!r}: give true or false")
        self._number("lr", above=0.0)
        self._number("eps", above=0.0)
        for name in ("min_lr", "weight_decay", "held_out"):
            self._number(name, least=0.0)
        for name in ("clip", "explosion"):
            if getattr(self, name) is not None:
                self._number(name, above=0.0)
        if self.stop_step is not None:
            self._whole("stop_step", 1)
        self._relations()
        self.config()

    def _relations(self) -> None:
        if self.batch % self.micro:
            raise InputError(f"batch {self.batch}: no multiple of micro, {self.micro}")
        if self.warmup_steps >= self.schedule_steps:
            raise InputError(
                f"warmup_steps {self.warmup_steps:,}: give fewer than schedule_steps, {self.schedule_steps:,}"
            )
        if self.stop_step is not None and self.stop_step > self.schedule_steps:
            raise InputError(f"stop_step {self.stop_step:,}: beyond schedule_steps, {self.schedule_steps:,}")
        if self.min_lr > self.lr:
            raise InputError(f"min_lr {self.min_lr}: above lr, {self.lr}")
        if self.held_out >= 1:
            raise InputError(f"held_out {self.held_out}: give a share from 0 up to, but not, 1")
        if not isinstance(self.fields, Mapping):
            raise InputError(f"fields {self.fields!r}: give names and values of PhiConfig")
        betas: Any = self.betas  # a recipe gives a list
        weights: Any = self.weights
        if not isinstance(betas, (tuple, list)) or len(betas) != 2 or not all(0 <= one < 1 for one in betas):
            raise InputError(f"betas {betas!r}: give two numbers from 0 up to, but not, 1")
        object.__setattr__(self, "betas", tuple(betas))
        if weights is not None:
            if not isinstance(weights, (tuple, list)) or not all(type(one) in (int, float) for one in weights):
                raise InputError(f"weights {weights!r}: give a number for each folder of tokens")
            object.__setattr__(self, "weights", tuple(weights))

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or value < least:
            raise InputError(f"{name} {value!r}: give a whole number, {least} or more")

    def _number(self, name: str, *, above: float = -math.inf, least: float = -math.inf) -> None:
        value = getattr(self, name)
        if type(value) not in (int, float) or not above < value < math.inf or value < least:
            allowed = f"of {least:g} or more" if above < least else "above 0"
            raise InputError(f"{name} {value!r}: give a number {allowed}")

    @property
    def steps(self) -> int:
        """Where the run ends."""
        return self.schedule_steps if self.stop_step is None else self.stop_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a global batch."""
        return self.batch * self.length

    def config(self) -> PhiConfig:
        """The model's sizes."""
        changes = dict(self.fields)
        for name in ("attention_dropout", "residual_dropout"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        config: PhiConfig = getattr(PhiConfig, self.model)(**changes)
        if self.length > config.max_positions:
            raise InputError(f"length {self.length:,}: over the model's max_positions, {config.max_positions:,}")
        return config

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        held = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()} | {
            "fields": dict(self.fields)
        }

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Settings:
        """The settings of `as_dict`, or of a recipe.

        Raises
        ------
        InputError
            A name that is no field, or a value that is none.
        """
        known = [one.name for one in dataclasses.fields(cls)]
        for name in held:
            if name not in known:
                raise InputError(f'no setting "{name}": there are {", ".join(known)}')
        return cls(**held)

    def check_resumable(self, stored: Mapping[str, Any], where: str) -> None:
        """Refuse to go on with a run that was begun with other settings.

        Raises
        ------
        InputError
            A field outside `FREE` differs; the message names it.
        """
        here = self.as_dict()
        for name, value in here.items():
            if name not in FREE and name in stored and stored[name] != value:
                raise InputError(
                    f"{where}: its run has {name} {stored[name]!r}, this one {value!r}: give the same, or "
                    "another folder"
                )
