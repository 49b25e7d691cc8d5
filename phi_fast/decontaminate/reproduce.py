"""Do a run again from its run.json, and say what comes out otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi_fast.decontaminate.plan import differences, plan_again, plan_record
from phi_fast.decontaminate.record import EVIDENCE, VERDICTS, Run
from phi_fast.decontaminate.scan import Progressing
from phi_fast.errors import RunError

TABLES = {"evidence": EVIDENCE, "verdicts": VERDICTS}


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What doing a run again gave. ``differences`` is empty when all of it is the same."""

    run: Run
    hashes: dict[str, str]
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether evidence and verdicts came out the same, byte for byte."""
        return all(self.hashes[name] == self.run.record["hashes"][name] for name in TABLES)


def reproduce_run(
    run: Run | str | os.PathLike[str], *, threads: int | None = None, progress: Progressing | None = None
) -> Reproduction:
    """Scan the corpus again into a temporary folder, decide again, and compare with what stands in the run.

    Raises
    ------
    RunError
        The run is not finished.
    InputError
        The corpus or a suite is gone.
    """
    from phi_fast.decontaminate.run import carry_out

    old = run if isinstance(run, Run) else Run.load(run)
    if not old.finished:
        raise RunError(f"{old.path}: the run is not finished; give its command again first")
    plan = plan_again(old.record, old.index().parts)
    with tempfile.TemporaryDirectory(prefix="phi-fast-reproduce-") as folder:
        new = carry_out(plan, Path(folder) / "run", threads=threads, tables_only=True, progress=progress)
        said = differences(old.record, plan_record(plan, new.record["phi_fast"]))
        said += [
            f"{name}: {value} there, {new.record['versions'][name]} now"
            for name, value in old.record["versions"].items()
            if new.record["versions"][name] != value
        ]
        for name in ("index", *TABLES):
            if old.record["hashes"][name] != new.record["hashes"][name]:
                said.append(f"{name}: another sha256" + (_compared(old, new, TABLES[name]) if name in TABLES else ""))
        return Reproduction(old, new.record["hashes"], tuple(said))


def _compared(old: Run, new: Run, table: str) -> str:
    """Say where two tables part, reading both row by row."""
    count = 0
    first = ""
    there, now = _rows(old.path / table), _rows(new.path / table)
    while True:
        left, right = next(there, None), next(now, None)
        if left is None and right is None:
            break
        count += 1
        if left != right and not first:
            first = f"; row {count - 1:,} is {_shown(left)} there, {_shown(right)} now"
    return first or f", but the same {count:,} rows: the files were written by other versions"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1 << 12):
            yield from batch.to_pylist()


def _shown(row: dict[str, Any] | None) -> str:
    if row is None:
        return "missing"
    names = (
        "file",
        "row",
        "suite",
        "item",
        "channel",
        "part",
        "n",
        "coverage",
        "run",
        "tau",
        "alpha",
        "distance",
        "verdict",
        "reason",
    )
    return ", ".join(f"{name} {row[name]}" for name in names if name in row)
