"""The parser against CPython's on programs put together at random, and on grammar newer than Python 3.11's."""

from __future__ import annotations

import ast
import os
import sys
import warnings

import pytest

from phi_fast.engines import syntax
from tests.oracles import syntax as oracle
from tests.oracles.programs import Programs

PROGRAMS = int(os.environ.get("PHI_FAST_SYNTAX_PROGRAMS", "1500"))


def names(types: object) -> list[str]:
    return [syntax.NODE_TYPES[number] for number in types]  # type: ignore[attr-defined]


def compare(source: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    wanted = oracle.preorder(tree)
    parsed = syntax.parse(source)
    assert names(parsed.types) == wanted, source
    assert parsed.errors == 0, source
    assert [names(f.types) for f in parsed.functions] == [oracle.preorder(d) for d in oracle.functions(tree)], source
    return wanted


def test_random_programs_of_every_node_type() -> None:
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        programs = Programs(seed=7)
        for _ in range(PROGRAMS):
            seen.update(compare(programs.program()))
    assert {name for name in syntax.NODE_TYPES if hasattr(ast, name)} <= seen


NEWER = {
    (3, 12): [
        "type X = int\ntype Y[T] = list[T]\ntype Z[T: (int, str), *Ts, **P] = Callable[P, tuple[T, *Ts]]\n",
        "def f[T: int, *Ts, **P](x: T, *args: *Ts) -> T: pass\nasync def g[T](): yield\n",
        "class A[T](B, metaclass=M[T]): type X = T\n",
        "type = type(type)\ntype[x] = y\ntype (x)\ntype.x = 1\n",
        "f\"{d[\"same quotes\"]}\" f'{\"\\n\".join(x)}' f'{'a' + f'{'b'}'}'\n",
        'f"{1+2 = # a comment\n  }" f"{x = # another\n!r}"\n',
        'f"{\n  x  # a comment\n  + 1\n}"\n',
        'f"""{f\'\'\'{f"{1}"}\'\'\'}"""\n',
        'f"{x:{y:{z}}}" f"{x!r:>{w}.{p}}" f"{x = !a:^{w}}"\n',
        'f"{f"{f"{f"{f"{f"{1+1}"}"}"}"}"}"\n',
        "f'{lambda_:x}' f'{(lambda x: x)}' f'{ {1: 2}[1] }' f'{x:{\"a\"}}'\n",
        "f'{x:%H:%M}' f'{x:{{}}}' f'{{' f'}}' f'{x}}}{{'\n",
    ],
    (3, 13): [
        "type X[T = int, *Ts = *tuple[int], **P = [int]] = T\ndef f[T: int = bool](): pass\nclass A[T = int]: pass\n",
    ],
}


@pytest.mark.parametrize("version", NEWER)
def test_newer_grammar(version: tuple[int, int]) -> None:
    if sys.version_info < version:
        pytest.skip(f"CPython reads this since {version[0]}.{version[1]}")
    for source in NEWER[version]:
        try:
            ast.parse(source)
        except SyntaxError:
            pytest.fail(f"no Python {version}: {source}")
        compare(source)
