"""Where a finetuning begins, what scores its checkpoints, and what leaves a run."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from phi_fast.errors import InputError, RunError
from phi_fast.train import kept
from phi_fast.train.checkpoint import STATE, export, read_state
from phi_fast.train.loop import CHECKPOINTS
from phi_fast.train.run_folder import SETTINGS
from phi_fast.train.settings import Settings
from phi_fast.train.tokens import open_tokens

MODEL = "{model}"
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")


def checkpoint_of(place: str | os.PathLike[str], *, best: bool = False) -> Path | None:
    """The checkpoint a person means: it, or the newest whole one of a run, or its best; None: it is neither.

    Raises
    ------
    InputError
        A run without a whole checkpoint.
    """
    path = Path(place)
    if (path / STATE).is_file():
        return path
    if not (path / SETTINGS).is_file():
        return None
    folder = path / CHECKPOINTS
    said: list[str] = []
    found = kept.best(folder) or kept.newest(folder, said.append) if best else kept.newest(folder, said.append)
    if found is None:
        raise InputError("\n".join([f"{path}: a run without a whole checkpoint", *said]))
    return found


def settings_for(recipe: Settings, start: Path, data: list[str]) -> Settings:
    """A recipe's settings with the model of a checkpoint of ours.

    Raises
    ------
    InputError
        The checkpoint's run read another tokenizer's tokens than these.
    """
    state = read_state(start)
    wanted = state["data"][0]["tokenizer"]
    for folder in data:
        if (here := open_tokens(folder).identity["sha256"]) != wanted:
            raise InputError(
                f"{folder}: its tokenizer (sha256 {here[:12]}) is not that of {start} ({wanted[:12]}): tokenize with "
                "the tokenizer.json that the run's tokens hold"
            )
    model = state["settings"]
    return dataclasses.replace(recipe, model=model["model"], fields=model["fields"])


def score_by(command: str) -> Callable[[Path], float]:
    """A score from a shell command that prints a number last; higher is better.

    Parameters
    ----------
    command
        With ``{model}`` where the folder of the exported model goes.

    Raises
    ------
    InputError
        The command does not name it.
    """
    if MODEL not in command:
        raise InputError(f"--score {command!r}: give the place of the model's folder as {MODEL}")

    def score(folder: Path) -> float:
        # On several ranks the first one scores: a program that joined the others would wait for ever.
        env = {name: value for name, value in os.environ.items() if not name.startswith(_OF_RANKS)}
        line = command.replace(MODEL, shlex.quote(str(folder.resolve())))
        done = subprocess.run(
            line, shell=True, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise RunError(f"--score ended with {done.returncode}: {line}")
        lines = done.stdout.split("\n")
        last = next((one.strip() for one in reversed(lines) if one.strip()), "")
        try:
            value = float(last)
        except ValueError:
            raise RunError(f"--score printed {last!r} last, which is no number: {line}") from None
        if not math.isfinite(value):
            raise RunError(f"--score printed {value}: {line}")
        return value

    return score


def export_with_tokenizer(
    checkpoint: Path, folder: Path, tokens: str | os.PathLike[str] | None = None, dtype: str | None = None
) -> None:
    """Write a checkpoint as Hugging Face's safetensors, and beside it the tokenizer of a folder of tokens.

    Raises
    ------
    InputError
        The tokens are of another tokenizer than those the run read.
    """
    store = None if tokens is None else open_tokens(tokens)
    if store is not None:
        read = {one["tokenizer"] for one in read_state(checkpoint)["data"]}
        if store.identity["sha256"] not in read:
            raise InputError(f"{tokens}: of another tokenizer than the tokens {checkpoint} was trained on")
    export(checkpoint, folder, dtype)
    if store is not None:
        from transformers import PreTrainedTokenizerFast

        tokenizer = store.tokenizer().tokenizer
        tokenizer.encode_special_tokens = False
        end = tokenizer.id_to_token(store.end_of_text)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end).save_pretrained(folder)
