"""The run folder read back, and report.md and report.html of it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.decontaminate import payload as listing
from phi_fast.decontaminate import summary, wording
from phi_fast.decontaminate.evidence import EVIDENCE_SCHEMA
from phi_fast.decontaminate.policy import Policy
from phi_fast.decontaminate.report import write_report_html, write_report_md, write_reports
from phi_fast.decontaminate.summary import summarise_run
from tests.decontaminate.run_folder import EXCERPTS, TRAP, Planted, make_run


class Scripts(HTMLParser):
    """What a browser finds: the texts of script elements, and every address an element would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "script":
            self._inside = True
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def payload(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Scripts(write_report_html(folder).read_text("utf-8")).scripts[0])
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    folder = tmp_path_factory.mktemp("run") / "RUN"
    return folder, make_run(folder, 3_000)


@pytest.mark.parametrize("batch", [7, 1 << 16])
def test_counts_are_those_of_the_evidence_gone_through_by_hand(
    run: tuple[Path, list[Planted]], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    folder, planted = run
    monkeypatch.setattr(summary, "_BATCH", batch)  # documents then lie across batches
    found = summarise_run(folder, listed=100)
    rows = pq.read_table(folder / "evidence.parquet").to_pylist()
    documents: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    guilty: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    matches: Counter[tuple[str, str]] = Counter()
    testable = {(part.item, part.part) for part in found.parts if part.testable}
    for row in rows:
        key, document = (row["suite"], row["item"]), (row["file"], row["row"])
        documents[key].add(document)
        matches[key] += 1
        words = row["n"] == 5 and row["coverage"] >= 0.7 and (row["item"], row["part"]) in testable
        if words or (row["channel"] == "syntax" and (row["tau"] >= 0.95 or row["alpha"] >= 0.85)):
            guilty[key].add(document)
    assert {(one.suite, one.item): one.documents for one in found.items} == {
        key: len(some) for key, some in documents.items()
    }
    assert {(one.suite, one.item): one.condemned for one in found.items if one.condemned} == {
        key: len(some) for key, some in guilty.items()
    }
    assert {(one.suite, one.item): one.matches for one in found.items} == dict(matches)
    humaneval, own = found.suites
    assert (humaneval.name, humaneval.items, own.name, own.items) == ("humaneval", 164, "own", 3)
    assert humaneval.documents == len({one.id for one in planted if one.suite == "humaneval"})
    assert humaneval.condemned == len(
        set().union(*(some for (suite, _), some in guilty.items() if suite == "humaneval"))
    )
    assert humaneval.items_condemned == len([key for key in guilty if key[0] == "humaneval"])
    assert own.items_untestable == 1
    assert own.items_condemned + own.items_seen + own.items_unseen + own.items_untestable == 3
    assert found.channels == Counter(row["channel"] for row in rows) and len(found.channels) == 3
    assert found.trees.sum() == found.channels["syntax"] == found.trees[0, 12] + found.trees[1, [17, 19]].sum()
    best = defaultdict(lambda: (0.0, 0.0))
    nearest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row["suite"], row["item"])
        if row["channel"] == "syntax":
            best[key] = max(best[key], (row["alpha"], row["tau"]))
        if row["distance"] is not None:
            nearest[key] = min(nearest.get(key, 9.0), row["distance"])
    assert {(one.suite, one.item): (one.alpha, one.tau) for one in found.items if one.tau} == dict(best)
    assert {(one.suite, one.item): one.distance for one in found.items if one.distance is not None} == nearest
    assert found.histogram.sum() == sum(row["n"] == 5 for row in rows)
    assert found.histogram[0, 14:].sum() == sum(
        row["n"] == 5 and row["coverage"] >= 0.7 and (row["item"], row["part"]) not in testable for row in rows
    )


def test_the_worst_are_listed_whatever_the_batches(
    run: tuple[Path, list[Planted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    whole = summarise_run(folder)
    assert len(whole.matches) == 3_000
    rank = [
        (not match.condemns, -(match.score if match.coverage is None else match.coverage), -(match.run or 0))
        for match in whole.matches
    ]
    assert rank == sorted(rank)
    monkeypatch.setattr(summary, "_BATCH", 13)
    few = summarise_run(folder, listed=40)

    def told(one: summary.Summary) -> list[tuple[object, ...]]:
        return [
            (one.documents[match.document].id, match.part, match.channel, match.form, match.n, match.doc_start)
            for match in one.matches
        ]

    assert told(few) == told(whole)[:40]
    worst = whole.worst(3)
    assert len({match.document for match in worst}) == 3
    assert worst[0] == whole.matches[0]


def test_listed_matches_carry_the_planted_passages(run: tuple[Path, list[Planted]]) -> None:
    folder, planted = run
    found = summarise_run(folder)
    by_id = {one.id: one for one in planted}
    for match in found.matches:
        expected = by_id[found.documents[match.document].id]
        start, text = found.excerpts[match.excerpt]
        assert text[match.doc_start - start : match.doc_end - start] == expected.passage
        assert found.parts[match.part].text[match.item_start : match.item_end] == expected.item_passage
        assert found.documents[match.document].verdict == expected.verdict


def test_rejected_rows_are_counted_by_reason_and_places_left_out(tmp_path: Path) -> None:
    make_run(tmp_path, 10)
    assert summarise_run(tmp_path).rejected == [
        ("malformed JSON: expected ','", 7),
        ('"text" is null, expected a string', 1),
    ]
    (tmp_path / "rejected.jsonl").write_text(
        '{"file": "a", "row": 0, "reason": "truncated gz", "rows": 12, "raw": ", \\"rows\\": 99"}\n'
        '{"file": "a", "row": 1, "reason": "no field \\"raw\\"", "id": ", \\"rows\\": 5", "raw": "x"}\n'
    )
    assert summarise_run(tmp_path).rejected == [("truncated gz", 12), ('no field "raw"', 1)]


def test_reports_are_the_same_bytes_for_the_same_run(run: tuple[Path, list[Planted]]) -> None:
    folder, _ = run
    first = write_report_html(folder).read_bytes(), write_report_md(folder).read_bytes()
    record = json.loads((folder / "run.json").read_text())
    record["timing"] = {"started": "2031-12-31T23:59:59+00:00", "seconds": 77.7, "threads": 96, "mb_per_second": 1.0}
    (folder / "run.json").write_text(json.dumps(record))
    write_reports(folder)
    assert (folder / "report.html").read_bytes() == first[0]
    assert (folder / "report.md").read_bytes() == first[1]
    assert not list(folder.glob("*.part"))


def test_html_needs_no_network_and_cannot_be_broken_out_of(run: tuple[Path, list[Planted]]) -> None:
    folder, planted = run
    text = write_report_html(folder).read_text("utf-8")
    found = Scripts(text)
    assert len(found.scripts) == 2, "a document's </script> ended the data"
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text.split('<script type="application/json"')[0])
    data = json.loads(found.scripts[0])
    assert len(data["matches"]["doc"]) == 3_000
    trapped = [doc["id"] for doc in data["docs"] if TRAP in doc["id"]]
    assert len(trapped) == sum(TRAP in one.id for one in planted) > 0
    (markup,) = (part for part in data["parts"] if part["item"] == "own/markup" and part["part"] == "question")
    assert markup["text"].startswith(TRAP)


def test_html_shows_the_excerpts_it_embeds_at_the_right_offsets(run: tuple[Path, list[Planted]]) -> None:
    folder, planted = run
    data = payload(folder)
    by_id = {one.id: one for one in planted}
    columns = data["matches"]
    for at, (doc, excerpt, start, end) in enumerate(
        zip(columns["doc"], columns["excerpt"], columns["ds"], columns["de"], strict=True)
    ):
        piece = data["excerpts"][excerpt]
        expected = by_id[data["docs"][doc]["id"]]
        assert piece["text"][start - piece["start"] : end - piece["start"]] == expected.passage
        part = data["parts"][columns["part"][at]]
        assert (
            part["text"][columns["is"][at] - part["start"] : columns["ie"][at] - part["start"]] == expected.item_passage
        )


def test_html_keeps_to_its_text_budget_and_the_worst_first(
    run: tuple[Path, list[Planted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    monkeypatch.setattr(listing, "TEXT_BUDGET", 20_000)
    data = payload(folder)
    assert 0 < sum(len(piece["text"]) for piece in data["excerpts"]) <= 20_000
    shown = [excerpt >= 0 for excerpt in data["matches"]["excerpt"]]
    assert shown[0] and not all(shown)


def one_match(folder: Path, text: str, spans: list[tuple[int, int]], excerpts: list[tuple[int, str]]) -> None:
    """A run of one document with the matches given, on the longest part of the user's own suite."""
    make_run(folder, 1)
    row = pq.read_table(folder / "evidence.parquet").to_pylist()[0]
    rows = [
        {**row, "id": "d", "suite": "own", "item": "own/long", "part": "question", "n": 5, "doc_start": start,
         "doc_end": end, "coverage": 1.0, "item_start": 0, "item_end": 7} for start, end in spans
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, EVIDENCE_SCHEMA), folder / "evidence.parquet")
    kept = [{"file": row["file"], "row": row["row"], "start": start, "text": piece} for start, piece in excerpts]
    pq.write_table(pa.Table.from_pylist(kept, EXCERPTS), folder / "excerpts.parquet")
    assert all(text[start : start + len(piece)] == piece for start, piece in excerpts)


def test_far_matches_of_a_document_are_cut_apart_and_near_ones_kept_together(tmp_path: Path) -> None:
    text = "".join(f"😀 word{n} " for n in range(3_000))
    spans = [(20_000, 20_050), (20_700, 20_800), (27_000, 27_010)]
    one_match(tmp_path, text, spans, [(100, text[100:])])
    data = payload(tmp_path)
    of = dict(zip(data["matches"]["ds"], data["matches"]["excerpt"], strict=True))
    assert of[20_000] == of[20_700] != of[27_000]
    for start, end in spans:
        piece = data["excerpts"][of[start]]
        assert piece["text"][start - piece["start"] : end - piece["start"]] == text[start:end]
        assert len(piece["text"]) <= 2 * listing.AROUND + 800
        assert piece["cut"] == 1


def test_a_span_longer_than_its_excerpt_shows_its_beginning(tmp_path: Path) -> None:
    text = "x " * 20_000
    one_match(tmp_path, text, [(10, 39_000)], [(0, text[:20_000])])
    data = payload(tmp_path)
    assert data["excerpts"][data["matches"]["excerpt"][0]]["text"] == text[:20_000]
    assert write_report_md(tmp_path).read_text().count(" …") == 1


def test_a_run_without_matches_says_what_was_looked_for(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    write_reports(tmp_path)
    html, markdown = (tmp_path / "report.html").read_text("utf-8"), (tmp_path / "report.md").read_text("utf-8")
    assert "Nothing of 167 items was found in 17,897 documents." in html
    assert "Nothing of 167 items was found in 17,897 documents." in markdown
    assert "| humaneval | 164 | 0 | 0 | 0 | 0 | 0 |" in markdown
    assert (
        "- own question (words: few words, under 13; syntax: only solutions are compared), 1: own/short\n" in markdown
    )
    assert "- own solution (words: few words, under 13; syntax: under 13 syntax nodes, or no Python), 1:" in markdown
    assert 'id="list"' not in html


def test_markdown_tells_the_run(run: tuple[Path, list[Planted]]) -> None:
    folder, planted = run
    text = write_report_md(folder).read_text("utf-8")
    found = summarise_run(folder)
    first = found.items[0]
    assert f"| {first.item} | {first.suite} | {first.condemned} | {first.documents} | 100 % | {first.run:,} |" in text
    assert "| best coverage | longest run | most alike | its τ | least distance |" in text
    assert "\nItems found by n-grams" in text
    worst = [line for line in text.splitlines() if re.match(r"\d+\. `", line)]
    assert len(worst) == len({line.split("(")[0] for line in worst}), "a document is listed once"
    dropped = sum(one.verdict == "drop" for one in planted)
    assert f"| dropped | {dropped:,} | {wording.share(dropped, 17_897)} |" in text
    assert text.startswith("# Decontamination against humaneval, own\n")
    assert "> A document is dropped when" in text
    assert "| malformed JSON: expected ',' | 7 |" in text
    assert "sha256 `" in text and "MB/s" not in text and "2026-" not in text
    assert len(re.findall(r"^\d+\. `", text, re.M)) == 10


def test_markdown_survives_what_documents_hold(tmp_path: Path) -> None:
    text = "before ```` `ticks` | pipe | <b> after the words go on and on"
    one_match(tmp_path, text, [(0, len(text))], [(0, text)])
    (row,) = pq.read_table(tmp_path / "evidence.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([{**row, "id": "a`b|c\n# d"}], EVIDENCE_SCHEMA), tmp_path / "evidence.parquet")
    written = write_report_md(tmp_path).read_text("utf-8")
    assert "``a`b|c # d``" in written
    assert f"   `````text\n   {text}\n   `````" in written


@pytest.mark.parametrize(("mode", "verb"), [("cut", "cut"), ("flag", "flagged")])
def test_other_modes_have_their_own_words(tmp_path: Path, mode: Any, verb: str) -> None:
    planted = make_run(tmp_path, 30, policy=Policy(mode=mode))
    write_reports(tmp_path)
    condemned = sum(one.verdict == mode for one in planted)
    assert f"; all were {verb}." in (tmp_path / "report.html").read_text("utf-8")
    assert f"| {verb} | {condemned} |" in (tmp_path / "report.md").read_text("utf-8")
    assert f'body class="mode-{mode}"' in (tmp_path / "report.html").read_text("utf-8")


def test_headline_of_one_document_and_of_several_verdicts(tmp_path: Path) -> None:
    make_run(tmp_path, 10)
    found = summarise_run(tmp_path)
    held = sum(suite.items_condemned for suite in found.suites)
    found.run.record["counts"].update(drop=1, cut=0, flag=0)
    assert wording.headline(found) == f"1 of 17,897 documents (0.006 %) holds {held} of 167 items; it was dropped."
    found.run.record["counts"].update(drop=30, cut=3)
    assert wording.headline(found) == f"33 of 17,897 documents (0.18 %) hold {held} of 167 items; 30 dropped, 3 cut."


@pytest.mark.parametrize(
    ("some", "whole", "said"),
    [(0, 10, "0 %"), (1, 3, "33 %"), (1, 1, "100 %"), (1, 200, "0.5 %"), (33, 17_897, "0.18 %"), (1, 3_000, "0.033 %"),
     (1, 17_897, "0.006 %"), (1, 1_000_000, "under 0.001 %"), (999, 1_000, "99.9 %"), (17_896, 17_897, "over 99.99 %")],
)  # fmt: skip
def test_shares_show_as_many_digits_as_they_need(some: int, whole: int, said: str) -> None:
    assert wording.share(some, whole) == said


def test_numbers_in_words() -> None:
    assert [wording.percent(value) for value in (0.2, 0.875, 0.996, 0.9999, 1.0)] == [
        "20 %",
        "88 %",
        "99 %",
        "99 %",
        "100 %",
    ]
    assert [wording.size(value) for value in (0, 999, 1_000, 2_500_000, 277e6, 1.5e12, 2e16)] == [
        "0 bytes", "999 bytes", "1 kB", "2.5 MB", "277 MB", "1.5 TB", "20,000 TB",
    ]  # fmt: skip
    assert [wording.duration(value) for value in (0.93, 9.96, 59.4, 59.7, 200, 7_512)] == [
        "0.9 s", "10 s", "59 s", "1 min 0 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip
    assert wording.printable("a\x1b[31mb\x9bc\u202ed\te\n") == "a␛[31mb·c·d\te\n"
