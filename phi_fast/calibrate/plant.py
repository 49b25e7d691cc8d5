"""The corpus of a trial: a clean sample, and every item of the suites hidden in documents of it, in every disguise."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.calibrate.draw import Drawn
from phi_fast.decontaminate.safely import replacing
from phi_fast.disguise import DISGUISES
from phi_fast.suites import Suite
from phi_fast.trial import Hidden, Host, hide_all

CLEAN, PLANTED, TABLE = "clean.jsonl", "planted.jsonl", "planted.parquet"
MAX_HOST = 300_000
"""Bytes of a document that an item is hidden in, at most."""
MAX_ITEMS = 1_000
"""Items of a suite that are hidden, at most."""
FEW = 200
"""A clean sample of fewer documents says little."""
_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "suite", "item", "disguise", "leak")])


@dataclass(frozen=True, slots=True)
class Planted:
    """What was written: how much, and what there is to say about it, in sentences."""

    clean: int
    planted: int
    text_bytes: int
    notes: tuple[str, ...]


def plant(folder: Path, clean: Sequence[Drawn], suites: Sequence[Suite], seed: int) -> Planted:
    """Write the corpus of a trial: FOLDER/corpus/clean.jsonl and planted.jsonl, and what is planted as a table.

    Parameters
    ----------
    folder
        Where; it is there.
    clean
        The sample, at least one document. Those up to `MAX_HOST` bytes are hosts.
    suites
        Of a suite with more than `MAX_ITEMS` items so many are drawn.
    seed
        Draws items, hosts and places.
    """
    hosts = [Host(one.id, one.text) for one in clean if len(one.text.encode()) <= MAX_HOST]
    notes = []
    if len(clean) < FEW:
        notes.append(
            f"The clean sample has {len(clean):,} documents: a rate of false positives is hardly known from it."
        )
    if not hosts:  # cut documents rather than have none
        hosts = [Host(one.id, one.text[: MAX_HOST // 4]) for one in clean]
        notes.append(f"Every document is larger than {MAX_HOST // 1000} kB: items are hidden in their beginnings.")
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    size = _write(corpus / CLEAN, clean)
    told: dict[str, list[str]] = {name: [] for name in _SCHEMA.names}

    def planted() -> Iterator[Drawn]:
        for suite in suites:
            chosen = _some(suite, seed, notes)
            worn = set()
            for one in hide_all(chosen, hosts, seed=seed):
                worn.add(one.disguise)
                for name in ("suite", "item", "disguise", "leak"):
                    told[name].append(getattr(one, name))
                told["id"].append(f"{suite.name}: {one.id}")
                yield Drawn(told["id"][-1], one.text)
            notes.extend(_unworn(suite, worn))

    size += _write(corpus / PLANTED, planted())
    with replacing(folder / TABLE) as path:
        pq.write_table(pa.table(told, _SCHEMA), path, compression="zstd")
    return Planted(len(clean), len(told["id"]), size, tuple(notes))


def planted_in(folder: Path) -> list[Hidden]:
    """Read what was planted, in the order of planted.jsonl, without the documents themselves."""
    rows = pq.read_table(folder / TABLE).to_pylist()
    return [Hidden(row["id"], "", row["suite"], row["item"], row["disguise"], row["leak"]) for row in rows]


def _some(suite: Suite, seed: int, notes: list[str]) -> Suite:
    if len(suite.items) <= MAX_ITEMS:
        return suite
    chosen = sorted(random.Random(f"{seed}:items:{suite.name}").sample(range(len(suite.items)), MAX_ITEMS))
    notes.append(f"{suite.name}: {MAX_ITEMS:,} of its {len(suite.items):,} items, drawn by the seed, are hidden.")
    return Suite(suite.name, tuple(suite.items[number] for number in chosen), suite.source, suite.sha256)


def _unworn(suite: Suite, worn: set[str]) -> list[str]:
    unworn = [name for name in DISGUISES if name not in worn]
    if not unworn:
        return []
    why = "they need parts or Python source that the suite has not"
    return [f"{suite.name}: no item can wear {'; '.join(unworn)}: {why}."]


def _write(path: Path, documents: Iterable[Drawn]) -> int:
    size = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, text in documents:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
            size += len(text.encode())
    return size
