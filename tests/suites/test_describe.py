"""What ``phi-fast suites`` prints, held against the real index."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import Item, Part, Suite, load_suite, print_suite, print_suites, summarise

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path: Path = tmp_path_factory.mktemp("suite") / "own.jsonl"
    lines = [f'{{"id": "i{n}", "prompt": "{LONG} {n}", "answer": "return {n}"}}' for n in range(30)]
    path.write_text("\n".join([*lines, '{"id": "short", "prompt": "Too short [bold]x[/bold]"}', "not json"]))
    return load_suite(str(path))


def shown(suite: Suite, limit: int = 20, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    index = NgramIndex.build([load_suite("humaneval"), suite])
    print_suite(suite, index.parts, index.n, console, limit)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_counts_parts_and_names_the_untestable(own: Suite) -> None:
    index = NgramIndex.build([load_suite("humaneval"), own])
    found = summarise(own, index.parts)
    assert (found.name, found.items) == ("own", 31)
    question, solution = found.parts
    assert (question.part, question.items, question.testable, question.words) == ("question", 31, 30, 30 * 15 + 5)
    assert (solution.part, solution.items, solution.testable, solution.words) == ("solution", 30, 0, 60)
    assert len(found.untestable) == 31
    assert ("short", "question", "5 words, under 13") in found.untestable
    assert found.unreachable == ("short",)
    assert sum(question.set_aside.values()) == sum(
        sum(info.set_aside.values()) for info in index.parts if info.suite == "own" and info.part == "question"
    )


def test_humaneval_has_a_testable_part_in_every_item() -> None:
    suite = load_suite("humaneval")
    found = summarise(suite, NgramIndex.build(suite).parts)
    assert [part.items for part in found.parts] == [164, 164, 164]
    assert found.unreachable == ()
    short = {item.id for item in suite.items if len(re.findall(r"\w+", item.parts[1].text)) < 13}
    assert {item for item, part, why in found.untestable if part == "solution" and "words, under 13" in why} == short
    assert len(short) == 36


def test_show_prints_items_parts_and_reasons(own: Suite) -> None:
    text = shown(own)
    assert "own  31 items" in text
    assert own.sha256 in text.replace("\n", "")
    assert "Untestable at n = 13 and 4: 31 of 61 parts. Items with no testable part: 1" in text
    assert "short question: 5 words, under 13" not in text, "the first twenty only"
    assert "and 11 more (--all shows them)" in text
    assert "line 32: malformed JSON" in text
    everything = shown(own, limit=1_000)
    assert "short question: 5 words, under 13" in everything and "more (--all" not in everything


@pytest.mark.parametrize("width", [60, 80])
def test_show_fits_the_terminal(own: Suite, width: int) -> None:
    for line in shown(own, width=width).splitlines():
        assert cell_len(line) <= width or own.sha256 in line


def test_ids_are_printed_as_they_are() -> None:
    suite = Suite("s", (Item("[red]x[/red]", (Part("question", LONG),)),), "memory", "0" * 64)
    assert "[red]x[/red]" in shown(suite)
    assert "Every part is testable" in shown(suite)


def test_known_suites_are_listed_with_how_to_get_them() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_suites(console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for said in ("humaneval", "164 problems", "mbpp=PATH", "974 problems", "NAME=PATH", "--question"):
        assert said in text
