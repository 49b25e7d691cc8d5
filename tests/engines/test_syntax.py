"""The parser against CPython's, on all kinds of real source; broken source; distances against their definitions."""

from __future__ import annotations

import ast
import os
import random
import sys
import sysconfig
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_fast.disguise import disguise
from phi_fast.engines import syntax
from phi_fast.errors import InputError
from phi_fast.suites import load_suite
from tests.engines.support import levels
from tests.oracles import syntax as oracle

FILES = int(os.environ.get("PHI_FAST_SYNTAX_FILES", "2500"))


def names(types: Any) -> list[str]:
    return [syntax.NODE_TYPES[number] for number in types]


def by_cpython(source: bytes | str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def python_files() -> list[Path]:
    """Python source of this machine, most of it other people's: the same files every time."""
    roots = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/lib/python3"}
    found = sorted({path for root in roots for path in Path(root).rglob("*.py") if path.is_file()})
    return random.Random(3).sample(found, min(FILES, len(found)))


def test_real_source_gives_the_tree_of_cpython() -> None:
    compared = nodes = 0
    for path in python_files():
        source = path.read_bytes()
        tree = by_cpython(source)
        try:
            source.decode()
        except UnicodeDecodeError:
            continue  # another encoding, by its own declaration
        if tree is None:
            continue
        parsed = syntax.parse(source)
        wanted = oracle.preorder(tree)
        assert parsed.errors == 0, path
        assert names(parsed.types) == wanted, path
        definitions = oracle.functions(tree)
        assert [names(function.types) for function in parsed.functions] == [oracle.preorder(d) for d in definitions], (
            path
        )
        assert all(function.whole for function in parsed.functions)
        compared += 1
        nodes += len(wanted)
    assert compared > min(FILES, 300) // 2
    print(f"{compared:,} files, {nodes:,} nodes")


GRAMMAR = r"""
f"{x!r:>{width}.{precision}} {{literal}} {y=} {z = !s:^10} {'nested' + f'{a}{b!a}'} {d['k']}" "tail"
rb'' b"x"
f"" "" f"{a}" "b" f"c{d}" rf"\{{{e}\}}" f"\N{BULLET}{{" f"{lambda_}"
f"{(lambda q: q)(1)}" f"{a:{b}{c}}" f"{x:=5}" f"{a!=b}"
lambda a, /, b=1, *c, d, e=2, **f: (yield)
lambda *, k: k
def f(a, b: int = 1, /, c: str = "x", *args: int, d, e=3, **kw: dict) -> None: pass
async def g(): return [x async for x in y if z if w], {k: v for k, v in u}, {*a, *b}, {**c, "d": 1}, (i for i in j)
class A(B, *C, metaclass=D, **E): x: int; y: int = 3; (z): int = 4; a.b: int; a[1]: str = "s"
with (open(a) as b, c as (d, e), f): pass
with (a, b): pass
with (a): pass
with (lambda a, *b: c, d): pass
with (lambda a, /, *, b=[*c]: d): pass
with (lambda a: b, *c): pass
with (yield): pass
with (a, b)[0] as c, d: pass
with a as b, c as d[0]: pass
for x, in y: pass
for a, *b in c, d: break
else: continue
while (n := f()) and not m: pass
else: pass
try: pass
except* (A, B) as c: raise D from e
else: pass
finally: pass
try: x
except A: raise
except: pass
x = y = yield z
x = *a, *b
a[1:2, ::3, *b, c:=4]; a[:]; a[1,]; a[b:c:d]; a[*b]
del a, (b, c), d[0], e.f
assert a, b
from . import a as b
from ...x.y import (c, d as e,)
from q import *
import a.b.c as d, e
global g1, g2
nonlocal_ = 1
x @= y @ z ** -w ** +v; x //= 2; x >>= ~3 << 4 | 5 ^ 6 & 7
a < b <= c != d is not e not in f in g is h
not a and b or c and not d
1 if 2 else 3 if 4 else 5
print(*a, b=c, *e, **d); f(x for x in y); f(a)(b)[c].d
await_ = 0xFF + 0o17 + 0b11 + 1_000.5e-3j + ... + 1.
if a: pass
elif b: pass
elif c: x
else: y
@dec.a(1)[2]
@(lambda f: f)
def h(): "doc"; return
match x:
    case 0 | -1 | 1 + 2j | "a" "b" | None | True: pass
    case [a, *_, b] | (c, *rest): pass
    case {"k": v, 1: w, A.B: q, **rest}: pass
    case Point(x=0, y=z) | Q(1, 2, k=v) if z > 0: pass
    case (a): pass
    case (a,): pass
    case []: pass
    case a, b: pass
    case *a, b: pass
    case A.B.C as name: pass
    case _: pass
match = {match: case for case in match}
match[0] = match(case)
match (x)
match x, y:
    case _, _: pass
type = type(x); type.y = 2; print(type)
"""


def test_every_construct() -> None:
    """Every statement of a list that goes through the grammar, alone and all together."""
    lines, block = [], ""
    for line in GRAMMAR.strip("\n").split("\n"):
        continues = line.startswith((" ", "else", "elif", "except", "finally", "def", "async")) or block.endswith("]\n")
        if block and not (continues and by_cpython(block + line) is not None) and by_cpython(block) is not None:
            lines.append(block)
            block = ""
        block += line + "\n"
    lines.append(block)
    assert len(lines) > 40
    for text in [*lines, "".join(lines)]:
        tree = by_cpython(text)
        assert tree is not None, text
        parsed = syntax.parse(text)
        assert parsed.errors == 0, text
        assert names(parsed.types) == oracle.preorder(tree), text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython reads type parameters since 3.12")
def test_newer_grammar_against_cpython() -> None:
    text = "type X[T: int, *Ts, **P] = list[T]\ndef f[T](x: T) -> T: pass\nclass A[T: (int, str)](B): pass\n"
    assert names(syntax.parse(text).types) == oracle.preorder(ast.parse(text))


def test_newer_and_older_grammar() -> None:
    """What this interpreter may not read: names of the nodes as newer CPythons give them, and Python 2's forms."""
    parsed = syntax.parse("type X[T: int, *Ts, **P] = list[T]\n")
    assert parsed.errors == 0
    assert names(parsed.types)[1:] == [
        "TypeAlias", "Name", "TypeVar", "Name", "TypeVarTuple", "ParamSpec", "Subscript", "Name", "Name",
    ]  # fmt: skip
    assert syntax.parse('f"{d["same quotes"]} {\'a\' + f\'{"b"}\'}"\n').errors == 0
    python2 = 'print "a", b\nexec "x" in y\ntry: pass\nexcept E, e: raise E, "v", tb\nx = `y` + 0777L <> 3\nprint\n'
    parsed = syntax.parse(python2)
    assert parsed.errors == 0
    assert names(parsed.types)[1:5] == ["Expr", "Call", "Name", "Constant"]


BROKEN = {
    "truncated": "def a(x):\n    return x + 1\n\ndef b(y):\n    z = (y *",
    "dropped bracket": (
        "def a(x):\n    return foo(x, (1, 2)\n\ndef b(y):\n    return y + 2\n\ndef c(z):\n    return z\n"
    ),
    "fences": (
        "Here is code, it doesn't run:\n\n```python\ndef a(x):\n    return x + 1\n```\n\n"
        "and (then:\n\n```\ndef b(y):\n    return y\n```\n"
    ),
    "spliced": (
        "class K:\n    def a(self):\n        return 1\n  def b(y):\n      return y + 2\n"
        "    def c(self):\n        return 3\n"
    ),
    "open string": 'def a(x):\n    return x + 1\n\ns = """never closed\ndef b(y):\n    return y\n',
    "mixed tabs": "def a(x):\n\tif x:\n        return 1\n\treturn 2\n\ndef b(y):\n    return y\n",
    "python 2": "def a(x):\n    print 'x', x\n    raise E, 'm'\n\ndef b(y):\n    exec y\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_source_keeps_its_whole_functions(kind: str) -> None:
    source = BROKEN[kind]
    functions = syntax.parse(source).functions
    whole = [source[f.start : f.end].split("(")[0].removeprefix("def ") for f in functions if f.whole]
    expected = {
        "truncated": ["a"], "dropped bracket": ["b", "c"], "fences": ["a", "b"], "spliced": ["a", "b", "c"],
        "open string": ["a", "b"], "mixed tabs": ["b"], "python 2": ["a", "b"],
    }[kind]  # fmt: skip
    assert [name for name in whole if name in expected] == expected
    for function in functions:
        if function.whole and kind != "python 2":
            tree = by_cpython(textwrap.dedent(" " * 200 + source[function.start : function.end]).lstrip(" "))
            if tree is not None:
                assert names(function.types) == oracle.preorder(tree.body[0])


@pytest.mark.parametrize(
    "source",
    [
        b"", b"\x00", b"\xef\xbb\xbfx = 1\n", b"\xff\xfe\x00", b"(" * 10_000, b"[" * 10_000 + b"]" * 10_000,
        b")" * 10_000, b"-" * 100_000 + b"1", b"not " * 50_000 + b"x", b"x = " + b"1 + " * 200_000 + b"1",
        b"x" * 1_000_000, b"'" + b"a" * 1_000_000, b"\x0c\x0cdef f():\n\x0c    pass\n", b"if x:\n" * 5_000,
        b"f'{" * 5_000, b"lambda: " * 20_000, b"f\"{f'{" * 2_000, b"\\\n" * 10_000, b"\r" * 10_000, b"def f(" * 5_000,
        b"@" * 10_000, b"match x:\n case " * 3_000, b"".join(b" " * n + b"if x:\n" for n in range(2_000)),
        b'"""' * 9_999, b"x if y else " * 20_000 + b"z", b"a = " * 50_000, b"if a: pass\n" + b"elif a: pass\n" * 20_000,
    ],
    ids=lambda source: repr(source[:12]) + f" {len(source)}",
)  # fmt: skip
def test_hostile_source_neither_crashes_nor_hangs(source: bytes) -> None:
    parsed = syntax.parse(source)
    assert len(parsed.types) == len(parsed.sizes) >= 1
    assert parsed.sizes[0] == len(parsed.types)


def test_long_chains_are_no_recursion() -> None:
    parsed = syntax.parse("if a: pass\n" + "elif a: pass\n" * 20_000 + "x = " + "1 + " * 100_000 + "1\n")
    assert parsed.errors == 0
    assert names(parsed.types).count("If") == 20_001
    assert names(parsed.types).count("Add") == 100_000


def test_refusals() -> None:
    with pytest.raises(InputError, match="cannot parse"):
        syntax.parse("\ud800")
    with pytest.raises(InputError, match="tau 0"):
        syntax.neighbours([], [], tau=0)
    with pytest.raises(InputError, match="metric"):
        function = syntax.parse("def f(): pass").functions[0]
        syntax.match_rate(function, function, metric="other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not those of"):
        one = np.array([1, 2], np.uint32)
        syntax.distance(one, one, sizes=(np.array([1, 1]), np.array([2, 1])))


@given(st.lists(st.integers(0, 4), max_size=140), st.lists(st.integers(0, 4), max_size=140), st.integers(0, 150))
def test_sequence_distance(a: list[int], b: list[int], cutoff: int) -> None:
    left, right = np.array(a, np.uint32), np.array(b, np.uint32)
    wanted = oracle.sequence_distance(a, b)
    assert syntax.distance(left, right) == wanted
    assert syntax.distance(left, right, cutoff=cutoff) == min(wanted, max(min(cutoff, max(len(a), len(b))), 0) + 1)


trees: st.SearchStrategy[oracle.Tree] = st.recursive(
    st.tuples(st.integers(0, 3), st.just(())),
    lambda below: st.tuples(st.integers(0, 3), st.lists(below, max_size=3).map(tuple)),
    max_leaves=7,
)  # fmt: skip


def flat(tree: oracle.Tree) -> tuple[list[int], list[int]]:
    labels, sizes = [tree[0]], [1]
    for below in tree[1]:
        more, their_sizes = flat(below)
        labels += more
        sizes += their_sizes
        sizes[0] += their_sizes[0]
    return labels, sizes


@given(trees, trees)
def test_tree_distance(a: oracle.Tree, b: oracle.Tree) -> None:
    (labels, sizes), (others, their_sizes) = flat(a), flat(b)
    left, right = np.array(labels), np.array(others)
    wanted = oracle.tree_distance(a, b)
    assert syntax.distance(left, right, sizes=(np.array(sizes), np.array(their_sizes))) == wanted
    assert syntax.distance(left, right) <= wanted


def near_copies(rng: random.Random, items: list[list[int]], count: int, edits: int) -> list[list[int]]:
    copies = []
    for _ in range(count):
        near = list(rng.choice(items))
        for _ in range(rng.randrange(edits)):
            near.insert(rng.randrange(len(near) + 1), rng.randrange(90))
            if rng.random() < 0.5:
                near.pop(rng.randrange(len(near)))
        copies.append(near)
    return copies


def by_double_loop(items: list[list[int]], queries: list[list[int]], tau: float) -> list[tuple[int, int, int]]:
    found = []
    for q, query in enumerate(queries):
        for i, item in enumerate(items):
            longest = max(len(query), len(item))
            # The distance is at least the difference of the lengths: most pairs need no table.
            if query and longest and 1 - abs(len(query) - len(item)) / longest >= tau - 1e-12:
                d = oracle.sequence_distance(query, item)
                if 1 - d / longest >= tau - 1e-12:
                    found.append((q, i, d))
    return found


def arrays(sequences: list[list[int]]) -> list[Any]:
    return [np.array(one, np.uint8) for one in sequences]


@given(st.integers(0, 10_000), st.sampled_from([0.0001, 0.3, 0.5, 0.8, 0.85, 0.9, 1.0]), st.integers(0, 60))
def test_neighbours_are_all_there(seed: int, tau: float, items_there: int) -> None:
    rng = random.Random(seed)
    items = [[rng.randrange(rng.choice([4, 90])) for _ in range(rng.randrange(40))] for _ in range(items_there)]
    queries = near_copies(rng, items or [[1, 2, 3]], 25, 8)
    wanted = by_double_loop(items, queries, tau)
    for level in levels():
        assert syntax.neighbours(arrays(items), arrays(queries), tau, threads=2).tolist() == wanted, level


def test_neighbours_of_any_length() -> None:
    """Lengths around every limit of the bounds: counters that stop at 255, tables of lengths, 16 bits."""
    rng = random.Random(5)
    items = [[rng.randrange(3) for _ in range(n)] for n in (1, 2, 63, 64, 65, 250, 256, 300, 1019, 1021, 1300)]
    queries = near_copies(rng, items, 20, 12)
    for tau in (0.8, 0.95, 1.0):
        wanted = by_double_loop(items, queries, tau)
        for level in levels():
            assert syntax.neighbours(arrays(items), arrays(queries), tau).tolist() == wanted, level
    for length in (4095, 4096, 8160, 32_767, 32_768, 70_000):
        one = np.array([rng.randrange(3) for _ in range(length)], np.uint8)
        other = np.append(one, np.uint8(3))
        short = np.zeros(5, np.uint8)
        assert syntax.neighbours([other, short, one], [one, short, other], 0.9).tolist() == [
            (0, 0, 1), (0, 2, 0), (1, 1, 0), (2, 0, 0), (2, 2, 1),
        ]  # fmt: skip


def test_neighbours_read_arrays_of_any_layout() -> None:
    item = np.arange(40, dtype=np.uint8)
    assert syntax.neighbours([item], [np.repeat(item, 2)[::2], item.astype(np.int64), item[::-1]]).tolist() == [
        (0, 0, 0), (1, 0, 0),
    ]  # fmt: skip
    assert syntax.neighbours([], [item]).tolist() == syntax.neighbours([item], []).tolist() == []
    with pytest.raises(InputError, match="one dimension"):
        syntax.neighbours([item], [item.reshape(2, 20)])


def test_neighbours_by_tree_distance() -> None:
    """Against all pairs' tree distances; the sequences alone would let more through."""
    path = sysconfig.get_path("stdlib")
    read = [syntax.parse(Path(path, name).read_bytes()).functions for name in ("textwrap.py", "bisect.py", "heapq.py")]
    functions = [function for one in read for function in one if len(function.types) < 150]
    fewer = 0
    for tau in (0.5, 0.6, 0.8):
        wanted = []
        for q, query in enumerate(functions):
            for i, item in enumerate(functions[:20]):
                d = syntax.distance(query.types, item.types, sizes=(query.sizes, item.sizes))
                if 1 - d / max(len(query.types), len(item.types)) >= tau - 1e-12:
                    wanted.append((q, i, d))
        got = syntax.neighbours(functions[:20], functions, tau, metric="tree")
        assert got.tolist() == wanted
        fewer += len(syntax.neighbours(functions[:20], functions, tau)) > len(wanted) > 20
    assert fewer
    with pytest.raises(InputError, match="not ndarray"):
        syntax.neighbours(functions, [functions[0].types], metric="tree")
    with pytest.raises(InputError, match="metric"):
        syntax.neighbours([], [], metric="other")  # type: ignore[arg-type]


def test_a_renamed_redocumented_copy_has_match_rate_one() -> None:
    """The paper's property, on every HumanEval item that can be renamed; and the alpha form sees the same.

    (`ast.unparse`, which the disguise uses, may write a string another way: r"\\s" as "\\\\s".)
    """
    checked = same = 0
    for item in load_suite("humaneval").items:
        plain, renamed = disguise(item, "verbatim"), disguise(item, "renamed, no docstring")
        if plain is None or renamed is None:
            continue
        one, other = syntax.parse(plain).functions[-1], syntax.parse(renamed).functions[-1]
        assert syntax.match_rate(one, other) == 1.0, item.id
        assert syntax.match_rate(one, other, metric="tree") == 1.0
        assert syntax.match_rate(one, other, alpha=True) > 0.9, item.id
        same += syntax.match_rate(one, other, alpha=True) == 1.0
        checked += 1
    assert checked > 150
    assert same > 0.97 * checked
