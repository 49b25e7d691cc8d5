"""A run's folder: begun, gone on with, shown again, replaced, or refused."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from phi_fast.decontaminate.plan import differences
from phi_fast.decontaminate.record import FORMAT, JOURNAL, OURS, RUN_JSON, WORK
from phi_fast.decontaminate.safely import write_bytes
from phi_fast.errors import InputError, RunError

_NEEDED = {"settings_sha256", "settings", "state", "inputs", "suites"}
Standing = Literal["new", "begun", "finished"]


def look_at(folder: Path, record: Mapping[str, Any], *, overwrite: bool) -> Standing:
    """Say where a run stands in a folder, before anything is written.

    Parameters
    ----------
    folder
        Where the run is to be.
    record
        What run.json is to say.
    overwrite
        Another run there, or a finished one, may be replaced.

    Raises
    ------
    InputError
        The folder holds another run, or something that is no run at all.
    RunError
        Deciding anew was interrupted there.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --output a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return "new"
    there = read_record(folder)
    if there is None:
        strange = sorted(one.name for one in folder.iterdir() if one.name not in OURS)
        held = f"has no sound {RUN_JSON}"
        if strange:
            held = f"holds {', '.join(strange[:3])}{' and more' if len(strange) > 3 else ''} and no {RUN_JSON}"
        raise InputError(f"{folder}: {held}, so it is no run of phi-fast's. Give --output an empty or new folder.")
    if there["state"] == "deciding" and not overwrite:
        raise RunError(f"{folder}: phi-fast decide was interrupted there. Give it again, or --overwrite to begin anew.")
    if there["settings_sha256"] == record["settings_sha256"]:
        if there["state"] == "finished":
            return "new" if overwrite else "finished"
        return "begun"
    if overwrite:
        return "new"
    differ = "\n".join(f"  {line}" for line in differences(there, record)) or "  the decision was changed"
    raise InputError(
        f"{folder} holds another run:\n{differ}\n"
        "Give --output another folder, or --overwrite to replace that run."
        + ("" if there["state"] != "finished" else " To decide anew without scanning: phi-fast decide.")
    )


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read run.json; None where it is not a run's of this format."""
    try:
        record = json.loads((folder / RUN_JSON).read_bytes())
        sound = record["format"] == FORMAT and record.keys() >= _NEEDED
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if sound else None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write run.json at once."""
    write_bytes(folder / RUN_JSON, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")


def begin(folder: Path, record: Mapping[str, Any]) -> None:
    """Make the folder ready for a new run: what an earlier run left there goes, nothing else does."""
    if folder.is_dir():
        _refuse_if_busy(folder)
        for name in OURS:
            if name != RUN_JSON:  # last: while it is there, the folder is known to be a run's
                remove(folder / name)
        remove(folder / RUN_JSON)
    (folder / WORK).mkdir(parents=True, exist_ok=True)
    write_record(folder, record)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def refuse_inside(folder: Path, corpus: Sequence[str]) -> None:
    """Refuse an output folder inside the corpus: the next run would read its own output.

    Raises
    ------
    InputError
        It lies inside a folder of the corpus, or is one.
    """
    inner = folder.resolve()
    for path in corpus:
        if "://" not in path and Path(path).is_dir() and inner.is_relative_to(Path(path).resolve()):
            raise InputError(
                f"{folder}: lies inside the corpus {path}, so the next run would read this one's output. "
                "Give --output a folder outside."
            )


def _refuse_if_busy(folder: Path) -> None:
    try:
        held = os.open(folder / JOURNAL, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RunError(f"{folder}: another phi-fast is working on this run. Wait for it or stop it first.") from error
    finally:
        os.close(held)
