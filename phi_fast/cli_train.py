"""``phi-fast train``, ``finetune``, ``export`` and ``plan``, thin: parse, call, print."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option
from phi_fast.errors import InputError

if TYPE_CHECKING:
    from phi_fast.train.loop import Result
    from phi_fast.train.plan import Plan
    from phi_fast.train.settings import Settings

_SHOWN = "What is shown"
_RECIPE = "A name (phi_1_base, phi_1, phi_1_small, tiny, tiny_exercises) or a Python file."

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help=_RECIPE, show_default=False)]
Changes = Annotated[
    list[str] | None, option("--set", metavar="FIELD=VALUE", help="Change a setting of the recipe; repeat.")
]
Data = Annotated[
    list[str], option("--data", metavar="TOKENS", help="Folder of tokens, by phi-fast tokenize; repeat for a mixture.")
]
Output = Annotated[Path, option("--output", "-o", metavar="RUN", help="Folder for all of the run.")]
Resume = Annotated[
    str,
    option("--resume", panel=opt.RUNNING, help="auto (go on) unless given, never, or one of its checkpoints."),
]
Score = Annotated[
    str | None,
    option(
        "--score", metavar="COMMAND",
        help="Shell command that prints a number last; {model} in it is the exported model. The highest is kept.",
    ),
]  # fmt: skip
Device = Annotated[str | None, option("--device", panel=opt.RUNNING, help="cuda or cpu; a GPU where there is one.")]
Board = Annotated[bool, typer.Option("--tensorboard", rich_help_panel=_SHOWN, help="Write TensorBoard's events too.")]
Wandb = Annotated[str | None, option("--wandb", metavar="PROJECT", panel=_SHOWN, help="Log to Weights & Biases too.")]
Profile = Annotated[bool, typer.Option("--profile", rich_help_panel=_SHOWN, help="Write a trace of steps 3 to 5.")]


@guarded
def train(
    recipe: Recipe,
    data: Data,
    output: Output,
    changes: Changes = None,
    score: Score = None,
    resume: Resume = "auto",
    device: Device = None,
    tensorboard: Board = False,
    wandb: Wandb = None,
    profile: Profile = False,
    quiet: opt.Quiet = False,
) -> None:
    """Pretrain a phi by a recipe.

    The same command goes on where a run stopped. RUN holds settings.json, log.jsonl, loss.png and checkpoints/.

    [bold]Examples[/]

    phi-fast train tiny --data tokens --output run

    phi-fast train phi_1_base --data web --data textbooks --set weights=[0.7,0.3] --set micro=16 --output phi-1-base

    torchrun --nproc-per-node 8 --no-python phi-fast train phi_1_base --data tokens --output phi-1-base
    """
    _need_torch()
    from phi_fast.train.recipes import read_recipe

    settings = read_recipe(recipe, changes or ())
    _run(settings, data, output, None, score, resume, device, tensorboard, wandb, profile, quiet)


@guarded
def finetune(
    start: Annotated[
        str, option("--from", metavar="CHECKPOINT", help="A checkpoint, a run (its newest one), or a Hugging Face phi.")
    ],
    data: Data,
    output: Output,
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help=f"{_RECIPE} phi_1 unless given.", show_default=False)
    ] = "phi_1",
    changes: Changes = None,
    score: Score = None,
    resume: Resume = "auto",
    device: Device = None,
    tensorboard: Board = False,
    wandb: Wandb = None,
    profile: Profile = False,
    quiet: opt.Quiet = False,
) -> None:
    """Finetune a phi, and keep its best checkpoint.

    The model is that of CHECKPOINT, all else the recipe's. A checkpoint is saved every save_every steps; the best is
    kept: by --score, else by the loss on what is held out.

    [bold]Examples[/]

    phi-fast finetune --from phi-1-base --data exercises --output phi-1

    phi-fast finetune --from phi-1-base --data exercises --output phi-1 --score "python my_score.py {model}"

    phi-fast finetune tiny_exercises --from tiny --data exercises --set save_every=10 --output tiny-exercises
    """
    _need_torch()
    from phi_fast.train.begin import checkpoint_of, settings_for
    from phi_fast.train.recipes import changed, read_recipe

    settings, found = read_recipe(recipe), checkpoint_of(start)
    if found is not None:
        settings = settings_for(settings, found, data)
    settings = changed(settings, changes or ())
    _run(settings, data, output, found or start, score, resume, device, tensorboard, wandb, profile, quiet)


@guarded
def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, or a run: its newest one.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", metavar="FOLDER", help="Folder for the model.")],
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint of a run: by score, else by loss.")] = False,
    tokens: Annotated[
        Path | None, option("--tokens", metavar="TOKENS", help="Tokens it was trained on: their tokenizer goes along.")
    ] = None,
    dtype: Annotated[str | None, option("--dtype", help="float32, bfloat16 or float16; float32 unless given.")] = None,
) -> None:
    """Write a checkpoint as Hugging Face's safetensors; the run may go on meanwhile.

    [bold]Examples[/]

    phi-fast export phi-1 --best --tokens exercises --output phi-1-hf

    phi-fast export run/checkpoints/step-00001000 --dtype bfloat16 --output model
    """
    _need_torch()
    from phi_fast.train.begin import checkpoint_of, export_with_tokenizer

    found = checkpoint_of(checkpoint, best=best)
    if found is None:
        raise InputError(f"{checkpoint}: neither a checkpoint nor a run")
    export_with_tokenizer(found, output, tokens, dtype)
    console().print(f"{found.name}: {output}", markup=False, soft_wrap=True)


def _list_gpus(wanted: bool) -> None:
    if wanted:
        from phi_fast.train.gpus import GPUS

        for name, one in GPUS.items():
            _say(f"{name:<11} {one.memory / 1e9:>4.0f} GB {one.peak / 1e12:>6,.0f} TFLOP/s  {one.source}")
        raise typer.Exit


@guarded
def plan(
    recipe: Recipe,
    gpu: Annotated[str, option("--gpu", help="Which one; h200 unless given; --gpus lists them.")] = "h200",
    count: Annotated[int, option("--count", help="How many; 1 unless given.")] = 1,
    mfu: Annotated[
        float,
        option("--mfu", help="Share of the peak reached; 0.5 unless given, the paper's."),
    ] = 0.5,
    price: Annotated[float | None, option("--price", help="Of one GPU for an hour, in any currency.")] = None,
    changes: Changes = None,
    gpus: Annotated[
        bool, typer.Option("--gpus", callback=_list_gpus, is_eager=True, help="List the GPUs and end.")
    ] = False,
) -> None:
    """Reckon a run's memory, days and cost before anyone pays.

    Memory follows what the code keeps, time is operations over the data sheet's peak times the MFU you assume.

    [bold]Examples[/]

    phi-fast plan phi_1_base --gpu h200 --count 8 --price 3.0

    phi-fast plan phi_1_base --gpu l4 --count 8 --mfu 0.4 --set micro=2 --set strategy=fsdp
    """
    from phi_fast.train.gpus import find_gpu
    from phi_fast.train.plan import plan as reckon
    from phi_fast.train.recipes import read_recipe

    settings, found = read_recipe(recipe, changes or ()), find_gpu(gpu)
    planned = reckon(settings, found, count, mfu=mfu, price=price)
    _show(planned, settings, f"{count} x {found.name}", found.memory, found.source, mfu, price)


def _show(
    planned: Plan, settings: Settings, chips: str, memory: float, source: str, mfu: float, price: float | None
) -> None:
    """Print a plan: model, memory, time, disk."""
    from phi_fast.train.log import duration

    of_each = planned.memory
    _say(
        f"model    {planned.parameters:,} parameters, {planned.flops_per_token / 1e9:.2f} GFLOP a token at "
        f"{settings.length:,} (causal)"
    )
    _say(
        f"run      {settings.steps:,} steps of {settings.batch:,} x {settings.length:,}: {planned.tokens / 1e9:.3g} B "
        f"tokens, {planned.flops:.3g} FLOP"
    )
    _say(f"on       {chips}, {memory / 1e9:.0f} GB each ({source}), {planned.strategy}, micro {settings.micro}\n")
    for name, value in of_each._asdict().items():
        said = "context, buffers (assumed)" if name == "aside" else name.replace("_", " ")
        _say(f"  {said:<27} {value / 1e9:>8.2f} GB")
    _say(f"  {'on each GPU':<27} {of_each.total / 1e9:>8.2f} GB of {memory / 1e9:.0f}")
    if planned.missing:
        console().print(
            f"  does not fit: {planned.missing / 1e9:.1f} GB are missing on each GPU", style="bold red", soft_wrap=True
        )
        for change, taken in planned.helps:
            _say(f"    {change}: {taken / 1e9:.1f} GB")
        if not planned.helps:
            _say("    No setting suffices: take more or larger GPUs, or a smaller model")
    else:
        _say(f"  fits, {(memory - of_each.total) / 1e9:.1f} GB are left")
    hours = f"{planned.gpu_hours:,.0f}" if planned.gpu_hours >= 10 else f"{planned.gpu_hours:.2g}"
    _say(f"\ntime     {duration(planned.days * 86_400)}, {hours} GPU-hours")
    _say(f"         {planned.tokens_per_s:,.0f} tokens/s in all, if {mfu:.0%} of the peak are reached (MFU, causal)")
    if planned.cost is not None:
        _say(f"cost     {planned.cost:,.2f} at {price:g} a GPU-hour")
    _say(
        f"disk     {planned.checkpoint_bytes / 1e9:.3g} GB a checkpoint, {planned.checkpoints_bytes / 1e9:.3g} GB at "
        f"most; exported {planned.export_bytes / 1e9:.3g} GB"
    )


def _run(
    settings: Settings,
    data: list[str],
    output: Path,
    start: str | Path | None,
    score: str | None,
    resume: str,
    device: str | None,
    tensorboard: bool,
    wandb: str | None,
    profile: bool,
    quiet: bool,
) -> None:
    from phi_fast.train.begin import score_by
    from phi_fast.train.loop import train as run

    result = run(
        settings, data, output, start=start, resume=resume, device=device,
        score=None if score is None else score_by(score), console=not quiet, tensorboard=tensorboard, wandb=wandb,
        profile=profile,
    )  # fmt: skip
    if not quiet and os.environ.get("RANK", "0") == "0":
        _told(result, settings)


def _told(result: Result, settings: Settings) -> None:
    losses: list[Any] = [("loss", result.loss), ("validation loss", result.validation_loss)]
    said = "".join(f", {name} {value:.4f}" for name, value in losses if value is not None)
    if not result.finished:
        _say(f"stopped at step {result.step:,} of {settings.steps:,}{said}; the same command goes on from there")
    else:
        _say(f"{result.step:,} steps{said}")
    _say(f"newest: {result.checkpoint}")
    if result.best is not None:
        _say(f"best:   {result.best}")


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise InputError("training needs torch, which is not installed: pip install 'phi-fast[train]'")


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)
