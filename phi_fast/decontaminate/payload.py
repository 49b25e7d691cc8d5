"""The listed matches as report.html has them: columns of numbers, each text once, and what stands beside what."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from phi_fast.decontaminate.alignment import align
from phi_fast.decontaminate.channels import CHANNELS
from phi_fast.decontaminate.summary import Match, Summary
from phi_fast.decontaminate.wording import CHANNEL_NAMES, VERBS, formats, place_in

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

AROUND = 800  # characters shown on either side of a match
ITEM_LIMIT = 20_000  # an item's part that is longer is shown around its matches only
TEXT_BUDGET = 12_000_000  # characters of documents in one page: what a browser opens at once
ALIGNMENTS = 1_000  # of texts that differ, in one page: the worst matches; others stand beside each other as they are
ALIGNED = 2_000_000  # characters laid side by side for one page, which take about as many microseconds
_PIECES = 400_000  # of all alignments of a page
_INDENT = 200  # characters before a span that may belong to its first line
_HEAD = re.compile(r"^(?:@.*\n)*(?:async +)?def ", re.M)


def payload(summary: Summary) -> str:
    """The listed matches as JSON that may stand in a script element: columns for matches, texts once each."""
    used = sorted({match.part for match in summary.matches})
    number = {part: slot for slot, part in enumerate(used)}
    known = formats(summary)
    excerpts, excerpt_of = _cut_excerpts(summary)
    questions = {(one.suite, one.item): one.text for one in summary.parts if one.part == "question"}
    shown = [_part(summary, part, questions) for part in used]
    listed, channels = summary.matches, [channel for channel in CHANNELS if summary.channels[channel]]
    beside, beside_of = _aligned(summary, excerpts, excerpt_of, [shown[number[match.part]] for match in listed])
    columns: dict[str, list[Any]] = {
        "doc": [match.document for match in listed],
        "part": [number[match.part] for match in listed],
        "channel": [channels.index(match.channel) for match in listed],
        "form": [match.form for match in listed],
        "n": [match.n for match in listed],
        "ds": [match.doc_start for match in listed],
        "de": [match.doc_end for match in listed],
        "is": [match.item_start for match in listed],
        "ie": [match.item_end for match in listed],
        "run": [match.run for match in listed],
        "like": [_rounded(match.score if match.coverage is None else match.coverage) for match in listed],
        "score": [match.score if match.channel == "ngram" else None for match in listed],
        "tau": [_rounded(match.tau) for match in listed],
        "nodes": [match.nodes for match in listed],
        "item_nodes": [match.item_nodes for match in listed],
        "distance": [_rounded(match.distance) for match in listed],
        "condemns": [int(match.condemns) for match in listed],
        "excerpt": excerpt_of,
        "beside": beside_of,
    }
    data = {
        "n": summary.run.record["settings"]["n"],
        "channels": channels,
        "channel_names": CHANNEL_NAMES,
        "verbs": VERBS,
        "parts": shown,
        "docs": [
            {"id": one.id, "place": place_in(known, one), "verdict": one.verdict, "reason": one.reason}
            for one in summary.documents
        ],
        "excerpts": excerpts,
        "beside": beside,
        # A column that no match has a value in is left out.
        "matches": {name: values for name, values in columns.items() if not values or set(values) != {None}},
    }
    # "<" would let a document's text close the script element or open a comment in it.
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _aligned(
    summary: Summary, excerpts: list[dict[str, Any]], excerpt_of: list[int], part_of: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Lay document and item of the worst matches side by side; matches of the same lines share an entry.

    Word matches and the others take turns, so that neither uses up what there is room for.
    """
    found: list[dict[str, Any]] = []
    known: dict[tuple[int, int, int, int, int, int, bool], int] = {}
    entry_of = [-1] * len(summary.matches)
    left, characters, pieces = ALIGNMENTS, ALIGNED, _PIECES
    for at in _in_turns([match.channel == "ngram" for match in summary.matches]):
        match, excerpt, part = summary.matches[at], excerpt_of[at], part_of[at]
        if excerpt < 0:
            continue
        text, first = excerpts[excerpt]["text"], excerpts[excerpt]["start"]
        if match.doc_end > first + len(text):
            continue
        ours = _whole_lines(text, match.doc_start - first, match.doc_end - first)
        theirs = _whole_lines(part["text"], match.item_start - part["start"], match.item_end - part["start"])
        document, item = text[slice(*ours)], part["text"][slice(*theirs)]
        whole = match.channel == "syntax" and theirs[0] == part["start"] == 0 and _HEAD.match(document.lstrip())
        lead = part["lead"] if whole else ""
        key = (excerpt, *ours, match.part, *theirs, bool(lead))
        if key in known:
            entry_of[at] = known[key]
            continue
        item = lead + item
        if document != item:  # else nothing is to be worked out
            if not left or characters < len(document) + len(item):
                continue
            left, characters = left - 1, characters - len(document) - len(item)
        laid = align(document, item)
        if laid is None or pieces < len(laid.document) + len(laid.item):
            continue
        pieces -= len(laid.document) + len(laid.item)
        entry_of[at] = known[key] = len(found)
        found.append(
            {
                "doc": ours, "item": theirs, "lead": int(bool(lead)),
                # Length and kind of each piece, lines of document and item of each row, one after the other.
                "left": [number for piece in laid.document for number in (piece.length, int(piece.kind))],
                "right": [number for piece in laid.item for number in (piece.length, int(piece.kind))],
                "rows": [number for row in laid.rows for number in row],
                "names": laid.names,
            }
        )  # fmt: skip
    return found, entry_of


def _in_turns(these: Sequence[bool]) -> list[int]:
    """Places of what is true and what is false in turns, each in its order."""
    true, false = ([at for at, one in enumerate(these) if one is wanted] for wanted in (True, False))
    return [at for pair in zip_longest(true, false) for at in pair if at is not None]


def _whole_lines(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span to whole lines, as far as these are no long ones."""
    begin = text.rfind("\n", max(0, start - _INDENT), start) + 1 or (0 if start <= _INDENT else start)
    finish = text.find("\n", max(start, end - 1), end + _INDENT)
    return begin, finish if finish >= 0 else len(text) if len(text) - end <= _INDENT else end


def _part(summary: Summary, number: int, questions: dict[tuple[str, str], str]) -> dict[str, Any]:
    part = summary.parts[number]
    start, end = 0, len(part.text)
    if end > ITEM_LIMIT:
        mine = [match for match in summary.matches if match.part == number]
        start = max(0, min(match.item_start for match in mine) - AROUND)
        end = min(end, max(match.item_end for match in mine) + AROUND)
    lead = _lead(part, questions.get((part.suite, part.item), "")) if summary.channels["syntax"] else ""
    return {
        "suite": part.suite, "item": part.item, "part": part.part, "words": part.words, "start": start,
        "length": len(part.text), "text": part.text[start:end], "lead": lead,
    }  # fmt: skip


def _lead(part: PartInfo, question: str) -> str:
    """The function's beginning, where it stands in the question and the solution goes on from there."""
    if part.part != "solution" or not part.text[:1].isspace():
        return ""
    heads = list(_HEAD.finditer(question[-ITEM_LIMIT:]))
    return question[-ITEM_LIMIT:][heads[-1].start() :] if heads else ""


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
