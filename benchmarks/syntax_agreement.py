"""Whether the parser gives CPython's tree: all Python source on the machine, compared node by node.

    python benchmarks/syntax_agreement.py --python python3.12 --python python3.13

Each interpreter (by default the one that runs this) parses every file with `ast.parse`, and what it accepts is compared
with ours: node types in preorder, function definitions, no error counted. Ends with status 1 when any file deviates.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from corpus import add_arguments, python_files
from harness import MB, report, table

from phi_fast import _native

ORACLE = Path(__file__).resolve().parents[1] / "tests" / "oracles" / "syntax.py"
SHOWN = 20  # deviations printed; the JSON holds all

# Runs in the other interpreter, which needs nothing but its standard library: reads a source by its length, answers
# with the number of nodes and of functions (-1: refused), the node types, and the functions' node counts.
CHILD = """
import ast, importlib.util, struct, sys, warnings
warnings.simplefilter("ignore")
sys.setrecursionlimit(20_000)
spec = importlib.util.spec_from_file_location("oracle", sys.argv[1])
oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)
numbers = {name: number for number, name in enumerate(sys.argv[2].split(","))}
read, write = sys.stdin.buffer, sys.stdout.buffer
write.write(("%d.%d.%d" % sys.version_info[:3]).encode() + b"\\n")
write.flush()
while len(head := read.read(8)) == 8:
    source = read.read(struct.unpack("<Q", head)[0])
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        write.write(struct.pack("<qq", -1, 0))
    else:
        types = bytes(numbers.get(name, 255) for name in oracle.preorder(tree))
        counts = [len(oracle.preorder(function)) for function in oracle.functions(tree)]
        write.write(struct.pack("<qq", len(types), len(counts)) + types + struct.pack("<%dQ" % len(counts), *counts))
    write.flush()
"""


class Interpreter:
    """Another Python, asked for one file after the other."""

    def __init__(self, command: str) -> None:
        names = ",".join(_native.NODE_TYPES)
        try:
            self._process = subprocess.Popen(
                [command, "-I", "-S", "-c", CHILD, str(ORACLE), names], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            raise SystemExit(f"{command} does not run: {error}") from None
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self.version = self._from.readline().decode().strip()
        if not self.version:
            raise SystemExit(f"{command} did not start")

    def parse(self, source: bytes) -> tuple[np.ndarray[Any, Any], list[int]] | None:
        """Node types and the functions' node counts, or None where `ast.parse` refuses."""
        self._to.write(len(source).to_bytes(8, "little") + source)
        self._to.flush()
        nodes, functions = np.frombuffer(self._from.read(16), np.int64).tolist()
        if nodes < 0:
            return None
        types = np.frombuffer(self._from.read(nodes), np.uint8)
        return types, np.frombuffer(self._from.read(8 * functions), np.uint64).tolist()

    def close(self) -> None:
        """End it."""
        self._to.close()
        self._process.wait(30)


def name(number: int) -> str:
    """Name a node type; 255 stands for one of theirs that is none of ours."""
    return _native.NODE_TYPES[number] if number < len(_native.NODE_TYPES) else "a type unknown here"


def deviation(ours: _native.ParsedSource, theirs: np.ndarray[Any, Any], functions: list[int]) -> str | None:
    """Say where two trees first differ."""
    types = ours.types
    if not np.array_equal(types, theirs):
        shorter = min(len(types), len(theirs))
        differing = np.flatnonzero(types[:shorter] != theirs[:shorter])
        at = int(differing[0]) if len(differing) else shorter
        said = [name(int(one[at])) if at < len(one) else "the end" for one in (types, theirs)]
        return f"node {at:,}: {said[0]}, ast {said[1]}"
    found = ours.functions
    if found["count"].tolist() != functions:
        return f"{len(found)} functions, ast {len(functions)}, or of other lengths"
    if ours.errors or not found["whole"].all():
        return f"the same tree, but {ours.errors} errors counted"
    return None


def compare(interpreter: Interpreter, files: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Compare every file."""
    counts = dict.fromkeys(("compared", "identical", "nodes", "refused", "functions_in_refused", "whole_in_refused"), 0)
    deviations: list[dict[str, str]] = []
    for file, source in files:
        ours = _native.ParsedSource(source)
        theirs = interpreter.parse(source)
        if theirs is None:
            whole = ours.functions["whole"]
            counts["refused"] += 1
            counts["functions_in_refused"] += len(whole)
            counts["whole_in_refused"] += int(whole.sum())
            continue
        counts["compared"] += 1
        counts["nodes"] += len(theirs[0])
        if (found := deviation(ours, *theirs)) is None:
            counts["identical"] += 1
        else:
            deviations.append({"file": file, "first": found})
    return {"python": interpreter.version, **counts, "deviations": deviations}


def notes(results: list[dict[str, Any]], files: int, size: int) -> Iterator[str]:
    """What the table does not say."""
    yield f"{files:,} files, {size / MB:,.0f} MB: all Python source found, each content and each library file once."
    for one in results:
        for found in one["deviations"][:SHOWN]:
            yield f"Python {one['python']}, `{found['file']}`: {found['first']}."


def main() -> None:
    """Compare, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--python", action="append", help="an interpreter, may be given more than once (default: this one)"
    )
    arguments = parser.parse_args()
    files = [(file, text.encode()) for file, text in python_files(arguments.root or ["/"])[: arguments.files]]
    results = []
    for command in arguments.python or [sys.executable]:
        interpreter = Interpreter(command)
        results.append(compare(interpreter, files))
        interpreter.close()
        print(
            f"  {results[-1]['python']}: {results[-1]['identical']:,} of {results[-1]['compared']:,} identical",
            flush=True,
        )
    heads = [
        "CPython",
        "files compared",
        "identical",
        "deviating",
        "nodes",
        "refused",
        "functions in these",
        "whole of these",
    ]
    keys = ("compared", "identical", "nodes", "refused", "functions_in_refused", "whole_in_refused")
    rows = []
    for one in results:
        figures = [f"{one[key]:,}" for key in keys]
        rows.append([one["python"], *figures[:2], f"{len(one['deviations']):,}", *figures[2:]])
    said = list(notes(results, len(files), sum(len(source) for _, source in files)))
    report("syntax_agreement", "The parser against CPython's", table(heads, rows), {"interpreters": results}, said)
    sys.exit(any(one["deviations"] for one in results))


if __name__ == "__main__":
    main()
