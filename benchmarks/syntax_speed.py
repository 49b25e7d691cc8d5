"""How fast Python source becomes node types, beside CPython's `ast` with a walk, and distances beside rapidfuzz.

    python benchmarks/syntax_speed.py --rounds 5

One core. Parsing: real files, in memory. Distances: HumanEval's functions against functions of those files at τ = 0.8;
rapidfuzz's `cdist` gets the same cutoff. A pair counts whether or not a bound settles it.
"""

from __future__ import annotations

import argparse
import ast
import os
import sysconfig
import time
import warnings
from typing import Any

import numpy as np
from corpus import add_arguments, python_files
from harness import MB, alternate, cores, report, shown, spread, table

from phi_fast import _native
from phi_fast.engines import syntax
from phi_fast.suites import load_suite

TAU = 0.8


def walk(tree: ast.AST) -> int:
    """Count the nodes in preorder, as a sequence of node types needs."""
    count, waiting = 0, [tree]
    while waiting:
        node = waiting.pop()
        count += 1
        waiting += reversed(list(ast.iter_child_nodes(node)))
    return count


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=20, help="source parsed a round")
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

    functions = [f for source in sources for f in syntax.parse(source).functions if len(f.types) >= 25]
    programs = ["".join(part.text for part in item.parts[:2]) for item in load_suite("humaneval").items]
    items = [syntax.parse(program).functions[-1].types for program in programs]
    queries = [f.types for f in functions]
    pairs = len(items) * len(queries)
    cases: dict[str, Any] = {"parse, phi_fast": ours, "parse, ast with a walk": cpython}

    def near() -> float:
        started = time.perf_counter()
        syntax.neighbours(items, queries, TAU, threads=1)
        return pairs / (time.perf_counter() - started) / 1e6

    cases["pairs at 0.8, phi_fast"] = near
    notes = [
        f"Parsed: {len(sources):,} files, {size / MB:,.1f} MB. Pairs: {len(items)} items, {len(queries):,} functions "
        f"of 25 nodes or more, median {np.median([len(q) for q in queries]):.0f} nodes."
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
    middle = [f for f in functions if 38 <= len(f.types) <= 42][:40]

    def trees() -> float:
        started = time.perf_counter()
        for a in middle:
            for b in middle:
                _native.tree_distance(a.types.astype(np.uint32), a.sizes, b.types.astype(np.uint32), b.sizes)
        return len(middle) ** 2 / (time.perf_counter() - started)

    cases["tree distance, 40 nodes"] = trees
    values = alternate(cases, arguments.rounds)
    units = {name: "MB/s" if "parse" in name else "M pairs/s" if "pairs" in name else "pairs/s" for name in cases}
    body = table(["case", "median (range)", "unit"], [[n, shown(v), units[n]] for n, v in values.items()])
    ratio = spread(values["parse, phi_fast"])["median"] / spread(values["parse, ast with a walk"])["median"]
    notes.append(f"Parsing: {ratio:.0f} times ast with a walk.")
    report("syntax_speed", "Parsing and distances", body, {name: spread(v) for name, v in values.items()}, notes)


if __name__ == "__main__":
    main()
