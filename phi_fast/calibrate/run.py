"""Calibrate: draw, hide, scan once, and decide from the evidence as often as wanted."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_fast.calibrate.draw import draw
from phi_fast.calibrate.plant import CLEAN, TABLE, plant, planted_in
from phi_fast.calibrate.search import THRESHOLDS, best, evaluate, grid
from phi_fast.calibrate.tally import tally
from phi_fast.calibrate.telling import describe, worst
from phi_fast.corpus import discover
from phi_fast.decontaminate.channels import chosen_channels
from phi_fast.decontaminate.folder import refuse_inside, remove
from phi_fast.decontaminate.plan import FIELDS, Against
from phi_fast.decontaminate.policy import make_policy
from phi_fast.decontaminate.record import Run
from phi_fast.decontaminate.run import decontaminate
from phi_fast.decontaminate.safely import disk_errors, write_bytes
from phi_fast.decontaminate.scan import Progressing, Unwatched
from phi_fast.errors import InputError
from phi_fast.suites import Suite, load_suites
from phi_fast.trial import only

TRIAL, RESULT, REPORT, RUN, CORPUS = "trial.json", "calibration.json", "calibration.md", "run", "corpus"
PLOTS = ("recall.svg", "tradeoff.svg")
DOCUMENTS, BYTES, RATE = 20_000, 256 << 20, 0.001


def calibrate(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    against: Against | Sequence[Against],
    output: str | os.PathLike[str],
    *,
    documents: int = DOCUMENTS,
    false_positives: float = RATE,
    channels: Sequence[str] | None = None,
    n: Sequence[int] | None = None,
    seed: int = 0,
    fields: Mapping[str, str | None] | None = None,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progressing | None = None,
) -> dict[str, Any]:
    """Find the rule that suits a corpus: hide the suites' items in a sample of it and count what is found and flagged.

    Parameters
    ----------
    corpus, against, fields, text, id, pattern, channels, n, threads, progress
        As in :func:`~phi_fast.decontaminate.run.decontaminate`. The sample drawn of the corpus is taken for clean.
    output
        Folder for all that comes out. A trial of the same settings that was interrupted there goes on; a finished one
        is not done again.
    documents
        Clean documents drawn at most; about 256 MB are read for them at most.
    false_positives
        Largest share of the clean documents that the rule may flag.
    seed
        Draws documents, hosts and places.
    overwrite
        Replace another trial in ``output``.

    Returns
    -------
    dict
        The content of calibration.json.

    Raises
    ------
    InputError
        Something about the arguments or the input is wrong.
    RunError
        The scan stopped part-way: the same call goes on.
    """
    paths = [corpus] if isinstance(corpus, str | os.PathLike) else list(corpus)
    specs = [against] if isinstance(against, str | os.PathLike | Suite) else list(against)
    if not specs:
        raise InputError("nothing to calibrate against: give --against humaneval, or --against NAME=PATH")
    _check(false_positives)
    if documents < 1:
        raise InputError(f"documents {documents}: give 1 or more")
    lengths, policy = make_policy(n=n, mode="flag")
    folder = Path(output).expanduser()
    refuse_inside(folder, [os.fspath(path) for path in paths])
    suites = load_suites(
        [one if isinstance(one, Suite) else os.fspath(one) for one in specs],
        **{name: (fields or {}).get(name) for name in FIELDS},
    )
    notes: list[str] = []
    sources = discover([os.fspath(path) for path in paths], text=text, id=id, pattern=pattern, note=notes.append)
    settings = {
        "corpus": [os.fspath(path) for path in paths],
        "inputs": [[source.name, source.size, source.stamp, source.text, source.id] for source in sources],
        "suites": [[suite.name, suite.sha256] for suite in suites],
        "documents": documents, "bytes": BYTES, "seed": seed,
        "channels": list(chosen_channels(channels, policy.channels)), "n": list(lengths),
    }  # fmt: skip
    trial = _begin(folder, settings, overwrite)
    options = _options(specs, fields, text, id, pattern, n)
    if trial["state"] != "planted":
        with disk_errors(folder), (progress or Unwatched)(sum(source.size for source in sources)) as watcher:
            watcher.stage("drawing a sample")
            clean = draw(sources, documents, BYTES, seed)
            if not clean:
                raise InputError("the corpus holds no document with text: nothing to calibrate on")
            watcher.stage("hiding items in it")
            planted = plant(folder, clean, suites, seed)
        trial |= dataclasses.asdict(planted) | {"notes": [*notes, *planted.notes], "options": options}
        trial["items"] = {suite.name: len(suite.items) for suite in suites}
        trial["state"] = "planted"
        _write(folder / TRIAL, trial)
    decontaminate(
        str(folder / CORPUS), list(suites), folder / RUN, n=list(lengths), mode="flag", channels=channels,
        threads=threads, overwrite=overwrite, progress=progress, learn_from=[CLEAN],
    )  # fmt: skip
    return decide_again(folder, false_positives)


def decide_again(folder: str | os.PathLike[str], false_positives: float = RATE) -> dict[str, Any]:
    """Decide on a trial that was scanned, for this or another rate of false positives, without scanning.

    Parameters
    ----------
    folder
        What `calibrate` wrote.
    false_positives
        As there.

    Raises
    ------
    InputError
        The folder holds no finished trial.
    """
    from phi_fast.calibrate.plots import draw_recall, draw_tradeoff
    from phi_fast.calibrate.telling import markdown

    _check(false_positives)
    path = Path(folder).expanduser()
    trial = read_trial(path)
    if trial is None or trial["state"] != "planted":
        raise InputError(
            f"{path}: holds no trial whose documents are drawn; give the command with CORPUS and --against"
        )
    run = Run.load(path / RUN)
    if not run.finished:
        raise InputError(f"{path}: the trial is not scanned to its end; give its command again, it goes on")
    counted = tally(run, planted_in(path), trial["clean"])
    base = run.policy
    points = evaluate(counted, list(grid(counted.channels, base)))
    chosen, meets = best(points, counted.documents, false_positives)
    default = only(base, counted.channels) if set(base.channels) & set(counted.channels) else chosen.policy
    record: dict[str, Any] = {
        "format": 1,
        "wanted": false_positives,
        "meets": meets,
        "clean": trial["clean"],
        "planted": trial["planted"],
        "text_bytes": trial["text_bytes"],
        "items": trial["items"],
        "seed": trial["settings"]["seed"],
        "channels": list(counted.channels),
        "notes": trial["notes"],
        "policies": {
            name: describe(counted, policy) | {"command": command(trial, policy)}
            for name, policy in (("default", default), ("chosen", chosen.policy))
        },
        "worst": worst(run, chosen.policy, path / CORPUS / CLEAN),
        "grid": [[*(getattr(one.policy, name) for name in THRESHOLDS), one.recall, one.flagged] for one in points],
    }
    with disk_errors(path):
        _write(path / RESULT, record)
        draw_recall(record, path / PLOTS[0])
        draw_tradeoff(record, path / PLOTS[1])
        write_bytes(path / REPORT, markdown(record).encode())
    return record


def command(trial: Mapping[str, Any], policy: Any) -> str:
    """Give the command line that decontaminates the corpus by a policy."""
    words = ["phi-fast", "decontaminate", *trial["settings"]["corpus"], *trial["options"]]
    words += ["--channels", ",".join(policy.channels)]
    for name in THRESHOLDS:
        value = getattr(policy, name)
        if value is not None and (name != "nodes" or "syntax" in policy.channels):
            words += [f"--{name}", f"{value:g}"]
    return shlex.join([*words, "--output", "RUN"])


def read_trial(folder: Path) -> dict[str, Any] | None:
    """Read what a folder says of its trial; None where it holds none."""
    try:
        trial = json.loads((folder / TRIAL).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / TRIAL}: cannot be read: {error}") from error
    if not isinstance(trial, dict) or trial.get("made_by") != "phi-fast calibrate":
        return None
    return trial


def _begin(folder: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Take up the trial in a folder, or begin one."""
    there = read_trial(folder)
    if there is not None and there["settings"] == settings:
        return there
    if there is not None and not overwrite:
        changed = [name for name, value in settings.items() if there["settings"].get(name) != value]
        raise InputError(
            f"{folder}: holds a trial of other settings ({', '.join(changed)}); give --overwrite to replace it, or "
            "another --output"
        )
    if there is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: holds something that is not a trial's; give another folder with --output")
    with disk_errors(folder):
        for name in (CORPUS, RUN, TABLE, RESULT, REPORT, *PLOTS):
            remove(folder / name)
        folder.mkdir(parents=True, exist_ok=True)
        trial = {"made_by": "phi-fast calibrate", "format": 1, "state": "drawing", "settings": settings}
        _write(folder / TRIAL, trial)
    return trial


def _options(
    specs: Sequence[Against], fields: Mapping[str, str | None] | None, text: str | None, id: str | None,
    pattern: str | None, n: Sequence[int] | None,
) -> list[str]:  # fmt: skip
    """Give the options that say what was scanned against what, as they stand on a command line."""
    words = []
    for spec in specs:
        words += ["--against", spec.name if isinstance(spec, Suite) else os.fspath(spec)]
    named = {"text": text, "id": id, "pattern": pattern}
    named |= {"id-field" if name == "id" else name: value for name, value in (fields or {}).items()}
    for name, value in named.items():
        words += [] if value is None else [f"--{name}", value]
    for one in n or ():
        words += ["--n", str(one)]
    return words


def _check(false_positives: float) -> None:
    if not 0 <= false_positives <= 1:
        raise InputError(f"false positives {false_positives:g}: give a share from 0 to 1, as 0.001")


def _write(path: Path, record: Mapping[str, Any]) -> None:
    write_bytes(path, json.dumps(record, indent=1).encode() + b"\n")
