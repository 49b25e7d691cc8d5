"""report.html in a real Chromium, with ten thousand matches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from phi_fast.decontaminate.report import write_report_html
from phi_fast.decontaminate.wording import printable
from tests.decontaminate.browsing import NEEDS_BROWSER, browser, opened
from tests.decontaminate.run_folder import Planted, make_run

pytestmark = NEEDS_BROWSER
MATCHES = 10_000
__all__ = ["browser"]
MOST_ROWS = 60  # rows of the list that may exist at a time


@dataclass
class Report:
    """The report under test, and what was planted in its run."""

    path: Path
    planted: list[Planted]
    finds: int  # documents with an item: rows of the list


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("browser") / "RUN"
    planted = make_run(folder, MATCHES)
    return Report(write_report_html(folder), planted, len(planted))


@pytest.fixture
def page(browser: Any, report: Report) -> Iterator[Any]:
    """The report, opened; whatever it complains of or asks the network for fails the test."""
    with opened(browser, report.path) as it:
        yield it


def rows(page: Any) -> list[dict[str, Any]]:
    """The rows in view, from the top, once drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found: list[dict[str, Any]] = page.evaluate(
        """() => {
          const list = document.getElementById("list").getBoundingClientRect();
          return [...document.querySelectorAll(".row:not([hidden])")]
            .map((row) => ({ at: row.getBoundingClientRect(), row }))
            .filter(({ at }) => at.bottom > list.top + 1 && at.top < list.bottom - 1)
            .sort((a, b) => a.at.top - b.at.top)
            .map(({ at, row }) => ({
              top: at.top - list.top, bottom: at.bottom - list.top, height: list.height,
              item: row.querySelector("b").textContent, part: row.querySelector("span").textContent,
              doc: row.querySelector(".doc").textContent, cover: parseInt(row.querySelector(".cover").textContent),
              brief: row.querySelector(".run").textContent, tags: row.querySelector(".tags").textContent,
              run: parseInt(row.querySelector(".run").textContent.slice(4).replace(",", "")),
              position: Number(row.getAttribute("aria-posinset")), chosen: row.getAttribute("aria-selected") === "true",
            }));
        }"""
    )
    return found


def listed(page: Any) -> int:
    """Rows that pass the filters, as the list says: finds, or matches where every find is of one."""
    text = page.locator("#count").inner_text()
    return int(text.split()[0].replace(",", ""))


def natural(text: str) -> list[Any]:
    return [int(piece) if piece.isdigit() else piece.lower() for piece in re.split(r"(\d+)", text)]


def find(page: Any, planted: Planted) -> None:
    """Filter down to one document and open its match."""
    page.fill("#f-text", planted.id.split(" ")[0])
    page.select_option("#f-n", "5")
    assert listed(page) == 1
    page.locator(".row:not([hidden])").click()


def passages(page: Any) -> tuple[str, str, str]:
    """What is shown before the passage, and the passage in the document and in the item, to whole lines."""
    if page.locator("#d-aligned").is_visible():
        sides = [
            "\n".join(page.locator(f"#d-lines tr:not(.around) td:nth-child({side})").all_text_contents())
            for side in (1, 2)
        ]
        return page.locator("#d-lines tr.before td").first.inner_text(), sides[0], sides[1]
    marks = [page.locator(f"#{pre} mark").text_content() for pre in ("d-doc-text", "d-part-text")]
    return page.locator("#d-doc-text").inner_text().split(marks[0])[0], marks[0], marks[1]


def test_it_opens_with_the_worst_first(page: Any, report: Report) -> None:
    assert (
        page.locator("h1")
        .inner_text()
        .startswith(f"{sum(one.verdict == 'drop' for one in report.planted):,} of 17,897")
    )
    assert page.locator("#count").inner_text() == f"{report.finds:,} finds, 10,000 matches"
    seen = rows(page)
    assert seen[0]["chosen"] and seen[0]["cover"] == 100
    assert [row["run"] for row in seen] == sorted((row["run"] for row in seen), reverse=True)
    assert page.locator("#d-item").inner_text() == f"{seen[0]['item']} {seen[0]['part']}"
    assert page.locator("svg[role=img] rect").count() > 4


def test_a_click_sorts_and_another_turns_it_round(page: Any, report: Report) -> None:
    items = sorted({one.item for one in report.planted}, key=natural)
    page.click("[data-sort=item]")
    assert page.get_attribute("[data-sort=item]", "aria-pressed") == "true"
    assert {row["item"] for row in rows(page)} == {items[0]}
    page.click("[data-sort=item]")
    seen = [row["item"] for row in rows(page)]
    assert seen[0] == items[-1] and seen == sorted(seen, key=natural, reverse=True)
    page.click("[data-sort=coverage]")
    assert {row["cover"] for row in rows(page)} == {100}
    page.click("[data-sort=coverage]")
    assert {row["cover"] for row in rows(page)} == {round(100 * min(one.coverage for one in report.planted))}
    page.click("[data-sort=document]")
    documents = [row["doc"] for row in rows(page)]
    assert documents == sorted(documents, key=natural)
    page.click("[data-sort=run]")
    assert rows(page)[0]["run"] == max(one.run for one in report.planted)


def test_filters_narrow_together(page: Any, report: Report) -> None:
    planted = report.planted
    page.select_option("#f-channel", "ngram")
    page.fill("#f-text", "HumanEval/69 ")
    wanted = [one for one in planted if "humaneval/69" in one.item.lower()]
    assert listed(page) == len(wanted) > 0
    page.select_option("#f-part", "tests")
    wanted = [one for one in wanted if one.part == "tests"]
    assert listed(page) == len(wanted) > 0
    page.select_option("#f-verdict", "drop")
    wanted = [one for one in wanted if one.verdict == "drop"]
    assert listed(page) == len(wanted) > 0
    page.locator("#f-cover").fill("90")
    assert listed(page) == len([one for one in wanted if one.coverage >= 0.9]) > 0
    assert page.locator("#f-cover-out").inner_text() == "90 %"
    page.fill("#f-text", "no such thing anywhere")
    assert listed(page) == 0
    assert page.locator("#none").is_visible()
    page.click("#clear")
    assert page.locator("#count").inner_text() == f"{report.finds:,} finds, 10,000 matches"
    assert page.locator("#none").is_hidden()


def test_suite_select_and_the_chart_filter_by_suite(page: Any, report: Report) -> None:
    own = [one for one in report.planted if one.suite == "own"]
    page.select_option("#f-suite", "own")
    assert listed(page) == len(own)
    page.click("[data-suite=humaneval]")
    assert page.input_value("#f-suite") == "humaneval"
    assert {row["item"].split("/")[0] for row in rows(page)} == {"HumanEval"}
    page.click("summary:has-text('Items found')")
    page.click("[data-item='own/long']")
    assert {row["item"] for row in rows(page)} == {"own/long"}


def test_an_open_match_marks_the_passage_in_both(page: Any, report: Report) -> None:
    emoji_inside = next(one for one in report.planted if "😀" in one.passage and one.coverage < 1)
    emoji_in_both = next(one for one in report.planted if one.item == "own/long" and one.part == "question")
    markup = next(one for one in report.planted if one.item == "own/markup" and one.part == "question")
    whole = next(one for one in report.planted if one.coverage == 1 and one.run > 50)
    views = set()
    for one in (emoji_inside, emoji_in_both, markup, whole, *report.planted[1_000:1_003]):
        find(page, one)
        before, document, item = passages(page)
        views.add(page.locator("#d-aligned").is_visible())
        # The text before every planted passage holds an emoji: two UTF-16 units, one character.
        assert "😀" in before
        assert printable(one.passage) in document
        assert printable(one.item_passage) in item
        assert page.locator("#d-item").inner_text() == f"{one.item} {one.part}"
        assert "kept" in page.locator("#d-verdict").inner_text() or one.verdict == "drop"

    assert views == {True, False}, "some are laid line by line, some stand as they are"


def test_words_that_differ_are_told_apart_within_the_passage(page: Any, report: Report) -> None:
    one = next(one for one in report.planted if one.coverage == 0.875 and one.run >= 5 and "quokka" in one.passage)
    find(page, one)
    hits = page.locator("#d-doc-text mark b").all_text_contents()
    assert len(hits) > 1
    assert not any("quokka" in hit or "zebra" in hit or "ibex" in hit for hit in hits)
    pairs = page.evaluate(
        """() => {
          const of = (id) => {
            const runs = {};
            for (const hit of document.querySelectorAll(`#${id} mark b`)) {
              (runs[hit.dataset.run] ||= []).push(hit.textContent);
            }
            return runs;
          };
          return [of("d-doc-text"), of("d-part-text")];
        }"""
    )
    assert pairs[0] == pairs[1], "each run has the same words on both sides"
    page.locator("#d-doc-text mark b").first.hover()
    run = page.locator("#d-doc-text mark b").first.get_attribute("data-run")
    assert page.locator(f"#d-part-text mark b[data-run='{run}'].hot").count() >= 1


def test_scrolling_to_the_end_never_shows_a_gap_and_keeps_few_nodes(page: Any, report: Report) -> None:
    before = page.evaluate("document.querySelectorAll('*').length")
    full = page.evaluate("document.getElementById('list').scrollHeight")
    assert full == 56 * report.finds
    places = [*range(0, full, full // 37), full]
    for place in places:
        page.evaluate("(top) => { document.getElementById('list').scrollTop = top; }", place)
        seen = rows(page)
        assert seen[0]["top"] <= 1 and seen[-1]["bottom"] >= seen[-1]["height"] - 1
        assert [row["position"] for row in seen] == list(range(seen[0]["position"], seen[0]["position"] + len(seen)))
        assert page.locator(".row").count() <= MOST_ROWS
    assert rows(page)[-1]["position"] == report.finds
    assert page.evaluate("document.querySelectorAll('*').length") <= before + 6 * MOST_ROWS


def test_ten_thousand_matches_cost_a_bounded_number_of_nodes(page: Any) -> None:
    assert page.evaluate("document.querySelectorAll('*').length") < 6_000
    for control, value in (("#f-text", "module"), ("#f-text", ""), ("#f-text", "assert")):
        page.fill(control, value)
        assert page.locator(".row").count() <= MOST_ROWS
    for _ in range(30):
        page.keyboard.press("Escape")
    page.focus("#list")
    for _ in range(50):
        page.keyboard.press("PageDown")
    assert page.locator(".row").count() <= MOST_ROWS
    assert page.locator("#d-lines tr").count() + page.locator("mark").count() < 200


def test_the_keyboard_alone_will_do(page: Any, report: Report) -> None:
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    (chosen,) = [row for row in rows(page) if row["chosen"]]
    assert chosen["position"] == 2
    assert page.locator("#d-item").inner_text() == f"{chosen['item']} {chosen['part']}"
    active = page.get_attribute("#list", "aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-posinset") == "2"
    page.keyboard.press("End")
    (chosen,) = [row for row in rows(page) if row["chosen"]]
    assert chosen["position"] == report.finds
    page.keyboard.press("k")
    assert [row["position"] for row in rows(page) if row["chosen"]] == [report.finds - 1]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "f-text"
    page.keyboard.type("own/long")
    assert listed(page) == len([one for one in report.planted if one.item == "own/long"])
    page.keyboard.press("Escape")
    assert listed(page) == report.finds
    assert page.evaluate("document.activeElement.id") == "list"


def test_a_link_opens_its_match(page: Any, report: Report, browser: Any) -> None:
    page.focus("#list")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    title, address = page.locator("#d-document").inner_text(), page.url
    assert "#match-" in address
    again = browser.new_page()
    again.goto(address)
    assert again.locator("#d-document").inner_text() == title
    again.close()


def test_both_themes_and_the_switch(page: Any, browser: Any, report: Report) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert light != dark
    night = browser.new_page(color_scheme="dark")
    night.goto(report.path.as_uri())
    assert night.evaluate(ground) == dark
    night.close()


def test_a_narrow_window_does_not_scroll_sideways(page: Any) -> None:
    for width in (390, 700, 1_024):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#d-lines b").first.is_visible()


def test_a_text_that_is_not_there_is_said_not_to_be(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, 5, excerpts=False)
    bare = browser.new_page()
    bare.goto(write_report_html(tmp_path).as_uri())
    assert "not in the report" in bare.locator("#d-doc-text").inner_text()
    assert bare.locator("#d-part-text mark").count() == 1
    bare.close()


def test_an_empty_run_opens_quietly(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    empty = browser.new_page()
    troubles: list[str] = []
    empty.on("pageerror", lambda error: troubles.append(str(error)))
    empty.goto(write_report_html(tmp_path).as_uri())
    assert empty.locator("h1").inner_text() == "Nothing of 167 items was found in 17,897 documents."
    assert empty.locator("#list").count() == 0
    assert troubles == []
    empty.close()
