"""What is kept of broken source: functions whole and the same as in the file unbroken, beside `ast` and tree-sitter.

    python benchmarks/syntax_recovery.py --sample 1000

Real files, each broken in six ways. Counted are the functions whose text the break left as it was (under Python 2: all)
and kept is one that its parser gives without an error inside and with the same tree as from the unbroken file. For
tree-sitter the share with under 10 % of their bytes in errors is given too, identical or not.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from corpus import add_arguments, python_files
from harness import report, table

from phi_fast.engines import syntax

Span = tuple[int, int]
Function = tuple[str, Any]  # its name and its tree, in its parser's terms


@dataclass(frozen=True)
class Broken:
    """A text, and which stretches of the file it was made from stand in it as they were."""

    text: str
    intact: tuple[Span, ...]


def dropped(text: str, other: str, rng: random.Random) -> Broken:
    """Leave one bracket, quote or colon out."""
    at = rng.choice([match.start() for match in re.finditer(r"[()\[\]{}:'\"]", text)])
    return Broken(text[:at] + text[at + 1 :], ((0, at), (at + 1, len(text))))


def cut(text: str, other: str, rng: random.Random) -> Broken:
    """Cut the text off anywhere."""
    at = rng.randrange(len(text))
    return Broken(text[:at], ((0, at),))


def beheaded(text: str, other: str, rng: random.Random) -> Broken:
    """Begin anywhere, in the middle of whatever it is."""
    at = rng.randrange(len(text))
    return Broken(text[at:], ((at, len(text)),))


def python2(text: str, other: str, rng: random.Random) -> Broken:
    """Write print, except and raise as Python 2 had them."""
    text = re.sub(r"^([ \t]*)print\(((?:[\w.]+|\"[^\"\n]*\"|, )+)\)[ \t]*$", r"\1print \2", text, flags=re.MULTILINE)
    text = re.sub(r"^([ \t]*except [\w., ()]+) as (\w+):", r"\1, \2:", text, flags=re.MULTILINE)
    return Broken(text, ((0, len(text)),))


def fenced(text: str, other: str, rng: random.Random) -> Broken:
    """Stand in Markdown, in pieces that end before a top-level line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = ast.parse(text).body
    lines = text.splitlines(keepends=True)
    starts = [min([s.lineno, *(d.lineno for d in getattr(s, "decorator_list", []))]) - 1 for s in body[1:]]
    breaks = sorted(rng.sample(starts, min(2, len(starts))))
    pieces = ["".join(lines[a:b]) for a, b in zip([0, *breaks], [*breaks, len(lines)], strict=True)]
    prose = [
        "Here's how it is done:\n\n",
        "\nThat isn't all (there is more):\n\n",
        "\nFinally, don't forget the rest:\n\n",
    ]
    framed = [f"{said}```python\n{piece}\n```\n" for said, piece in zip(prose, pieces, strict=False)]
    return Broken("# A title\n\n" + "".join(framed) + "\nThat's it.\n", ((0, len(text)),))


def spliced(text: str, other: str, rng: random.Random) -> Broken:
    """Go on, from the middle of a line, in the middle of another file."""
    at = rng.randrange(len(text))
    return Broken(text[:at] + other[rng.randrange(len(other)) :], ((0, at),))


BREAKS: dict[str, Callable[[str, str, random.Random], Broken]] = {
    "one delimiter dropped": dropped,
    "cut anywhere": cut,
    "begun anywhere": beheaded,
    "Python 2": python2,
    "in Markdown fences": fenced,
    "spliced into another": spliced,
}


def by_phi_fast(text: str) -> list[tuple[Function, bool]]:
    """Functions of a text and whether they are whole."""
    found = []
    for f in syntax.parse(text).functions:
        head = re.match(r"(?:async\s+)?def\s+(\w+)", text[f.start : f.end])
        found.append(((head[1] if head else "", f.types.tobytes()), f.whole))
    return found


def by_ast(text: str) -> list[tuple[Function, bool]]:
    """The same by CPython."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    # What `ast` accepts, phi_fast reads the same (syntax_agreement.py): trees by their text.
    return [((node.name, ast.dump(node)), True) for node in ast.walk(tree) if isinstance(node, kinds)]


def tree_sitter_parser() -> Any:
    """Give tree-sitter's parser, or None where it is not installed."""
    try:
        import tree_sitter
        import tree_sitter_python
    except ImportError:
        return None
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))


def error_bytes(node: Any) -> int:
    """Count the bytes below a node that are in errors."""
    if node.type == "ERROR":
        return max(1, int(node.end_byte - node.start_byte))
    return sum(map(error_bytes, node.children)) if node.has_error else int(node.is_missing)


def by_tree_sitter(parser: Any, text: str, tolerant: bool) -> list[tuple[Function, bool]]:
    """The same by tree-sitter; `tolerant`: any function with under a tenth of its bytes in errors, by name alone."""
    found: list[tuple[Function, bool]] = []
    waiting = [parser.parse(text.encode()).root_node]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.type != "function_definition" or (name := node.child_by_field_name("name")) is None:
            continue
        label = name.text.decode()
        if not tolerant:
            found.append(((label, str(node)), not node.has_error))
        else:
            found.append(((label, None), error_bytes(node) < 0.1 * (node.end_byte - node.start_byte)))
    return found


def kept(
    parse: Callable[[str], list[tuple[Function, bool]]], text: str, broken: Broken, wanted: Counter[str]
) -> tuple[int, Counter[str]]:
    """Count the wanted functions that are whole in the broken text with their trees as in the unbroken; and which."""
    before = Counter(function for function, whole in parse(text) if whole)
    after = Counter(function for function, whole in parse(broken.text) if whole)
    same: Counter[str] = Counter()
    for function, count in (before & after).items():
        same[function[0]] += count
    return (same & wanted).total(), same & wanted


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--sample", type=int, default=1000, help="files broken")
    parser.add_argument("--lost", action="store_true", help="name files in which tree-sitter kept more")
    arguments = parser.parse_args()
    sitter = tree_sitter_parser()
    parsers: dict[str, Callable[[str], list[tuple[Function, bool]]]] = {"phi_fast": by_phi_fast, "ast.parse": by_ast}
    if sitter is not None:
        parsers["tree-sitter"] = lambda text: by_tree_sitter(sitter, text, False)
        parsers["tree-sitter, under 10 % errors"] = lambda text: by_tree_sitter(sitter, text, True)

    rng = random.Random(0)
    files = [f for f in python_files(arguments.root or ["/"])[: arguments.files] if 1000 < len(f[1]) < 60_000]
    rng.shuffle(files)
    chosen = []
    for name, text in files:
        parsed = syntax.parse(text)
        if by_ast(text) and not parsed.errors and len(parsed.functions) >= 3:
            chosen.append((name, text, parsed))
            if len(chosen) == arguments.sample:
                break

    totals: dict[str, Counter[str]] = {kind: Counter() for kind in BREAKS}
    for number, (name, text, parsed) in enumerate(chosen):
        for kind, make in BREAKS.items():
            broken = make(text, chosen[number - 1][1], rng)
            if kind == "Python 2" and broken.text == text:
                continue
            there = [f for f in parsed.functions if any(a <= f.start and f.end <= b for a, b in broken.intact)]
            if kind in ("Python 2", "in Markdown fences"):
                there = list(parsed.functions)
            wanted: Counter[str] = Counter()
            for f in there:
                head = re.match(r"(?:async\s+)?def\s+(\w+)", text[f.start : f.end])
                wanted[head[1] if head else ""] += 1
            totals[kind]["files"] += 1
            totals[kind]["functions"] += len(there)
            counts = {}
            for label, parse in parsers.items():
                counts[label], which = kept(parse, text, broken, wanted)
                totals[kind][label] += counts[label]
                if label == "phi_fast":
                    ours = which
            if arguments.lost and counts.get("tree-sitter", 0) > counts["phi_fast"]:
                print(f"{kind}: {name}: {counts}: {', '.join((which - ours).keys())}")

    rows = []
    for kind, counted in totals.items():
        shares = [f"{counted[label] / max(counted['functions'], 1):.1%}" for label in parsers]
        rows.append([kind, f"{counted['files']:,}", f"{counted['functions']:,}", *shares])
    said = ["Functions whole and identical to the unbroken file's, of those whose text the break left as it was."]
    if sitter is None:
        said.append("tree-sitter is not installed here: not compared.")
    heads = ["broken", "files", "functions", *parsers]
    report("syntax_recovery", "What is kept of broken source", table(heads, rows), {"counts": totals}, said)


if __name__ == "__main__":
    main()
