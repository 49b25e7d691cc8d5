"""What `similar` leaves on disk: its tables, and the pruned corpora."""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.corpus import Removal, Source
from phi_fast.decontaminate.folder import remove
from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.kept import origins, with_kept
from phi_fast.decontaminate.nearest import Near, by_document, close_rows
from phi_fast.decontaminate.record import EVIDENCE, JOURNAL, WORK, Run
from phi_fast.decontaminate.safely import replacing, write_bytes
from phi_fast.decontaminate.similar import (
    FORMAT,
    ITEMS,
    PRUNED,
    SIMILAR_JSON,
    Similar,
    corpus_name,
    deciding,
    reaches,
)
from phi_fast.decontaminate.write import rejected_rows, removal_order, write_copies

_REMOVALS = "removals.jsonl"  # in work/: what any τ leaves out, source by source, each with its document's match rate


def write_record(run: Run, found: Similar) -> None:
    """Write similar.json: every number and list; no times, so the same input gives the same bytes."""
    record = {
        "format": FORMAT,
        "phi_fast": run.record["phi_fast"],
        "evidence": run.record["hashes"]["evidence"],
        "distance": found.distance,
        "min_nodes": found.min_nodes,
        "documents": found.documents,
        "taus": [
            {
                "tau": one.tau, "pruned": one.documents, "share": one.share,
                "suites": [
                    {
                        "suite": split.suite, "items": split.items, "similar": len(split.similar),
                        "non_similar": len(split.non_similar), "untestable": len(split.untestable),
                        "similar_items": list(split.similar), "non_similar_items": list(split.non_similar),
                        "untestable_items": list(split.untestable),
                    }
                    for split in one.suites
                ],
            }
            for one in found.at
        ],
        "corpora": found.corpora,
    }  # fmt: skip
    write_bytes(found.path / SIMILAR_JSON, json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")


def write_tables(found: Similar) -> None:
    """Write items.parquet, an item a row, and pruned.csv, a step of the curve and a suite a row."""
    types = {
        "suite": pa.string(), "item": pa.string(), "nodes": pa.int32(), "testable": pa.bool_(), "tau": pa.float32(),
        "document": pa.string(), "file": pa.string(), "row": pa.int64(), "doc_start": pa.int64(),
        "doc_end": pa.int64(),
    }  # fmt: skip
    columns = {name: pa.array([getattr(one, name) for one in found.items], kind) for name, kind in types.items()}
    for pruned in found.at:
        alike = [one.tau is not None and reaches(one.tau, pruned.tau) for one in found.items]
        columns[f"similar_{pruned.tau:g}"] = pa.array(alike, pa.bool_())
    with replacing(found.path / ITEMS) as path:
        pq.write_table(pa.table(columns), path, compression="zstd")
    write_bytes(found.path / PRUNED, _steps(found).encode())


def _steps(found: Similar) -> str:
    asked = {float(np.float32(one.tau)): one.tau for one in found.at}
    items = [[one for one in found.items if one.suite == suite] for suite in found.suites]
    untestable = [sum(not one.testable for one in mine) for mine in items]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["tau", "asked", "documents", "share", "suite", "items", "similar", "non_similar", "untestable"])
    for point in reversed(found.curve):
        share = point.documents / found.documents if found.documents else 0.0
        first = [asked.get(point.tau, np.float32(point.tau)), int(point.tau in asked), point.documents, f"{share:.8g}"]
        for suite, mine, alike, never in zip(found.suites, items, point.similar, untestable, strict=True):
            table.writerow([*first, suite, len(mine), alike, len(mine) - alike - never, never])
    return text.getvalue()


def write_pruned(
    run: Run, found: Similar, sources: Sequence[Source], *, threads: int | None, stage: Callable[[str], object]
) -> None:
    """Write the corpus pruned at each τ, or what an interruption left to do of it.

    Parameters
    ----------
    run, found
        The run, and what was found in it; its ``corpora`` gain what is written.
    sources
        Of the corpus, which is as it was scanned.
    threads
        Sources written at a time; all usable cores by default.
    stage
        Told what is being done.
    """
    from phi_fast.decontaminate.run import usable_cores

    work = found.path / WORK
    work.mkdir(exist_ok=True)
    about = [deciding(run, found, one.tau) for one in found.at]
    name = hashlib.sha256(json.dumps([about, run.record["settings_sha256"]]).encode()).hexdigest()
    with Journal(work / JOURNAL, {"similar": name}) as done:
        stage("reading the matched documents")
        removals = _Removals(work / _REMOVALS, run, found)
        for one, settings in zip(found.at, about, strict=True):
            corpus = corpus_name(one.tau)
            stage(f"writing {corpus}")
            if found.corpora.pop(corpus, None) is not None:
                write_record(run, found)  # while it is being written it is not whole
            if corpus not in done.sources:
                remove(found.path / corpus)
            told = write_copies(
                sources,
                found.path / corpus,
                partial(removals.of, tau=one.tau),
                changed={sources[number].name for number in removals.sources(one.tau)},
                threads=threads or usable_cores(),
                done=done.sources.get(corpus, {}),
                finished=partial(done.add_source, corpus),
            )
            found.corpora[corpus] = settings | {
                "unwritable_rows": sum(rows for says in told.values() for _, _, rows in says["faults"]),
                "notes": [told[number]["note"] for number in sorted(told) if told[number]["note"]],
            }
            write_record(run, found)
    remove(work)


class _Removals:
    """What the corpora leave out: documents with their match rates, and rows that are no documents."""

    def __init__(self, path: Path, run: Run, found: Similar) -> None:
        self._path = path
        self._places: dict[int, int] = {}  # source to where its lines begin
        self._best: dict[int, float] = {}  # source to the highest match rate that it holds
        lowest = min(one.tau for one in found.at)
        known = origins(run.record["inputs"])
        numbers = {origin.name: number for number, origin in enumerate(known)}
        near = by_document(close_rows(run.path / EVIDENCE, found.distance, found.min_nodes))
        wanted = (one for one in near if reaches(one.tau, lowest))
        with Journal(run.path / JOURNAL, None) as journal, path.open("wb") as file:

            def documents() -> Iterator[tuple[int, list[Any]]]:
                for one, kept in with_kept(journal, known, wanted, _place):
                    yield numbers[one.file], [one.row, kept.offset, kept.length, 1, one.tau]

            rejected = ((number, [*line[:4], 2.0]) for number, line in rejected_rows(run.path, numbers))
            merged = heapq.merge(documents(), rejected, key=removal_order)
            for number, mine in groupby(merged, key=itemgetter(0)):
                self._places[number] = file.tell()
                for _, line in mine:
                    file.write(json.dumps(line).encode() + b"\n")
                    self._best[number] = max(self._best.get(number, 0.0), line[4])
                file.write(b"\n")

    def sources(self, tau: float) -> Iterator[int]:
        """Sources of which a corpus lacks something."""
        return (number for number, best in self._best.items() if reaches(best, tau))

    def of(self, number: int, tau: float) -> Iterator[Removal]:
        """What a corpus lacks of a source, in the order of rows."""
        if number not in self._places:
            return
        with self._path.open("rb") as file:
            file.seek(self._places[number])
            for line in file:
                if line == b"\n":
                    return
                row, offset, length, rows, best = json.loads(line)
                if reaches(best, tau):
                    yield Removal(row, offset, length, rows)


def _place(one: Near) -> tuple[str, int]:
    return one.file, one.row
