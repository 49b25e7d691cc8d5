"""The folder of a run and the data it reads: that a run goes on only with the settings and tokens it was begun with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi_fast.errors import InputError
from phi_fast.train.loader import Loader
from phi_fast.train.ranks import Ranks
from phi_fast.train.settings import Settings

SETTINGS = "settings.json"


def check_same(facts: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Refuse to go on with a run of other settings or other data.

    Raises
    ------
    InputError
        The message names what differs.
    """
    Settings.from_dict(facts["settings"]).check_resumable(stored["settings"], where)
    for number, (here, there) in enumerate(zip(facts["data"], stored["data"], strict=False)):
        if here != there:
            raise InputError(
                f"{where}: its run read {there['tokens']:,} tokens as data {number + 1}, this one has others "
                f"({here['tokens']:,}): give the same tokens, or another folder"
            )
    if len(facts["data"]) != len(stored["data"]):
        raise InputError(f"{where}: its run read {len(stored['data'])} folders of tokens: give the same")


def open_data(settings: Settings, data: Sequence[Any], ranks: Ranks) -> Loader:
    if settings.batch % (settings.micro * ranks.world):
        raise InputError(
            f"batch {settings.batch}: no multiple of micro, {settings.micro}, times {ranks.world} ranks: give "
            "another micro or batch"
        )
    return Loader(
        list(data), length=settings.length, batch=settings.batch, micro=settings.micro, seed=settings.seed,
        weights=settings.weights, rank=ranks.rank, world=ranks.world, mask_documents=settings.document_masking,
        vocabulary=settings.config().rows, pin=ranks.device.type == "cuda",
    )  # fmt: skip


def identity(loader: Loader) -> list[dict[str, Any]]:
    """What tells the tokens of a run from others, wherever they lie."""
    return [
        {"tokens": len(one), "tokenizer": one.identity["sha256"], "shards": [s["sha256"] for s in one.state["shards"]]}
        for one in loader.stores
    ]


def claim(folder: Path, facts: dict[str, Any], resume: str | os.PathLike[str]) -> None:
    """Make the folder a run's, or see that it is this run's.

    Raises
    ------
    InputError
        It holds something else, or cannot be written.
    """
    try:
        _claim(folder, facts, resume)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from error


def _claim(folder: Path, facts: dict[str, Any], resume: str | os.PathLike[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    if path.exists():
        if resume == "never":
            raise InputError(f"{folder}: holds a run: resume it, or give another folder")
        try:
            check_same(facts, json.loads(path.read_text()), str(path))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
    elif any(folder.iterdir()):
        raise InputError(f"{folder}: holds files but no {SETTINGS}: give a new folder")
    temporary = folder / f".{SETTINGS}.part"
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    temporary.replace(path)
