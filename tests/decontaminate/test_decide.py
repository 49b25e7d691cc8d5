"""Deciding anew, and doing a run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from phi_fast.decontaminate import Run, decontaminate, redecide, reproduce_run
from phi_fast.decontaminate.channels import Channels
from phi_fast.errors import InputError, RunError
from tests.decontaminate.corpora import documents, exam, exam_file, item_text, jsonl, output_bytes, words


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents that hold 100 % to 40 % of an item."""
    rows: list[dict[str, Any]] = documents(60, leaking=False, size=300)
    for number in range(7):
        held = " ".join(item_text(0, "question").split()[: 40 - 4 * number])
        rows[8 * number]["text"] = words(f"a {number}", 200) + held + "\n" + words(f"b {number}", 200)
    jsonl(tmp_path / "corpus/a.jsonl", rows[:30])
    jsonl(tmp_path / "corpus/b.jsonl", [*rows[30:], {"text": None}])
    return tmp_path / "corpus"


@pytest.fixture
def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(*_: Any) -> None:
        raise AssertionError("something was scanned")

    monkeypatch.setattr(Channels, "scan", scanned)


CHOICES: list[dict[str, Any]] = [
    {"coverage": 0.45}, {"coverage": 0.9}, {"mode": "cut", "coverage": 0.5}, {"mode": "flag"}, {"allow": ["exam/0"]},
    {"parts": ["solution"]}, {"words": 33}, {"weights": {"question": 0.8}}, {"mode": "cut", "window": 3_000},
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_same_as_deciding_so_at_first(choice: dict[str, Any], corpus: Path, tmp_path: Path, request: Any) -> None:
    expected = output_bytes(decontaminate(corpus, exam(), tmp_path / "expected", **choice).path)
    run = decontaminate(corpus, exam(), tmp_path / "run")
    request.getfixturevalue("no_scan")
    decided = redecide(run, write=True, **choice)
    assert decided.finished
    assert output_bytes(decided.path) == expected


def test_counts_by_coverage(corpus: Path, tmp_path: Path, no_scan: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run = decontaminate(corpus, exam(), tmp_path / "run")
    assert run.counts["drop"] == 4  # 100, 90, 80 and 70 %
    assert redecide(run.path, coverage=0.4).counts["drop"] == 7
    assert redecide(run.path, coverage=0.95).counts["drop"] == 1


def test_without_write_the_clean_corpus_stays(corpus: Path, tmp_path: Path) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    names = [
        path for path in run.path.rglob("*") if path.is_file() and ("clean" in path.parts or "removed" in path.name)
    ]
    before = {path: path.read_bytes() for path in names}
    decided = redecide(run, coverage=0.4)
    assert {path: path.read_bytes() for path in names} == before
    assert decided.verdicts().num_rows == 7
    assert decided.record["clean_policy"] == run.record["clean_policy"] != decided.record["settings"]["policy"]
    assert "40%" in (run.path / "report.md").read_text() or "40 %" in (run.path / "report.md").read_text()


def test_the_corpus_may_be_gone_unless_it_is_to_be_written(corpus: Path, tmp_path: Path) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    (corpus / "a.jsonl").rename(tmp_path / "away.jsonl")
    assert redecide(run, coverage=0.4, mode="cut").counts["cut"] == 7
    before = output_bytes(run.path)
    with pytest.raises(RunError, match=r"the corpus is not what was scanned.*\n  input a.jsonl: there, not now"):
        redecide(run.path, coverage=0.5, write=True)
    assert output_bytes(run.path) == before


def test_decided_run_is_another_run(corpus: Path, tmp_path: Path) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    redecide(run, coverage=0.4)
    with pytest.raises(InputError, match=r"coverage: 0.4 there, 0.7 now"):
        decontaminate(corpus, exam(), tmp_path / "run")
    assert decontaminate(corpus, exam(), tmp_path / "run", coverage=0.4).counts["drop"] == 7


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"coverage": 0.1}, "evidence holds matches of coverage 0.2 or more"),
        ({"n": 8}, "was scanned with n 13 and 4. Scan again with phi-fast decontaminate --n 8"),
        ({"preset": "tulu3"}, "n 8: "),
        ({"preset": "none"}, "give one of default"),
    ],
)
def test_refuses_what_the_evidence_does_not_hold(
    choice: dict[str, Any], message: str, corpus: Path, tmp_path: Path
) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    before = output_bytes(run.path)
    with pytest.raises(InputError, match=message):
        redecide(run, **choice)
    assert output_bytes(run.path) == before


def test_an_interrupted_decision_is_made_again(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import phi_fast.decontaminate.write as write

    expected = output_bytes(decontaminate(corpus, exam(), tmp_path / "expected", coverage=0.4).path)
    run = decontaminate(corpus, exam(), tmp_path / "run")
    real = write.write_corpus
    monkeypatch.setattr(write, "write_corpus", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        redecide(run, coverage=0.4, write=True)
    monkeypatch.setattr(write, "write_corpus", real)
    half = Run.load(run.path)
    assert not half.finished
    with pytest.raises(RunError, match=r"phi-fast decide was interrupted.*Give it again"):
        decontaminate(corpus, exam(), tmp_path / "run", coverage=0.4)
    with pytest.raises(RunError, match="not finished"):
        reproduce_run(run.path)
    assert output_bytes(redecide(half, coverage=0.4, write=True).path) == expected


def test_an_unfinished_run_cannot_be_decided(corpus: Path, tmp_path: Path) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    record = run.record | {"state": "scanning"}
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="the run is not finished; give its command again first"):
        redecide(run.path, coverage=0.4)


def test_reproduces(corpus: Path, tmp_path: Path) -> None:
    suite = exam_file(tmp_path / "exam.jsonl")
    run = decontaminate(corpus, f"exam={suite}", tmp_path / "run", coverage=0.6)
    redecide(run, coverage=0.5, mode="cut")
    again = reproduce_run(tmp_path / "run", threads=1)
    assert again.same
    assert again.differences == ()
    assert again.hashes == Run.load(run.path).record["hashes"]


def test_reproduces_a_suite_given_in_python(corpus: Path, tmp_path: Path) -> None:
    again = reproduce_run(decontaminate(corpus, exam(), tmp_path / "run"))
    assert again.same
    assert again.differences == ()


def test_says_what_cannot_be_reproduced(corpus: Path, tmp_path: Path) -> None:
    suite = exam_file(tmp_path / "exam.jsonl")
    run = decontaminate(corpus, f"exam={suite}", tmp_path / "run")
    jsonl(corpus / "a.jsonl", documents(40))
    exam_file(suite, items=4)
    again = reproduce_run(run)
    assert not again.same
    said = "\n".join(again.differences)
    for part in ("suite exam has changed since", "input a.jsonl has changed since", "index: another sha256",
                 "evidence: another sha256; row 0 is file a.jsonl, row 0,", "verdicts: another sha256"):  # fmt: skip
        assert part in said


def test_the_same_rows_in_other_bytes_are_said_to_be_the_same(corpus: Path, tmp_path: Path) -> None:
    run = decontaminate(corpus, exam(), tmp_path / "run")
    path = run.path / "evidence.parquet"
    pq.write_table(pq.read_table(path), path, compression="gzip")
    record = json.loads((run.path / "run.json").read_bytes())
    record["hashes"]["evidence"] = "0" * 64
    record["versions"]["pyarrow"] = "1.0"
    (run.path / "run.json").write_text(json.dumps(record))
    again = reproduce_run(run.path)
    assert not again.same
    assert any(line.startswith("pyarrow: 1.0 there") for line in again.differences)
    assert any("but the same" in line and "written by other versions" in line for line in again.differences)
