"""The syntax channel in plain Python: CPython's parser, textbook edit distance, every pair compared."""

from __future__ import annotations

import ast
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from tests.oracles.syntax import children, sequence_distance

MIN_NODES, MIN_ALPHA_NODES, FLOOR_TAU, MIN_ANCHOR_NODES = 25, 13, 0.8, 6
BLOCKS = (
    ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor, ast.While, ast.If, ast.With,
    ast.AsyncWith, ast.Try, ast.TryStar, ast.ExceptHandler, ast.match_case,
)  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef


def flat(nodes: Sequence[ast.AST]) -> list[ast.AST]:
    """Nodes and all below them, parents first."""
    found: list[ast.AST] = []
    waiting = list(reversed(nodes))
    while waiting:
        found.append(node := waiting.pop())
        waiting += reversed(children(node))
    return found


def types(nodes: Sequence[ast.AST]) -> list[str]:
    return [type(node).__name__ for node in nodes]


def alpha(nodes: Sequence[ast.AST], builtin_names: frozenset[str], scope: Sequence[ast.AST] = ()) -> list[Hashable]:
    """The alpha-normalised form: names that are no builtins by number of first use, the rest by what it says.

    A name that is a parameter (also of the function whose nodes are ``scope``), assigned or defined here is no builtin.
    """
    own = {node.arg for node in (*nodes, *scope) if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in (*nodes, *scope) if isinstance(node, Definition | ast.ClassDef)}
    numbers: dict[str, int] = {}
    form: list[Hashable] = []
    for node in nodes:
        kind = type(node).__name__
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.MatchAs(name=str(name)):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.Attribute(attr=text) | ast.keyword(arg=text):
                form.append((kind, text))
                continue
            case ast.alias(name=text, asname=other):
                form.append((kind, text, other))
                continue
            case ast.Constant(value=value):
                text = value.decode("latin1") if isinstance(value, bytes) else value
                form.append((kind, type(text).__name__, text))  # True is not 1
                continue
            case _:
                form.append(kind)
                continue
        if name in builtin_names and name not in own:
            form.append((kind, name))
        else:
            form.append((kind, numbers.setdefault(name, len(numbers))))
    return form


def body(function: Definition) -> list[ast.stmt]:
    return [node for node in children(function) if isinstance(node, ast.stmt)]


@dataclass(frozen=True)
class ItemTree:
    part: int
    form: str
    nodes: tuple[ast.AST, ...]
    statements: tuple[tuple[str, ...], ...]  # a body's statements, each as its node types
    scope: tuple[ast.AST, ...] = ()  # a body's function and its parameters


def item_trees(part: int, question: str, solution: str) -> list[ItemTree]:
    """What an item is compared by."""
    functions: list[Definition] = []
    tree: ast.Module | None = None
    for source, head in ((question + solution, len(question)), (solution, 0)):
        try:
            tree = ast.parse(source)
        except SyntaxError:
            tree = None
            continue
        begins = [0]
        for line in source.splitlines(keepends=True):
            begins.append(begins[-1] + len(line.encode()))
        head = len(source[:head].encode())
        functions = [one for one in outermost(tree) if begins[one.end_lineno - 1] + one.end_col_offset > head]
        if functions:
            break
    if functions:
        sizes = [len(flat([one])) for one in functions]
        keep = [one for one, size in zip(functions, sizes, strict=True) if 2 * size >= sum(sizes) or size == max(sizes)]
        made = [ItemTree(part, "function", tuple(flat([one])), ()) for one in keep]
        made += [body_tree(part, body(one), [one, *flat([one.args])]) for one in keep]
    elif tree is not None and tree.body:
        made = [body_tree(part, [one for one in children(tree) if isinstance(one, ast.stmt)])]
    else:
        made = []
    return [one for one in made if len(one.nodes) >= MIN_ALPHA_NODES]


def body_tree(part: int, statements: Sequence[ast.stmt], scope: Sequence[ast.AST] = ()) -> ItemTree:
    own = tuple(tuple(types(flat([one]))) for one in statements)
    return ItemTree(part, "body", tuple(flat(statements)), own, tuple(scope))


def outermost(node: ast.AST) -> Iterator[Definition]:
    for below in children(node):
        if isinstance(below, Definition):
            yield below
        else:
            yield from outermost(below)


@dataclass(frozen=True)
class TreeMatch:
    part: int
    form: str
    first_line: int
    tau: float
    alpha: float
    nodes: int
    item_nodes: int


def matches(document: str, trees: Sequence[ItemTree], builtin_names: frozenset[str]) -> list[TreeMatch]:
    """All matches of a document that parses; of each part, place and form the closest."""
    tree = ast.parse(document)
    # line, nodes, function and parameters (None: a bare body), what they are compared with
    places: list[tuple[int, list[ast.AST], list[ast.AST] | None, ItemTree]] = []
    for function in (node for node in ast.walk(tree) if isinstance(node, Definition)):
        whole, inner = flat([function]), flat(body(function))
        scope = [function, *flat([function.args])]
        places += [(function.lineno, whole if one.form == "function" else inner, scope, one) for one in trees]
    for block in (node for node in ast.walk(tree) if isinstance(node, BLOCKS)):
        siblings = [node for node in children(block) if isinstance(node, ast.stmt)]
        for at, statement in enumerate(siblings):
            seen = tuple(types(flat([statement])))
            if len(seen) < MIN_ANCHOR_NODES:
                continue
            for one in trees:
                for number, own in enumerate(one.statements):
                    if own != seen:
                        continue
                    start, stop = max(0, at - number), min(len(siblings), at + len(one.statements) - number)
                    if isinstance(block, Definition) and start == 0 and stop == len(siblings):
                        continue
                    nodes = flat(siblings[start:stop])
                    line = min(node.lineno for node in nodes if hasattr(node, "lineno"))
                    places.append((line, nodes, None, one))
    found: dict[tuple[int, int, int], TreeMatch] = {}
    for line, nodes, scope, one in places:
        match = compared(line, nodes, scope, one, builtin_names)
        if match is None:
            continue
        key = (id(one), line, id(nodes[-1]))
        best = found.get(key)
        if best is None or (match.alpha, match.tau) > (best.alpha, best.tau):
            found[key] = match
    return sorted(found.values(), key=lambda one: (one.part, one.first_line, one.form, one.nodes))


def compared(
    line: int, nodes: Sequence[ast.AST], scope: Sequence[ast.AST] | None, one: ItemTree, builtin_names: frozenset[str]
) -> TreeMatch | None:
    longest = max(len(nodes), len(one.nodes))
    small = min(len(nodes), len(one.nodes))
    if small < MIN_ALPHA_NODES or small < FLOOR_TAU * longest - 1e-9:
        return None
    tau = 1 - sequence_distance(types(nodes), types(one.nodes)) / longest
    if tau < FLOOR_TAU - 1e-9:
        return None
    here = alpha(nodes, builtin_names, scope or ())
    there = alpha(one.nodes, builtin_names, () if scope is None else one.scope)
    same = 1 - sequence_distance(here, there) / longest
    if small < MIN_NODES and same < FLOOR_TAU - 1e-9:
        return None
    return TreeMatch(one.part, one.form, line, tau, same, len(nodes), len(one.nodes))


def builtin_names() -> frozenset[str]:
    """The names the engine takes for builtins, read from its source so that the two cannot part."""
    from pathlib import Path

    text = (Path(__file__).parents[2] / "csrc/syntax/sequence.cpp").read_text()
    listed = text[text.index("kBuiltins[] = {") : text.index("};", text.index("kBuiltins[] = {"))]
    return frozenset(re.findall(r'"(\w+)"', listed))
