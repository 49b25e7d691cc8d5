"""How fast the engine scans JSONL that stands in memory or in the page cache, by instruction set and codec.

    python benchmarks/scan_speed.py --size 1GB --rounds 5

Each figure is text scanned by one process pinned to as many cores as it has threads, HumanEval as the index. Every
round starts a fresh process for each case, in turn; a process scans the corpus once to warm up, then three times for
its figure, which is their median.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from corpus import Corpus, add_arguments, compressed, make_corpus, warm
from harness import MB, alternate, cores, report, run_child, shown, spread, table

from phi_fast import _native
from phi_fast.corpus import Lines, discover, work
from phi_fast.decontaminate import make_policy
from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import load_suite

BLOCK = 8 << 20


def blocks(path: Path) -> list[memoryview]:
    """Read a file and cut it into blocks of whole lines."""
    data = memoryview(path.read_bytes())
    cuts = [0]
    while cuts[-1] < len(data):
        wanted = min(cuts[-1] + BLOCK, len(data))
        newline = bytes(data[cuts[-1] : wanted]).rfind(b"\n")
        if newline < 0 or wanted == len(data):
            end = bytes(data[wanted:]).find(b"\n")
            cuts.append(len(data) if wanted == len(data) or end < 0 else wanted + end + 1)
        else:
            cuts.append(cuts[-1] + newline + 1)
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


def scan_memory(index: NgramIndex, path: Path, threads: int) -> Callable[[], int]:
    """Scan blocks of memory from a pool of threads."""
    held = blocks(path)
    pool = ThreadPoolExecutor(threads)
    return lambda: sum(pool.map(lambda block: index.scan_jsonl(block, "text", "id").text_bytes, held))


def scan_file(index: NgramIndex, path: Path, threads: int) -> Callable[[], int]:
    """Read, decompress and scan a file, as the command does."""
    sources = discover([str(path)])

    def once() -> int:
        total = 0
        for _, batch in work(sources, threads=threads):
            assert isinstance(batch, Lines)
            total += index.scan_jsonl(batch.data, "text", "id").text_bytes
        return total

    return once


def child(path: Path, threads: int, from_file: bool, passes: int = 3) -> None:
    """Measure in this process and print the figure."""
    index = NgramIndex.build([load_suite("humaneval")], make_policy()[0])
    scan = (scan_file if from_file else scan_memory)(index, path, threads)
    scan()
    speeds = []
    for _ in range(passes):
        started = time.perf_counter()
        scanned = scan()
        speeds.append(scanned / MB / (time.perf_counter() - started))
    print(json.dumps({"speed": statistics.median(speeds), "simd": _native.simd()}))


def measure(path: Path, simd: str, threads: int, from_file: bool) -> Callable[[], float]:
    """Prepare a case: a process of its own."""
    command: list[Any] = [sys.executable, __file__, "--child", path, "--threads", str(threads)]

    def run() -> float:
        options = ["--from-file"] if from_file else []
        done = run_child([*command, *options], on=cores(threads), env={"PHI_FAST_NATIVE": simd})
        result = json.loads(done.output.strip().splitlines()[-1])
        assert result["simd"] == simd
        return float(result["speed"])

    return run


def cases(corpus: Corpus) -> dict[str, Callable[[], float]]:
    """List what is measured."""
    best = _native.SIMD_AVAILABLE[-1]
    chosen = {f"{simd}, 1 thread": measure(corpus.path, simd, 1, False) for simd in reversed(_native.SIMD_AVAILABLE)}
    if len(os.sched_getaffinity(0)) > 1:
        chosen[f"{best}, 2 threads"] = measure(corpus.path, best, 2, False)
    for codec in ("zst", "gz"):
        chosen[f"{best}, 1 core, {codec}"] = measure(compressed(corpus, codec), best, 1, True)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--from-file", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads, arguments.from_file)
        return
    corpus = make_corpus(arguments.size, arguments.root, arguments.files)
    chosen = cases(corpus)
    warm(corpus.path)
    measured = alternate(chosen, arguments.rounds)
    data: dict[str, Any] = {"cases": {name: spread(values) for name, values in measured.items()}}
    notes = [
        f"Corpus: {corpus.documents:,} documents, {corpus.text_bytes / MB:,.0f} MB of text, {corpus.planted} planted."
    ]
    one, two = (next((v for k, v in measured.items() if k.endswith(end)), []) for end in ("1 thread", "2 threads"))
    if one and two:
        data["two_threads"] = statistics.median(two) / statistics.median(one)
        notes.append(f"Two threads scan {data['two_threads']:.2f} times what one does.")
    rows = [(name, shown(values)) for name, values in measured.items()]
    report("scan_speed", "Scan speed", table(["case", "MB/s of text"], rows), data, notes)


if __name__ == "__main__":
    main()
