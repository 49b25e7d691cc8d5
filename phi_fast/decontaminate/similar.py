"""Which items of a suite a corpus holds something like, at several match rates, and the corpus without it.

The split is phi-1's (arXiv 2306.11644, section 5): an item is *similar* at τ where at least one document holds a
function like its to τ, and the corpus pruned at τ is the corpus without those documents. A model is then scored on the
similar and on the non-similar items apart. Everything comes from a finished run's evidence.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from phi_fast.decontaminate.folder import refuse_inside
from phi_fast.decontaminate.nearest import SimilarItem, measured
from phi_fast.decontaminate.policy import FLOOR_DISTANCE, FLOOR_TAU, LARGE_NODES
from phi_fast.decontaminate.record import EVIDENCE, SIMILAR, Run
from phi_fast.decontaminate.safely import disk_errors
from phi_fast.decontaminate.scan import Progressing, Unwatched
from phi_fast.errors import InputError, RunError

if TYPE_CHECKING:
    from phi_fast.decontaminate.plan import Plan

TAUS = (0.95, 0.9, 0.85, 0.8)
FORMAT = 1  # of similar.json
SIMILAR_JSON = "similar.json"
ITEMS = "items.parquet"
PRUNED = "pruned.csv"
PLOTS = ("similar.png", "similar.svg")


@dataclass(frozen=True, slots=True)
class Split:
    """A suite's items at one τ, each in one of three lists, in the suite's order."""

    suite: str
    similar: tuple[str, ...]
    non_similar: tuple[str, ...]
    untestable: tuple[str, ...]

    @property
    def items(self) -> int:
        """All items of the suite."""
        return len(self.similar) + len(self.non_similar) + len(self.untestable)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a τ prunes: documents, their share of the documents scanned, and the split of every suite."""

    tau: float
    documents: int
    share: float
    suites: tuple[Split, ...]


class CurvePoint(NamedTuple):
    """Documents pruned and similar items by suite at one τ, and at every lower one down to the next point."""

    tau: float
    documents: int
    similar: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Similar:
    """What :func:`similar` found.

    Attributes
    ----------
    path : Path
        The folder with similar.json, items.parquet, pruned.csv, similar.png, similar.svg and the pruned corpora.
    documents : int
        Documents scanned.
    distance, min_nodes
        As asked for.
    at : tuple of Pruned
        One entry a τ asked for, the highest first.
    items : tuple of SimilarItem
        In the suites' order.
    curve : tuple of CurvePoint
        Every τ from 0.8 to 1 at which something changes, and those asked for; ascending.
    corpora : dict
        Name of each whole pruned corpus in the folder to what decided it: see :func:`deciding`.
    """

    path: Path
    documents: int
    distance: float | None
    min_nodes: int
    at: tuple[Pruned, ...]
    items: tuple[SimilarItem, ...]
    curve: tuple[CurvePoint, ...]
    corpora: dict[str, dict[str, Any]]

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites."""
        return tuple(dict.fromkeys(one.suite for one in self.items))


def similar(
    run: Run | str | os.PathLike[str],
    *,
    taus: Sequence[float] = TAUS,
    distance: float | None = None,
    min_nodes: int = LARGE_NODES,
    write: bool = False,
    threads: int | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: Progressing | None = None,
) -> Similar:
    """Split the items of a finished run into similar and non-similar ones, and prune the corpus, at several τ.

    Parameters
    ----------
    run
        A finished run with the syntax channel, or its folder.
    taus
        Match rates by node types, 0.8 to 1.
    distance
        Count only pairs whose embeddings lie within this L2 distance as well: phi-1 fixes it and varies τ.
    min_nodes
        Count only trees of so many syntax nodes, 25 or more, on both sides.
    write
        Write the pruned corpora, one folder a τ, as clean/ is written. The same call after an interruption goes on.
    threads
        For writing; all usable cores by default.
    output
        Folder for what comes out; RUN/similar by default.
    progress
        As for :func:`~phi_fast.decontaminate.run.decontaminate`.

    Raises
    ------
    InputError
        The evidence does not hold what is asked for.
    RunError
        The run is not finished, or the corpus has changed since it was scanned, so it cannot be written pruned.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    if not run.finished:
        raise RunError(f"{run.path}: the run is not finished; give its command again first")
    asked = _checked(run, taus, distance, min_nodes)
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: give 1 or more")
    folder = run.path / SIMILAR if output is None else Path(output).expanduser()
    refuse_inside(folder, run.record["settings"]["corpus"])
    there = _record_in(folder)
    with disk_errors(folder), (progress or Unwatched)(0) as watcher:
        watcher.stage("reading evidence")
        parts = run.parts()
        plan: Plan | None = None
        if write:
            from phi_fast.decontaminate.decide import unchanged_plan

            plan = unchanged_plan(run, parts, "the pruned corpora cannot be written")
        items, nearest = measured(run.path / EVIDENCE, parts, distance, min_nodes)
        corpora = {name: says for name, says in there.get("corpora", {}).items() if (folder / name).is_dir()}
        found = _summed(folder, run.documents, asked, distance, min_nodes, items, nearest, corpora)
        from phi_fast.decontaminate.similar_plot import draw
        from phi_fast.decontaminate.similar_write import write_pruned, write_record, write_tables

        folder.mkdir(parents=True, exist_ok=True)
        write_record(run, found)
        write_tables(found)
        watcher.stage("drawing")
        draw(found, [folder / name for name in PLOTS])
        if plan is not None:
            write_pruned(run, found, plan.sources, threads=threads, stage=watcher.stage)
    return found


def corpus_name(tau: float) -> str:
    """Name of the folder of the corpus pruned at τ."""
    return f"tau-{tau:g}"


def deciding(run: Run, found: Similar, tau: float) -> dict[str, Any]:
    """Give what decides which documents a pruned corpus lacks."""
    return {
        "tau": tau, "distance": found.distance, "min_nodes": found.min_nodes,
        "evidence": run.record["hashes"]["evidence"],
    }  # fmt: skip


def reaches(tau: float, asked: float) -> bool:
    """Say whether a match rate from the evidence, which has 32 bits, reaches one that was asked for."""
    return tau >= float(np.float32(asked))


def _checked(run: Run, taus: Sequence[float], distance: float | None, min_nodes: int) -> tuple[float, ...]:
    channels: list[str] = run.record["settings"]["channels"]
    if "syntax" not in channels:
        raise InputError(_scan_again(run, "syntax"))
    if not len(taus):
        raise InputError(f"no tau: give one or more from {FLOOR_TAU:g} to 1")
    for tau in taus:
        if not FLOOR_TAU <= tau <= 1:
            raise InputError(
                f"tau {tau:g}: evidence holds match rates from {FLOOR_TAU:g} on, so less cannot be told; give "
                f"{FLOOR_TAU:g} to 1"
            )
    if min_nodes < LARGE_NODES:
        raise InputError(
            f"min_nodes {min_nodes}: of smaller trees evidence holds only those that are nearly the same but for their "
            f"names; give {LARGE_NODES} or more"
        )
    if distance is not None:
        if "embedding" not in channels:
            raise InputError(f"distance {distance:g}: {_scan_again(run, 'embedding')}")
        if not 0 <= distance <= FLOOR_DISTANCE:
            raise InputError(
                f"distance {distance:g}: evidence holds distances up to {FLOOR_DISTANCE:g}; give 0 to that"
            )
    # Six digits are what a folder's name shows.
    return tuple(sorted({round(float(tau), 6) for tau in taus}, reverse=True))


def _scan_again(run: Run, channel: str) -> str:
    scanned: list[str] = run.record["settings"]["channels"]
    return (
        f"{run.path} was scanned with the channels {', '.join(scanned)}, and this needs {channel}. Scan again: "
        f"phi-fast decontaminate --channels {','.join([*scanned, channel])}."
    )


def _record_in(folder: Path) -> dict[str, Any]:
    """Read the folder's similar.json; nothing where the folder is new or empty."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give --output a folder")
    held = sorted(one.name for one in folder.iterdir() if one.name[0] != ".") if folder.is_dir() else []
    if not held:
        return {}
    try:
        record = json.loads((folder / SIMILAR_JSON).read_bytes())
        known = record["format"]
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(
            f"{folder}: holds {', '.join(held[:3])}{' and more' if len(held) > 3 else ''} and no sound {SIMILAR_JSON}, "
            "so phi-fast similar did not make it. Give --output an empty or new folder."
        ) from None
    return dict(record) if known == FORMAT else {}


def _summed(
    folder: Path, documents: int, taus: Sequence[float], distance: float | None, min_nodes: int,
    items: tuple[SimilarItem, ...], nearest: Counter[float], corpora: dict[str, dict[str, Any]],
) -> Similar:  # fmt: skip
    suites: dict[str, list[SimilarItem]] = {}
    for one in items:
        suites.setdefault(one.suite, []).append(one)
    at = []
    for tau in taus:
        pruned = sum(count for best, count in nearest.items() if reaches(best, tau))
        splits = tuple(_split(suite, mine, tau) for suite, mine in suites.items())
        at.append(Pruned(tau, pruned, pruned / documents if documents else 0.0, splits))
    curve = _curve(taus, suites, nearest)
    return Similar(folder, documents, distance, min_nodes, tuple(at), items, curve, corpora)


def _split(suite: str, items: Sequence[SimilarItem], tau: float) -> Split:
    alike = dict.fromkeys(one.item for one in items if one.tau is not None and reaches(one.tau, tau))
    rest = [one for one in items if one.item not in alike]
    tested, untestable = ([one.item for one in rest if one.testable is testable] for testable in (True, False))
    return Split(suite, tuple(alike), tuple(tested), tuple(untestable))


def _curve(
    taus: Sequence[float], suites: dict[str, list[SimilarItem]], nearest: Counter[float]
) -> tuple[CurvePoint, ...]:
    asked = {float(np.float32(tau)) for tau in (*taus, FLOOR_TAU, 1.0)}
    found = [Counter(one.tau for one in items if one.tau is not None) for items in suites.values()]
    documents, alike = 0, [0] * len(found)
    points = []
    for tau in sorted(asked.union(nearest, chain.from_iterable(found)), reverse=True):
        documents += nearest[tau]
        alike = [count + of[tau] for count, of in zip(alike, found, strict=True)]
        points.append(CurvePoint(tau, documents, tuple(alike)))
    return tuple(reversed(points))
