"""Edited HumanEval functions planted in real files at known match rates: how many of them `similar` finds at every τ.

    python benchmarks/similar_planted.py             # 200 a band
    python benchmarks/similar_planted.py --planted 20 --files 1000     # to try it out

A band is the match rates from one τ up to the one above it. The edits keep the number of a function's statements, so
its true match rate is that of the two functions; it is worked out with `ast` and the edit distance of rapidfuzz, not by
the engine. Documents with nothing planted that are pruned all the same are listed: each holds something like an item's.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corpus import add_arguments, python_files
from harness import cache_dir, report, table
from rapidfuzz.distance import Levenshtein

from phi_fast.decontaminate.nearest import by_document, close_rows
from phi_fast.decontaminate.policy import LARGE_NODES
from phi_fast.decontaminate.record import EVIDENCE
from phi_fast.decontaminate.run import decontaminate
from phi_fast.decontaminate.similar import reaches, similar
from phi_fast.disguise import disguise
from phi_fast.suites import load_suite

TAUS = (1.0, 0.95, 0.9, 0.85, 0.8)
BELOW = 0.7  # the lowest band is below every τ: what of it is pruned is near something else
_LISTED = 20
_TRIES = 60  # for each planted pair


@dataclass(frozen=True)
class Planted:
    """A document with an edited function of an item in it."""

    id: str
    text: str
    item: str
    tau: float


def preorder(node: ast.AST) -> Iterator[str]:
    """Give the node types of a tree, parents first, without contexts and docstrings."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        below = value if isinstance(value, list) else [value]
        if name == "body" and isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            below = below[1:]
        for one in below:
            if isinstance(one, ast.AST) and not isinstance(one, ast.expr_context):
                yield from preorder(one)


def function_of(source: str) -> ast.FunctionDef:
    """Give the last function of a program: an item's own, after its helpers."""
    return [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)][-1]


def edited(function: ast.FunctionDef, edits: int, chance: random.Random) -> None:
    """Change so many places inside a function's statements: values wrapped, operators exchanged."""
    for _ in range(edits):
        places = [
            (node, name, number)
            for statement in function.body
            for node in ast.walk(statement)
            for name, value in ast.iter_fields(node)
            for number, one in enumerate(value if isinstance(value, list) else [value])
            if isinstance(one, ast.expr) and not isinstance(getattr(one, "ctx", None), ast.Store | ast.Del)
            and not isinstance(node, ast.JoinedStr | ast.FormattedValue)
        ]  # fmt: skip
        node, name, number = chance.choice(places)
        value = getattr(node, name)
        old = value[number] if isinstance(value, list) else value
        if isinstance(old, ast.BinOp) and chance.random() < 0.5:
            old.op = chance.choice([ast.Mod(), ast.LShift(), ast.BitXor()])
            continue
        new = ast.UnaryOp(ast.Not(), old) if chance.random() < 0.7 else ast.Subscript(old, ast.Constant(0), ast.Load())
        if isinstance(value, list):
            value[number] = new
        else:
            setattr(node, name, new)


def plant(files: Sequence[tuple[str, str]], wanted: int, seed: int) -> list[Planted]:
    """Plant so many edited functions in each band, each in a file of its own."""
    chance = random.Random(seed)
    hosts = [(name, text) for name, text in files if 500 <= len(text) <= 60_000]
    chance.shuffle(hosts)
    originals = {}
    for item in load_suite("humaneval").items:
        renamed = disguise(item, "renamed, no docstring", seed)
        if renamed is not None and len(list(preorder(function_of(renamed)))) >= LARGE_NODES:
            originals[item.id] = renamed
    left = dict.fromkeys((*TAUS, BELOW), wanted)
    found: list[Planted] = []
    for _ in range(_TRIES * wanted * len(left)):
        if not any(left.values()) or len(found) == len(hosts):
            break
        name = chance.choice(list(originals))
        tree = ast.parse(originals[name])
        function = [node for node in tree.body if isinstance(node, ast.FunctionDef)][-1]
        own = list(preorder(function))
        edited(function, chance.randint(0, len(own) // 6) if chance.random() < 0.9 else 0, chance)
        try:
            source = ast.unparse(ast.fix_missing_locations(tree))
            there = list(preorder(function_of(source)))  # as it reads, which is what a document holds
        except (SyntaxError, ValueError):
            continue
        distance = Levenshtein.distance(own, there)
        tau = 1 - distance / max(len(own), len(there))
        band = next((one for one in left if round(tau, 9) >= one), None)
        if band is None or not left[band]:
            continue
        left[band] -= 1
        host, text = hosts[len(found)]
        found.append(Planted(f"{host} + {name} at {tau:.4f}", hide_whole(text, source, chance), name, tau))
    short = {band: count for band, count in left.items() if count}
    if short:
        print(f"not enough edits or files for every band; missing: {short}")
    return found


def hide_whole(host: str, source: str, chance: random.Random) -> str:
    """Insert a program before a statement of a file, or before all of it where the file is no Python 3."""
    try:
        body = ast.parse(host).body
    except (SyntaxError, ValueError):
        body = []
    # A decorated definition begins above its line; what is after another statement on a line would be torn from it.
    lines = [one.lineno for one in body if one.col_offset == 0 and not getattr(one, "decorator_list", None)]
    at = chance.choice(lines) - 1 if lines else 0
    text = host.split("\n")
    return "\n".join([*text[:at], source, *text[at:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--planted", type=int, default=200, help="pairs in each band")
    parser.add_argument("--background", type=int, default=4000, help="files with nothing planted beside them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    files = python_files(arguments.root or ["/"])[: arguments.files]
    planted = plant(files, arguments.planted, arguments.seed)
    chance = random.Random(arguments.seed)
    documents = [(one.id, one.text) for one in planted]
    documents += chance.sample(files, min(arguments.background, len(files)))
    chance.shuffle(documents)
    corpus, out = cache_dir() / "similar.jsonl", cache_dir() / "scratch" / "similar"
    with open(corpus, "w", encoding="utf-8") as file:
        for name, text in documents:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    run = decontaminate([str(corpus)], "humaneval", str(out), mode="flag", channels=["ngram", "syntax"])
    found = similar(run, taus=TAUS)

    known = {one.id: one for one in planted}
    near = {one.id: one.tau for one in by_document(close_rows(run.path / EVIDENCE))}
    rows, data = [], []
    missed: dict[str, float] = {}
    for one in found.at:
        gone = {name for name, tau in near.items() if reaches(tau, one.tau)}
        if len(gone) != one.documents:
            raise AssertionError(f"tau {one.tau}: {one.documents} pruned, {len(gone)} documents are near")
        wanted = {name for name, plant in known.items() if round(plant.tau, 9) >= one.tau}
        missed |= {name: one.tau for name in wanted - gone}
        below, clean = gone & known.keys() - wanted, gone - known.keys()
        items = {known[name].item for name in wanted}
        alike = set(one.suites[0].similar)
        rows.append(
            (f"{one.tau:g}", len(wanted), len(wanted & gone), len(below), len(clean), one.documents, len(items),
             len(items & alike), len(alike), len(one.suites[0].non_similar), len(one.suites[0].untestable))
        )  # fmt: skip
        data.append(
            {"tau": one.tau, "planted": len(wanted), "found": len(wanted & gone), "below": len(below),
             "clean": len(clean), "pruned": one.documents, "items_planted": len(items),
             "items_found": len(items & alike), "items_similar": len(alike)}
        )  # fmt: skip
    headings = (
        "τ", "planted", "found", "planted below τ, pruned", "clean, pruned", "pruned in all", "items planted",
        "found similar", "similar in all", "non-similar", "untestable",
    )  # fmt: skip
    strange = {name: tau for name, tau in near.items() if name not in known}
    notes = [
        f"{len(documents):,} documents, {len(planted):,} with one edited HumanEval function of {LARGE_NODES} nodes or "
        f"more; seed {arguments.seed}.",
        "Planted below τ, pruned: the edited function, or another of the file, is nearer to some item than what was "
        "planted says.",
        *(f"Missed at τ {tau:g}: {name}." for name, tau in sorted(missed.items())[:_LISTED]),
        *(f"Clean, match rate {tau:.3f}: {name}." for name, tau in sorted(strange.items(), key=_rate)[:_LISTED]),
    ]
    report("similar_planted", "Edited functions found, by match rate", table(headings, rows), {"taus": data}, notes)


def _rate(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]


if __name__ == "__main__":
    main()
