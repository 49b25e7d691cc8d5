"""Syntax trees by CPython's own parser, and tree edit distance, plainly."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes below a node in the order of its fields, without contexts and without a docstring."""
    found: list[ast.AST] = []
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.expr_context):
            continue
        if isinstance(value, ast.AST):
            found.append(value)
        elif isinstance(value, list):
            below = [one for one in value if isinstance(one, ast.AST)]
            if name == "body" and isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                below = below[1:] if below and is_docstring(below[0]) else below
            found += joined_literals(below) if isinstance(node, ast.JoinedStr) else below
    return found


def joined_literals(pieces: list[ast.AST]) -> list[ast.AST]:
    """The pieces of an f-string with what stands between two fields as one: early 3.12s leave some apart, or empty."""
    found: list[ast.AST] = []
    for piece in pieces:
        follows = bool(found) and isinstance(found[-1], ast.Constant)
        if not (isinstance(piece, ast.Constant) and (piece.value == "" or follows)):
            found.append(piece)
    return found


def is_docstring(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def preorder(tree: ast.AST) -> list[str]:
    """Names of the node types, parents before children."""
    names = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        names.append(type(node).__name__)
        waiting += reversed(children(node))
    return names


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All function definitions, in the order of their ``def``."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def sequence_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Levenshtein distance by the textbook's table."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            above, row[j] = row[j], min(above + (left != right), row[j] + 1, row[j - 1] + 1)
    return row[-1]


Tree = tuple[int, tuple["Tree", ...]]


def tree_distance(a: Tree, b: Tree) -> int:
    """Tree edit distance from its recursive definition over forests, remembered."""

    @cache
    def size(forest: tuple[Tree, ...]) -> int:
        return sum(1 + size(below) for _, below in forest)

    @cache
    def forests(left: tuple[Tree, ...], right: tuple[Tree, ...]) -> int:
        if not left or not right:
            return size(left) + size(right)
        (x, x_below), (y, y_below) = left[-1], right[-1]
        return min(
            forests(left[:-1] + x_below, right) + 1,
            forests(left, right[:-1] + y_below) + 1,
            forests(left[:-1], right[:-1]) + forests(x_below, y_below) + (x != y),
        )

    return forests((a,), (b,))
