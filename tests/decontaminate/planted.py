"""Documents that hold edited functions of a suite's items, and how alike they are, worked out without the engine."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from phi_fast.disguise import disguise
from phi_fast.suites import Item, Part, Suite, load_suite
from phi_fast.suites.items import content_sha256
from tests.oracles.similar import ItemTree, best_rate, item_tree

TAUS = (0.95, 0.9, 0.85, 0.8)
_CHOSEN = (0, 1, 6, 8, 10, 20, 33, 46, 73, 81, 94, 115, 117, 127)
_SMALL = "def half(x):\n    '''Half of a number.'''\n", "    return x / 2\n"
# 80 nodes exactly, 12 operators: so many changed are 0.95, 0.9, 0.85 and 0.8 exactly.
_OPERATIONS = "".join(f"    c{number} = a + b\n" for number in range(12))
_EXACT = "def operate(a, b):\n    '''Many sums.'''\n", f"{_OPERATIONS}    pass\n    pass\n    return c0\n"


class Document(NamedTuple):
    """A document and the match rate of each item that it holds something like, by item."""

    id: str
    text: str
    rates: dict[str, Fraction]

    @property
    def best(self) -> Fraction:
        return max(self.rates.values(), default=Fraction(0))


def reaches(rate: Fraction, tau: float) -> bool:
    return rate >= Fraction(str(tau))


@cache
def exam() -> Suite:
    """Items of HumanEval, one of exactly 80 nodes, and two that cannot be tested."""
    chosen = [load_suite("humaneval").items[number] for number in _CHOSEN]
    chosen += [
        Item(name, (Part("question", question), Part("solution", solution)))
        for name, (question, solution) in (("exam/exact", _EXACT), ("exam/small", _SMALL))
    ]
    chosen.append(Item("exam/prose", (Part("question", "Which of the numbers is the largest one of them all? " * 3),)))
    return Suite("exam", tuple(chosen), "made for a test", content_sha256(chosen))


def exam_file(path: Path) -> Path:
    """The same suite as JSONL."""
    rows = ({"id": item.id} | {part.name: part.text for part in item.parts} for item in exam().items)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_of(item: Item, name: str) -> str:
    return next((part.text for part in item.parts if part.name == name), "")


def trees() -> dict[str, ItemTree]:
    """Each item's tree, where it has a solution."""
    return {
        item.id: item_tree(text_of(item, "question"), text_of(item, "solution"))
        for item in exam().items
        if text_of(item, "solution")
    }


def changed(item: Item, edits: int, seed: int) -> str:
    """The item's program with so many edits: a value wrapped, a statement added or taken out, an operator changed."""
    chance = random.Random(f"{item.id} {edits} {seed}")
    tree = ast.parse(disguise(item, "variables renamed", seed) or "")
    function = _last_function(tree)
    for _ in range(edits):
        _edit(function, chance)
    return ast.unparse(ast.fix_missing_locations(tree))


def _edit(function: ast.FunctionDef, chance: random.Random) -> None:
    way = chance.random()
    if way < 0.2:
        place = chance.randint(1, len(function.body))
        function.body.insert(place, ast.parse(f"print(len('{chance.random()}'))").body[0])
    elif way < 0.3 and len(function.body) > 3:
        del function.body[chance.randrange(1, len(function.body) - 1)]
    elif way < 0.6:
        operators = [node for node in ast.walk(function) if isinstance(node, ast.BinOp)]
        if operators:
            chance.choice(operators).op = chance.choice([ast.Mod(), ast.LShift(), ast.BitXor()])
    else:
        values = [
            (node, name, value)
            for node in ast.walk(function)
            for name, value in ast.iter_fields(node)
            if name in ("value", "left", "test", "iter", "operand") and isinstance(value, ast.expr)
        ]
        node, name, value = chance.choice(values)
        setattr(node, name, ast.UnaryOp(ast.Not(), value))


def exact(operators: int) -> str:
    """The item of 80 nodes with so many of its nodes changed for others."""
    question, solution = _EXACT
    for _ in range(min(operators, 12)):
        solution = solution.replace("a + b", "a - b", 1)
    for _ in range(max(0, operators - 12)):
        solution = solution.replace("a - b", "1 - b", 1)
    return question + solution


def bare(item: Item) -> str:
    """The item's body alone, as lines of a script."""
    function = _last_function(ast.parse(disguise(item, "docstring removed") or ""))
    return "\n".join(ast.unparse(one) for one in function.body)


def _last_function(tree: ast.Module) -> ast.FunctionDef:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef)][-1]


def _sources() -> Iterator[tuple[str, str]]:
    items = {item.id: item for item in exam().items}
    for operators in (0, 3, 4, 5, 8, 9, 12, 13, 16, 17):
        yield f"exact {operators}", exact(operators)
    for number, item in enumerate(items.values()):
        if not text_of(item, "solution"):
            continue
        if not number % 4:
            yield f"{item.id} verbatim", text_of(item, "question") + text_of(item, "solution")
            yield f"{item.id} body", bare(item)
        for edits in (1, 2, 3, 5, 7, 10, 14)[number % 4 :]:
            yield f"{item.id} edits {edits}", changed(item, edits, seed=edits)
    for number in range(60):
        yield f"clean {number}", f"class Tool{number}:\n    def run(self, value):\n        return [value] * {number}\n"


@cache
def documents() -> tuple[Document, ...]:
    """Edited items amid other code, shuffled, with their match rates."""
    found = []
    known = trees()
    for name, source in _sources():
        text = f"import os\n\nLIMIT = {len(found)}\n\n\n{source}\n\n\nclass Rest:\n    name = os.name\n"
        rates = {item: best_rate(text, tree) for item, tree in known.items()}
        found.append(Document(name, text, {item: rate for item, rate in rates.items() if rate}))
    random.Random(0).shuffle(found)
    return tuple(found)


def rows() -> list[dict[str, Any]]:
    return [{"id": one.id, "text": one.text, "size": len(one.text)} for one in documents()]
