"""Numbers and findings in words: the same in the terminal, report.md and report.html."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from phi_fast.decontaminate.policy import LEAST_NODES
from phi_fast.decontaminate.summary import Document, Match, Summary

if TYPE_CHECKING:
    from phi_fast.decontaminate.tally import Count
    from phi_fast.engines.ngram import PartInfo

VERBS = {"drop": "dropped", "cut": "cut", "flag": "flagged", "keep": "kept"}
# What a mode does to the documents its policy condemns: a cut that would leave nothing drops.
DONE = {"drop": "dropped", "cut": "cut or dropped", "flag": "flagged"}
ASIDE = {
    "no_letters": "hold no letter",
    "few_distinct": "have under four distinct words",
    "common": "are common in the corpus",
}


CHANNEL_NAMES = {"ngram": "n-grams", "syntax": "syntax", "embedding": "embedding"}
# Columns that a channel adds to a table of items: in short, in words, and the value of a row.
_MEASURES: dict[str, tuple[tuple[str, str, Callable[[Count], str]], ...]] = {
    "ngram": (
        ("coverage", "best coverage", lambda one: percent(one.coverage) if one.run else ""),
        ("run", "longest run", lambda one: f"{one.run:,}" if one.run else ""),
    ),
    "syntax": (
        ("alike", "most alike", lambda one: percent(one.alpha) if one.tau else ""),
        ("τ", "its τ", lambda one: match_rate(one.tau) if one.tau else ""),
    ),
    "embedding": (
        ("distance", "least distance", lambda one: "" if one.distance is None else f"{one.distance:.2f}"),
    ),
}  # fmt: skip


def measures(summary: Summary) -> list[tuple[str, str, Callable[[Count], str]]]:
    """Columns by which items are measured: those of the channels that found anything."""
    return [column for channel, columns in _MEASURES.items() if summary.channels[channel] for column in columns]


def found_by(summary: Summary) -> str | None:
    """``Items found by n-grams 15, by syntax 12 (3 by it alone).``; None where one channel found all matches."""
    if len(summary.found_by) < 2:
        return None
    said = [
        f"by {CHANNEL_NAMES[channel]} {items:,}"
        + (f" ({alone:,} by {'them' if channel == 'ngram' else 'it'} alone)" if alone else "")
        for channel, (items, alone) in summary.found_by.items()
    ]
    return f"Items found {', '.join(said)}."


def why_not(part: PartInfo, summary: Summary) -> tuple[str, ...]:
    """Why words cannot find a part, and why syntax cannot: one reason a channel, as ``why_columns`` has them."""
    channels = summary.run.record["settings"]["channels"]
    words = part.why_not or "" if "ngram" in channels else "channel off"
    if "syntax" not in channels:
        return (words,)
    small = f"under {LEAST_NODES} syntax nodes, or no Python"
    return words, small if part.part == "solution" else "only solutions are compared"


def why_columns(summary: Summary) -> tuple[str, ...]:
    """Headings for ``why_not``."""
    return ("words", "syntax") if "syntax" in summary.run.record["settings"]["channels"] else ("words",)


def headline(summary: Summary) -> str:
    """Say in one sentence what the run found."""
    counts = summary.run.counts
    items = sum(suite.items for suite in summary.suites)
    held = sum(suite.items_condemned for suite in summary.suites)
    documents = counted(counts["documents"], "document")
    acted = [(counts[verdict], VERBS[verdict]) for verdict in ("drop", "cut", "flag") if counts[verdict]]
    if acted:
        total = sum(count for count, _ in acted)
        one = total == 1
        if len(acted) > 1:
            done = ", ".join(f"{count:,} {verb}" for count, verb in acted)
        else:
            done = f"{'it was' if one else 'all were'} {acted[0][1]}"
        return (
            f"{total:,} of {documents} ({share(total, counts['documents'])}) {'holds' if one else 'hold'} "
            f"{held:,} of {counted(items, 'item')}; {done}."
        )
    if counts["matches"]:
        seen = sum(suite.items_seen for suite in summary.suites)
        return (
            f"No document of {counts['documents']:,} is condemned by the policy; {counts['matched_documents']:,} hold "
            f"something of {seen:,} of {counted(items, 'item')}, below its thresholds."
        )
    return f"Nothing of {counted(items, 'item')} was found in {documents}."


_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)}
_CONTROLS |= dict.fromkeys(
    [*range(0x7F, 0xA0), *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "·"
)


def printable(text: str) -> str:
    """The text without what could steer a terminal or turn its lines round: control and direction characters."""
    return text.translate(_CONTROLS)


def counted(count: int, noun: str) -> str:
    """``1 document``, ``2,000 documents``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share(some: int, whole: int) -> str:
    """A percentage with as many digits as it needs to be seen; some is never 0 %, and not all never 100 %."""
    if not whole or not some:
        return "0 %"
    if some == whole:
        return "100 %"
    exact = 100 * some / whole
    if exact < 0.001:
        return "under 0.001 %"
    if exact > 99.99:
        return "over 99.99 %"
    digits = 2 if exact >= 99.5 else 0 if exact >= 10 else 1 if exact >= 1 else 2 if exact >= 0.1 else 3
    said = f"{exact:.{digits}f}"
    return f"{said.rstrip('0').rstrip('.') if digits else said} %"


def percent(value: float) -> str:
    """A coverage: ``94 %``; never rounded up to 100 %."""
    return f"{min(99, int(value * 100 + 0.5)) if value < 1 else 100} %"


def size(count: float) -> str:
    """Bytes in powers of 1,000: ``277 MB``."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """``8.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def match_rate(value: float) -> str:
    """A match rate as the paper writes it: ``0.95``; never rounded up to 1."""
    return f"{min(value, 0.99) if value < 1 else 1:.2f}"


def likeness(match: Match, item: str, part: str) -> str:
    """How alike a document and an item's part are: ``94 % of HumanEval/0 solution, run 30 words``."""
    name = f"{item} {part}"
    if match.channel == "syntax":
        what = "a body" if match.form == "body" else "a function"
        near = "" if match.distance is None else f", embedding at distance {match.distance:.2f}"
        return f"{what} like {name}: {percent(match.alpha or 0)} but for names, τ {match_rate(match.tau or 0)}{near}"
    if match.channel == "embedding":
        return f"a text like {name}: embedding at distance {match.distance or 0:.2f}"
    return f"{percent(match.coverage or 0)} of {name}, run {counted(match.run or 0, 'word')}"


def place(summary: Summary, document: Document) -> str:
    """Where a document stands: ``part-3.jsonl line 18``, ``a.parquet row 17``, or the file alone."""
    return place_in(formats(summary), document)


def formats(summary: Summary) -> dict[str, str]:
    """Format of each input file by name."""
    return {one["name"]: one["format"] for one in summary.run.record["inputs"]}


def place_in(known: dict[str, str], document: Document) -> str:
    """As ``place``, with ``formats`` at hand."""
    kind = known.get(document.file)
    if kind == "jsonl":
        return f"{document.file} line {document.row + 1}"
    return f"{document.file} row {document.row}" if kind in ("parquet", "arrow") else document.file
