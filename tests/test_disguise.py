"""Disguises change what they say they change, and nothing else."""

from __future__ import annotations

import ast
import random
import re
import textwrap

import pytest

from phi_fast.disguise import DISGUISES, disguise, hide, program
from phi_fast.engines.ngram import PartInfo
from phi_fast.suites import Item, Part, load_suite
from phi_fast.trial import Hidden, by_any, findable, recall_by_disguise

SUITE = load_suite("humaneval")
ITEMS = {item.id: item for item in SUITE.items}
PYTHON = ("verbatim", "re-formatted", "docstring removed", "variables renamed", "renamed, no docstring")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def worn(item: Item, name: str) -> str:
    text = disguise(item, name)
    assert text is not None
    return text


def part(item: Item, name: str) -> str:
    return next(part.text for part in item.parts if part.name == name)


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@pytest.mark.parametrize("name", PYTHON)
@pytest.mark.parametrize("block", range(4))
def test_python_disguises_still_solve_the_item(name: str, block: int) -> None:
    for item in SUITE.items[block::4]:
        space: dict[str, object] = {}
        exec(compile(worn(item, name), item.id, "exec"), space)
        function = re.findall(r"^def (\w+)", part(item, "question"), re.MULTILINE)[-1]
        exec(part(item, "tests"), space)
        check = space["check"]
        assert callable(check)
        check(space[function])


@pytest.mark.parametrize("item", SUITE.items, ids=lambda item: item.id)
def test_each_disguise_keeps_what_it_says(item: Item) -> None:
    question, solution = part(item, "question"), part(item, "solution")
    whole = question + solution
    assert program(item) == worn(item, "verbatim") == whole
    assert worn(item, "prompt only") == question
    assert worn(item, "solution only") == solution
    assert worn(item, "re-formatted") != whole
    assert without_docstrings(worn(item, "re-formatted")) == without_docstrings(whole)
    bare = worn(item, "docstring removed")
    assert ast.dump(ast.parse(bare)) == without_docstrings(whole)
    assert '"""' not in bare
    commented = worn(item, "commented out")
    assert all(line.startswith("#") for line in commented.splitlines())
    assert words(commented) == words(whole) == words(worn(item, "whitespace doubled"))
    ast.parse(worn(item, "whitespace doubled"))
    assert worn(item, "whitespace doubled").count(" ") == 2 * whole.count(" ")


@pytest.mark.parametrize("count", [8, 14])
def test_every_nth_word_is_replaced_and_no_other(count: int) -> None:
    for item in SUITE.items:
        before, after = program(item).split(), worn(item, f"every {count}th word replaced").split()
        assert len(before) == len(after)
        changed = [number for number, (old, new) in enumerate(zip(before, after, strict=True), 1) if old != new]
        assert changed == list(range(count, len(before) + 1, count))


def test_renaming_leaves_no_name_of_the_solution() -> None:
    item = ITEMS["HumanEval/0"]
    renamed = worn(item, "renamed, no docstring")
    for name in ("numbers", "threshold", "idx", "elem", "distance"):
        assert name not in words(renamed)
    assert "has_close_elements" in renamed
    assert "given threshold" in worn(item, "variables renamed")


def test_disguises_are_the_same_each_time_and_follow_the_seed() -> None:
    item = ITEMS["HumanEval/1"]
    for name in DISGUISES:
        assert disguise(item, name, 3) == disguise(item, name, 3)
    name = "every 8th word replaced"
    assert disguise(item, name, 3) != disguise(item, name, 4)
    with pytest.raises(KeyError):
        disguise(item, "upside down")


def test_items_that_cannot_wear_a_disguise() -> None:
    prose = Item("own/1", (Part("question", "Write a function that adds 1."), Part("solution", "one more (in prose)")))
    assert disguise(prose, "re-formatted") is None
    assert disguise(prose, "prompt only") == "Write a function that adds 1."
    assert disguise(Item("own/2", (Part("question", "def f(x):\n    return x\n"),)), "solution only") is None


def test_prose_questions_become_the_docstring() -> None:
    item = Item("mbpp/1", (Part("question", 'Say """hi""" \\ bye.'), Part("solution", "def f():\r\n\treturn 'hi'\r\n")))
    tree = ast.parse(worn(item, "verbatim"))
    assert ast.get_docstring(tree) == "Say '''hi''' \\ bye."
    assert "Say" not in worn(item, "docstring removed")
    assert worn(item, "re-formatted").endswith("def f():\n  return 'hi'")


@pytest.mark.parametrize("seed", range(20))
def test_hide_puts_the_leak_on_lines_of_its_own(seed: int) -> None:
    host = "first\nsecond\n\nlast without newline"
    hidden = hide(host, "leak 1\nleak 2\n\n", random.Random(seed))
    lines = hidden.splitlines()
    at = lines.index("leak 1")
    assert lines[at + 1] == "leak 2"
    assert lines[:at] + lines[at + 2 :] == host.splitlines()


def test_hide_reaches_every_line_boundary() -> None:
    rng = random.Random(0)
    assert len({hide("a\nb\nc\n", "x", rng) for _ in range(200)}) == 4
    assert hide("", "x", rng) == "x\n"


HOST = """import os
TEXT = '''
a text

    of lines'''; x = 1

@property
def method(self):
    if self:

        return 1


class A:
    b = (1,
2)
"""


def test_in_python_the_leak_stands_where_code_can() -> None:
    rng = random.Random(0)
    hidden = {hide(HOST, "leak = 0\n", rng) for _ in range(300)}
    places = {text[: text.index("leak")].count("\n") for text in hidden}
    assert places == {0, 1, 6, 13, 16}
    assert all(len(ast.parse(text).body) == 6 for text in hidden)


@pytest.mark.parametrize(
    ("host", "places"),
    [("def f(:\n    1\n    2\n", 4), ("x = 1\n\fy = (\n2)\n", 5), ("\0\n\n\n", 4), ("# remark\n\n\n", 1)],
)
def test_other_hosts_take_it_at_any_line(host: str, places: int) -> None:
    rng = random.Random(0)
    assert len({hide(host, "leak = 0", rng) for _ in range(300)}) == places


def test_each_disguise_names_the_channels_that_could_find_it() -> None:
    assert DISGUISES["verbatim"].channels == ("ngram", "syntax", "embedding")
    assert DISGUISES["renamed, no docstring"].channels == ("syntax", "embedding")
    for name in ("prompt only", "every 8th word replaced", "commented out"):
        assert DISGUISES[name].channels == ("ngram", "embedding")


def part_info(item: str, name: str, why_not: str | None = None, nodes: int = 0, suite: str = "S") -> PartInfo:
    return PartInfo(suite, item, name, "", 40, 36, {}, why_not, nodes)


FUNCTION = "def f(a, b):\n    for one in a:\n        if one > b:\n            return one + 1\n    return None\n"


def test_what_each_channel_could_find() -> None:
    parts = [part_info("1", "question"), part_info("1", "solution", "too short", 30), part_info("2", "question", "no"),
             part_info("2", "solution"), part_info("1", "solution", None, 30, "other")]  # fmt: skip
    hidden = [
        Hidden("a", "", "S", "1", "verbatim", FUNCTION),
        Hidden("b", "", "S", "1", "solution only", FUNCTION),
        Hidden("c", "", "S", "1", "solution only", "    return 1\n"),
        Hidden("d", "", "S", "2", "docstring removed", FUNCTION),
        Hidden("e", "", "S", "2", "renamed, no docstring", FUNCTION),
        Hidden("f", "", "S", "1", "commented out", FUNCTION),
        Hidden("g", "", "other", "1", "renamed, no docstring", FUNCTION),
        Hidden("h", "", "S", "1", "solution only", textwrap.indent(FUNCTION.partition("\n")[2], "  ")),
    ]
    could = findable(hidden, parts)
    assert could["ngram"] == [True, False, False, True, False, True, False, False]
    assert could["syntax"] == [True, True, False, False, False, False, True, True]
    assert could["embedding"] == [True] * 8
    assert by_any(could, ("ngram", "syntax")) == [True, True, False, True, False, True, True, True]


def test_recall_counts_testable_items_and_only_the_item_that_was_hidden() -> None:
    hidden = [
        Hidden("one", "", "S", "1", "solution only"),
        Hidden("two", "", "S", "2", "solution only"),
        Hidden("three", "", "S", "3", "solution only"),
        Hidden("four", "", "S", "4", "verbatim"),
        Hidden("five", "", "S", "1", "verbatim"),
    ]
    found = {"one": {("S", "1")}, "two": {("S", "9")}, "three": {("S", "3")}, "four": {("S", "1"), ("S", "4")},
             "five": {("other", "1")}}  # fmt: skip
    partly, whole = recall_by_disguise(hidden, found, [True, True, False, True, True])
    assert (partly.hidden, partly.testable, partly.found, partly.share) == (3, 2, 1, 0.5)
    assert partly.missed == ("2",)
    assert partly.untestable == ("3",)
    assert partly.untestable_found == 1
    assert (whole.testable, whole.found, whole.missed) == (2, 1, ("1",))
