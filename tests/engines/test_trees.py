"""The syntax channel's engine against its plain twin: items' functions in documents, renamed, bare, edited, broken."""

from __future__ import annotations

import ast
import json
import random
import textwrap
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from phi_fast.disguise import disguise
from phi_fast.engines.ngram import NgramIndex
from phi_fast.engines.trees import MIN_ALPHA_NODES, TreeIndex
from phi_fast.suites import Item, Part, Suite, load_suite
from tests.engines.test_syntax import python_files
from tests.oracles import trees as oracle

HUMANEVAL = load_suite("humaneval")
INDEX = NgramIndex.build([HUMANEVAL])
TREES = TreeIndex.build(INDEX.parts)
BUILTINS = oracle.builtin_names()
FORMS = ("function", "body")


def suite(*solutions: str, questions: tuple[str, ...] = ()) -> Suite:
    given = [*questions, *[""] * len(solutions)]
    items = tuple(
        Item(f"own/{n}", tuple(Part(name, text) for name, text in (("question", given[n]), ("solution", one)) if text))
        for n, one in enumerate(solutions)
    )
    return Suite("own", items, "made for a test", "0" * 64)


def scan(documents: list[str], index: NgramIndex = INDEX, trees: TreeIndex = TREES) -> list[list[dict[str, Any]]]:
    """Matches of each document, the same from JSON lines, from Arrow and from bytes."""
    lines = b"".join(json.dumps({"text": one}).encode() + b"\n" for one in documents)
    results = [
        index.scan_jsonl(lines, trees=trees),
        index.scan_arrow(pa.array(documents), trees=trees, threads=2),
        index.scan_utf8([one.encode() for one in documents], trees=trees),
    ]
    assert results[0].tree_matches.tolist() == results[1].tree_matches.tolist() == results[2].tree_matches.tolist()
    found: list[list[dict[str, Any]]] = [[] for _ in documents]
    for row in results[0].tree_matches:
        match = {name: row[name].item() for name in row.dtype.names}
        found[results[0].docs["row"][match["doc"]]].append(match | {"form": FORMS[match["form"]]})
    return found


def items_of(matches: list[dict[str, Any]], index: NgramIndex = INDEX, alpha: float = 0.0) -> set[str]:
    return {index.parts[one["part"]].item for one in matches if one["alpha"] >= alpha}


def twin(index: NgramIndex) -> list[oracle.ItemTree]:
    texts: dict[str, dict[str, str]] = {}
    for part in index.parts:
        texts.setdefault(part.item, {})[part.part] = part.text
    made: list[oracle.ItemTree] = []
    for number, part in enumerate(index.parts):
        if part.part == "solution":
            made += oracle.item_trees(number, texts[part.item].get("question", ""), part.text)
    return made


def test_what_items_are_compared_by_is_the_twins() -> None:
    made = twin(INDEX)
    assert len(made) == TREES.native.trees > 300
    largest: Counter[int] = Counter()
    for one in made:
        largest[one.part] = max(largest[one.part], len(one.nodes))
    assert {part: nodes for part, nodes in enumerate(TREES.nodes) if nodes} == dict(largest)
    small = [n for n, part in enumerate(INDEX.parts) if part.part == "solution" and not TREES.nodes[n]]
    unnamed = [INDEX.parts[n].item for n in small]
    assert 1 <= len(unnamed) < 10
    assert all(str(MIN_ALPHA_NODES) in str(TREES.why_not(n)) for n in small)


@pytest.mark.parametrize("name", ["renamed, no docstring", "docstring removed", "verbatim"])
def test_copies_match_fully_whatever_their_names(name: str) -> None:
    items = [item for item in HUMANEVAL.items if disguise(item, name) is not None]
    nodes = {INDEX.parts[n].item: count for n, count in enumerate(TREES.nodes) if count}
    for item, matches in zip(items, scan([str(disguise(item, name)) for item in items]), strict=True):
        if item.id in nodes:
            best = max((one["tau"], one["alpha"]) for one in matches if INDEX.parts[one["part"]].item == item.id)
            assert best == (1.0, 1.0), item.id


def test_a_bare_body_is_found_where_it_stands() -> None:
    found = 0
    for item in HUMANEVAL.items:
        part = next(n for n, one in enumerate(INDEX.parts) if (one.item, one.part) == (item.id, "solution"))
        bare = textwrap.dedent(INDEX.parts[part].text)
        if not TREES.nodes[part] or "return" not in bare:
            continue
        document = f"import os\nprint(os.name)\n\n{bare}\nprint('é')\n"
        indented = textwrap.indent(bare, " " * 8)
        inside = f"class A:\n    def method(self):\n        first = 1\n{indented}\n        self.last()\n"
        for text, matches in zip((document, inside), scan([document, inside]), strict=True):
            mine = [one for one in matches if one["part"] == part and one["alpha"] == 1 and one["form"] == "body"]
            if mine:
                found += 1
                span = text[mine[0]["doc_start"] : mine[0]["doc_end"]]
                assert span.count("\n") == bare.strip().count("\n"), (item.id, span)
                assert "import os" not in span and "last()" not in span
    assert found >= 240  # of twice the 158 or so: the rest has no statement of its own to be recognised by


def test_real_source_gives_the_twins_matches() -> None:
    """Real functions as items, edited here and there, among real files: every match and no other."""
    chance = random.Random(5)
    files = []
    for path in python_files():
        try:
            text = path.read_text("utf-8")
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            continue
        strange = (ast.JoinedStr, ast.Global, ast.Match)  # their pieces have no place or text of their own in ast
        if 500 < len(text) < 6_000 and not any(isinstance(node, strange) for node in ast.walk(tree)):
            files.append(text)
        if len(files) == 60:
            break
    functions = []
    for text in files[:30]:
        for one in oracle.outermost(ast.parse(text)):
            if not 13 <= len(oracle.flat([one])) <= 150:
                continue
            kept = oracle.body(one)
            if len(kept) > 2 and chance.random() < 0.5:
                one.body.remove(chance.choice(kept))  # an edited copy
            functions.append(ast.unparse(one))
    assert len(functions) > 60
    own = suite(*functions)
    index = NgramIndex.build([own])
    trees = TreeIndex.build(index.parts)
    made = twin(index)
    compared = 0
    for text, matches in zip(files, scan(files, index, trees), strict=True):
        by_line = [
            (one["part"], one["form"], text.count("\n", 0, one["doc_start"]) + 1, one["nodes"], one["item_nodes"],
             round(one["tau"], 5), round(one["alpha"], 5))
            for one in matches
        ]  # fmt: skip
        expected = [
            (one.part, one.form, one.first_line, one.nodes, one.item_nodes, round(one.tau, 5), round(one.alpha, 5))
            for one in oracle.matches(text, made, BUILTINS)
        ]
        assert sorted(by_line) == sorted(expected)
        compared += len(expected)
    assert compared > 100


def test_spans_are_characters_of_the_original() -> None:
    solution = "def area(p):\n    total = 0\n    for a, b in p:\n        total += a * b\n    return total\n"
    index = NgramIndex.build([suite(solution)])
    trees = TreeIndex.build(index.parts)
    text = "# ünï — 漢字 😀\n\n" + solution.replace("total", "größe").replace("area", "fläche")
    (matches,) = scan([text + "\n# ende"], index, trees)
    whole = next(one for one in matches if one["form"] == "function")
    assert text[whole["doc_start"] : whole["doc_end"]] == text[text.index("def") :].rstrip("\n")
    assert (whole["item_start"], whole["item_end"]) == (0, len(solution.rstrip("\n")))
    assert (whole["tau"], whole["alpha"], whole["whole"]) == (1.0, 1.0, 1)


def test_names_like_builtins_are_names_where_they_are_ones_own() -> None:
    """What renaming leaves the same is the same, also where a name was that of a builtin."""
    pairs = [
        ("def f(str, n):\n    return str[n:] + str[:n] + str[::-1]\n",
         "def g(a, b):\n    return a[b:] + a[:b] + a[::-1]\n"),
        ("def f(x):\n    sum = 0\n    for id in x:\n        sum += id\n    return sum\n",
         "def g(v):\n    t = 0\n    for e in v:\n        t += e\n    return t\n"),
        ("def sum(x, y):\n    if y == 0:\n        return x\n    return 1 + sum(x, y - 1)\n",
         "def add(v, w):\n    if w == 0:\n        return v\n    return 1 + add(v, w - 1)\n"),
        ("def f(x):\n    with open(x) as h, y as (min, max):\n        return [id for id in h if (len := id) > max]\n",
         "def g(v):\n    with open(v) as w, y as (a, b):\n        return [c for c in w if (d := c) > b]\n"),
    ]  # fmt: skip
    index = NgramIndex.build([suite(*(one for one, _ in pairs))])
    trees = TreeIndex.build(index.parts)
    for number, matches in enumerate(scan([other for _, other in pairs], index, trees)):
        assert {(one["form"], one["alpha"]) for one in matches if one["part"] == number} >= {("function", 1.0)}, number
        assert all(one["alpha"] == 1 for one in matches if one["part"] == number)
    used = scan(["def g(a, b):\n    return str[b:] + str[:b] + str[::-1]\n"], index, trees)[0]
    assert all(one["alpha"] < 1 for one in used if one["form"] == "function")


def test_each_of_many_copies_has_its_own_span() -> None:
    """A document may hold as many matches as functions: 20,000 here, with characters of several bytes between."""
    copy = str(disguise(HUMANEVAL.items[0], "renamed, no docstring")).partition("\n\n")[2]
    text = f"# ü漢😀\n{copy}\n\n" * 10_000
    (matches,) = scan([text])
    starts = sorted(one["doc_start"] for one in matches if one["form"] == "function" and one["alpha"] == 1)
    assert starts == [at for at in range(len(text)) if text.startswith("def ", at)]
    assert {text[one["doc_start"] : one["doc_end"]] for one in matches if one["alpha"] == 1} == {copy.rstrip()}


def test_a_body_in_a_file_of_one_line() -> None:
    line = "; ".join(["a = b + c", "d = abs(a - b) * 2 + a", "e = [d for d in range(a) if d % 2]"])
    index = NgramIndex.build([suite(line.replace("; ", "\n"))])
    trees = TreeIndex.build(index.parts)
    text = "; ".join([*["x = 1"] * 2_000, line, *["y = 2"] * 2_000])
    (matches,) = scan([text], index, trees)
    assert [text[one["doc_start"] : one["doc_end"]] for one in matches if one["alpha"] == 1] == [line[:-1]]


def test_broken_documents_still_show_their_whole_functions() -> None:
    leak = str(disguise(HUMANEVAL.items[0], "renamed, no docstring"))
    broken = [
        f"x = (1, 2\n\n{leak}\ny = 3\n",
        f"Some prose, not Python at all.\n\n```python\n{leak}\n```\n\nAnd more prose.",
        f"def f(:\n    pass\n\n{leak}",
        f"\x00\x0c\n{leak}\n\ttabs\n  and spaces\n",
        leak.replace("\n", "\r\n"),
    ]
    for text, matches in zip(broken, scan(broken), strict=True):
        assert "HumanEval/0" in items_of(matches, alpha=1.0), text


@pytest.mark.parametrize(
    ("solution", "question", "nodes"),
    [
        ("return x", "", 0),
        ("def f(x):\n    return x\n", "", 0),
        ("this is prose, not code, and long enough to be more than twelve nodes of anything", "", 0),
        ("", "def f(a):\n    return [b for b in a if b is not None]\n", 0),
        ("    return [b for b in a if b is not None]\n", "def f(a):\n", 13),
        ("a = [b for b in c if b is not None]\nprint(a)\n", "Say what it prints.", 15),
        ("def f(a):\n    return [b for b in a if b is not None]\n", "Prose without an end", 13),
    ],
)  # fmt: skip
def test_how_solutions_are_read(solution: str, question: str, nodes: int) -> None:
    index = NgramIndex.build([suite(solution or "-", questions=(question,))])
    found = TreeIndex.build(index.parts).nodes
    assert max(found) == nodes


def test_a_helper_is_not_its_item() -> None:
    helper = "def is_prime(n):\n    return n > 1 and all(n % i for i in range(2, n))\n"
    main = (
        "def primes_of(values, limit):\n    found = []\n    for value in sorted(values):\n        if value > limit:\n"
        "            break\n        if is_prime(value) and value not in found:\n            found.append(value * 2)\n"
        "    return found, len(found), sum(found) / max(1, len(found))\n"
    )
    index = NgramIndex.build([suite(helper + main)])
    trees = TreeIndex.build(index.parts)
    assert scan([helper], index, trees) == [[]]
    assert items_of(scan([main], index, trees)[0], index) == {"own/0"}


def test_without_trees_nothing_changes() -> None:
    documents = [str(disguise(item, "verbatim")) for item in HUMANEVAL.items[:20]] + ["nothing"] * 5
    alone, both = INDEX.scan_utf8(documents), INDEX.scan_utf8(documents, trees=TREES)
    assert alone.matches.tobytes() == both.matches.tobytes()
    assert len(alone.tree_matches) == 0 < len(both.tree_matches)
    every = INDEX.scan_utf8(documents, every=True)
    assert every.docs["row"].tolist() == list(range(25))
    assert np.array_equal(alone.docs["row"][alone.matches["doc"]], every.docs["row"][every.matches["doc"]])


def test_hostile_documents() -> None:
    nested = "if x:\n" + "".join(" " * depth + "if x:\n" for depth in range(1, 3_000)) + " " * 3_000 + "pass\n"
    texts = ["(" * 10_000, "x = [" * 5_000, nested, "def f():\n" * 2_000, "a " * 500_000, "\n" * 1_000_000]
    assert scan(texts) == [[] for _ in texts]
