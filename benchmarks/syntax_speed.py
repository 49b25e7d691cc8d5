"""How fast Python source becomes node types, beside CPython's `ast` with a walk, and distances beside rapidfuzz.

    python benchmarks/syntax_speed.py --rounds 5

One core. Parsing: the standard library, in memory. Distances: HumanEval's functions against functions of all Python
source found, at τ = 0.8; rapidfuzz's `cdist` gets the same cutoff. A pair counts whether or not a bound settles it;
what is timed is the whole call, from arrays to pairs. The channel: JSON lines in memory to matches, n-grams included,
beside what can be built from `ast` and rapidfuzz.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import sysconfig
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from corpus import add_arguments, python_files
from harness import MB, alternate, cores, report, shown, spread, table

from phi_fast import _native
from phi_fast.engines import syntax
from phi_fast.engines.ngram import NgramIndex
from phi_fast.engines.trees import TreeIndex
from phi_fast.suites import load_suite

TAU = 0.8
NODES = 12  # of the smallest functions compared: the median is then 40


def preorder(tree: ast.AST) -> Iterator[ast.AST]:
    """Give the nodes parents first, as a sequence of node types needs them."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed([one for one in ast.iter_child_nodes(node) if not isinstance(one, ast.expr_context)])


def walk(tree: ast.AST) -> int:
    """Count the nodes in preorder."""
    return sum(1 for _ in preorder(tree))


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=20, help="source parsed a round")
    parser.add_argument("--functions", type=int, default=100_000, help="compared with each item")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, cores(1))
    warnings.simplefilter("ignore")

    sources: list[bytes] = []
    for _, text in python_files(arguments.root or [sysconfig.get_path("stdlib")]):
        data = text.encode()
        try:
            ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        sources.append(data)
        if sum(map(len, sources)) > arguments.megabytes * MB:
            break
    size = sum(map(len, sources))

    def ours() -> float:
        started = time.perf_counter()
        for source in sources:
            _native.ParsedSource(source)
        return size / (time.perf_counter() - started) / MB

    def cpython() -> float:
        started = time.perf_counter()
        for source in sources:
            walk(ast.parse(source))
        return size / (time.perf_counter() - started) / MB

    lines = b"".join(json.dumps({"text": source.decode()}).encode() + b"\n" for source in sources)
    index = NgramIndex.build([load_suite("humaneval")])
    trees_of_items = TreeIndex.build(index.parts)

    def channel() -> float:
        started = time.perf_counter()
        index.scan_jsonl(lines, trees=trees_of_items)
        return len(lines) / (time.perf_counter() - started) / MB

    def words_alone() -> float:
        started = time.perf_counter()
        index.scan_jsonl(lines)
        return len(lines) / (time.perf_counter() - started) / MB

    queries: list[Any] = []
    trees_there: list[tuple[Any, Any]] = []
    for _, text in python_files(arguments.root or ["/"]):
        native = _native.ParsedSource(text.encode())
        types, sizes = native.types, native.sizes
        for first, count, *_, whole in native.functions.tolist():
            if whole and count >= NODES:
                queries.append(types[first : first + count].copy())
                if 38 <= count <= 42 and len(trees_there) < 40:
                    trees_there.append((queries[-1].astype(np.uint32), sizes[first : first + count].copy()))
    queries = random.Random(0).sample(queries, min(arguments.functions, len(queries)))
    programs = ["".join(part.text for part in item.parts[:2]) for item in load_suite("humaneval").items]
    items = [syntax.parse(program).functions[-1].types for program in programs]
    pairs = len(items) * len(queries)
    cases: dict[str, Any] = {
        "parse, phi_fast": ours, "parse, ast with a walk": cpython, "channel on JSONL, phi_fast": channel,
        "n-grams alone on JSONL, phi_fast": words_alone,
    }  # fmt: skip

    def near() -> float:
        started = time.perf_counter()
        syntax.neighbours(items, queries, TAU, threads=1)
        return pairs / (time.perf_counter() - started) / 1e6

    cases["pairs at 0.8, phi_fast"] = near
    notes = [
        f"Parsed: {len(sources):,} files, {size / MB:,.1f} MB. Pairs: {len(items)} items, {len(queries):,} functions "
        f"of {NODES} nodes or more, median {np.median([len(q) for q in queries]):.0f} nodes."
    ]
    try:
        from rapidfuzz.distance import Levenshtein
        from rapidfuzz.process import cdist
    except ImportError:
        notes.append("rapidfuzz is not installed here: not compared.")
    else:
        few = queries[:2000]
        item_lists, query_lists = [bytes(i.tolist()) for i in items], [bytes(q.tolist()) for q in few]

        def peer() -> float:
            started = time.perf_counter()
            cdist(item_lists, query_lists, scorer=Levenshtein.normalized_similarity, score_cutoff=TAU, workers=1)
            return len(items) * len(few) / (time.perf_counter() - started) / 1e6

        cases["pairs at 0.8, rapidfuzz cdist"] = peer
        some = lines[: lines.index(b"\n", int(2 * MB)) + 1]
        number = {name: place for place, name in enumerate(syntax.NODE_TYPES)}

        def plain() -> float:
            started = time.perf_counter()
            for line in some.splitlines():
                tree = ast.parse(json.loads(line)["text"])
                functions = [
                    bytes(number.get(type(one).__name__, 255) for one in preorder(node))
                    for node in ast.walk(tree)
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                if functions:
                    cdist(item_lists, functions, scorer=Levenshtein.normalized_similarity, score_cutoff=TAU, workers=1)
            return len(some) / (time.perf_counter() - started) / MB

        cases["channel on JSONL, ast and rapidfuzz"] = plain

    def trees() -> float:
        started = time.perf_counter()
        for a, a_sizes in trees_there:
            for b, b_sizes in trees_there:
                _native.tree_distance(a, a_sizes, b, b_sizes)
        return len(trees_there) ** 2 / (time.perf_counter() - started)

    cases["tree distance, 40 nodes"] = trees
    values = alternate(cases, arguments.rounds)
    units = {
        name: "MB/s" if "parse" in name or "JSONL" in name else "M pairs/s" if "pairs" in name else "pairs/s"
        for name in cases
    }
    body = table(["case", "median (range)", "unit"], [[n, shown(v), units[n]] for n, v in values.items()])
    ratio = spread(values["parse, phi_fast"])["median"] / spread(values["parse, ast with a walk"])["median"]
    notes.append(f"Parsing: {ratio:.0f} times ast with a walk.")
    if (cdist_name := "pairs at 0.8, rapidfuzz cdist") in values:
        ratio = spread(values["pairs at 0.8, phi_fast"])["median"] / spread(values[cdist_name])["median"]
        notes.append(f"Pairs: {ratio:.0f} times rapidfuzz.")
    report("syntax_speed", "Parsing and distances", body, {name: spread(v) for name, v in values.items()}, notes)


if __name__ == "__main__":
    main()
