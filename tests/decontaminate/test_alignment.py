"""Two texts side by side: whatever they are, nothing is lost, and a renamed copy is renamed and nothing else."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phi_fast.decontaminate import alignment
from phi_fast.decontaminate.alignment import LONGEST, Alignment, Kind, Piece, align
from phi_fast.disguise import disguise, program
from phi_fast.suites import load_suite

SUITE = load_suite("humaneval")
SIGNS = [
    "x",
    "y",
    "foo",
    "numbers",
    "self",
    "len",
    "if",
    "1",
    "2.5",
    "'a'",
    '"a"',
    '"""',
    "'''",
    "#",
    "(",
    ")",
    "[",
    "]",
]
SIGNS += [
    ":",
    "=",
    "+=",
    ".",
    ",",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "\x00",
    "\x0b",
    "\x1f",
    "\x85",
    "\u2028",
    "😀",
]
SIGNS += ["é", "\\", "def f(a, b):\n    return a.b + b\n", "for i in x:\n", "    # note\n"]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(SIGNS), max_size=60).map("".join),
    st.lists(st.sampled_from(SIGNS), max_size=60).map(" ".join),
)
FRUIT = ["apple", "pear", "plum", "fig", "kiwi", "lime", "date", "nut", "melon", "grape", "peach", "olive", "mango"]


def laid(document: str, item: str) -> Alignment:
    found = align(document, item)
    assert found is not None
    return found


def said(text: str, pieces: Sequence[Piece]) -> list[tuple[str, Kind]]:
    """Each piece's text; together they are the whole text."""
    at, found = 0, []
    for piece in pieces:
        assert piece.length > 0
        found.append((text[at : at + piece.length], piece.kind))
        at += piece.length
    assert "".join(one for one, _ in found) == text
    return found


def of_kind(text: str, pieces: Sequence[Piece], *kinds: Kind) -> str:
    return " ".join(" ".join(one.split()) for one, kind in said(text, pieces) if kind in kinds)


def beside(document: str, item: str) -> list[tuple[str, str]]:
    """The rows' texts."""
    ours, theirs = document.split("\n"), item.split("\n")
    rows = []
    for one, other in laid(document, item).rows:
        rows.append(("\n".join(ours[:one]), "\n".join(theirs[:other])))
        del ours[:one], theirs[:other]
    assert not ours and not theirs
    return rows


def renamed(source: str) -> str:
    """The source with every name that may be renamed replaced, token by token, the rest as it is."""
    names: dict[str, str] = {}
    lines = source.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    for before, token in reversed(list(zip([tokens[0], *tokens], tokens, strict=False))):
        fixed = keyword.iskeyword(token.string) or token.string in alignment._FIXED or before.string == "."
        if token.type == tokenize.NAME and not fixed:
            row, start = token.start
            new = names.setdefault(token.string, f"{FRUIT[len(names) % len(FRUIT)]}_{len(names)}")
            lines[row - 1] = lines[row - 1][:start] + new + lines[row - 1][token.end[1] :]
    return "".join(lines)


@given(TEXTS, TEXTS)
@example("", "")
@example("", "x = 1")
@example('"""', "'''")
@example("\n\n", "\n")
@example("a = b\n" * 3, "b = a\n" * 3)
def test_nothing_is_lost_of_any_two_texts(document: str, item: str) -> None:
    found = laid(document, item)
    for text, pieces in ((document, found.document), (item, found.item)):
        for piece, kind in said(text, pieces):
            assert kind != Kind.SPACE or not piece.strip()
    assert sum(one for one, _ in found.rows) == document.count("\n") + 1
    assert sum(other for _, other in found.rows) == item.count("\n") + 1
    assert all(one >= 0 and other >= 0 and one + other for one, other in found.rows)


@given(TEXTS, TEXTS)
def test_sides_may_be_exchanged(document: str, item: str) -> None:
    one, other = laid(document, item), laid(item, document)
    assert (one.document, one.item) == (other.item, other.document)
    assert set(one.names) == {(mine, theirs) for theirs, mine in other.names}

    # Lines that stand alone come in the order of the sides.
    def tied(rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return [row for row in rows if all(row)]

    assert tied(one.rows) == [(mine, theirs) for theirs, mine in tied(other.rows)]


@given(TEXTS, TEXTS)
def test_renaming_is_one_to_one_and_what_is_the_same_is_the_same(document: str, item: str) -> None:
    found = laid(document, item)
    assert len({one for one, _ in found.names}) == len({other for _, other in found.names}) == len(found.names)
    assert all(one != other for one, other in found.names)
    both = [
        [("".join(piece.split()).replace("'", '"'), kind) for piece, kind in said(text, pieces)]
        for text, pieces in ((document, found.document), (item, found.item))
    ]
    same = ["".join(piece for piece, kind in side if kind == Kind.SAME) for side in both]
    assert same[0].lower() == same[1].lower()  # prefixes of strings may differ in case


@given(TEXTS)
def test_a_text_beside_itself_is_the_same_in_every_line(text: str) -> None:
    found = laid(text, text)
    assert {piece.kind for piece in (*found.document, *found.item)} <= {Kind.SAME}
    assert set(found.rows) == {(1, 1)} and found.names == ()


@given(TEXTS, TEXTS)
def test_tokens_that_are_the_same_stand_in_the_same_row(document: str, item: str) -> None:
    found = laid(document, item)
    left, right = alignment._cut(document), alignment._cut(item)
    row_of: list[list[int]] = [[], []]
    for number, row in enumerate(found.rows):
        for side, lines in zip(row_of, row, strict=True):
            side += [number] * lines
    where: list[list[int]] = []
    for cut, pieces, rows in ((left, found.document, row_of[0]), (right, found.item, row_of[1])):
        ends, at = [], 0
        for piece in pieces:
            at += piece.length
            ends.append((at, piece.kind))
        kinds = [next(kind for end, kind in ends if token.start < end) for token in cut.tokens]
        held = (Kind.SAME, Kind.RENAMED)
        where.append([rows[line] for line, kind in zip(cut.lines, kinds, strict=True) if kind in held])
    assert where[0] == where[1] or document == item


@pytest.mark.parametrize("number", range(0, 164, 4))
def test_a_renamed_copy_is_the_same_or_renamed_line_by_line(number: int) -> None:
    item = program(SUITE.items[number])
    copy = renamed(item)
    found = laid(copy, item)
    assert {piece.kind for piece in (*found.document, *found.item)} <= {Kind.SPACE, Kind.SAME, Kind.RENAMED}
    assert Kind.RENAMED in {piece.kind for piece in found.document}
    assert set(found.rows) == {(1, 1)}
    for one, other in found.names:
        assert one in copy and other in item


def test_a_disguised_copy_lists_its_names_and_dims_the_docstring() -> None:
    item = program(SUITE.items[0])
    copy = disguise(SUITE.items[0], "renamed, no docstring")
    assert copy is not None
    found = laid(copy, item)
    assert dict(found.names) == {
        "var_1": "numbers", "var_2": "threshold", "var_3": "idx", "var_4": "elem", "var_5": "idx2", "var_6": "elem2",
        "var_7": "distance",
    }  # fmt: skip
    assert of_kind(copy, found.document, Kind.CHANGED, Kind.ONLY, Kind.ASIDE) == ""
    assert of_kind(item, found.item, Kind.CHANGED, Kind.ONLY) == ""
    docstring = of_kind(item, found.item, Kind.ASIDE)
    assert docstring.startswith('""" Check if in given list') and docstring.endswith('True """')
    assert (
        "        for var_5, var_6 in enumerate(var_1):",
        "        for idx2, elem2 in enumerate(numbers):",
    ) in beside(copy, item)


def test_a_comment_on_one_side_is_aside_and_a_statement_is_not() -> None:
    document = "def f(a):\n    # adds one\n    a = a + 1\n    log(a)\n    return a\n"
    item = "def f(a):\n    a = a + 1\n    return a\n"
    found = laid(document, item)
    assert of_kind(document, found.document, Kind.ASIDE) == "# adds one"
    assert of_kind(document, found.document, Kind.ONLY) == "log(a)"
    assert of_kind(item, found.item, Kind.CHANGED, Kind.ONLY, Kind.ASIDE) == ""
    assert beside(document, item)[1:4] == [
        ("    # adds one", ""),
        ("    a = a + 1", "    a = a + 1"),
        ("    log(a)", ""),
    ]


def test_what_is_not_consistent_is_changed_and_no_renaming() -> None:
    # a stands for x, and once for z: that one is changed.
    found = laid("a = a + a * a\n", "x = x + x * z\n")
    assert found.names == (("a", "x"),)
    assert [kind for _, kind in said("a = a + a * a\n", found.document)].count(Kind.CHANGED) == 1
    # a stands for x as often as for z: for neither.
    assert laid("a = a\n", "x = z\n").names == ()


def test_two_names_exchanged_are_a_renaming() -> None:
    document, item = "a = f(b)\nb = f(a, a, b)\nreturn (a, b)\n", "b = f(a)\na = f(b, b, a)\nreturn (b, a)\n"
    assert set(laid(document, item).names) == {("a", "b"), ("b", "a")}


def test_builtins_attributes_keywords_and_prose_are_never_renamed() -> None:
    for document, item in (
        ("return min(x)\n", "return max(x)\n"),
        ("x.append(y)\n", "x.add(y)\n"),
        ("while (x): y()\n", "if (x): y()\n"),
        ("# the quick fox\nf(x)\n", "# the slow fox\nf(x)\n"),
        ("Write a function to find the largest number.", "Write a function to find the smallest number."),
    ):
        found = laid(document, item)
        assert found.names == ()
        assert of_kind(document, found.document, Kind.CHANGED) != ""
        assert of_kind(document, found.document, Kind.RENAMED) == ""


def test_quotes_and_white_space_alone_change_nothing() -> None:
    document, item = "f('a',\n  \"b\")\nx = '''t'''\n", 'f("a", \'b\')\nx = """t"""\n'
    found = laid(document, item)
    assert {piece.kind for piece in found.document} <= {Kind.SPACE, Kind.SAME}
    assert found.rows == ((2, 1), (1, 1), (1, 1))


def test_a_line_broken_otherwise_stands_beside_the_whole() -> None:
    document, item = "a = 1\nb = foo(one,\n    two,\n    three)\nc = 3\n", "a = 1\nb = foo(one, two, three)\nc = 3\n"
    assert laid(document, item).rows == ((1, 1), (3, 1), (1, 1), (1, 1))


def test_a_lone_bracket_does_not_tie_lines_of_others() -> None:
    document = "alpha(beta)\ngamma[delta]\n"
    item = "alpha(beta[\ngamma[delta]\n"
    assert laid(document, item).rows == ((1, 1), (1, 1), (1, 1))


def test_texts_beyond_the_limit_are_not_laid_side_by_side() -> None:
    assert align("x " * LONGEST, "y") is not None
    assert align("x " * (LONGEST + 1), "y") is None
    assert align("y", "x" * 10_000_000) is None
    huge = "x" * 10_000_000
    assert laid(huge, huge).document == (Piece(len(huge), Kind.SAME),)


def test_a_huge_line_of_broken_code_is_cut_into_tokens_all_the_same() -> None:
    document, item = "'" * 1_999 + '"\\' * 500 + '"""', "(" * 3_000 + "\\\"'" * 300
    found = laid(document, item)
    assert said(document, found.document) and said(item, found.item)
    # Every quote could begin a string that never ends: a search to the end for each would take minutes.
    assert align('"' + '\\"' * 49_000, "'" + "\\'" * 49_000) is None
