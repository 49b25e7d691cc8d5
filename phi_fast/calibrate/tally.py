"""From a trial's evidence to what any rule would find and flag: five numbers a document, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.calibrate.plant import CLEAN
from phi_fast.decontaminate.policy import LARGE_NODES, Policy
from phi_fast.decontaminate.record import EVIDENCE, Run
from phi_fast.decontaminate.tables import numbers
from phi_fast.trial import Hidden, findable

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    Bools = npt.NDArray[np.bool_]

_READ = [
    "file", "row", "channel", "suite", "item", "part", "n", "words", "coverage", "nodes", "item_nodes", "tau",
    "alpha", "distance",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike documents are to what is looked for, at their most: one number a document in each array.

    Attributes
    ----------
    coverage
        Of a testable part, by words; -1 for none.
    tau, alpha
        Match rates of functions large enough for a threshold; -1 for none.
    same
        Nodes of the largest smaller function that is the same but for its names; 0 for none.
    distance
        Of embeddings; infinite for none.
    """

    coverage: npt.NDArray[np.float32]
    tau: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32]
    same: npt.NDArray[np.int64]
    distance: npt.NDArray[np.float32]

    @classmethod
    def of(cls, documents: int) -> Likeness:
        """So many documents that are like nothing."""
        none = np.full(documents, -1, np.float32)
        far = np.full(documents, np.inf, np.float32)
        return cls(none, none.copy(), none.copy(), np.zeros(documents, np.int64), far)

    def flagged(self, policy: Policy, channel: str) -> Bools:
        """Documents that a policy condemns by one channel."""
        found = np.zeros(len(self.same), np.bool_)
        if channel == "ngram" and policy.coverage is not None:
            found |= self.coverage >= np.float32(policy.coverage)
        if channel == "syntax" and policy.tau is not None:
            found |= self.tau >= np.float32(policy.tau)
        if channel == "syntax" and policy.alpha is not None:
            found |= (self.alpha >= np.float32(policy.alpha)) | (self.same >= policy.nodes)
        if channel == "embedding" and policy.distance is not None:
            found |= self.distance <= np.float32(policy.distance)
        return found

    def _add(self, rows: npt.NDArray[np.int64], batch: Mapping[str, npt.NDArray[Any]]) -> None:
        np.maximum.at(self.coverage, rows, batch["coverage"])
        large = batch["large"]
        np.maximum.at(self.tau, rows, np.where(large, batch["tau"], -1).astype(np.float32))
        np.maximum.at(self.alpha, rows, np.where(large, batch["alpha"], -1).astype(np.float32))
        np.maximum.at(self.same, rows, np.where(~large & (batch["alpha"] >= 1), batch["nodes"], 0))
        np.minimum.at(self.distance, rows, batch["distance"])


@dataclass(frozen=True, slots=True)
class Tally:
    """A trial, ready to be decided on.

    Attributes
    ----------
    channels
        Those it was scanned with.
    hidden
        What was planted.
    planted
        How alike each planted document is to the item hidden in it.
    clean
        By suite: how alike each clean document is to any item.
    could
        By channel: whether it could find each hidden item.
    groups
        (suite, disguise) of each row of a table of recall, and `group` the row of each hidden item.
    """

    channels: tuple[str, ...]
    hidden: list[Hidden]
    planted: Likeness
    clean: dict[str, Likeness]
    could: dict[str, Bools]
    groups: list[tuple[str, str]] = field(default_factory=list)
    group: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def documents(self) -> int:
        """Clean documents."""
        return len(next(iter(self.clean.values())).same)

    def found(self, policy: Policy, channels: Sequence[str]) -> Bools:
        """Planted documents that these channels of a policy condemn for the item hidden in them."""
        return _any([self.planted.flagged(policy, channel) for channel in channels], len(self.hidden))

    def flagged(self, policy: Policy, channels: Sequence[str], suite: str | None = None) -> Bools:
        """Clean documents that these channels condemn, for any item or for one of one suite."""
        some = list(self.clean.values()) if suite is None else [self.clean[suite]]
        return _any([one.flagged(policy, channel) for one in some for channel in channels], self.documents)

    def testable(self, channels: Sequence[str]) -> Bools:
        """Hidden items that any of these channels could find."""
        return _any([self.could[channel] for channel in channels], len(self.hidden))

    def by_group(self, some: Bools) -> npt.NDArray[np.int64]:
        """Count hidden items by group."""
        return np.bincount(self.group[some], minlength=len(self.groups))


def _any(masks: Sequence[Bools], size: int) -> Bools:
    found = np.zeros(size, np.bool_)
    for mask in masks:
        found |= mask
    return found


def tally(run: Run, hidden: list[Hidden], clean: int) -> Tally:
    """Read a trial's evidence.

    Parameters
    ----------
    run
        Of the trial's corpus, finished.
    hidden
        What stands in planted.jsonl, row by row.
    clean
        Documents of clean.jsonl.
    """
    parts = run.parts()
    suites = list(dict.fromkeys(part.suite for part in parts))
    testable = {(part.suite, part.item, part.part): part.testable for part in parts}
    own = [(one.suite, one.item) for one in hidden]
    planted = Likeness.of(len(hidden))
    by_suite = {suite: Likeness.of(clean) for suite in suites}
    with pq.ParquetFile(run.path / EVIDENCE) as file:
        for batch in file.iter_batches(batch_size=1 << 16, columns=_READ):
            values, names = _values(batch, run.policy, testable)
            rows = np.asarray(batch.column("row"))
            is_clean = np.asarray(pc.equal(batch.column("file"), CLEAN))
            suite_of = np.array([suite for suite, _, _ in names], dtype=object)
            for suite, likeness in by_suite.items():
                _some(likeness, rows, values, is_clean & (suite_of == suite))
            pairs = zip(rows.tolist(), names, is_clean.tolist(), strict=True)
            mine = [not clean and own[row] == name[:2] for row, name, clean in pairs]
            _some(planted, rows, values, np.array(mine, np.bool_))
    groups = list(dict.fromkeys((one.suite, one.disguise) for one in hidden))
    number = {group: at for at, group in enumerate(groups)}
    return Tally(
        channels=tuple(run.record["settings"]["channels"]),
        hidden=hidden,
        planted=planted,
        clean=by_suite,
        could={name: np.array(one, np.bool_) for name, one in findable(hidden, parts).items()},
        groups=groups,
        group=np.array([number[one.suite, one.disguise] for one in hidden], np.int64),
    )


def _some(likeness: Likeness, rows: npt.NDArray[np.int64], values: Mapping[str, npt.NDArray[Any]], mask: Bools) -> None:
    if mask.any():
        likeness._add(rows[mask], {name: column[mask] for name, column in values.items()})


def _values(
    batch: pa.RecordBatch, policy: Policy, testable: Mapping[tuple[str, str, str], bool]
) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[str, str, str]]]:
    """Columns with what a row's channel does not decide by set to what never condemns; and the rows' parts."""
    names = list(zip(*(batch.column(name).to_pylist() for name in ("suite", "item", "part")), strict=True))
    channel = batch.column("channel")
    by_words = np.asarray(pc.equal(channel, "ngram")) & np.array([testable[name] for name in names], np.bool_)
    by_words &= (numbers(batch, "n") == policy.n) & (numbers(batch, "words") >= policy.words)
    by_trees, by_vectors = np.asarray(pc.equal(channel, "syntax")), np.asarray(pc.equal(channel, "embedding"))
    smaller = np.minimum(numbers(batch, "nodes"), numbers(batch, "item_nodes"))
    distance = np.asarray(pc.fill_null(batch.column("distance"), np.inf), np.float32)
    values = {
        "coverage": np.where(by_words, numbers(batch, "coverage"), -1).astype(np.float32),
        "tau": np.where(by_trees, numbers(batch, "tau"), -1),
        "alpha": np.where(by_trees, numbers(batch, "alpha"), -1),
        "nodes": smaller.astype(np.int64),
        "large": smaller >= LARGE_NODES,
        "distance": np.where(by_vectors, distance, np.float32(np.inf)),
    }
    return values, names
