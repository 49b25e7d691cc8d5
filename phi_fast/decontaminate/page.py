"""What report.html shows: the numbers, the drawings and the listed matches, ready for its template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from phi_fast.decontaminate.summary import COVERAGE_BINS, Match, SuiteCount, Summary
from phi_fast.decontaminate.wording import (
    ASIDE,
    DONE,
    VERBS,
    counted,
    formats,
    headline,
    percent,
    place_in,
    share,
    size,
)
from phi_fast.suites import PART_NAMES

AROUND = 800  # characters shown on either side of a match
ITEM_LIMIT = 20_000  # an item's part that is longer is shown around its matches only
TEXT_BUDGET = 12_000_000  # characters of documents in one page: what a browser opens at once
_ROWS = 200  # of each table
_BAR = 84.0  # height of the histogram


def page(summary: Summary) -> dict[str, Any]:
    """Everything the template needs, but for style and script."""
    record = summary.run.record
    counts = summary.run.counts
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
        "histogram": _histogram(summary) if counts["matches"] else None,
        "matches": len(summary.matches),
        "selects": _selects(summary),
        "tables": [table for table in _tables(summary) if table["rows"]],
        "payload": _payload(summary),
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


def _histogram(summary: Summary) -> dict[str, Any]:
    policy = summary.run.policy
    spared, guilty = summary.histogram.tolist()
    most = max(max(a + b for a, b in zip(spared, guilty, strict=True)), 1)
    step = 100 / COVERAGE_BINS
    columns = []
    for slot, (below, above) in enumerate(zip(spared, guilty, strict=True)):
        # A square root: a single match must be seen beside thousands.
        total = _BAR * ((below + above) / most) ** 0.5
        upper = total * above / (below + above) if below + above else 0.0
        span = f"coverage {slot * 5} to {slot * 5 + 5} %"
        columns.append(
            {
                "x": f"{slot * step + 0.3:.2f}",
                "guilty_y": f"{_BAR - total:.1f}",
                "guilty_height": f"{upper:.1f}",
                "spared_y": f"{_BAR - total + upper:.1f}",
                "spared_height": f"{total - upper:.1f}",
                "title": f"{span}: {above:,} condemning, {below:,} spared",
            }
        )
    cutoff = {"x": f"{100 * policy.coverage:.2f}"} if policy.coverage is not None and not policy.weights else None
    ticks: list[dict[str, Any]] = [
        {"x": x, "text": f"{x} %", "anchor": "start" if x == 0 else "end" if x == 100 else "middle", "strong": False}
        for x in (0, 20, 40, 60, 80, 100)
        if cutoff is None or policy.coverage is None or abs(x - 100 * policy.coverage) >= 6
    ]
    if cutoff and policy.coverage is not None:
        anchor = "end" if policy.coverage > 0.97 else "middle"
        ticks.append(
            {"x": float(cutoff["x"]), "text": f"{100 * policy.coverage:.3g} %", "anchor": anchor, "strong": True}
        )
    condemning = sum(guilty)
    return {
        "columns": columns,
        "width": f"{step - 0.6:.2f}",
        "cutoff": cutoff,
        "ticks": ticks,
        "label": f"Matches by coverage: {condemning:,} condemning, {sum(spared):,} spared",
        "caption": f"Matches of {policy.n}-word grams by coverage, height as a square root; muted where spared. "
        + ("The dashed line is the policy's threshold." if cutoff else "The policy does not go by coverage alone."),
    }


def _selects(summary: Summary) -> list[dict[str, Any]]:
    listed = summary.matches
    suites = {summary.parts[match.part].suite for match in listed}
    parts = {summary.parts[match.part].part for match in listed}
    verdicts = {document.verdict for document in summary.documents}
    lengths = sorted({match.n for match in listed if match.n is not None}, reverse=True)
    return [
        _select("suite", "Suite", "any suite", [(s.name, s.name) for s in summary.suites if s.name in suites]),
        _select("part", "Part", "any part", [(part, part) for part in PART_NAMES if part in parts]),
        _select("verdict", "Verdict", "any verdict", [(one, word) for one, word in VERBS.items() if one in verdicts]),
        _select("n", "Length of the n-grams", "any n", [(str(n), f"n = {n}") for n in lengths]),
    ]


def _select(name: str, label: str, anything: str, options: list[tuple[str, str]]) -> dict[str, Any]:
    shown = [{"value": value, "text": text} for value, text in options]
    return {"id": name, "label": label, "any": anything, "options": shown}


def _tables(summary: Summary) -> list[dict[str, Any]]:
    verb = DONE[summary.run.policy.mode]
    items = [
        (one.item, one.suite, f"{one.condemned:,}", f"{one.documents:,}", percent(one.coverage), f"{one.run:,}")
        for one in summary.items[:_ROWS]
    ]
    untestable = [(part.item, part.suite, part.part, part.why_not or "") for part in summary.untestable[:_ROWS]]
    ranked = summary.set_aside_by_item()
    aside = [
        (item, suite, *(f"{by[key]:,}" if key in by else "" for key in ASIDE)) for suite, item, by in ranked[:_ROWS]
    ]
    return [
        _table(
            "Items found", _more(len(summary.items)), items, numbers=range(2, 6), link=True,
            columns=("Item", "Suite", f"Documents {verb}", "Documents with some of it", "Best coverage", "Longest run"),
        ),
        _table(
            "Parts that cannot be tested", _more(len(summary.untestable)), untestable,
            caption="Too short, or too common, for word n-grams to tell a copy from chance: "
            "a leak of these parts alone is not found.",
            columns=("Item", "Suite", "Part", "Why"),
        ),
        _table(
            "n-grams set aside", f"{summary.set_aside.total():,} that carry no weight", aside, numbers=range(2, 5),
            caption=f"By item: {_more(len(ranked))}.",
            columns=("Item", "Suite", *(text[0].upper() + text[1:] for text in ASIDE.values())),
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
        ("n", ", ".join(str(n) for n in settings["n"])),
        *((name, _plain(value)) for name, value in settings["policy"].items() if value not in (None, [], {})),
        ("sample the common n-grams were learnt from", counted(record["sample_documents"], "document")),
        *((f"{suite['name']} sha256", suite["sha256"]) for suite in record["suites"]),
        ("settings sha256", record["settings_sha256"]),
    ]


def _more(count: int) -> str:
    return f"{count:,}" if count <= _ROWS else f"{count:,}, the first {_ROWS} here"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _payload(summary: Summary) -> str:
    """The listed matches as JSON that may stand in a script element: columns for matches, texts once each."""
    used = sorted({match.part for match in summary.matches})
    number = {part: slot for slot, part in enumerate(used)}
    known = formats(summary)
    excerpts, excerpt_of = _cut_excerpts(summary)
    listed = summary.matches
    columns: dict[str, list[Any]] = {
        "doc": [match.document for match in listed],
        "part": [number[match.part] for match in listed],
        "n": [match.n for match in listed],
        "ds": [match.doc_start for match in listed],
        "de": [match.doc_end for match in listed],
        "is": [match.item_start for match in listed],
        "ie": [match.item_end for match in listed],
        "run": [match.run for match in listed],
        "cover": [round(match.coverage or 0.0, 4) for match in listed],
        "score": [match.score for match in listed],
        "condemns": [int(match.condemns) for match in listed],
        "excerpt": excerpt_of,
    }
    data = {
        "n": summary.run.record["settings"]["n"],
        "policy_n": summary.run.policy.n,
        "verbs": VERBS,
        "parts": [_part(summary, part) for part in used],
        "docs": [
            {"id": one.id, "place": place_in(known, one), "verdict": one.verdict, "reason": one.reason}
            for one in summary.documents
        ],
        "excerpts": excerpts,
        "matches": columns,
    }
    # "<" would let a document's text close the script element or open a comment in it.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _part(summary: Summary, number: int) -> dict[str, Any]:
    part = summary.parts[number]
    start, end = 0, len(part.text)
    if end > ITEM_LIMIT:
        mine = [match for match in summary.matches if match.part == number]
        start = max(0, min(match.item_start for match in mine) - AROUND)
        end = min(end, max(match.item_end for match in mine) + AROUND)
    return {
        "suite": part.suite, "item": part.item, "part": part.part, "words": part.words, "start": start,
        "length": len(part.text), "text": part.text[start:end],
    }  # fmt: skip


def _cut_excerpts(summary: Summary) -> tuple[list[dict[str, Any]], list[int]]:
    """Cut what is kept of the documents down to what stands around the matches, neighbours in one piece."""
    by_text: dict[int, list[int]] = {}
    for at, match in enumerate(summary.matches):
        if match.excerpt >= 0:
            by_text.setdefault(match.excerpt, []).append(at)
    pieces: list[dict[str, Any]] = []
    piece_of = [-1] * len(summary.matches)
    left = TEXT_BUDGET
    for excerpt, places in by_text.items():
        first, text = summary.excerpts[excerpt]
        for group in _neighbours(summary.matches, places):
            start = max(first, min(summary.matches[at].doc_start for at in group) - AROUND)
            end = min(first + len(text), max(summary.matches[at].doc_end for at in group) + AROUND)
            if end - start > left:
                continue
            left -= end - start
            for at in group:
                piece_of[at] = len(pieces)
            goes_on = int(end < first + len(text))
            pieces.append({"start": start, "text": text[start - first : end - first], "cut": goes_on})
    return pieces, piece_of


def _neighbours(matches: list[Match], places: list[int]) -> list[list[int]]:
    places = sorted(places, key=lambda at: (matches[at].doc_start, at))
    groups = [places[:1]]
    reach = matches[places[0]].doc_end
    for _, at in pairwise(places):
        if matches[at].doc_start > reach + 2 * AROUND:
            groups.append([])
        groups[-1].append(at)
        reach = max(reach, matches[at].doc_end)
    return groups
