"""report.md and report.html of a finished run. The same run gives the same bytes: no times, no speeds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from phi_fast.decontaminate.page import page
from phi_fast.decontaminate.record import REPORT_HTML, REPORT_MD
from phi_fast.decontaminate.summary import Match, Summary, summarise_run
from phi_fast.decontaminate.wording import (
    ASIDE,
    DONE,
    VERBS,
    counted,
    found_by,
    headline,
    likeness,
    measures,
    place,
    share,
    size,
    why_columns,
    why_not,
)

_HERE = Path(__file__).parent
_TOP_ITEMS = 50
_TOP_ASIDE = 20
_WORST = 10
_FIGURES = re.compile(r"\d+(?: of \d+)?(?= words)")  # of the reasons given for parts: what differs from part to part
_PASSAGE = 400  # characters of a passage shown


def write_report_md(run_dir: str | Path, summary: Summary | None = None) -> Path:
    """Write RUN/report.md, Markdown to paste into an issue or a data card.

    Parameters
    ----------
    run_dir
        The run's folder, with run.json, evidence, verdicts, excerpts, rejected rows and index.
    summary
        What :func:`summarise_run` gave for it, where it is at hand.

    Returns
    -------
    Path
        The file, written under another name and renamed.
    """
    summary = summary or summarise_run(run_dir)
    return _write(Path(run_dir) / REPORT_MD, [_markdown(summary)])


def write_report_html(run_dir: str | Path, summary: Summary | None = None) -> Path:
    """Write RUN/report.html, one file that needs no network; parameters as for :func:`write_report_md`."""
    import jinja2
    from markupsafe import Markup

    summary = summary or summarise_run(run_dir)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    context = page(summary)
    context["payload"] = Markup(context["payload"])
    for name, assets in (("css", ["report.css"]), ("script", ["beside.js", "report.js"])):
        texts = [(_HERE / "report_assets" / asset).read_text("utf-8") for asset in assets]
        context[name] = Markup("".join(texts))
    return _write(Path(run_dir) / REPORT_HTML, environment.get_template("report.html.j2").generate(context))


def write_reports(run_dir: str | Path) -> None:
    """Write both reports, the run's folder read once."""
    summary = summarise_run(run_dir)
    write_report_md(run_dir, summary)
    write_report_html(run_dir, summary)


def _write(path: Path, pieces: Iterable[str]) -> Path:
    """Piece by piece: a page of many megabytes is not put together and encoded whole as well."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        for piece in pieces:
            file.write(piece.encode("utf-8"))
    os.replace(draft, path)
    return path


def _markdown(summary: Summary) -> str:
    run, counts = summary.run, summary.run.counts
    settings = run.record["settings"]
    verb = DONE[run.policy.mode]
    lines = [
        f"# Decontamination against {', '.join(suite.name for suite in summary.suites)}",
        "",
        headline(summary),
        "",
    ]
    lines += [f"> {sentence}" for sentence in run.record["policy_words"]]
    lines += [line for note in run.record.get("notes", ()) for line in ("", f"Note: {_text(note)}")]
    lines += ["", "## By suite", ""]
    columns = ["suite", "items", "items found", "seen below the policy", "untestable", f"documents {verb}", "matches"]
    lines += _table(columns, _suite_rows(summary), numbers_from=1)
    if by_channel := found_by(summary):
        lines += ["", by_channel]
    lines += ["", "## By item", ""]
    if summary.items:
        more = measures(summary)
        columns = [
            "item",
            "suite",
            f"documents {verb}",
            "documents that hold something",
            *(said for _, said, _ in more),
        ]
        rows = [
            (one.item, one.suite, f"{one.condemned:,}", f"{one.documents:,}", *(value(one) for _, _, value in more))
            for one in summary.items
        ]
        lines += _table(columns, rows[:_TOP_ITEMS], numbers_from=2)
        lines += _more(len(rows), _TOP_ITEMS, "items")
    else:
        lines += ["Nothing of any item was found."]
    lines += ["", "## Verdicts", ""]
    verdicts = [(verdict, counts[verdict]) for verdict in ("drop", "cut", "flag", "keep")]
    rows_of_verdicts = [(VERBS[one], f"{count:,}", share(count, counts["documents"])) for one, count in verdicts]
    lines += _table(["documents", "count", "share"], rows_of_verdicts, numbers_from=1)
    lines += ["", *_worst(summary)]
    lines += ["## What could not be tested", "", *_untestable(summary), ""]
    lines += ["## n-grams set aside", "", *_aside(summary), ""]
    lines += ["## Rejected rows", ""]
    if summary.rejected:
        lines += _table(
            ["reason", "rows"], [(reason, f"{count:,}") for reason, count in summary.rejected], numbers_from=1
        )
    else:
        lines += ["None."]
    lines += ["", "## Settings", ""]
    lines += [
        f"- corpus: {', '.join(_code(path) for path in settings['corpus'])} ({counted(counts['files'], 'file')}, "
        f"{size(counts['bytes'])} as stored, {size(counts['text_bytes'])} of text)",
        *(
            f"- suite {_code(suite['name'])}: {counted(suite['items'], 'item')} from {_code(suite['source'])}, "
            f"sha256 {_code(suite['sha256'])}"
            for suite in run.record["suites"]
        ),
        f"- n-grams of {' and '.join(str(n) for n in settings['n'])} words; policy {_code(run.policy.preset)}",
        f"- common n-grams learnt from {counted(run.record['sample_documents'], 'document')} of the corpus",
        f"- phi_fast {run.record['phi_fast']}, settings {_code(run.record['settings_sha256'])}",
    ]
    return "\n".join(lines) + "\n"


def _suite_rows(summary: Summary) -> list[tuple[str, ...]]:
    return [
        (
            suite.name, f"{suite.items:,}", f"{suite.items_condemned:,}", f"{suite.items_seen:,}",
            f"{suite.items_untestable:,}", f"{suite.condemned:,}", f"{suite.matches:,}",
        )
        for suite in summary.suites
    ]  # fmt: skip


def _worst(summary: Summary) -> list[str]:
    worst = summary.worst(_WORST)
    if not worst:
        return []
    guilty = any(match.condemns for match in worst)
    lines = ["## Worst documents" if guilty else "## Closest documents, all kept", ""]
    for rank, match in enumerate(worst, 1):
        document = summary.documents[match.document]
        lines += [
            f"{rank}. {_code(document.id)} ({_code(place(summary, document))}), **{VERBS[document.verdict]}**: "
            f"{_likeness(summary, match)}, "
            f"characters {match.doc_start:,}-{match.doc_end:,}"
            + "".join(f"; and {_likeness(summary, other)}" for other in summary.also(match)),
            "",
            *_fenced(passage(summary, match)),
            "",
        ]
    return lines


def _likeness(summary: Summary, match: Match) -> str:
    part = summary.parts[match.part]
    return likeness(match, _code(part.item), part.part)


def passage(summary: Summary, match: Match) -> str:
    """The document's text that a match spans, or "" where the run's folder does not hold it."""
    if match.excerpt < 0:
        return ""
    start, text = summary.excerpts[match.excerpt]
    return text[match.doc_start - start : match.doc_end - start]


def _fenced(text: str) -> list[str]:
    if not text:
        return []
    shown = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(shown) > _PASSAGE:
        shown = shown[:_PASSAGE].rstrip() + " …"
    fence = "`" * max(3, 1 + max(map(len, _backticks(shown)), default=0))
    return [f"   {line}" for line in (f"{fence}text", *shown.split("\n"), fence)]


def _backticks(text: str) -> Iterable[str]:
    return re.findall("`+", text)


def _untestable(summary: Summary) -> list[str]:
    untestable = summary.untestable
    if not untestable:
        return ["Every part of every item can be found by words or by syntax."]
    lines = [f"{counted(len(untestable), 'part')} of {len(summary.parts):,}: a leak of these alone is not found.", ""]
    reasons: dict[str, list[str]] = {}
    for part in untestable:
        said = dict(zip(why_columns(summary), why_not(part, summary), strict=True))
        said["words"] = _FIGURES.sub("few", said["words"])
        why = "; ".join(f"{channel}: {reason}" for channel, reason in said.items())
        reasons.setdefault(f"{part.suite} {part.part} ({why})", []).append(part.item)
    for kind, items in reasons.items():
        shown = ", ".join(items[:_TOP_ASIDE]) + (
            f" and {len(items) - _TOP_ASIDE:,} more" if len(items) > _TOP_ASIDE else ""
        )
        lines.append(f"- {_text(kind)}, {len(items):,}: {_text(shown)}")
    return lines


def _aside(summary: Summary) -> list[str]:
    total = summary.set_aside
    if not total.total():
        return ["None."]
    said = [f"{total[key]:,} {text}" for key, text in ASIDE.items() if total[key]]
    lines = [f"n-grams that carry no weight: {', '.join(said)}.", ""]
    ranked = summary.set_aside_by_item()
    rows = [(item, suite, *(f"{by.get(key, 0):,}" for key in ASIDE)) for suite, item, by in ranked]
    columns = ["item", "suite", "no letter", "under four distinct words", "common"]
    return lines + _table(columns, rows[:_TOP_ASIDE], numbers_from=2) + _more(len(rows), _TOP_ASIDE, "items")


def _more(count: int, shown: int, what: str) -> list[str]:
    return ["", f"and {count - shown:,} more {what} (report.html)."] if count > shown else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> list[str]:
    marks = [" --- " if column < numbers_from else " ---: " for column in range(len(columns))]
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(marks)}|"]
    return lines + [f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows]


def _text(value: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_[]<>|#~":
        value = value.replace(sign, "\\" + sign)
    return " ".join(value.split())


def _code(value: str) -> str:
    """Inline code; an id may hold anything, backticks and line ends too."""
    plain = " ".join(value.split())
    ticks = "`" * (1 + max(map(len, _backticks(plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{ticks}{pad}{plain}{pad}{ticks}" if plain else "(empty)"
