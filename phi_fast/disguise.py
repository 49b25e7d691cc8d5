"""The ways a benchmark item hides in a corpus, each named and repeatable: what recall is measured on.

A disguise takes one item of a suite and returns the text that a leak of this kind would leave in a document.
The same item, name and seed give the same text on every machine and Python version that parses the item alike.
"""

from __future__ import annotations

import ast
import functools
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from phi_fast.suites.items import Item

_REPLACEMENTS = (
    "apple", "basket", "candle", "dragon", "engine", "forest", "garden", "harbor", "island", "jacket", "kettle",
    "ladder", "market", "needle", "orange", "pepper", "quarry", "ribbon", "saddle", "temple", "urchin", "velvet",
)  # fmt: skip
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


@dataclass(frozen=True, slots=True)
class Disguise:
    """One way to hide an item.

    Attributes
    ----------
    name
        As in tables and on the command line.
    words
        The item's parts whose words, or most of them, stand in the disguised text: by these word n-grams can find it.
    code
        Whether the solution still stands there as Python of the same shape: by this the syntax channel can find it.
    """

    name: str
    words: tuple[str, ...]
    code: bool
    make: Callable[[Item, random.Random], str]

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that could find it. A miss of another channel is no miss."""
        could = {"ngram": bool(self.words), "syntax": self.code, "embedding": True}
        return tuple(name for name, one in could.items() if one)


def program(item: Item) -> str:
    """The item as one Python source: question and solution, the question as a docstring where it is prose.

    Raises
    ------
    SyntaxError
        The two do not make a Python program.
    """
    question, solution = _part(item, "question"), _part(item, "solution")
    joined = question + solution
    if "def " in question:
        ast.parse(joined)
        return joined
    ast.parse(solution)
    quoted = question.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{quoted}"""\n{solution}' if question else solution


def disguise(item: Item, name: str, seed: int = 0) -> str | None:
    """Return the item's text in the disguise `name`, or None where the item cannot wear it.

    Parameters
    ----------
    item
        An item with the parts "question" and "solution".
    name
        A key of `DISGUISES`.
    seed
        Chooses the words put in by the two disguises that replace words; the others do not use it.

    Returns
    -------
    str or None
        None where a part is missing, or the disguise needs Python source and the item has none.
    """
    chosen = DISGUISES[name]
    try:
        text = chosen.make(item, random.Random(f"{seed}:{name}:{item.id}"))
    except SyntaxError:
        return None
    return text if text.strip() else None


def hide(host: str, leak: str, rng: random.Random) -> str:
    """Insert `leak` into `host`, on lines of its own, at a random place where code can stand.

    In Python that is before a statement of the outermost level, or the end: inside a string or a function's body what
    is inserted would be another text or another function. In a host that is no Python it is any line.
    """
    lines = host.splitlines(keepends=True)
    places = _statements(host)
    at = rng.choice(places) if places else rng.randint(0, len(lines))
    before = "".join(lines[:at])
    if before and not before.endswith("\n"):
        before += "\n"
    return before + leak.rstrip("\n") + "\n" + "".join(lines[at:])


@functools.lru_cache(maxsize=4096)
def _statements(source: str) -> tuple[int, ...]:
    """Lines, counted from 0, before which a statement of the outermost level begins, and the last; none: no Python."""
    if re.search("[\f\v\x1c-\x1e\x85\u2028\u2029]", source):
        return ()  # lines are counted in another way than Python does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    places, reached = [], 0
    for one in body:
        line = min([one.lineno, *(mark.lineno for mark in getattr(one, "decorator_list", ()))])
        if line > reached:  # else it stands behind another's end
            places.append(line - 1)
        reached = one.end_lineno or line
    return (*places, len(source.splitlines()))


def _part(item: Item, name: str) -> str:
    return next((part.text for part in item.parts if part.name == name), "").replace("\r\n", "\n")


def _verbatim(item: Item, rng: random.Random) -> str:
    return program(item)


def _prompt_only(item: Item, rng: random.Random) -> str:
    return _part(item, "question")


def _solution_only(item: Item, rng: random.Random) -> str:
    return _part(item, "solution")


def _reformatted(item: Item, rng: random.Random) -> str:
    # ast.unparse makes its own quotes, spaces and line breaks; two spaces then stand for each of its four.
    return re.sub(r"(?m)^(?: {4})+", lambda m: " " * (len(m.group()) // 2), ast.unparse(ast.parse(program(item))))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _Definition) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _renamed(tree: ast.Module) -> ast.Module:
    """Parameters and variables become var_1, var_2 ... in order of first appearance; functions keep their names."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.ExceptHandler):
            name = node.name
        if name:
            names.setdefault(name, f"var_{len(names) + 1}")
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.arg = names[node.arg]
        elif isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            node.name = names[node.name]
        elif isinstance(node, ast.Global | ast.Nonlocal):
            node.names = [names.get(name, name) for name in node.names]
    return tree


def _docstring_removed(item: Item, rng: random.Random) -> str:
    return ast.unparse(_without_docstrings(ast.parse(program(item))))


def _variables_renamed(item: Item, rng: random.Random) -> str:
    return ast.unparse(_renamed(ast.parse(program(item))))


def _renamed_without_docstring(item: Item, rng: random.Random) -> str:
    return ast.unparse(_renamed(_without_docstrings(ast.parse(program(item)))))


def _replace_every(count: int) -> Callable[[Item, random.Random], str]:
    """Replace every `count`-th blank-separated word by one that the item does not use."""

    def make(item: Item, rng: random.Random) -> str:
        source = program(item)
        fresh = [word for word in _REPLACEMENTS if word not in source.lower()]
        seen = 0

        def replace(match: re.Match[str]) -> str:
            nonlocal seen
            seen += 1
            return rng.choice(fresh) if seen % count == 0 else match.group()

        return re.sub(r"\S+", replace, source)

    return make


def _commented_out(item: Item, rng: random.Random) -> str:
    return "".join(f"# {line}" if line.strip() else "#\n" for line in program(item).splitlines(keepends=True))


def _whitespace_doubled(item: Item, rng: random.Random) -> str:
    return re.sub(r"\s", lambda match: match.group() * 2, program(item))


_BOTH = ("question", "solution")
DISGUISES: dict[str, Disguise] = {
    made.name: made
    for made in (
        Disguise("verbatim", _BOTH, True, _verbatim),
        Disguise("prompt only", ("question",), False, _prompt_only),
        Disguise("solution only", ("solution",), True, _solution_only),
        Disguise("re-formatted", _BOTH, True, _reformatted),
        Disguise("docstring removed", ("solution",), True, _docstring_removed),
        Disguise("variables renamed", ("question",), True, _variables_renamed),
        Disguise("renamed, no docstring", (), True, _renamed_without_docstring),
        Disguise("every 8th word replaced", _BOTH, False, _replace_every(8)),
        Disguise("every 14th word replaced", _BOTH, False, _replace_every(14)),
        Disguise("commented out", _BOTH, False, _commented_out),
        Disguise("whitespace doubled", _BOTH, True, _whitespace_doubled),
    )
}
