"""A run's folder: gone on with, shown again, refused, replaced; and never anything else touched."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.decontaminate import Run, decontaminate
from phi_fast.decontaminate.scan import Unwatched
from phi_fast.errors import InputError, RunError
from tests.decontaminate.corpora import documents, exam, exam_file, jsonl, output_bytes


class Stop(Exception):
    pass


class StopsAfter(Unwatched):
    """Progress that ends the run after some units, as a kill would, but where a test can say."""

    units = 3

    def advance(self, **counts: Any) -> None:
        if not counts.get("resumed"):
            self.units -= 1
            if self.units < 0:
                raise Stop


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number in range(3):
        jsonl(tmp_path / f"corpus/part-{number}.jsonl", documents(60, seed=f"{number}-"))
    return tmp_path / "corpus"


def begun(corpus: Path, output: Path) -> None:
    with pytest.raises(Stop):
        decontaminate(corpus, exam(), output, threads=1, unit_bytes=4_000, progress=StopsAfter)


class Counts(Unwatched):
    seen: list[dict[str, Any]]

    def __init__(self, total_bytes: int) -> None:
        type(self).seen = [{"total": total_bytes}]

    def stage(self, name: str) -> None:
        self.seen.append({"stage": name})

    def advance(self, **counts: Any) -> None:
        self.seen.append(counts)

    def wrote(self, bytes: int, *, resumed: bool = False) -> None:
        self.seen.append({"wrote": bytes, "resumed": resumed})


def test_the_clean_copies_progress_adds_up_in_every_format(tmp_path: Path) -> None:
    rows, corpus = documents(200), tmp_path / "corpus"
    jsonl(corpus / "plain.jsonl", rows)
    jsonl(corpus / "nothing-removed.jsonl", documents(50, seed="clean", leaking=False))
    (corpus / "packed.jsonl.gz").write_bytes(gzip.compress((corpus / "plain.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), corpus / "table.parquet", row_group_size=40)
    decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=4_000, progress=Counts)
    wrote = [one for one in Counts.seen if "wrote" in one]
    assert sum(one["wrote"] for one in wrote) == Counts.seen[0]["total"]
    assert all(one["wrote"] >= 0 and not one["resumed"] for one in wrote)

    class StopsInWriting(Unwatched):
        sizes: ClassVar[list[int]] = []

        def wrote(self, bytes: int, *, resumed: bool = False) -> None:
            self.sizes.append(bytes)
            if sum(self.sizes) > 30_000:
                raise Stop

    with pytest.raises(Stop):
        decontaminate(corpus, exam(), tmp_path / "again", threads=1, unit_bytes=4_000, progress=StopsInWriting)
    run = decontaminate(corpus, exam(), tmp_path / "again", unit_bytes=4_000, progress=Counts)
    wrote = [one for one in Counts.seen if "wrote" in one]
    assert sum(one["wrote"] for one in wrote) == Counts.seen[0]["total"]
    assert output_bytes(run.path) == output_bytes(tmp_path / "run")


def test_goes_on_where_it_stopped(corpus: Path, tmp_path: Path) -> None:
    whole = decontaminate(corpus, exam(), tmp_path / "whole", unit_bytes=4_000)
    begun(corpus, tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_bytes())
    assert record["state"] == "scanning"
    run = decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=4_000, progress=Counts)
    assert output_bytes(run.path) == output_bytes(whole.path)
    assert run.record["timing"]["resumed"] is True
    resumed, *fresh = [one for one in Counts.seen if "bytes" in one]
    assert resumed["resumed"] is True
    assert 0 < resumed["documents"] < 180
    assert resumed["documents"] + sum(one["documents"] for one in fresh) == 180
    assert resumed["bytes"] + sum(one["bytes"] for one in fresh) == Counts.seen[0]["total"]
    assert [one["stage"] for one in Counts.seen if "stage" in one] == [
        "learning", "scanning", "writing", "writing clean/", "reporting",
    ]  # fmt: skip


def test_goes_on_from_every_record_of_the_journal(tmp_path: Path) -> None:
    """Cut the journal after each of its records, wherever a kill may fall, and a little behind each."""
    jsonl(tmp_path / "corpus/a.jsonl", documents(40))
    (tmp_path / "corpus/b.jsonl.gz").write_bytes(gzip.compress(b"".join(
        json.dumps(row).encode() + b"\n" for row in [*documents(40, seed="b-"), {"text": None}]
    )))  # fmt: skip
    pq.write_table(pa.Table.from_pylist(documents(40, seed="c-")), tmp_path / "corpus/c.parquet", row_group_size=9)
    arguments: dict[str, Any] = {"unit_bytes": 9_000, "mode": "cut", "threads": 2}
    whole = decontaminate(tmp_path / "corpus", exam(), tmp_path / "whole", **arguments)
    journal = (whole.path / "journal.bin").read_bytes()
    record = json.dumps(whole.record | {"state": "scanning"})
    ends = [place for place in range(1, len(journal)) if journal.startswith(b"PFJ1", place)]
    assert len(ends) > 15
    for end in ends:
        for size in (end, end + 30):
            (tmp_path / "run").mkdir()
            (tmp_path / "run/run.json").write_text(record)
            (tmp_path / "run/journal.bin").write_bytes(journal[:size])
            shutil.copy(whole.path / "index.phifast", tmp_path / "run")
            run = decontaminate(tmp_path / "corpus", exam(), tmp_path / "run", **arguments)
            assert output_bytes(run.path) == output_bytes(whole.path)
            shutil.rmtree(tmp_path / "run")


def test_a_finished_run_is_not_done_again(corpus: Path, tmp_path: Path) -> None:
    first = decontaminate(corpus, exam(), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    again = decontaminate(corpus, exam(), tmp_path / "run")
    assert again.record == first.record
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


def test_the_same_inputs_named_otherwise_are_the_same_run(corpus: Path, tmp_path: Path, monkeypatch: Any) -> None:
    decontaminate(corpus, [str(exam_file(tmp_path / "exam.jsonl"))], tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    again = decontaminate("corpus/", ["exam=exam.jsonl"], "run")
    assert again.finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coverage": 0.5}, "coverage: 0.7 there, 0.5 now"),
        ({"mode": "cut"}, "mode: drop there, cut now"),
        ({"n": [8]}, "n: 13, 4 there, 8 now"),
        ({"allow": ["exam/3"]}, "allow: none there, exam/3 now"),
        ({"against": exam(5)}, r"suite exam has changed since: content \(sha256\): .* there, .* now"),
        ({"id": "stars"}, "input part-0.jsonl has changed since: id: id there, stars now"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_run_is_refused_with_what_differs(
    corpus: Path, tmp_path: Path, change: dict[str, Any], message: str, finished: bool
) -> None:
    if finished:
        decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=4_000)
    else:
        begun(corpus, tmp_path / "run")
    before = output_bytes(tmp_path / "run") if finished else (tmp_path / "run/journal.bin").read_bytes()
    arguments = {"against": exam(), "unit_bytes": 4_000} | change
    with pytest.raises(InputError, match=message) as caught:
        decontaminate(corpus, output=tmp_path / "run", **arguments)
    assert "--overwrite" in str(caught.value)
    assert ("phi-fast decide" in str(caught.value)) == finished
    assert before == (output_bytes(tmp_path / "run") if finished else (tmp_path / "run/journal.bin").read_bytes())


def test_a_changed_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    begun(corpus, tmp_path / "run")
    jsonl(corpus / "part-1.jsonl", documents(61, seed="1-"))
    (corpus / "part-2.jsonl").unlink()
    jsonl(corpus / "part-3.jsonl", documents(10))
    with pytest.raises(InputError) as caught:
        decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=4_000)
    for said in ("part-2.jsonl: there, not now", "part-3.jsonl: now, not there", "part-1.jsonl has changed"):
        assert said in str(caught.value)


def test_overwrite_replaces_a_run_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    decontaminate(corpus, exam(), tmp_path / "run", mode="flag")
    (tmp_path / "run/notes.txt").write_text("mine")
    run = decontaminate(corpus, exam(), tmp_path / "run", coverage=0.5, overwrite=True)
    assert run.policy.coverage == 0.5
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    fresh = decontaminate(corpus, exam(), tmp_path / "fresh", coverage=0.5)
    assert output_bytes(run.path) == output_bytes(fresh.path)


def test_overwrite_does_a_finished_run_again(corpus: Path, tmp_path: Path) -> None:
    first = decontaminate(corpus, exam(), tmp_path / "run")
    (first.path / "verdicts.parquet").write_bytes(b"spoilt")
    again = decontaminate(corpus, exam(), tmp_path / "run", overwrite=True)
    assert again.verdicts().num_rows == 18


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_no_run_is_never_touched(corpus: Path, tmp_path: Path, overwrite: bool) -> None:
    thesis = tmp_path / "thesis"
    (thesis / "clean").mkdir(parents=True)
    (thesis / "clean/chapter.txt").write_text("years of work")
    (thesis / "run.json").write_text('{"format": 1, "my": "own"}')
    with pytest.raises(InputError, match=r"has no sound run.json, so it is no run of phi-fast's"):
        decontaminate(corpus, exam(), thesis, overwrite=overwrite)
    (thesis / "run.json").unlink()
    (thesis / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"holds a.txt and no run.json"):
        decontaminate(corpus, exam(), thesis, overwrite=overwrite)
    assert (thesis / "clean/chapter.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="is a file"):
        decontaminate(corpus, exam(), thesis / "a.txt", overwrite=overwrite)


def test_output_inside_the_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    for inside in (corpus / "run", corpus):
        with pytest.raises(InputError, match=r"lies inside the corpus .*Give --output a folder outside"):
            decontaminate(corpus, exam(), inside)
    assert sorted(os.listdir(corpus)) == ["part-0.jsonl", "part-1.jsonl", "part-2.jsonl"]


def test_two_at_once_are_refused(corpus: Path, tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Waits(Unwatched):
        def advance(self, **counts: Any) -> None:
            entered.set()
            leave.wait(30)

    done: list[Run] = []
    first = threading.Thread(
        target=lambda: done.append(decontaminate(corpus, exam(), tmp_path / "run", threads=1, progress=Waits))
    )
    first.start()
    try:
        assert entered.wait(30)
        for overwrite in (False, True):
            with pytest.raises(RunError, match="another phi-fast is working on this run"):
                decontaminate(
                    corpus, exam(), tmp_path / "run", overwrite=overwrite, coverage=0.5 if overwrite else None
                )
    finally:
        leave.set()
        first.join(30)
    assert done[0].finished


def test_loading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run \(no run.json\)"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        Run.load(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99; this phi_fast reads format 2"):
        Run.load(tmp_path)
