"""Progress and the summary at the end, as a terminal, a pipe and a colour-blind console see them."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from phi_fast.decontaminate import terminal
from phi_fast.decontaminate.evidence import EVIDENCE_SCHEMA
from phi_fast.decontaminate.summary import Document, Match, Summary, summarise_run
from phi_fast.decontaminate.terminal import Progress, excerpt_lines, print_summary
from phi_fast.decontaminate.wording import share
from tests.decontaminate.run_folder import Planted, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    folder = tmp_path_factory.mktemp("run") / "RUN"
    return folder, make_run(folder, 75)


def printed(folder: Path, *, width: int = 80, colour: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    print_summary(folder, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_summary_says_what_was_found(run: tuple[Path, list[Planted]]) -> None:
    folder, _ = run
    text = printed(folder)
    found = summarise_run(folder)
    dropped = found.run.counts["drop"]
    held = sum(suite.items_condemned for suite in found.suites)
    assert (
        f"{dropped} of 17,897 documents ({share(dropped, 17_897)}) hold {held} of 167 items; all were dropped." in text
    )
    assert "277 MB of text, 5 files, 0.9 s at 923 MB/s, 2 threads, avx512" in text
    assert "7 malformed JSON: expected ','" in text
    humaneval, first = found.suites[0], found.items[0]
    assert re.search(rf"^humaneval +164 +{held} +{humaneval.items_seen} +0 +{dropped} +75$", text, re.M)
    assert re.search(
        rf"^humaneval +{first.item} +{first.condemned} +{first.documents} +100 % +{first.run}( |$)", text, re.M
    )
    assert f"and {len(found.items) - 10} more items: report.md" in text
    assert f"{len(found.untestable)} of {len(found.parts)} parts untestable" in text
    assert f"{found.set_aside['no_letters']:,} hold no letter" in text
    assert f"phi-fast decide {folder} --coverage 0.5" in text.replace("\n", " ")
    assert f"{folder / 'report.md'}" not in text, "a file that is not there was named"
    assert f"{folder / 'evidence.parquet'}" in text


def test_the_three_worst_documents_show_their_passage(run: tuple[Path, list[Planted]]) -> None:
    folder, planted = run
    text = printed(folder, width=300)
    found = summarise_run(folder)
    assert text.count("dropped  100 % of") == 3
    for match in found.worst(3):
        passage = next(one.passage for one in planted if one.id == found.documents[match.document].id)
        assert f"┃ {passage.splitlines()[0]}" in text
        assert found.parts[match.part].item in text


def test_channels_are_told_apart(run: tuple[Path, list[Planted]]) -> None:
    folder, _ = run
    text = printed(folder, width=200)
    found = summarise_run(folder)
    assert set(found.channels) == {"ngram", "syntax", "embedding"}
    words, trees = found.found_by["ngram"], found.found_by["syntax"]
    assert words[0] > trees[0] > 0 == trees[1], "every item planted is found by words too"
    assert f"Items found by n-grams {words[0]} ({words[1]} by them alone), by syntax {trees[0]}" in text
    assert re.search(r"^suite +item +dropped +documents +coverage +run +alike +τ +distance$", text, re.M)
    (both,) = [one for one in found.items if one.tau and one.distance is not None][:1]
    assert re.search(rf"{both.item} .* 100 % +{both.run} +100 % +1.00 +0.25$", text, re.M)
    only = next(one for one in found.items if not one.tau and one.distance is None)
    assert re.search(rf"{only.item} .* % +{only.run} *$", text, re.M)


def test_a_document_found_by_two_channels_is_one_of_the_worst_and_says_both(tmp_path: Path) -> None:
    make_run(tmp_path, 4)
    rows = pq.read_table(tmp_path / "evidence.parquet").to_pylist()
    (first, *_) = (row for row in rows if row["channel"] == "ngram" and row["part"] == "solution")
    about = first | {"n": None, "run": None, "coverage": None, "words": None}
    tree = about | {"channel": "syntax", "form": "function", "nodes": 40, "item_nodes": 40, "distance": 0.31}
    made = [
        first | {"coverage": 1.0},
        tree | {"tau": 0.999, "alpha": 0.9, "score": 0.9},
        tree | {"form": "body", "tau": 0.9, "alpha": 0.8, "score": 0.8},
        about | {"channel": "embedding", "distance": 0.31, "score": 0.95},
    ]
    pq.write_table(pa.Table.from_pylist(made, EVIDENCE_SCHEMA), tmp_path / "evidence.parquet")
    text, name = printed(tmp_path, width=300), f"{first['item']} solution"
    assert text.count(f"of {name}, run") == 1
    assert f"and a text like {name}: embedding at distance 0.31\n" in text
    assert f"and a function like {name}: 90 % but for names, τ 0.99, embedding at distance 0.31\n" in text
    assert "a body like" not in text


def test_columns_of_channels_that_found_nothing_are_not_there(tmp_path: Path) -> None:
    make_run(tmp_path, 40, channels=("ngram",))
    text = printed(tmp_path, width=200)
    assert re.search(r"^suite +item +dropped +documents +coverage +run$", text, re.M)
    assert "Items found by" not in text
    make_run(tmp_path, 10, channels=("syntax",))
    text = printed(tmp_path, width=200)
    assert re.search(r"^suite +item +dropped +documents +alike +τ$", text, re.M)
    assert "dropped  a function like HumanEval" in text


@pytest.mark.parametrize("width", [80, 60])
def test_nothing_but_paths_is_wider_than_the_terminal(run: tuple[Path, list[Planted]], width: int) -> None:
    folder, _ = run
    for line in printed(folder, width=width).splitlines():
        assert cell_len(line) <= width or str(folder) in line


def test_no_color_is_honoured_and_the_passage_still_told_apart(
    run: tuple[Path, list[Planted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run
    assert "\x1b[1;31m" in printed(folder, colour=True)
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(folder, colour=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)
    assert "┃ " in text


def styled(lines: list[Text], style: str) -> str:
    """The characters that have a style, line by line, the bar before each left out."""
    rows = []
    for line in lines:
        spans = [span for span in line.spans if span.style == style and span.start >= 2]
        if spans or line.plain.startswith("┃"):
            rows.append("".join(line.plain[span.start : span.end] for span in spans))
    return "\n".join(rows)


def one_match(found: Summary, text: str, start: int, end: int, first: int = 0) -> list[Text]:
    found.documents = [Document("d", "part-0.jsonl", 0, "drop", "")]
    found.excerpts = [(first, text)]
    match = Match(
        document=0, part=0, channel="ngram", form=None, n=5, doc_start=first + start, doc_end=first + end, item_start=0,
        item_end=1, run=9, coverage=1.0, score=1.0, tau=None, alpha=None, nodes=None, item_nodes=None, distance=None,
        condemns=True, excerpt=0,
    )  # fmt: skip
    return excerpt_lines(found, match)


def test_exactly_the_passage_is_coloured(run: tuple[Path, list[Planted]]) -> None:
    found = summarise_run(run[0])
    text = "one\n\n😀 two three\nfour five\nsix seven 😀 eight\n\nnine\nten"
    start, end = text.index("three"), text.index(" 😀 eight")
    for first in (0, 123):
        lines = one_match(found, text, start, end, first)
        assert styled(lines, "bold yellow") == "three\nfour five\nsix seven"
        assert [line.plain for line in lines] == [
            "│ one",
            "│ ",
            "┃ 😀 two three",
            "┃ four five",
            "┃ six seven 😀 eight",
            "│ ",
            "│ nine",
        ]


def test_a_passage_at_either_end_and_in_a_very_long_line(run: tuple[Path, list[Planted]]) -> None:
    found = summarise_run(run[0])
    assert styled(one_match(found, "whole", 0, 5), "bold yellow") == "whole"
    text = "x" * 5_000 + "MATCH" + "y" * 5_000
    (line,) = one_match(found, text, 5_000, 5_005)
    assert line.plain.startswith("┃ …" + "x" * 40 + "MATCHyyy")
    assert len(line.plain) < 1_100


def test_a_long_passage_is_shortened_in_the_middle(run: tuple[Path, list[Planted]]) -> None:
    text = "\n".join(f"line {n}" for n in range(100))
    lines = [
        line.plain for line in one_match(summarise_run(run[0]), text, text.index("line 10"), text.index("line 60") + 7)
    ]
    assert lines[:3] == ["│ line 8", "│ line 9", "┃ line 10"]
    assert lines[10] == "┃ … 41 more lines …"
    assert lines[-4:] == ["┃ line 59", "┃ line 60", "│ line 61", "│ line 62"]


def test_documents_cannot_steer_the_terminal(run: tuple[Path, list[Planted]]) -> None:
    lines = one_match(summarise_run(run[0]), "a\x1b[2J\x07\tb\r\nc", 0, 12)
    assert [line.plain for line in lines] == ["┃ a␛[2J␇  b", "┃ c"]
    assert not any("\x1b" in line.plain or "\x07" in line.plain for line in lines)


def test_a_run_that_found_nothing_says_so(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    text = printed(tmp_path)
    assert "Nothing of 167 items was found in 17,897 documents." in text
    assert "Worst" not in text and "Closest" not in text
    assert "parts untestable" in text


def test_documents_that_are_kept_are_called_the_closest(tmp_path: Path) -> None:
    make_run(tmp_path, 40)
    record = json.loads((tmp_path / "run.json").read_text())
    record["settings"]["policy"].update(words=1_000, tau=None, alpha=None)
    record["counts"].update(drop=0)
    (tmp_path / "run.json").write_text(json.dumps(record))
    text = printed(tmp_path)
    assert "No document of 17,897 is condemned by the policy" in text
    assert "Closest documents, all kept" in text


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(terminal.time, "monotonic", made)
    return made


def test_a_pipe_gets_a_line_every_few_seconds_at_most(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(100_000_000_000, console=Console(file=out, width=80)) as progress:
        progress.stage("scanning")
        for _ in range(1_000):
            clock.now += 0.1
            progress.advance(bytes=100_000_000, text_bytes=90_000_000, documents=10, matches=1)
    lines = out.getvalue().splitlines()
    assert lines[0] == "scanning …"
    assert lines[1] == "scanning 5%, 900 MB/s, 500 documents, 50 matches, 1 min 35 s left"
    assert len(lines) <= 2 + 20
    assert lines[-1] == "scanning 100%, 900 MB/s, 10,000 documents, 1,000 matches"


def test_what_was_resumed_moves_the_bar_and_not_the_speed(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(1_000_000_000, console=Console(file=out, width=80)) as progress:
        progress.stage("learning")
        progress.advance(bytes=600_000_000, text_bytes=600_000_000, documents=6, rejected=1, resumed=True)
        progress.stage("scanning")
        clock.now += 10
        progress.advance(bytes=200_000_000, text_bytes=100_000_000, documents=1, matches=1)
        assert out.getvalue().splitlines()[-1] == "scanning 80%, 10 MB/s, 7 documents, 1 match, 1 rejected, 10 s left"


def test_the_clean_copy_has_a_bar_and_a_speed_of_its_own(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(1_000_000_000, console=Console(file=out, width=80)) as progress:
        progress.stage("scanning")
        progress.advance(bytes=1_000_000_000, text_bytes=900_000_000, documents=7)
        progress.stage("writing clean/")
        progress.wrote(500_000_000, resumed=True)
        clock.now += 10
        progress.wrote(100_000_000)
        assert out.getvalue().splitlines()[-1] == "writing clean/ 60%, 10 MB/s, 7 documents, 0 matches, 40 s left"


def test_quiet_prints_nothing_at_all(clock: Clock) -> None:
    out = io.StringIO()
    for force in (False, True):
        with Progress(10, console=Console(file=out, force_terminal=force), quiet=True) as progress:
            progress.stage("scanning")
            clock.now += 100
            progress.advance(bytes=10, text_bytes=10, documents=1)
    assert out.getvalue() == ""


def test_a_terminal_shows_bar_speed_and_counts_and_is_left_clean() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with Progress(1_000, console=console) as progress:
        progress.stage("scanning")
        progress.advance(bytes=500, text_bytes=400, documents=2_000, matches=3, rejected=1)
        with console.capture() as capture:
            console.print(progress._render())
        shown = capture.get()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "scanning" in plain and "50%" in plain and "━" in plain
    assert "2,000 documents · 3 matches · 1 rejected" in plain
    assert all(cell_len(line) <= 80 for line in plain.splitlines())
    assert out.getvalue().rstrip().endswith("\x1b[2K"), "the bar stayed on the screen"


def test_threads_may_advance_together() -> None:
    progress = Progress(None, console=Console(file=io.StringIO()), quiet=True)
    with progress:
        threads = [
            threading.Thread(target=lambda: [progress.advance(bytes=1, documents=1, matches=2) for _ in range(5_000)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (progress._bytes, progress._documents, progress._matches) == (40_000, 40_000, 80_000)
