"""The demo decontaminates for real: what it claims is checked here on its own output."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import phi_fast.trial
from phi_fast.decontaminate import Run
from phi_fast.demo import DemoResult, run_demo
from phi_fast.disguise import DISGUISES
from phi_fast.errors import InputError

SMALL = {"library_bytes": 400_000, "disguises": ("verbatim", "commented out")}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, str]:
    console = quiet()
    result = run_demo(tmp_path_factory.mktemp("demo") / "out", console=console)
    assert isinstance(console.file, io.StringIO)
    return result, console.file.getvalue()


def test_whole_leaks_are_all_found(demo: tuple[DemoResult, str]) -> None:
    recall = {row.disguise: row for row in demo[0].recall}
    for name in ("verbatim", "prompt only", "re-formatted", "commented out", "whitespace doubled"):
        assert recall[name].missed == (), name
        assert recall[name].testable == 164


def test_edited_and_partial_leaks_are_nearly_all_found(demo: tuple[DemoResult, str]) -> None:
    recall = {row.disguise: row for row in demo[0].recall}
    for name in ("solution only", "docstring removed", "every 8th word replaced", "every 14th word replaced"):
        assert recall[name].share >= 0.95, (name, recall[name].missed)
        assert recall[name].testable >= 120, name
        assert recall[name].testable + len(recall[name].untestable) == recall[name].hidden == 164


def test_what_words_cannot_find_syntax_does(demo: tuple[DemoResult, str]) -> None:
    result, printed = demo
    apart = {name: {row.disguise: row for row in rows} for name, rows in result.channels.items()}
    renamed = "renamed, no docstring"
    assert apart["ngram"][renamed].testable == 0
    assert apart["syntax"][renamed].testable >= 150
    assert apart["syntax"][renamed].share >= 0.95
    assert apart["syntax"]["commented out"].testable == 0
    (whole,) = [row for row in result.recall if row.disguise == renamed]
    assert whole.share >= 0.95
    line = next(line for line in printed.splitlines() if line.startswith(renamed))
    assert line.split("docstring")[1].split()[:4] == ["-", str(whole.found), "of", str(whole.testable)]


def test_hardly_a_clean_file_is_condemned_and_each_is_listed(demo: tuple[DemoResult, str]) -> None:
    result, printed = demo
    assert len(result.false_positives) <= max(1, result.clean_documents / 3000)
    verdicts = set(result.run.verdicts().column("id").to_pylist())
    clean = {row["id"] for row in documents(result.output / "corpus") if " in " not in row["id"]}
    assert {wrong.document for wrong in result.false_positives} == verdicts & clean
    assert f"{len(result.false_positives)} of {result.clean_documents:,} library files condemned" in printed


def documents(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")]


def test_the_clean_corpus_is_the_corpus_less_what_was_condemned(demo: tuple[DemoResult, str]) -> None:
    result, _ = demo
    condemned = set(result.run.verdicts().column("id").to_pylist())
    before = documents(result.output / "corpus")
    assert len(before) == result.clean_documents + sum(row.hidden for row in result.recall)
    assert len({row["id"] for row in before}) == len(before)
    assert documents(result.output / "run" / "clean") == [row for row in before if row["id"] not in condemned]


def test_it_is_quick_and_says_where_everything_is(demo: tuple[DemoResult, str]) -> None:
    result, printed = demo
    assert result.seconds < 30
    assert result.scan_speed > 0
    assert (result.run.path / "report.html").is_file()
    for name in DISGUISES:
        assert name in printed
    assert str(result.run.path / "report.html") in printed
    assert "HumanEval/2, 23, 27" in printed  # one-line solutions: untestable, and named
    assert "phi-fast decide" in printed


def test_a_second_demo_replaces_the_first(tmp_path: Path) -> None:
    first = run_demo(tmp_path / "out", console=quiet(), threads=1, **SMALL)
    second = run_demo(tmp_path / "out", console=quiet(), threads=2, **SMALL)
    assert second.clean_documents == first.clean_documents > 0
    assert second.recall == first.recall
    assert Run.load(tmp_path / "out" / "run").finished


def test_a_folder_of_something_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something that is not a demo's"):
        run_demo(tmp_path, console=quiet(), **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "mine.txt"]
    with pytest.raises(InputError, match="is a file"):
        run_demo(tmp_path / "corpus" / "mine.txt", console=quiet(), **SMALL)


def test_a_python_without_library_source_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phi_fast.trial.sysconfig, "get_path", lambda name: str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no library source"):
        run_demo(tmp_path / "out", console=quiet(), **SMALL)
