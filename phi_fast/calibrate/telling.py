"""What a calibration found, in numbers, in words and in tables."""

from __future__ import annotations

import heapq
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.calibrate.plant import CLEAN
from phi_fast.calibrate.search import THRESHOLDS, evaluate, interval
from phi_fast.decontaminate.policy import LEAST_NODES, Policy
from phi_fast.decontaminate.record import EVIDENCE, Run
from phi_fast.decontaminate.wording import counted, printable
from phi_fast.disguise import DISGUISES

if TYPE_CHECKING:
    from rich.console import Console

    from phi_fast.calibrate.tally import Tally

LISTED = 10
TOGETHER = "together"
_LONGEST = 2_000  # characters of a passage kept
_NEAR = 200  # characters of its first line shown before it, at most
_LINES = 8  # of a passage shown
_MISSED = 12  # items named
DEFAULT_RATES = {"tau": Policy().tau or 1.0, "alpha": Policy().alpha or 1.0}
BY = {"ngram": "words", "syntax": "syntax", "embedding": "embedding", TOGETHER: TOGETHER}


def describe(tally: Tally, policy: Policy) -> dict[str, Any]:
    """Say what a policy finds and flags in a trial, as it stands in calibration.json.

    Returns
    -------
    dict
        ``rows``: of each suite and disguise, [found, testable] of each channel alone and together, where a channel's
        testable ones are those it could find and together's those that any could; ``missed`` names some.
        ``false_positives``: clean documents flagged, by channel, by suite and together. ``recall``: the mean of the
        rows' together.
    """
    channels = [name for name in tally.channels if name in policy.channels]
    ways = {name: [name] for name in tally.channels} | {TOGETHER: channels}
    counts = {}
    for way, names in ways.items():
        could = tally.testable(tally.channels if way == TOGETHER else [way])
        found = tally.found(policy, names) & could
        counts[way] = (tally.by_group(found).tolist(), tally.by_group(could).tolist())
    could = tally.testable(tally.channels)
    missed = could & ~tally.found(policy, channels)
    rows = []
    for number, (suite, disguise) in enumerate(tally.groups):
        here = [one for one in missed.nonzero()[0].tolist() if tally.group[one] == number]
        row = {
            "suite": suite, "disguise": disguise, "hidden": int((tally.group == number).sum()),
            "missed": [tally.hidden[one].item for one in here[:_MISSED]],
        }  # fmt: skip
        rows.append(row | {way: [found[number], of[number]] for way, (found, of) in counts.items()})
    flagged = {way: int(tally.flagged(policy, names).sum()) for way, names in ways.items()}
    return {
        "thresholds": {name: getattr(policy, name) for name in THRESHOLDS},
        "channels": channels,
        "words": policy.describe(),
        "recall": evaluate(tally, [policy])[0].recall,
        "rows": rows,
        "false_positives": flagged,
        "false_positives_by_suite": {suite: int(tally.flagged(policy, channels, suite).sum()) for suite in tally.clean},
    }


def worst(run: Run, policy: Policy, clean: Path) -> list[dict[str, Any]]:
    """List the clean documents that a policy flags for the most telling matches, each with its passage."""
    from phi_fast.decontaminate.verdicts import condemned, reason

    found = (one for one in condemned(run.path / EVIDENCE, policy, run.index().parts) if one.file == CLEAN)
    each = ((max(one.matches, key=lambda match: match.strength), one) for one in found)
    listed = heapq.nlargest(LISTED, each, key=lambda pair: (pair[0].strength, -pair[1].row))
    texts = dict(_texts(clean, {one.row for _, one in listed}))
    return [
        {
            "id": one.id, "row": one.row, "suite": match.suite, "item": match.item, "part": match.part,
            "channel": match.channel, "reason": reason(one.matches),
            "passage": _passage(texts[one.row], match.doc_start, match.doc_end),
        }
        for match, one in listed
    ]  # fmt: skip


def _passage(text: str, start: int, end: int) -> str:
    begin = text.rfind("\n", 0, start) + 1
    return textwrap.dedent(text[begin if start - begin < _NEAR else start : end])[:_LONGEST]


def _texts(path: Path, rows: set[int]) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number in rows:
                yield number, json.loads(line)["text"]


def share(count: int, of: int) -> str:
    """``127 of 130, 97.7 % (93.4 to 99.2)``: with the 95 % interval."""
    if not of:
        return "none testable"
    low, high = interval(count, of)
    exact = 100 * count / of
    digits = 1 if exact >= 1 or high > 0.5 else 3
    if not count:
        return f"0 of {of:,} (0 to {100 * high:.{digits}f} %)"
    said = f"{exact:.{digits}f}"
    if count < of and float(said) >= 100:
        said = "over 99.9"
    elif float(said) == 0:
        said = "under 0.001"
    return f"{count:,} of {of:,}, {said} % ({100 * low:.{digits}f} to {100 * high:.{digits}f})"


def verdict(record: Mapping[str, Any]) -> str:
    """Say whether a rule meets the wanted rate, and what it gives."""
    chosen, default = record["policies"]["chosen"], record["policies"]["default"]
    flagged, clean = chosen["false_positives"][TOGETHER], record["clean"]
    wanted = f"{100 * record['wanted']:g} %"
    said = share(flagged, clean)
    if record["meets"]:
        text = f"The rule that finds most and flags at most {wanted} of the clean documents: it flags {said}"
    else:
        text = f"No rule flags at most {wanted} of the clean documents. The one that flags fewest flags {said}"
    mean = f"its mean recall over the rows is {100 * chosen['recall']:.1f} %"
    if chosen["thresholds"] == default["thresholds"]:
        return f"{text}; {mean}. It is the default rule."
    other = share(default["false_positives"][TOGETHER], clean)
    return f"{text}; {mean} (the default rule: {100 * default['recall']:.1f} %, flagging {other})."


def remarks(record: Mapping[str, Any], name: str = "chosen") -> list[str]:
    """Say what to bear in mind, and name what is missed."""
    policy = record["policies"][name]
    said = list(record["notes"])
    off = [one for one in record["channels"] if one not in policy["channels"]]
    if off:
        said.append(f"This rule leaves out {' and '.join(BY[one] for one in off)}: with it the rate is not met.")
    rates = {"tau": policy["thresholds"]["tau"], "alpha": policy["thresholds"]["alpha"]}
    if any((value or 0) > DEFAULT_RATES[one] for one, value in rates.items()):
        said.append(
            "No disguise changes a statement of a solution, so the trial cannot show what a tau or alpha under 1 finds "
            "besides; where the rate allows it, the default's are the safer ones."
        )
    low = [row for row in policy["rows"] if row[TOGETHER][1] and row[TOGETHER][0] < 0.95 * row[TOGETHER][1]]
    for row in low:
        missed = row[TOGETHER][1] - row[TOGETHER][0]
        more = f" and {missed - len(row['missed'])} more" if missed > len(row["missed"]) else ""
        said.append(f"Under 95 %: {row['suite']}, {row['disguise']}. Missed: {', '.join(row['missed'])}{more}.")
    return said


TESTABLE = (
    "Testable by words: a part of the item whose words the disguise leaves is long enough to tell a leak from an "
    "idiom. By syntax: the disguise leaves the solution as code, and both the item's and what is hidden have a "
    f"function or body of {LEAST_NODES} syntax nodes or more. Together: by any channel scanned."
)


def print_calibration(record: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print the recall by disguise, the false positives and the rule chosen."""
    from rich.table import Table
    from rich.text import Text

    policy = record["policies"]["chosen"]
    ways = [*record["channels"], TOGETHER]
    off = set(record["channels"]) - set(policy["channels"])
    console.print(
        f"{counted(record['clean'], 'document')} of the corpus taken for clean; "
        f"{counted(record['planted'], 'document')} more with an item hidden in each\n",
        soft_wrap=True,
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("disguise", *(BY[way] for way in ways), "recall", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "disguise" else "right", no_wrap=True)
    suites = list(dict.fromkeys(row["suite"] for row in policy["rows"]))
    for suite in suites:
        table.add_row(Text(suite, "bold"), *[""] * (len(ways) + 2))
        for row in policy["rows"]:
            if row["suite"] == suite:
                found, of = row[TOGETHER]
                table.add_row(
                    row["disguise"], *("off" if way in off else _cell(row[way]) for way in ways), *_shares(found, of)
                )
    table.add_row(Text("clean, flagged", "bold"), *[""] * (len(ways) + 2))
    wrong = policy["false_positives"]
    low, high = interval(wrong[TOGETHER], record["clean"])
    cells = ("off" if way in off else f"{wrong[way]:,}" for way in ways)
    of_all = f"{100 * wrong[TOGETHER] / record['clean']:.3f} %" if wrong[TOGETHER] else "none"
    table.add_row(f"of {record['clean']:,}", *cells, of_all, f"{100 * low:.3f} to {100 * high:.3f}")
    if len(suites) > 1:
        for suite, count in policy["false_positives_by_suite"].items():
            table.add_row(f"  {suite}", *[""] * (len(ways) - 1), f"{count:,}", "", "")
    console.print(table)
    for line in [TESTABLE, *remarks(record)]:
        console.print(Text(printable(line), "dim"))
    _print_worst(record, console)
    style = "green" if record["meets"] else "yellow"
    console.print()
    console.print(Text(verdict(record), style))
    for line in policy["words"]:
        console.print(Text(f"  {line}"))
    console.print(Text(f"\n  {policy['command']}\n", "bold"), soft_wrap=True)
    console.print(
        Text(f"{folder / 'calibration.md'}, recall.svg, tradeoff.svg; all matches: {folder / 'run'}"), soft_wrap=True
    )


def _print_worst(record: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    if not record["worst"]:
        return
    console.print(
        Text("\nFlagged though taken for clean, the most telling first: look whether these are real copies", "bold")
    )
    for one in record["worst"]:
        console.print(Text(printable(f"{one['id']}: {one['reason']}")), soft_wrap=True)
        for line in _lines(one["passage"]):
            console.print(Text(f"    {line}", "dim"), soft_wrap=True)


def _lines(passage: str) -> list[str]:
    lines = [printable(line) for line in passage.strip("\n").splitlines()]
    return lines[:_LINES] + ([f"… {len(lines) - _LINES} more lines"] if len(lines) > _LINES else [])


def _cell(pair: Sequence[int]) -> str:
    return f"{pair[0]}/{pair[1]}" if pair[1] else "-"


def _shares(found: int, of: int) -> tuple[Any, str]:
    from rich.text import Text

    if not of:
        return "-", ""
    low, high = interval(found, of)
    style = "green" if found >= 0.95 * of else "yellow" if found >= 0.8 * of else "red"
    return Text(f"{100 * found / of:.1f} %", style), f"{100 * low:.1f} to {100 * high:.1f}"


def markdown(record: Mapping[str, Any]) -> str:
    """Write calibration.md: the chosen rule, then the default one, each with its table, and what is wrongly flagged."""
    ways = [*record["channels"], TOGETHER]
    lines = ["# Calibration", "", verdict(record), ""]
    lines += ["```", record["policies"]["chosen"]["command"], "```", ""]
    lines += [
        f"- {counted(record['clean'], 'document')} of the corpus, drawn with seed {record['seed']}, taken for clean.",
        f"- {counted(record['planted'], 'document')} more, each with one item hidden in it: "
        + ", ".join(f"{suite} ({counted(items, 'item')})" for suite, items in record["items"].items())
        + f", in {len(DISGUISES)} disguises.",
        f"- {TESTABLE}",
        "- In brackets: 95 % intervals (Wilson). The rule is chosen and measured on the same documents.",
        *(f"- {line}" for line in remarks(record)),
        "", "![Recall by disguise](recall.svg)", "", "![Recall against false positives](tradeoff.svg)", "",
    ]  # fmt: skip
    same = record["policies"]["chosen"]["thresholds"] == record["policies"]["default"]["thresholds"]
    titles = {
        "chosen": "The chosen rule, which is the default" if same else "The chosen rule",
        "default": "The default rule",
    }
    for name in ("chosen",) if same else ("chosen", "default"):
        policy = record["policies"][name]
        lines += [f"## {titles[name]}", "", *(f"{line}" for line in policy["words"]), ""]
        off = set(record["channels"]) - set(policy["channels"])
        lines += ["| suite | disguise | " + " | ".join(BY[way] for way in ways) + " |"]
        lines += ["| --- | --- |" + " ---: |" * len(ways)]
        for row in policy["rows"]:
            shares = {way: share(*row[way]) if row[way][1] else "-" for way in ways}
            cells = ("off" if way in off else shares[way] for way in ways)
            lines.append(f"| {_plain(row['suite'])} | {row['disguise']} | " + " | ".join(cells) + " |")
        wrong = policy["false_positives"]
        cells = ("off" if way in off else share(wrong[way], record["clean"]) for way in ways)
        lines.append("| **clean documents flagged** | | " + " | ".join(cells) + " |")
        for suite, count in policy["false_positives_by_suite"].items():
            blank = "| " * (len(ways) - 1)
            lines.append(f"| {_plain(suite)} | clean documents flagged {blank}| {share(count, record['clean'])} |")
        lines.append("")
    lines += ["## Flagged though taken for clean", ""]
    if not record["worst"]:
        lines += [f"None of {record['clean']:,} documents.", ""]
    else:
        lines += [
            "The most telling first. A real copy is a leak that is there already, and counts against the rule here.",
            "",
        ]
    for number, one in enumerate(record["worst"], 1):
        fence = "`" * max(4, 1 + max((len(run) for run in _ticks(one["passage"])), default=0))
        lines += [
            f"{number}. **{_plain(one['id'])}** {_plain(one['reason'])}",
            "",
            fence,
            *_lines(one["passage"]),
            fence,
            "",
        ]
    return "\n".join(lines)


def _ticks(text: str) -> list[str]:
    return re.findall("`+", text)


def _plain(text: str) -> str:
    return "".join(f"\\{one}" if one in "\\|*_`<>[]" else one for one in printable(text).replace("\n", " "))
