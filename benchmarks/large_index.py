"""Indexes of millions of n-grams: time and memory to build them, and how fast they scan.

    python benchmarks/large_index.py --keys 10M 100M --size 500MB

The items are texts of words drawn, evenly and by a fixed seed, from the words of the corpus itself, so that nearly all
their n-grams are distinct while every word of them occurs in the corpus; HumanEval is in each index too. Each size is
built, saved and scanned in a process of its own, pinned to one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from corpus import add_arguments, make_corpus, warm
from harness import MB, ChildFailed, alternate, cache_dir, cores, report, run_child, shown, spread, table
from scan_speed import scan_memory

from phi_fast import _native
from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import Item, Part, Suite, load_suite

_ITEM_WORDS = 1000
_VOCABULARY = 50_000


def keys(text: str) -> int:
    """Read a count such as `10M`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: give a count such as 500k or 10M")
    return int(float(match[1]) * {"": 1, "k": 10**3, "m": 10**6}[match[2]])


def synthetic_suite(corpus: Path, wanted: int) -> Suite:
    """Make a suite of about `wanted` distinct n-grams of the corpus' own words."""
    with open(corpus, encoding="utf-8") as file:
        counts: Counter[str] = Counter()
        for line, _ in zip(file, range(4000), strict=False):
            counts.update(set(re.findall(r"\b[a-z_]{2,12}\b", json.loads(line)["text"].lower())))
    vocabulary = np.array([word for word, _ in counts.most_common(_VOCABULARY)], dtype=object)
    rng = np.random.default_rng(0)

    def items() -> Iterator[Item]:
        for number in range(-(-wanted // _ITEM_WORDS)):
            text = " ".join(vocabulary[rng.integers(0, len(vocabulary), _ITEM_WORDS)])
            yield Item(f"synthetic/{number}", (Part("question", text),))

    made = tuple(items())
    sha256 = hashlib.sha256(f"{corpus.name} {wanted}".encode()).hexdigest()
    return Suite("synthetic", made, "benchmarks/large_index.py", sha256)


def build(corpus: Path, wanted: int, path: Path) -> None:
    """Build in this process, save, and print what it took."""
    suites = [load_suite("humaneval"), synthetic_suite(corpus, wanted)]
    scale = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    started = time.perf_counter()
    index = NgramIndex.build(suites)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    index.save(path)
    result = {"keys": index.keys, "seconds": seconds, "index": path.stat().st_size, "memory": after - before}
    print(
        json.dumps(
            result | {"text": sum(len(part.text) for suite in suites for item in suite.items for part in item.parts)}
        )
    )


def scan(corpus: Path, path: Path, passes: int = 3) -> None:
    """Scan in this process with the saved index, mapped, and print the speed."""
    once = scan_memory(NgramIndex.load(path), corpus, 1)
    once()
    speeds = []
    for _ in range(passes):
        started = time.perf_counter()
        scanned = once()
        speeds.append(scanned / MB / (time.perf_counter() - started))
    print(json.dumps({"speed": statistics.median(speeds), "simd": _native.simd()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--keys", type=keys, nargs="+", default=[keys("10M"), keys("100M")])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scan", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        build(arguments.corpus, arguments.build, arguments.index)
        return
    if arguments.scan:
        scan(arguments.corpus, arguments.index)
        return

    corpus = make_corpus(arguments.size, arguments.root, arguments.files)
    warm(corpus.path)
    built: dict[str, dict[str, float]] = {}
    for wanted in [1000, *arguments.keys]:
        path = cache_dir() / f"index-{wanted}.phifast"
        command: list[str | Path] = [
            sys.executable,
            __file__,
            "--build",
            str(wanted),
            "--in",
            corpus.path,
            "--index",
            path,
        ]
        try:
            done = run_child(command, on=cores(1))
        except ChildFailed as error:
            print(f"{wanted:,} keys: not built: {error}")
            continue
        built[str(path)] = json.loads(done.output.strip().splitlines()[-1])
        print(f"{wanted:,}: {built[str(path)]}", flush=True)

    def speed(path: str) -> float:
        done = run_child([sys.executable, __file__, "--scan", "--in", corpus.path, "--index", path], on=cores(1))
        return float(json.loads(done.output.strip().splitlines()[-1])["speed"])

    speeds = alternate({path: lambda path=path: speed(path) for path in built}, arguments.rounds)  # type: ignore[misc]
    rows = []
    for name, one in built.items():
        built_in = (
            f"{one['seconds']:,.1f}",
            f"{one['index'] / MB:,.0f}",
            f"{one['memory'] / MB:,.0f}",
            f"{one['text'] / MB:,.0f}",
        )
        rows.append((f"{one['keys']:,.0f}", shown(speeds[name]), *built_in))
    headings = ("keys", "MB/s of text scanned", "s to build", "index, MB", "memory to build, MB", "items' text, MB")
    notes = [
        f"Corpus: {corpus.documents:,} documents, {corpus.text_bytes / MB:,.0f} MB of text. The first row is HumanEval "
        "alone but for 1,000 synthetic n-grams.",
        "Memory to build: by how much the process' largest resident size grew, over the items as Python holds them.",
    ]
    data = {"cases": [one | {"speed": spread(speeds[name])} for name, one in built.items()]}
    report("large_index", "Large indexes", table(headings, rows), data, notes)
    for name in built:
        Path(name).unlink()


if __name__ == "__main__":
    main()
