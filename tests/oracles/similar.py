"""How alike documents and items are by syntax, plainly: every pair, by `ast`, in fractions."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from tests.oracles.syntax import children, functions, preorder, sequence_distance

MIN_NODES = 25
FLOOR = Fraction(4, 5)
_MIN_ANCHOR = 6
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (
    ast.Module, *_FUNCTIONS, ast.ClassDef, ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try,
    ast.TryStar, ast.ExceptHandler, ast.match_case,
)  # fmt: skip

Sequence = tuple[str, ...]


class ItemTree(NamedTuple):
    """A function of an item, and its body statement by statement."""

    function: Sequence
    statements: tuple[Sequence, ...]

    @property
    def body(self) -> Sequence:
        return tuple(name for statement in self.statements for name in statement)


def item_tree(question: str, solution: str) -> ItemTree:
    """The function of an item, question and solution being a program: of those that the solution ends, the largest."""
    ends = [
        node
        for node in ast.parse(question + solution).body
        if isinstance(node, _FUNCTIONS) and (node.end_lineno or 0) > question.count("\n")
    ]
    function = max(ends, key=lambda node: len(preorder(node)))
    body = [below for below in children(function) if isinstance(below, ast.stmt)]
    return ItemTree(tuple(preorder(function)), tuple(tuple(preorder(one)) for one in body))


def largest(tree: ItemTree) -> int:
    return max(len(tree.function), len(tree.body))


def match_rate(a: Sequence, b: Sequence) -> Fraction:
    """τ of two sequences; 0 where it is under 0.8 or one of them is too small to tell anything."""
    longest = max(len(a), len(b))
    apart = sum(((one := Counter(a)) - (other := Counter(b))).values(), 0), sum((other - one).values(), 0)
    if min(len(a), len(b)) < MIN_NODES or Fraction(max(apart), longest) > 1 - FLOOR:
        return Fraction(0)
    if a == b:
        return Fraction(1)
    known = {name: number for number, name in enumerate({*a, *b})}
    distance = sequence_distance([known[name] for name in a], [known[name] for name in b])
    rate = 1 - Fraction(distance, longest)
    return rate if rate >= FLOOR else Fraction(0)


def best_rate(source: str, item: ItemTree) -> Fraction:
    """The highest match rate of anything in a document with an item; 0 where none reaches 0.8."""
    tree = ast.parse(source)
    rates = [Fraction(0)]
    for function in functions(tree):
        rates.append(match_rate(tuple(preorder(function)), item.function))
        body = [below for below in children(function) if isinstance(below, ast.stmt)]
        rates.append(match_rate(tuple(name for one in body for name in preorder(one)), item.body))
    rates += [match_rate(window, item.body) for window in _windows(tree, item)]
    return max(rates)


def _windows(tree: ast.AST, item: ItemTree) -> Iterator[Sequence]:
    """Bare bodies: where a statement equals one of the item's, the body is laid along the statements around it."""
    for parent in ast.walk(tree):
        if not isinstance(parent, _BLOCKS):
            continue
        below = children(parent)
        places = [place for place, one in enumerate(below) if isinstance(one, ast.stmt)]
        for k, place in enumerate(places):
            statement = tuple(preorder(below[place]))
            if len(statement) < _MIN_ANCHOR:
                continue
            for number, own in enumerate(item.statements):
                if own != statement:
                    continue
                first, stop = max(0, k - number), min(len(places), k + len(item.statements) - number)
                if isinstance(parent, _FUNCTIONS) and first == 0 and stop == len(places):
                    continue  # a whole body: compared with its function
                within = below[places[first] : places[stop - 1] + 1]
                yield tuple(name for one in within for name in preorder(one))
