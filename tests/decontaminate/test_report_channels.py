"""report.html with several channels: what belongs together is one find, and both sources stand side by side."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import phi_fast
from phi_fast.decontaminate import payload as listing
from phi_fast.decontaminate.evidence import EVIDENCE_SCHEMA
from phi_fast.decontaminate.report import write_report_html, write_reports
from phi_fast.disguise import disguise
from phi_fast.suites import load_suite
from tests.decontaminate.browsing import NEEDS_BROWSER, browser, opened
from tests.decontaminate.run_folder import make_run

__all__ = ["browser"]
SUITE = load_suite("humaneval")
COPIED = ("variables renamed", "renamed, no docstring", "every 8th word replaced", "re-formatted")
NAMES = {
    "var_1": "numbers", "var_2": "threshold", "var_3": "idx", "var_4": "elem", "var_5": "idx2", "var_6": "elem2",
    "var_7": "distance",
}  # fmt: skip
TRAP = "# 😀 </script><script>alert(1)</script> \x00\x1b & \u2028"
HOST = f"import os\n\n\ndef around():\n    '''{TRAP}'''\n    return os.getcwd()\n\n\n"


def data_of(path: Path) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S)
    data: dict[str, Any] = json.loads(found)
    return data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose documents hold HumanEval/0 disguised in several ways; one of them found by embedding as well."""
    folder = tmp_path_factory.mktemp("channels")
    with (folder / "corpus.jsonl").open("w") as file:
        for name in COPIED:
            text = HOST + (disguise(SUITE.items[0], name) or "") + "\n\n" + HOST
            file.write(json.dumps({"id": name, "text": text}) + "\n")
        for number in range(20):
            file.write(json.dumps({"id": f"harmless-{number}", "text": HOST * 3}) + "\n")
    phi_fast.decontaminate(folder / "corpus.jsonl", "humaneval", folder / "RUN")
    path = folder / "RUN" / "evidence.parquet"
    rows = pq.read_table(path).to_pylist()
    at = next(number for number, row in enumerate(rows) if (row["row"], row["channel"]) == (1, "syntax"))
    near = dict.fromkeys(EVIDENCE_SCHEMA.names) | {
        name: rows[at][name]
        for name in ("id", "file", "row", "suite", "item", "part", "doc_start", "doc_end", "item_start", "item_end")
    }
    near |= {"channel": "embedding", "distance": 0.31, "score": 1 - 0.31**2 / 2}
    last = max(number for number, row in enumerate(rows) if row["row"] == 1)
    rows.insert(last + 1, near)
    pq.write_table(pa.Table.from_pylist(rows, EVIDENCE_SCHEMA), path)
    record = json.loads((folder / "RUN" / "run.json").read_text())
    record["settings"]["channels"].append("embedding")
    record["counts"]["matches"] += 1
    (folder / "RUN" / "run.json").write_text(json.dumps(record))
    write_reports(folder / "RUN")
    return folder / "RUN"


def laid_texts(data: dict[str, Any], at: int) -> tuple[str, str]:
    """The two texts that a match's alignment is about, as the page cuts them out."""
    matches = data["matches"]
    laid, part = data["beside"][matches["beside"][at]], data["parts"][matches["part"][at]]
    document = data["excerpts"][matches["excerpt"][at]]["text"][slice(*laid["doc"])]
    return document, (part["lead"] if laid["lead"] else "") + part["text"][slice(*laid["item"])]


# ---- what the page is given ------------------------------------------------------------------------------------------


def test_alignments_are_of_the_lines_around_each_match(tmp_path: Path) -> None:
    make_run(tmp_path, 600)
    data = data_of(write_report_html(tmp_path))
    matches = data["matches"]
    entries = defaultdict(set)
    for at, entry in enumerate(matches["beside"]):
        assert entry >= 0
        laid, texts = data["beside"][entry], laid_texts(data, at)
        excerpt, part = data["excerpts"][matches["excerpt"][at]], data["parts"][matches["part"][at]]
        passage = excerpt["text"][matches["ds"][at] - excerpt["start"] : matches["de"][at] - excerpt["start"]]
        assert passage in texts[0]
        assert part["text"][matches["is"][at] - part["start"] : matches["ie"][at] - part["start"]] in texts[1]
        for side, text in zip(("left", "right"), texts, strict=True):
            assert sum(laid[side][::2]) == len(text)
        assert [sum(laid["rows"][side::2]) for side in (0, 1)] == [text.count("\n") + 1 for text in texts]
        entries[matches["doc"][at], laid["lead"]].add(entry)
    assert all(len(some) == 1 for some in entries.values()), "all matches of one place share an entry"
    assert len(data["beside"]) == len(entries) < len(matches["doc"])


def test_a_solution_that_goes_on_where_its_question_ends_is_shown_with_its_head(run: Path) -> None:
    data = data_of(run / "report.html")
    matches = data["matches"]
    for at, channel in enumerate(matches["channel"]):
        if data["channels"][channel] == "syntax":
            document, item = laid_texts(data, at)
            assert document.startswith("def has_close_elements(") and item.startswith("def has_close_elements(")
            assert item.rstrip().endswith("return False")


@pytest.mark.parametrize("limit", ["ALIGNMENTS", "ALIGNED", "_PIECES"])
def test_alignments_are_bounded_and_the_worst_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    make_run(tmp_path, 300)
    monkeypatch.setattr(listing, limit, {"ALIGNMENTS": 7, "ALIGNED": 30_000, "_PIECES": 200}[limit])
    data = data_of(write_report_html(tmp_path))
    beside = data["matches"]["beside"]
    channels = [data["channels"][number] for number in data["matches"]["channel"]]
    words = [one for one, channel in zip(beside, channels, strict=True) if channel == "ngram"]
    others = [one for one, channel in zip(beside, channels, strict=True) if channel != "ngram"]
    assert -1 in beside and words[0] >= 0 and others[0] >= 0
    assert 0 < len(data["beside"]) < 200
    if limit == "ALIGNMENTS":
        texts = [laid_texts(data, beside.index(entry)) for entry in range(len(data["beside"]))]
        assert sum(document != item for document, item in texts) == 7
        assert words.index(-1) >= 3 and others.index(-1) >= 3
    if limit == "ALIGNED":
        texts = [laid_texts(data, beside.index(entry)) for entry in range(len(data["beside"]))]
        assert sum(len(a) + len(b) for a, b in texts if a != b) <= 30_000
    if limit == "_PIECES":
        assert sum(len(laid["left"]) + len(laid["right"]) for laid in data["beside"]) <= 2 * 200


def test_a_run_of_words_alone_has_no_columns_of_other_channels(tmp_path: Path) -> None:
    make_run(tmp_path, 60, channels=("ngram",))
    path = write_report_html(tmp_path)
    data, page = data_of(path), path.read_text("utf-8").split('<script type="application/json"')[0]
    assert data["channels"] == ["ngram"]
    assert not {"form", "tau", "nodes", "item_nodes", "distance"} & set(data["matches"])
    assert page.count('class="histogram"') == 1
    assert "coverage from" in page and "likeness" not in page.lower()
    assert re.search(r'<select id="f-channel"[^>]* hidden>', page)
    assert not re.search(r"Most alike|Its τ|Least distance|Not by syntax|Items found by", page)


def test_a_run_of_several_channels_has_a_histogram_a_filter_and_columns_of_each(tmp_path: Path) -> None:
    make_run(tmp_path, 600)
    page = write_report_html(tmp_path).read_text("utf-8").split('<script type="application/json"')[0]
    assert re.findall(r'class="histogram" role="img" aria-label="([^"]*)"', page)[1].startswith("Matches by syntax")
    assert page.count('class="cutoff"') == 2 and ">85 %<" in page and ">70 %<" in page
    assert re.findall(r'<option value="(ngram|syntax|embedding)">', page) == ["ngram", "syntax", "embedding"]
    heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert heads[:11] == [
        "Document", "Item", "Item", "Suite", "Documents dropped", "Documents with some of it", "Best coverage",
        "Longest run", "Most alike", "Its τ", "Least distance",
    ]  # fmt: skip
    assert [head for head in heads if head.startswith("Not by")] == ["Not by words", "Not by syntax"]
    (table,) = re.findall(r"<summary>Parts that cannot be tested.*?</details>", page, re.S)
    assert "own/short" in table and "under 13" in table and "only solutions are compared" in table
    assert "under 13 syntax nodes, or no Python" in table


# ---- what is seen ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Any, run: Path) -> Iterator[Any]:
    with opened(browser, run / "report.html") as it:
        yield it


def show(page: Any, channel: str, document: str) -> None:
    page.select_option("#f-channel", channel)
    page.fill("#f-text", document)
    page.locator(".row:not([hidden])").first.click()


def lines(page: Any) -> list[tuple[str, str]]:
    """The rows of the match, both columns, checked to stand at the same height."""
    found = []
    for row in page.locator("#d-lines tr:not(.around)").all():
        left, right = row.locator("td").all()
        assert abs(left.bounding_box()["y"] - right.bounding_box()["y"]) < 1
        assert left.bounding_box()["x"] < right.bounding_box()["x"]
        found.append((left.text_content(), right.text_content()))
    return found


class TestInABrowser:
    pytestmark = NEEDS_BROWSER

    def test_a_renamed_copy_stands_beside_its_item_with_its_names(self, page: Any) -> None:
        show(page, "syntax", "renamed, no docstring")
        assert page.locator("#d-aligned").is_visible() and page.locator("#panes").is_hidden()
        rows = lines(page)
        assert (
            "        for var_5, var_6 in enumerate(var_1):",
            "        for idx2, elem2 in enumerate(numbers):",
        ) in rows
        assert "\n".join(left for left, right in rows if left).startswith("def has_close_elements(var_1")
        kinds = {
            kind: [page.locator(f"#d-lines td:nth-child({side}) .k-{kind}").all_text_contents() for side in (1, 2)]
            for kind in ("renamed", "changed", "only", "aside")
        }
        assert [NAMES[name] for name in kinds["renamed"][0]] == kinds["renamed"][1]
        assert set(kinds["renamed"][0]) == set(NAMES)
        assert kinds["changed"] == kinds["only"] == [[], []]
        assert kinds["aside"][0] == [] and "Check if in given list" in " ".join(kinds["aside"][1])
        assert page.locator("#d-key .pair").all_text_contents() == [f"{a} → {b}" for a, b in NAMES.items()]
        facts = page.locator("#d-facts").inner_text()
        assert "100 %" in facts and "by node types τ" in facts and "coverage" not in facts

    def test_names_that_belong_together_light_up(self, page: Any) -> None:
        show(page, "syntax", "renamed, no docstring")
        page.locator("#d-lines td:first-child .k-renamed", has_text="var_5").first.hover()
        hot = page.locator("#d-lines .hot").all_text_contents()
        assert set(hot) == {"var_5", "idx2"} and len(hot) == 4
        assert page.locator("#d-key .hot").all_text_contents() == ["var_5 → idx2"]

    def test_a_match_by_embedding_stands_beside_its_item_too(self, page: Any) -> None:
        show(page, "embedding", "renamed, no docstring")
        assert page.locator("#d-aligned").is_visible()
        assert "distance of embeddings\n0.31" in re.sub(r"\s+(?=0)", "\n", page.locator("#d-facts").inner_text())
        assert page.locator(".row:not([hidden]) .run").first.inner_text() == "distance 0.31"
        assert any("enumerate(var_1)" in left and "enumerate(numbers)" in right for left, right in lines(page))

    def test_a_match_by_words_shows_what_was_changed(self, page: Any) -> None:
        show(page, "ngram", "every 8th word replaced")
        assert page.locator("#d-aligned").is_visible()
        changed = [page.locator(f"#d-lines td:nth-child({side}) .k-changed").count() for side in (1, 2)]
        assert min(changed) > 3
        assert "coverage" in page.locator("#d-facts").inner_text()

    def test_matches_of_one_document_with_one_item_are_one_row(self, page: Any) -> None:
        data = page.evaluate("JSON.parse(document.getElementById('data').textContent).matches")
        number = COPIED.index("renamed, no docstring")
        docs = page.evaluate("JSON.parse(document.getElementById('data').textContent).docs.map((doc) => doc.id)")
        mine = [doc for doc in data["doc"] if docs[doc] == COPIED[number]]
        page.fill("#f-text", "renamed, no docstring")
        assert page.locator(".row:not([hidden])").count() == 1
        assert page.locator("#count").inner_text() == f"1 find, {len(mine)} of {len(data['doc'])} matches"
        assert page.locator(".row:not([hidden]) .tags").inner_text() == f"\u00d7{len(mine)} · syntax, embedding"
        page.locator(".row:not([hidden])").click()
        chips = page.locator("#d-same button").all_text_contents()
        assert chips == ["solution · body · 100 %", "solution · embedding · 95 %"]
        title = page.locator("#d-facts").inner_text()
        page.locator("#d-same button").last.focus()
        page.keyboard.press("Enter")
        assert page.locator("#d-facts").inner_text() != title
        assert page.locator(".row[aria-selected=true]").count() == 1, "the row stays the chosen one"

    def test_what_documents_hold_is_shown_and_not_run(self, page: Any) -> None:
        for document in COPIED:
            page.select_option("#f-channel", "")
            page.fill("#f-text", document)
            page.locator(".row:not([hidden])").first.click()
            around = page.locator("#d-aligned").text_content()
            assert "😀 </script><script>alert(1)</script> ␀␛ & " in around

    @pytest.mark.parametrize(("width", "scheme"), [(1440, "dark"), (390, "light"), (700, "dark")])
    def test_any_window_shows_both_columns(self, browser: Any, run: Path, width: int, scheme: str) -> None:
        with opened(browser, run / "report.html", width=width, scheme=scheme) as page:
            show(page, "syntax", "renamed, no docstring")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            name = page.locator("#d-lines .k-renamed").first
            assert name.is_visible()
            colours = "(node) => [getComputedStyle(node).color, getComputedStyle(node).backgroundColor]"
            text, ground = (sum(map(float, re.findall(r"[\d.]+", one)[:3])) for one in name.evaluate(colours))
            assert abs(text - ground) > 200, "too little contrast"

    def test_the_keyboard_reaches_and_scrolls_the_lines(self, page: Any) -> None:
        page.set_viewport_size({"width": 1440, "height": 560})
        show(page, "syntax", "renamed, no docstring")
        page.focus("#d-aligned")
        before = page.evaluate("document.getElementById('d-aligned').scrollTop")
        page.keyboard.press("End")
        page.wait_for_function("(top) => document.getElementById('d-aligned').scrollTop > top", arg=before)
