"""Which checkpoints a run has: the newest whole one, the best, and which are kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from phi_fast.errors import InputError
from phi_fast.train.checkpoint import damage, read_state, to_disk

SCORES = "scores.json"
_NAME = re.compile(r"step-(\d{8,})")


def name_of(step: int) -> str:
    """Folder of the checkpoint of a step."""
    return f"step-{step:08d}"


def all_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), one) for one in folder.iterdir() if (match := _NAME.fullmatch(one.name))]
    return [one for _, one in sorted(found)]


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a folder; what is wrong with newer ones is said."""
    for one in reversed(all_of(folder)):
        problem = damage(one)
        if problem is None:
            return one
        say(f"{one}: damaged: {problem}. The one before it is looked at.")
    return None


def set_aside(folder: Path, newest: Path | None, say: Callable[[str], None]) -> None:
    """Rename the checkpoints newer than one, damaged or not, so that they are none any more; all where it is None."""
    there = all_of(folder)
    for one in there[there.index(newest) + 1 :] if newest in there else there if newest is None else []:
        aside = one.with_name(f"aside-{one.name}")
        shutil.rmtree(aside, ignore_errors=True)
        one.rename(aside)
        say(f"{one.name} is set aside as {aside}")


def best(folder: Path) -> Path | None:
    """The checkpoint with the highest score, where some have one; else with the lowest validation loss; or None."""
    there = all_of(folder)
    scores = read_scores(folder)
    scored = [(scores[one.name], one) for one in there if one.name in scores]
    if scored:
        return max(scored)[1]
    losses = []
    for one in there:
        try:
            loss = read_state(one).get("validation_loss")
        except InputError:
            continue
        if loss is not None:
            losses.append((loss, one))
    return min(losses)[1] if losses else None


def read_scores(folder: Path) -> dict[str, float]:
    """Scores that checkpoints were given, by name."""
    try:
        held = json.loads((folder / SCORES).read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def set_score(checkpoint: Path, score: float) -> None:
    """Note a checkpoint's score, by which the best is kept."""
    path = checkpoint.parent / SCORES
    temporary = path.with_name(f".{SCORES}.part")
    temporary.write_text(json.dumps(read_scores(checkpoint.parent) | {checkpoint.name: score}, indent=1) + "\n")
    to_disk(temporary)
    temporary.replace(path)


def prune(folder: Path, keep_last: int) -> None:
    """Remove all checkpoints but the newest and the best; a kill meanwhile leaves no half one under a whole's name."""
    kept = {*all_of(folder)[-keep_last:], best(folder)}
    for one in all_of(folder):
        if one not in kept:
            gone = one.with_name(f".{one.name}.gone")
            one.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written or half removed."""
    for one in folder.glob(".step-*"):
        shutil.rmtree(one, ignore_errors=True)
