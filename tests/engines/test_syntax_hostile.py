"""Source that is no source: it neither crashes nor hangs the parser, and what is whole in it is found.

Time must grow with the text, not with its square: each shape is parsed at sizes that a quadratic step would not finish
within the limit, which is some hundred times what is needed.
"""

from __future__ import annotations

import time

import pytest

from phi_fast.engines import syntax

AFTER = b"\ndef after(x):\n    return x + 1\n"
SECONDS = 30


def parse(source: bytes) -> syntax.Parsed:
    started = time.perf_counter()
    parsed = syntax.parse(source)
    assert time.perf_counter() - started < SECONDS
    assert len(parsed.types) == len(parsed.sizes) == parsed.sizes[0] >= 1
    return parsed


def whole(source: bytes) -> list[str]:
    text = source.decode(errors="replace")
    return [text[f.start : f.end].split("(")[0].split()[-1] for f in parse(source).functions if f.whole]


KINDS = {
    "round": (b"(", b")"), "square": (b"[", b"]"), "brace": (b"{", b"}"), "mixed": (b"([{", b"}])"),
    "call": (b"f(", b")"),
    "subscript": (b"a[", b"]"), "lambda": (b"(lambda: ", b")"), "comprehension": (b"[x for x in ", b"]"),
    "dict": (b"{1: ", b"}"), "await": (b"await (", b")"), "f-string": (b"f'{", b"}'"),
    "f-string, other quotes": (b"f'{f\"{", b"}\"}'"),
    "f-string, triple": (b'f"""{', b'}"""'), "format": (b"f'{x:{", b"}}'"), "unary": (b"-(", b")"),
    "ternary": (b"a if b else (", b")"),
    "with": (b"(yield ", b")"), "backtick": (b"`(", b")`"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("closed", [True, False])
def test_ten_thousand_brackets(kind: str, closed: bool) -> None:
    opening, closing = KINDS[kind]
    assert whole(b"x = " + opening * 10_000 + b"1" + closing * (10_000 if closed else 0) + AFTER) == ["after"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_deepest_nesting_that_cpython_reads(kind: str) -> None:
    opening, closing = KINDS[kind]
    # CPython stops at 100 brackets; f-strings nest 30 deep here, a specification's in a specification once.
    depth = {"f-string": 30, "f-string, triple": 30, "f-string, other quotes": 15, "format": 1, "mixed": 30}.get(
        kind, 90
    )
    assert parse(b"x = " + opening * depth + b"1" + closing * depth + AFTER).errors == 0


def test_one_line_of_a_megabyte() -> None:
    for line in (
        b"x = [" + b"1, " * 350_000 + b"]",
        b"x = " + b"a + " * 250_000 + b"a",
        b"#" + b"x" * 1_000_000,
        b"a;" * 500_000,
    ):
        assert whole(line + AFTER) == ["after"]
        assert parse(line + AFTER).errors == 0


def test_a_string_of_ten_megabytes() -> None:
    for string in (
        b"'" + b"a" * 10_000_000 + b"'",
        b'"""' + b"a\n" * 5_000_000 + b'"""',
        b"f'" + b"{a}" * 100_000 + b"'",
    ):
        parsed = parse(b"x = " + string + AFTER)
        assert parsed.errors == 0
        assert len(parsed.functions) == 1
    assert whole(b'x = """' + b"a\n" * 5_000_000 + AFTER) == ["after"]  # never closed


def test_a_million_lines() -> None:
    parsed = parse(b"x = 1\n" * 1_000_000)
    assert parsed.errors == 0
    assert len(parsed.types) == 1 + 3 * 1_000_000


def test_a_hundred_thousand_nested_ifs() -> None:
    """Deeper than anything may be nested: errors of the statements too deep, no overflow of the stack."""
    inline = parse(b"if x: " * 100_000 + b"pass" + AFTER)
    assert len(inline.functions) == 1
    deep = b"".join(b" " * n + b"if x:\n" for n in range(3_000)) + b" " * 3_000 + b"pass" + AFTER
    assert "after" in whole(deep)
    assert "after" in whole(b"if x:\n" * 100_000 + AFTER)


BYTES = {
    "null": b"\x00", "nulls": b"\x00" * 1000, "not UTF-8": b"\xff\xfe\x80", "half a character": b"\xc3",
    "surrogate": b"\xed\xa0\x80",
    "control": bytes(range(1, 9)), "question": b"?", "dollar": b"$$", "bang": b"!",
}  # fmt: skip


@pytest.mark.parametrize("kind", BYTES)
def test_bytes_that_stand_in_no_source(kind: str) -> None:
    odd = BYTES[kind]
    before = b"def before(a):\n    return a\n"
    broken = before + b"x = 1 " + odd + b"\n" + AFTER
    assert whole(broken) == ["before", "after"]
    assert whole(b"# " + odd + b"\n" + before + b"x = '" + odd + b"'\n" + AFTER) == ["before", "after"]
    cut = before + b"def middle(b):\n    y = b " + odd + b" 1\n" + AFTER
    assert [name for name in whole(cut) if name != "middle"] == ["before", "after"]


def test_form_feeds_and_line_ends() -> None:
    assert whole(b"\x0cdef a():\n\x0c    pass\n\x0c\ndef b():\n    pass\x0c\n") == ["a", "b"]
    for end in (b"\n", b"\r\n", b"\r"):
        source = b"def a():\n    if x:\n        return '''\n'''\n\ndef b(): pass".replace(b"\n", end)
        assert whole(source) == ["a", "b"]
        assert parse(source).errors == 0


def test_empty_functions() -> None:
    assert whole(b"def f(): ...") == ["f"]
    assert whole(b"def f(): ...\ndef g(): pass") == ["f", "g"]
    assert whole(b"async def f():\n    ...\n\n\n") == ["f"]
    for source in (
        b"def f():",
        b"def f():\n",
        b"def f():\n\n\n",
        b"def f(",
        b"def f",
        b"def",
        b"@a",
        b"@a\n",
        b"class A:\n    def f():",
    ):
        assert whole(source) == []
        assert whole(source + b"\n" + AFTER) == ["after"], source
    only = parse(b'def f():\n    "A docstring alone."\n').functions[0]
    assert (only.whole, only.body.stop - only.body.start) == (True, 0)


def test_headers_without_their_block() -> None:
    """The line that stands where a block is missing is read on its own; a bad case ends itself, not its match."""
    for header in (
        b"if x:",
        b"for x in y:",
        b"while x:",
        b"with x:",
        b"class A:",
        b"try:",
        b"try: x\nexcept:",
        b"def f():",
        b"@d",
    ):
        assert whole(header + AFTER) == ["after"], header
        inside = b"def a():\n    " + header.replace(b"\n", b"\n    ") + b"\n    y = 1\n    def b(): pass\n" + AFTER
        assert whole(inside) == ["b", "after"], header
    match = (
        b"def a(x):\n    match x:\n        case 1: pass\n        oops (\n"
        b"        case 2:\n            def c(): pass\n    return 2\n"
    )
    functions = parse(match + AFTER).functions
    assert [f.whole for f in functions] == [False, True, True]
    assert match[functions[0].start : functions[0].end].endswith(b"return 2")


def test_a_decorator_after_an_open_bracket_is_the_definitions() -> None:
    kept = b"    @property\n    def b(self): pass\n"
    broken = parse(b"class A:\n    def a(self):\n        return f(1,\n\n" + kept).functions
    assert broken[-1].whole
    assert broken[-1].types.tolist() == parse(b"class A:\n" + kept).functions[0].types.tolist()
    for operand in (b"b", b'b + """\ndef c(): pass\n"""', b"b\n  @c"):
        assert parse(b"x = (a\n  @" + operand + b"\n)\ndef d(): pass\n").errors == 0


def test_mixed_tabs_are_eight_columns() -> None:
    assert whole(b"def a():\n\tif x:\n\t\ty\n        return 1\n") == ["a"]
    assert whole(b"if x:\n        y\n\tz\n" + AFTER) == ["after"]
    assert whole(b"def a():\n  \tif x:\n\t  y\n" + AFTER) == ["a", "after"]


@pytest.mark.parametrize(
    "shape",
    [
        b")", b"]", b"}", b")(", b"}{", b"(\n", b"(\ndef ", b"x[\n", b"'", b'"""\n', b"f'{", b"f'{\n", b"f'''{x\n",
        b"f'''{(\n",
        b"f'''{#\n", b"f'{'", b"f'}", b"f'\\N{", b"match x\n", b"match (", b"match x:\n case (", b"with (a, ",
        b"try:\n", b"else:\n",
        b"elif x:\n", b"def f(a=", b"def f(:\n  pass\n", b"class A(", b"@a\n", b"lambda *a, b=", b"for x in ",
        b"\\\n", b"\\", b" x\n",
        b"if x:\n\ty\n        z\n", b"import a,", b"from . import (", b"print ", b"`", b"0x", b"1e", b";", b"x:",
        b"type X[T: ",
    ],
)  # fmt: skip
def test_unbalanced_shapes_repeated(shape: bytes) -> None:
    """A megabyte of each: errors are linear in the text, and so must be the time."""
    small, large = (parse(shape * (size // len(shape))) for size in (250_000, 1_000_000))
    assert len(large.types) <= 4.2 * len(small.types) + 100
    assert large.errors <= 4.2 * small.errors + 100
