"""How fast the whole command is, from a corpus in the page cache to the clean corpus, beside its peers; one core each.

    python benchmarks/command_speed.py --size 4GB --peer-size 300MB --rounds 3

Wall time of the whole process, its start included. Each tool runs as its documentation says (see peer_tools.py); all
read the same file in turn. phi_fast is measured on a large corpus as well, where its start no longer counts, and with
words alone, which is all that the peers look at: by default it compares syntax trees too.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from corpus import Corpus, add_arguments, make_corpus, size, warm
from harness import (
    MB,
    Child,
    ChildFailed,
    alternate,
    cache_dir,
    cores,
    phi_fast_command,
    report,
    run_child,
    shown,
    spread,
    table,
)
from peer_tools import PEERS, install_peers, prepare_suite

from phi_fast.suites import load_suite

WORDS = ("--channels", "ngram")


def run_ours(
    corpus: Path, threads: int = 1, name: str = "ours", options: tuple[str, ...] = ()
) -> tuple[Child, frozenset[str]]:
    """Decontaminate a corpus with the command; gives what it cost and the ids of the documents dropped."""
    out = cache_dir() / "scratch" / name
    shutil.rmtree(out, ignore_errors=True)
    command: list[str | Path] = [
        *phi_fast_command(),
        "decontaminate",
        corpus,
        "--against",
        "humaneval",
        "--output",
        out,
    ]
    child = run_child([*command, *options, "--threads", str(threads)], on=cores(threads))
    dropped = pq.read_table(out / "verdicts.parquet", columns=["id"]).column("id").to_pylist()
    return child, frozenset(dropped)


class Case:
    """A tool on a corpus; keeps what its runs cost besides time."""

    def __init__(self, corpus: Corpus, run: Callable[[], tuple[Child, frozenset[str]]]) -> None:
        self.corpus, self.run = corpus, run
        self.memory = 0
        self.flagged: frozenset[str] = frozenset()
        self.failed = ""

    def __call__(self) -> float:
        if self.failed:
            return float("nan")
        warm(self.corpus.path)  # the others ran in between, and memory that lies idle may be taken back
        try:
            child, self.flagged = self.run()
        except ChildFailed as error:
            self.failed = str(error)
            print(f"  failed: {error}")
            return float("nan")
        self.memory = max(self.memory, child.peak_memory)
        return self.corpus.text_bytes / MB / child.seconds

    @property
    def planted_found(self) -> int:
        """Documents flagged that hold a planted item (its id ends in the item's)."""
        return sum(" + HumanEval/" in document for document in self.flagged)

    @property
    def clean_flagged(self) -> int:
        """Documents flagged that hold none."""
        return len(self.flagged) - self.planted_found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "4GB")
    parser.add_argument("--peer-size", type=size, help="size of the corpus all tools read (default: every file once)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="append", choices=PEERS, help="default: all")
    arguments = parser.parse_args()

    large = make_corpus(arguments.size, arguments.root, arguments.files)
    common = make_corpus(arguments.peer_size, arguments.root, arguments.files)
    suite = prepare_suite(load_suite("humaneval"))
    peers, failed = install_peers(arguments.peer or list(PEERS))
    cases: dict[str, Case] = {
        "phi_fast": Case(common, lambda: run_ours(common.path)),
        "phi_fast, words alone": Case(common, lambda: run_ours(common.path, options=WORDS)),
        "phi_fast, large corpus": Case(large, lambda: run_ours(large.path)),
        "phi_fast, words alone, large corpus": Case(large, lambda: run_ours(large.path, options=WORDS)),
    }
    for peer in peers:

        def run(peer: Any = peer) -> tuple[Child, frozenset[str]]:
            scan = peer.scan(common.path, suite, cores(1))
            return scan.child, scan.flagged

        cases[f"{peer.name} {peer.version}"] = Case(common, run)
    speeds = {
        name: [value for value in values if value == value]
        for name, values in alternate(cases, arguments.rounds).items()
    }

    rows: list[tuple[object, ...]] = []
    data: dict[str, Any] = {}
    decon = [statistics.median(v) for name, v in speeds.items() if name.startswith("decon ") and v]
    for name, case in cases.items():
        values = speeds[name]
        if not values:
            rows.append((name, "failed", "-", "-", "-"))
            failed[name] = case.failed
            continue
        found = f"{case.planted_found} of {case.corpus.planted}" if case.corpus is common else "-"
        clean = f"{case.clean_flagged:,}" if case.corpus is common else "-"
        rows.append((name, shown(values), f"{case.memory / MB:,.0f}", found, clean))
        data[name] = spread(values) | {
            "speeds": values,
            "memory_mb": case.memory / MB,
            "text_mb": case.corpus.text_bytes / MB,
            "planted_found": case.planted_found,
            "clean_flagged": case.clean_flagged,
        }
    notes = [
        f"All tools: {common.documents:,} documents, {common.text_bytes / MB:,.0f} MB of text, HumanEval planted in "
        f"{common.planted} of them. Large corpus: {large.text_bytes / MB:,.0f} MB, repeated.",
        *(f"{peer.name}: {peer.note}." for peer in peers),
        *(f"{name} did not run: {reason}" for name, reason in failed.items()),
    ]
    if decon:
        ratios = {name: statistics.median(speeds[name]) / decon[0] for name in list(cases)[:4] if speeds[name]}
        notes += [f"{name}: {ratio:,.0f} times decon." for name, ratio in ratios.items()]
        data["times_decon"] = ratios
    headings = ("tool", "MB/s of text, whole command", "peak memory, MB", "planted found", "clean flagged")
    report(
        "command_speed", "The whole command", table(headings, rows), {"planted": common.planted, "cases": data}, notes
    )


if __name__ == "__main__":
    main()
