"""Decontaminate a corpus from end to end, in steps that a kill can interrupt anywhere."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.decontaminate.channels import Channels, scan_batch
from phi_fast.decontaminate.folder import begin, look_at, read_record, refuse_inside, remove, write_record
from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.plan import Against, Plan, make_plan, plan_record, settings_sha256
from phi_fast.decontaminate.policy import Mode, make_policy
from phi_fast.decontaminate.record import EVIDENCE, FORMAT, INDEX, JOURNAL, VERDICTS, WORK, Run
from phi_fast.decontaminate.safely import disk_errors, file_sha256
from phi_fast.decontaminate.scan import SCANNED, Progressing, Unwatched, Watcher, scan
from phi_fast.errors import GateError, InputError, RunError

if TYPE_CHECKING:
    from phi_fast.decontaminate.write import Decided
    from phi_fast.engines.ngram import NgramIndex, PartInfo
    from phi_fast.engines.trees import TreeIndex
    from phi_fast.vectors import Embedder

WRITTEN = "written"  # journal record: the clean copy of a source is there


def decontaminate(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    against: Against | Sequence[Against],
    output: str | os.PathLike[str],
    *,
    preset: str = "default",
    mode: Mode | None = None,
    n: Sequence[int] | None = None,
    coverage: float | None = None,
    run: int | None = None,
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
    fields: Mapping[str, str | None] | None = None,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    channels: Sequence[str] | None = None,
    embedding_model: str = "minilm",
    embedding_device: str | None = None,
    threads: int | None = None,
    strict: bool = False,
    fail_above: float | None = None,
    overwrite: bool = False,
    progress: Progressing | None = None,
    unit_bytes: int | None = None,
    learn_from: Sequence[str] = (),
) -> Run:
    """Take out of a corpus the documents that leak a benchmark.

    Parameters
    ----------
    corpus
        Files, folders, globs or fsspec URLs: JSONL (plain, gz, zst, bz2, xz), Parquet, Arrow, source trees.
    against
        Suites: "humaneval", "mbpp=PATH", "NAME=PATH", or what ``load_suite`` gave.
    output
        Folder for clean/, removed.jsonl, rejected.jsonl, evidence.parquet, verdicts.parquet, reports and run.json. A
        run that was interrupted there goes on; a finished one of the same settings is given back as it is.
    preset, mode, n, coverage, run, words, tau, alpha, nodes, distance, both
    parts, weights, allow, window, min_piece, max_pieces
        The rule: see :class:`~phi_fast.decontaminate.policy.Policy`; each changes the preset's value.
    fields
        Fields of suites of one's own: {"question": "prompt", "solution": …, "tests": …, "id": …}; guessed where absent.
    text, id
        Column or key of the documents' text and id; found where not given.
    pattern
        Which files of a folder are documents, "**/*.py" where the folder holds no corpus files.
    channels
        Ways to find matches, "ngram", "syntax" and "embedding"; those the rule has thresholds for unless given.
    embedding_model, embedding_device
        Model of the embedding channel: "minilm", a folder, or a name on the hub; and where it runs, "cpu" or "cuda".
    threads
        All usable cores by default. The output's bytes do not depend on it.
    strict
        Stop at the first row that is no document instead of setting it aside.
    fail_above
        Raise ``GateError``, once everything is written, where a larger share of the documents has a verdict.
    overwrite
        Replace another run in ``output``. A folder that is no run's is never touched.
    progress
        Called with the corpus' size in bytes; gives a context manager that is told of progress, as
        :class:`~phi_fast.decontaminate.terminal.Progress` does.
    unit_bytes
        Size of a work unit; for tests.
    learn_from
        Names of the corpus' files from which is learnt which n-grams are common: those without leaks put there on
        purpose. All unless given.

    Returns
    -------
    Run
        ``run.counts``, ``run.evidence()``, ``run.verdicts()``, ``run.path``.

    Raises
    ------
    InputError
        Something about the arguments or the input is wrong.
    RunError
        The run stopped part-way and can be gone on with: the same call again.
    GateError
        ``fail_above`` was exceeded.
    """
    index_n, policy = make_policy(
        preset, n=n, mode=mode, coverage=coverage, run=run, words=words, tau=tau, alpha=alpha, nodes=nodes,
        distance=distance, both=both, parts=parts, weights=weights, allow=allow, window=window, min_piece=min_piece,
        max_pieces=max_pieces,
    )  # fmt: skip
    folder = Path(output).expanduser()
    plan = make_plan(
        corpus, against, index_n, policy, fields=fields, text=text, id=id, pattern=pattern, channels=channels,
        embedding_model=embedding_model, embedding_device=embedding_device, unit_bytes=unit_bytes,
        learn_from=learn_from,
    )  # fmt: skip
    refuse_inside(folder, plan.corpus)
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: give 1 or more")
    finished = carry_out(plan, folder, threads=threads, strict=strict, overwrite=overwrite, progress=progress)
    if fail_above is not None:
        gate(finished, fail_above)
    return finished


def carry_out(
    plan: Plan,
    folder: Path,
    *,
    threads: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    tables_only: bool = False,
    progress: Progressing | None = None,
) -> Run:
    """Do a plan in a folder, or what is left of it. ``tables_only`` stops after evidence and verdicts."""
    started, clock = datetime.now(UTC), time.perf_counter()
    threads = threads or usable_cores()
    version = metadata.version("phi-fast")
    record = _first_record(plan, version)
    standing = look_at(folder, record, overwrite=overwrite)
    if standing == "finished":
        return Run.load(folder)
    size = sum(source.size for source in plan.sources)
    with disk_errors(folder), (progress or Unwatched)(size) as watcher:
        watcher.stage("learning")
        index = trees = None
        if standing == "new":
            index, trees = _build(plan)
            begin(folder, record)
        with Journal(folder / JOURNAL, {"settings": record["settings_sha256"]}) as journal:
            index = _learn(plan, folder, index, record)
            channels = open_channels(index, plan.channels, plan.embedder, trees)
            if trees is None:
                _refuse_untestable(plan, channels.parts)
            resumed = journal.totals.copy()
            if resumed:
                names = ("text_bytes", "documents", "matches", "rejected")
                watcher.advance(bytes=resumed["size"], **{name: resumed[name] for name in names}, resumed=True)
            watcher.stage("scanning")
            scan_clock = time.perf_counter()
            limits = {"threads": threads, "unit_bytes": plan.unit_bytes}
            scan(plan.sources, channels, journal, **limits, strict=strict, watcher=watcher)
            scan_seconds = time.perf_counter() - scan_clock
            missing = set(range(len(plan.sources))) - set(journal.sources.get(SCANNED, ()))
            if missing:
                raise AssertionError(f"sources {sorted(missing)[:5]} were not scanned to their end")
            record["state"] = "writing"
            write_record(folder, record)
            watcher.stage("writing")
            write_clock = time.perf_counter()
            from phi_fast.decontaminate.evidence import write_evidence

            found = write_evidence(folder, journal, plan.sources, channels.parts)
            decided = _decide(plan, folder, index, journal, record, threads, tables_only, watcher)
        _fill(record, plan, channels, found, decided, folder)
        text_bytes = record["counts"]["text_bytes"] - resumed["text_bytes"]
        record["timing"] = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": 0.0,
            "scan_seconds": round(scan_seconds, 4),
            "write_seconds": round(time.perf_counter() - write_clock, 4),
            "threads": threads,
            "simd": _simd(),
            "resumed": bool(resumed),
            "scanned_text_bytes": text_bytes,
            "mb_per_second": round(text_bytes / 1e6 / scan_seconds, 1) if scan_seconds else 0.0,
        }
        record["timing"]["seconds"] = round(time.perf_counter() - clock, 4)
        write_record(folder, record)
        if not tables_only:
            from phi_fast.decontaminate.report import write_reports

            watcher.stage("reporting")
            write_reports(folder)
        record["state"] = "finished"
        record["timing"]["seconds"] = round(time.perf_counter() - clock, 4)
        write_record(folder, record)
        remove(folder / WORK)
    return Run.load(folder)


def gate(run: Run, fail_above: float) -> None:
    """Raise where a larger share of the documents has a verdict than a gate lets through.

    Raises
    ------
    GateError
        It is larger.
    """
    if run.share > fail_above:
        raise GateError(
            f"{run.removed:,} of {run.documents:,} documents ({run.share:.4%}) have a verdict, over the "
            f"{fail_above:.4%} that --fail-above lets through"
        )


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_record(plan: Plan, version: str) -> dict[str, Any]:
    described = plan_record(plan, version)
    return {
        "format": FORMAT,
        "phi_fast": version,
        "state": "scanning",
        "settings_sha256": settings_sha256(described),
        "settings": described["settings"],
        "policy_words": plan.policy.describe(),
        "clean_policy": None,
        "suites": described["suites"],
        "inputs": described["inputs"],
        "notes": list(plan.notes),
        "counts": {},
        "hashes": {},
        "versions": {
            "python": platform.python_version(),
            "numpy": metadata.version("numpy"),
            "pyarrow": metadata.version("pyarrow"),
        },
        "timing": {},
    }


def _build(plan: Plan) -> tuple[NgramIndex, TreeIndex | None]:
    from phi_fast.engines.ngram import NgramIndex

    index = NgramIndex.build(plan.suites, plan.n)
    channels = open_channels(index, plan.channels)
    _refuse_untestable(plan, channels.parts)
    return index, channels.trees


def _refuse_untestable(plan: Plan, parts: Sequence[PartInfo]) -> None:
    for suite in plan.suites:
        mine = [part for part in parts if part.suite == suite.name]
        if not any(part.findable for part in mine):
            why = next((f" ({part.item} {part.part}: {part.why_not})" for part in mine if part.why_not), "")
            raise InputError(
                f'suite "{suite.name}" from {suite.source}: no item of it is testable, so nothing could be found{why}. '
                "Check that the right fields were read: phi-fast suites show."
            )


def open_channels(
    index: NgramIndex, names: Sequence[str], embedder: Embedder | None = None, trees: TreeIndex | None = None
) -> Channels:
    """Make ready what the channels of a run scan with; the embedding channel is there where its model is given.

    `trees` are those of the same parts, where they are there already.
    """
    if trees is None and "syntax" in names:
        from phi_fast.engines.trees import TreeIndex

        trees = TreeIndex.build(index.parts)
    embedding = None
    if embedder is not None:
        from phi_fast.decontaminate.embedding import EmbeddingChannel

        embedding = EmbeddingChannel(index.parts, embedder)
    return Channels(index, tuple(names), trees, embedding)


def _learn(plan: Plan, folder: Path, index: NgramIndex | None, record: dict[str, Any]) -> NgramIndex:
    """Learn which n-grams are common from a sample of the corpus, or load an index that has learnt."""
    from phi_fast.corpus import sample

    path = folder / INDEX
    learnt = _learnt(path)
    if learnt is None:
        index = index or _build(plan)[0]
        counts, documents = index.new_counts(), 0
        sources = [source for source in plan.sources if not plan.learn_from or source.name in plan.learn_from]
        for number, batch in sample(sources):
            documents += scan_batch(index, batch, sources[number], counts).documents
        index.learn_common(counts, documents)
        record["sample_documents"] = documents
        write_record(folder, record)  # before the index: where that is, this is
        index.save(path)
        return index
    there = read_record(folder)
    if there is None:
        raise RunError(f"{folder}: run.json is gone or damaged; give --overwrite to begin again")
    record["sample_documents"] = there.get("sample_documents", 0)
    return learnt


def _learnt(path: Path) -> NgramIndex | None:
    from phi_fast.engines.ngram import NgramIndex

    try:
        return NgramIndex.load(path, mmap=False)
    except InputError:  # not there yet, or damaged: what is learnt again is the same
        return None


def _decide(
    plan: Plan, folder: Path, index: NgramIndex, journal: Journal, record: dict[str, Any], threads: int,
    tables_only: bool, watcher: Watcher,
) -> Decided:  # fmt: skip
    from phi_fast.decontaminate.excerpts import write_excerpts
    from phi_fast.decontaminate.kept import origins
    from phi_fast.decontaminate.write import write_corpus, write_verdicts

    known = origins(record["inputs"])
    decided = write_verdicts(folder, journal, known, plan.policy, index.parts, removing=not tables_only)
    if tables_only:
        return decided
    write_excerpts(folder, journal, known, plan.policy, index.parts)
    if plan.policy.mode != "flag":
        record["clean_policy"] = plan.policy.as_dict()
        watcher.stage("writing clean/")
        record["notes"] += write_corpus(
            folder,
            plan.sources,
            decided,
            threads=threads,
            done=journal.sources.get(WRITTEN, {}),
            finished=lambda number, says: journal.add_source(WRITTEN, number, says),
            wrote=watcher.wrote,
        )
    return decided


def _fill(
    record: dict[str, Any], plan: Plan, channels: Channels, found: Sequence[dict[str, int]], decided: Decided,
    folder: Path,
) -> None:  # fmt: skip
    """Put what was found into run.json's content."""
    totals: Counter[str] = Counter()
    for number, (one, here) in enumerate(zip(record["inputs"], found, strict=True)):
        one |= here | {"rejected": here["rejected"] + decided.unwritable[number], "removed": decided.by_source[number]}
        totals.update({name: one[name] for name in here})
    counts = {"files": len(plan.sources), "bytes": sum(source.size for source in plan.sources), **totals}
    record["counts"] = counts | verdict_counts(counts, decided)
    for described in record["suites"]:
        mine = [part for part in channels.parts if part.suite == described["name"]]
        reachable = {part.item for part in mine if part.findable}
        described["parts"] = len(mine)
        described["testable_parts"] = sum(part.findable for part in mine)
        described["unreachable_items"] = list(dict.fromkeys(part.item for part in mine if part.item not in reachable))
    record["hashes"] = {
        "index": channels.index.sha256,
        "evidence": file_sha256(folder / EVIDENCE),
        "verdicts": file_sha256(folder / VERDICTS),
    }  # fmt: skip


def verdict_counts(counts: Mapping[str, int], decided: Decided) -> dict[str, int]:
    """Count documents by verdict; the rest is kept."""
    by_verdict = {verdict: decided.verdicts[verdict] for verdict in ("drop", "cut", "flag")}
    return by_verdict | {"keep": counts["documents"] - by_verdict["drop"] - by_verdict["cut"] - by_verdict["flag"]}


def _simd() -> str:
    from phi_fast import _native

    return _native.simd()
