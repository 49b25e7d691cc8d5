"""Decide anew about a finished run, from its evidence, without scanning."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_fast.decontaminate.folder import remove, write_record
from phi_fast.decontaminate.plan import Plan, differences, plan_again, plan_record, settings_sha256
from phi_fast.decontaminate.policy import PRESETS, Mode, Policy, changed
from phi_fast.decontaminate.record import CLEAN, JOURNAL, REMOVED, VERDICTS, WORK, Run
from phi_fast.decontaminate.safely import disk_errors, file_sha256
from phi_fast.errors import InputError, RunError


def redecide(
    run: Run | str | os.PathLike[str],
    *,
    preset: str | None = None,
    mode: Mode | None = None,
    n: int | None = None,
    coverage: float | None = None,
    run_words: int | None = None,
    words: int | None = None,
    tau: float | None = None,
    alpha: float | None = None,
    nodes: int | None = None,
    distance: float | None = None,
    both: bool | None = None,
    parts: Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
    allow: Sequence[str] = (),
    window: int | None = None,
    min_piece: int | None = None,
    max_pieces: int | None = None,
    write: bool = False,
    threads: int | None = None,
) -> Run:
    """Change a run's policy: new verdicts and reports, and with ``write`` a new clean corpus.

    Parameters
    ----------
    run
        A finished run or its folder.
    preset
        Begin with this preset's rule instead of the run's own.
    mode, n, coverage, run_words, words, tau, alpha, nodes, distance, both
    parts, weights, allow, window, min_piece, max_pieces
        Changes to the rule; see :class:`~phi_fast.decontaminate.policy.Policy` (``run_words`` is its ``run``).
    write
        Write clean/ and removed.jsonl anew; else they follow the policy they were written with
        (run.json's ``clean_policy``).
    threads
        For writing.

    Returns
    -------
    Run
        The run as it is now.

    Raises
    ------
    InputError
        The evidence does not hold what the new policy asks for.
    RunError
        The corpus has changed since it was scanned, so it cannot be written anew.
    """
    old = run if isinstance(run, Run) else Run.load(run)
    if old.record["state"] not in ("finished", "deciding"):
        raise RunError(f"{old.path}: the run is not finished; give its command again first")
    policy = _policy(
        old, preset, allow,
        {"mode": mode, "n": n, "coverage": coverage, "run": run_words, "words": words, "tau": tau,
         "alpha": alpha, "nodes": nodes, "distance": distance, "both": both, "parts": parts,
         "weights": weights, "window": window, "min_piece": min_piece, "max_pieces": max_pieces},
    )  # fmt: skip
    with disk_errors(old.path):
        return _apply(old, policy, write, threads)


def _policy(old: Run, preset: str | None, allow: Sequence[str], changes: Mapping[str, Any]) -> Policy:
    scanned: list[int] = old.record["settings"]["n"]
    base = old.policy
    if preset is not None:
        if preset not in PRESETS:
            raise InputError(f'preset "{preset}": give one of {", ".join(PRESETS)}')
        base = dataclasses.replace(PRESETS[preset][1], allow=base.allow)
    policy = changed(base, changes, allow)
    if policy.n not in scanned:
        raise InputError(
            f"n {policy.n}: {old.path} was scanned with n {' and '.join(map(str, scanned))}. "
            f"Scan again with phi-fast decontaminate --n {policy.n}."
        )
    scanned_with = old.record["settings"]["channels"]
    absent = [name for name in policy.channels if name not in scanned_with]
    asked = {name for name, keys in _ASKS.items() if any(changes.get(key) is not None for key in keys)}
    if asked & set(absent) or not set(policy.channels) & set(scanned_with) or (policy.both and absent):
        raise InputError(
            f"{old.path} was scanned with the channels {', '.join(scanned_with)}, and this rule needs "
            f"{', '.join(sorted(absent))}. Scan again: phi-fast decontaminate --channels "
            f"{','.join([*scanned_with, *sorted(absent)])}."
        )
    return policy


# What a change of the rule asks a channel for.
_ASKS = {"ngram": ("coverage", "run", "words", "n"), "syntax": ("tau", "alpha", "nodes"), "embedding": ("distance",)}


def _apply(old: Run, policy: Policy, write: bool, threads: int | None) -> Run:
    from phi_fast.decontaminate.excerpts import write_excerpts
    from phi_fast.decontaminate.journal import Journal
    from phi_fast.decontaminate.kept import origins
    from phi_fast.decontaminate.report import write_reports
    from phi_fast.decontaminate.run import usable_cores, verdict_counts
    from phi_fast.decontaminate.write import write_verdicts

    clock = time.perf_counter()
    folder, record = old.path, old.record
    index = old.index()
    plan = unchanged_plan(old, index.parts, f"{CLEAN}/ and {REMOVED} cannot be written anew") if write else None
    record["state"] = "deciding"  # until all is written: a decision that was interrupted is seen, and made again
    if write:
        record["clean_policy"] = None  # until clean/ is whole
    record["settings"]["policy"] = policy.as_dict()
    record["policy_words"] = policy.describe()
    write_record(folder, record)
    known = origins(record["inputs"])
    with Journal(folder / JOURNAL, None) as journal:
        decided = write_verdicts(folder, journal, known, policy, index.parts, removing=write)
        write_excerpts(folder, journal, known, policy, index.parts)
    if plan is not None:
        _write_clean(folder, plan, record, policy, decided, threads or usable_cores())
    for number, one in enumerate(record["inputs"]):
        one["removed"] = decided.by_source[number]
    record["counts"] |= verdict_counts(record["counts"], decided)
    record["hashes"]["verdicts"] = file_sha256(folder / VERDICTS)
    record["settings_sha256"] = settings_sha256(record)
    record["timing"]["decide_seconds"] = round(time.perf_counter() - clock, 4)
    write_record(folder, record)
    write_reports(folder)
    record["state"] = "finished"
    write_record(folder, record)
    return Run.load(folder)


def _write_clean(folder: Path, plan: Plan, record: dict[str, Any], policy: Policy, decided: Any, threads: int) -> None:
    from phi_fast.decontaminate.write import write_corpus

    remove(folder / CLEAN)
    if policy.mode != "flag":
        write_corpus(folder, plan.sources, decided, threads=threads, done={}, finished=lambda number, says: None)
        record["clean_policy"] = policy.as_dict()
    remove(folder / WORK)


def unchanged_plan(old: Run, parts: Sequence[Any], otherwise: str) -> Plan:
    """Make a run's plan again, so that its corpus can be written once more.

    Parameters
    ----------
    old, parts
        The run and the parts of its index.
    otherwise
        What cannot be done where the corpus is another.

    Raises
    ------
    RunError
        The corpus is not what was scanned.
    """
    plan = plan_again(old.record, parts)
    changes = [
        line for line in differences(old.record, plan_record(plan, old.record["phi_fast"])) if line.startswith("input")
    ]
    if changes:
        said = "\n".join(f"  {line}" for line in changes)
        raise RunError(
            f"{old.path}: the corpus is not what was scanned, so {otherwise}:\n"
            f"{said}\nScan it again into another folder: phi-fast decontaminate."
        )
    return plan
