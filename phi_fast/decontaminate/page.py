"""What report.html shows: the numbers, the drawings and the listed matches, ready for its template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from phi_fast.decontaminate.channels import CHANNELS
from phi_fast.decontaminate.payload import payload
from phi_fast.decontaminate.summary import Summary
from phi_fast.decontaminate.tally import BINS, SuiteCount
from phi_fast.decontaminate.wording import (
    ASIDE,
    CHANNEL_NAMES,
    DONE,
    VERBS,
    counted,
    found_by,
    headline,
    measures,
    share,
    size,
    why_columns,
    why_not,
)
from phi_fast.suites import PART_NAMES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 200  # of each table
_BAR = 84.0  # height of the histogram


def page(summary: Summary) -> dict[str, Any]:
    """Everything the template needs, but for style and script."""
    record = summary.run.record
    mode = summary.run.policy.mode
    return {
        "title": f"Decontamination against {_names(summary)}",
        "against": f"against {_names(summary)}",
        "headline": headline(summary),
        "mode": mode,
        "tiles": _tiles(summary),
        "suites": [_suite(suite) for suite in summary.suites],
        "legend": [
            {"kind": "condemned", "text": f"in a document that was {DONE[mode]}"},
            {"kind": "seen", "text": "seen, below the policy's thresholds"},
            {"kind": "unseen", "text": "not seen"},
            {"kind": "untestable", "text": "untestable: too short"},
        ],
        "preset": summary.run.policy.preset,
        "policy_words": record["policy_words"],
        "notes": record.get("notes", []),
        "histograms": _histograms(summary),
        "found_by": found_by(summary),
        "matches": len(summary.matches),
        "selects": _selects(summary),
        "measure": "coverage" if set(summary.channels) <= {"ngram"} else "likeness",
        "sorts": _sorts(summary),
        "tables": [table for table in _tables(summary) if table["rows"]],
        "payload": payload(summary),
        "ending": f"phi_fast {record['phi_fast']}. {_listed(summary)} Settings and hashes: run.json. "
        "Change a threshold without scanning again: phi-fast decide.",
    }


def _names(summary: Summary) -> str:
    return ", ".join(suite.name for suite in summary.suites)


def _listed(summary: Summary) -> str:
    listed, found = len(summary.matches), summary.run.counts["matches"]
    if listed == found:
        return (
            f"This page lists every one of {counted(found, 'match')[:-1]}es."
            if found != 1
            else "It lists the one match."
        )
    return f"This page lists the {listed:,} worst of {found:,} matches; evidence.parquet holds all."


def _tiles(summary: Summary) -> list[dict[str, str]]:
    counts = summary.run.counts
    tiles = [{"kind": "", "name": "Documents", "value": f"{counts['documents']:,}", "note": size(counts["text_bytes"])}]
    verdicts = [verdict for verdict in ("drop", "cut", "flag") if counts[verdict]] or [summary.run.policy.mode]
    for verdict in verdicts:
        note = share(counts[verdict], counts["documents"])
        tiles.append(
            {"kind": verdict, "name": VERBS[verdict].capitalize(), "value": f"{counts[verdict]:,}", "note": note}
        )
    items = sum(suite.items for suite in summary.suites)
    held = sum(suite.items_condemned for suite in summary.suites)
    tiles.append({"kind": "", "name": "Items found", "value": f"{held:,}", "note": f"of {items:,}"})
    note = f"in {counted(counts['matched_documents'], 'document')}"
    tiles.append({"kind": "", "name": "Matches", "value": f"{counts['matches']:,}", "note": note})
    note = f"of {counts['rows']:,}"
    tiles.append({"kind": "", "name": "Rows rejected", "value": f"{counts['rejected']:,}", "note": note})
    return tiles


def _suite(suite: SuiteCount) -> dict[str, Any]:
    pieces = []
    left = 0.0
    for kind, count, what in (
        ("condemned", suite.items_condemned, "found"),
        ("seen", suite.items_seen, "seen, below the policy's thresholds"),
        ("unseen", suite.items_unseen, "not seen"),
        ("untestable", suite.items_untestable, "untestable"),
    ):
        width = 100 * count / suite.items if suite.items else 0.0
        if count:
            piece = {
                "kind": kind,
                "x": f"{left:.3f}",
                "width": f"{width:.3f}",
                "title": f"{counted(count, 'item')} {what}",
            }
            pieces.append(piece)
        left += width
    found = f"{suite.items_condemned:,} of {counted(suite.items, 'item')} found"
    note = f"{found} in {counted(suite.condemned, 'document')}"
    label = f"{suite.name}: " + ", ".join(piece["title"] for piece in pieces)
    return {"name": suite.name, "note": note, "pieces": pieces, "label": label}


def _histograms(summary: Summary) -> list[dict[str, Any]]:
    policy = summary.run.policy
    drawn = []
    if summary.channels["ngram"]:
        threshold = None if policy.weights else policy.coverage
        drawn.append(
            _histogram(summary.histogram, "coverage", f"Matches of {policy.n}-word grams by coverage", threshold)
        )
    if summary.channels["syntax"]:
        drawn.append(_histogram(summary.trees, "alike", "Matches by syntax: alike but for names", policy.alpha))
    return drawn


def _histogram(bins: NDArray[np.int64], what: str, title: str, threshold: float | None) -> dict[str, Any]:
    spared, guilty = bins.tolist()
    most = max(max(a + b for a, b in zip(spared, guilty, strict=True)), 1)
    step = 100 / BINS
    columns = []
    for slot, (below, above) in enumerate(zip(spared, guilty, strict=True)):
        # A square root: a single match must be seen beside thousands.
        total = _BAR * ((below + above) / most) ** 0.5
        upper = total * above / (below + above) if below + above else 0.0
        columns.append(
            {
                "x": f"{slot * step + 0.3:.2f}",
                "guilty_y": f"{_BAR - total:.1f}",
                "guilty_height": f"{upper:.1f}",
                "spared_y": f"{_BAR - total + upper:.1f}",
                "spared_height": f"{total - upper:.1f}",
                "title": f"{what} {slot * 5} to {slot * 5 + 5} %: {above:,} condemning, {below:,} spared",
            }
        )
    cutoff = None if threshold is None else 100 * threshold
    ticks: list[dict[str, Any]] = [
        {"x": x, "text": f"{x} %", "anchor": "start" if x == 0 else "end" if x == 100 else "middle", "strong": False}
        for x in (0, 20, 40, 60, 80, 100)
        if cutoff is None or abs(x - cutoff) >= 6
    ]
    if cutoff is not None:
        anchor = "end" if cutoff > 97 else "middle"
        ticks.append({"x": f"{cutoff:.2f}", "text": f"{cutoff:.3g} %", "anchor": anchor, "strong": True})
    return {
        "columns": columns,
        "width": f"{step - 0.6:.2f}",
        "cutoff": None if cutoff is None else f"{cutoff:.2f}",
        "ticks": ticks,
        "label": f"{title}: {sum(guilty):,} condemning, {sum(spared):,} spared",
        "caption": f"{title}, height as a square root; muted where spared. "
        + (
            f"The policy does not go by {what} alone."
            if cutoff is None
            else "The dashed line is the policy's threshold."
        ),
    }


def _selects(summary: Summary) -> list[dict[str, Any]]:
    listed = summary.matches
    suites = {summary.parts[match.part].suite for match in listed}
    parts = {summary.parts[match.part].part for match in listed}
    verdicts = {document.verdict for document in summary.documents}
    lengths = sorted({match.n for match in listed if match.n is not None}, reverse=True)
    channels = {match.channel for match in listed}
    return [
        _select("channel", "Channel", "any channel", [(c, CHANNEL_NAMES[c]) for c in CHANNELS if c in channels]),
        _select("suite", "Suite", "any suite", [(s.name, s.name) for s in summary.suites if s.name in suites]),
        _select("part", "Part", "any part", [(part, part) for part in PART_NAMES if part in parts]),
        _select("verdict", "Verdict", "any verdict", [(one, word) for one, word in VERBS.items() if one in verdicts]),
        _select("n", "Length of the n-grams", "any n", [(str(n), f"n = {n}") for n in lengths]),
    ]


def _sorts(summary: Summary) -> list[tuple[str, str]]:
    """Keys that the list is sorted by, with their names."""
    by_words = set(summary.channels) <= {"ngram"}
    more = [("coverage", "Coverage" if by_words else "Likeness")] + (
        [("run", "Run")] if summary.channels["ngram"] else []
    )
    return [("worst", "Worst"), ("item", "Item"), ("document", "Document"), *more]


def _select(name: str, label: str, anything: str, options: list[tuple[str, str]]) -> dict[str, Any]:
    shown = [{"value": value, "text": text} for value, text in options]
    return {"id": name, "label": label, "any": anything, "options": shown}


def _tables(summary: Summary) -> list[dict[str, Any]]:
    verb = DONE[summary.run.policy.mode]
    more = measures(summary)
    measured = [_capital(said) for _, said, _ in more]
    items = [
        (one.item, one.suite, f"{one.condemned:,}", f"{one.documents:,}", *(value(one) for _, _, value in more))
        for one in summary.items[:_ROWS]
    ]
    untestable = [(part.item, part.suite, part.part, *why_not(part, summary)) for part in summary.untestable[:_ROWS]]
    ranked = summary.set_aside_by_item()
    aside = [
        (item, suite, *(f"{by[key]:,}" if key in by else "" for key in ASIDE)) for suite, item, by in ranked[:_ROWS]
    ]
    return [
        _table(
            "Items found", _more(len(summary.items)), items, numbers=range(2, 4 + len(more)), link=True,
            columns=("Item", "Suite", f"Documents {verb}", "Documents with some of it", *measured),
        ),
        _table(
            "Parts that cannot be tested", _more(len(summary.untestable)), untestable,
            caption="Too short or too common for words and for syntax trees to tell a copy from chance: "
            "a leak of these parts alone is not found.",
            columns=("Item", "Suite", "Part", *(f"Not by {channel}" for channel in why_columns(summary))),
        ),
        _table(
            "n-grams set aside", f"{summary.set_aside.total():,} that carry no weight", aside, numbers=range(2, 5),
            caption=f"By item: {_more(len(ranked))}.",
            columns=("Item", "Suite", *map(_capital, ASIDE.values())),
        ),
        _table(
            "Rejected rows", f"{summary.run.counts['rejected']:,}",
            [(reason, f"{count:,}") for reason, count in summary.rejected[:_ROWS]], numbers=range(1, 2),
            caption="rejected.jsonl holds each with its file and row.", columns=("Reason", "Rows"),
        ),
        _table("Settings", "", _settings(summary), columns=("Setting", "Value")),
    ]  # fmt: skip


def _table(
    title: str, note: str, rows: Sequence[tuple[str, ...]], columns: tuple[str, ...], *, numbers: range = range(0),
    link: bool = False, caption: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "title": title, "note": note, "rows": rows, "columns": columns, "numbers": numbers, "link": link,
        "caption": caption,
    }  # fmt: skip


def _settings(summary: Summary) -> list[tuple[str, ...]]:
    record = summary.run.record
    settings = record["settings"]
    return [
        ("corpus", ", ".join(settings["corpus"])),
        ("against", ", ".join(settings["against"])),
        ("channels", ", ".join(settings["channels"])),
        ("n", ", ".join(str(n) for n in settings["n"])),
        *((name, _plain(value)) for name, value in settings["policy"].items() if value not in (None, [], {})),
        ("sample the common n-grams were learnt from", counted(record["sample_documents"], "document")),
        *((f"{suite['name']} sha256", suite["sha256"]) for suite in record["suites"]),
        ("settings sha256", record["settings_sha256"]),
    ]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _more(count: int) -> str:
    return f"{count:,}" if count <= _ROWS else f"{count:,}, the first {_ROWS} here"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)
