"""Many matches and many bytes: memory stays small, excerpts are the most telling, a stop does not wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from phi_fast.corpus import discover
from phi_fast.corpus.documents import id_text
from phi_fast.decontaminate import decontaminate, excerpts, redecide
from phi_fast.decontaminate import write as write_module
from phi_fast.decontaminate.excerpts import AROUND, LONGEST, windows
from phi_fast.decontaminate.outcome import id_of
from phi_fast.decontaminate.summary import summarise_run
from phi_fast.decontaminate.write import Decided, write_corpus
from tests.decontaminate.corpora import documents, exam, exam_file, item_text, jsonl, output_bytes, words


@pytest.mark.slow
def test_memory_stays_small_where_every_document_leaks(tmp_path: Path) -> None:
    """200 MB in 40,000 documents, each with an item: the journal, the tables and removed.jsonl all hold everything."""
    filler = words("filler", 500)
    with (tmp_path / "a.jsonl").open("w") as file:
        for number in range(40_000):
            text = f"{number}\n{filler}{item_text(number % 6, 'question')}{filler[number % 100 :]}"
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    assert (tmp_path / "a.jsonl").stat().st_size > 200_000_000
    code = (
        "import re, sys; from pathlib import Path; from phi_fast.decontaminate import decontaminate\n"
        "run = decontaminate(*sys.argv[1:4], mode=sys.argv[4], threads=2)\n"
        # Not ru_maxrss: that begins with what the process that forked this one held.
        "print(run.removed, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    suite = exam_file(tmp_path / "exam.jsonl")
    for mode in ("drop", "cut"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "a.jsonl"), str(suite), str(tmp_path / mode), mode],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        removed, kilobytes = map(int, done.stdout.split())
        assert removed == 40_000
        assert kilobytes < 400_000


def test_excerpts_hold_what_the_report_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 30 matches that condemn first, then by coverage and run, each within an excerpt; and again after deciding."""
    monkeypatch.setattr(excerpts, "MATCHES", 30)
    rows = documents(400, leaking=False)
    for number in range(0, 400, 2):
        held = " ".join(item_text(number % 6, "question").split()[: 12 + number % 29])
        rows[number]["text"] = words(f"a {number}", 400) + held + "\n" + words(f"b {number}", 400)
    jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run")
    for _ in range(2):
        summary = summarise_run(run.path, listed=30)
        assert len(summary.matches) == 30
        assert all(match.excerpt >= 0 for match in summary.matches)
        for match in summary.matches:
            start, text = summary.excerpts[match.excerpt]
            whole = rows[summary.documents[match.document].row]["text"]
            assert whole[start : start + len(text)] == text
            assert start <= max(0, match.doc_start - AROUND + 1)
        run = redecide(run, coverage=0.95)


def test_windows_join_near_spans_and_never_grow_too_long() -> None:
    assert windows([(5_000, 5_100), (5_500, 5_600)], 9_000) == [(4_000, 6_600)]
    assert windows([(100, 200), (80_000, 80_100)], 80_500) == [(0, 1_200), (79_000, 80_500)]
    assert windows([(3_000, 60_000)], 100_000) == [(2_000, 2_000 + LONGEST)]
    long = windows([(at, at + 50) for at in range(0, 100_000, 700)], 100_000)
    assert all(end - start <= LONGEST for start, end in long)
    assert all(any(start <= at and at + 50 <= end for start, end in long) for at in range(0, 99_900, 700))


def test_ids_as_text() -> None:
    assert [id_of(raw) for raw in (b'"a\\u00e9"', b"1.50", b"1e400", b"-0", b"true", b"null", b'[1]', b'{"a": 1}')] == [
        "aé", "1.50", "1e400", "-0", "true", None, None, None,
    ]  # fmt: skip
    assert id_of(b"9" * 5_000) == "9" * 5_000
    assert id_text(b"raw\xff") == "raw\\xff"


def test_an_interrupted_write_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        jsonl(tmp_path / f"c/{number}.jsonl", documents(5, seed=str(number), leaking=False))
    flushing, release = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        flushing.set()
        release.wait(20)

    def interrupted() -> None:
        assert flushing.wait(20)
        raise KeyboardInterrupt

    real = write_module.wait

    def waiting(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **kwargs) if "timeout" in kwargs else interrupted()

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(write_module, "wait", waiting)
    sources = discover([str(tmp_path / "c")])
    before = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            write_corpus(tmp_path, sources, Decided(), threads=2, done={}, finished=lambda number, says: None)
        assert time.monotonic() - before < 3
    finally:
        release.set()


def test_a_damaged_index_is_learnt_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(50))
    whole = decontaminate(corpus, exam(), tmp_path / "whole")
    import phi_fast.decontaminate.report as report

    monkeypatch.setattr(report, "write_reports", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        decontaminate(corpus, exam(), tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / "run/index.phifast").write_bytes((whole.path / "index.phifast").read_bytes()[:1000])
    run = decontaminate(corpus, exam(), tmp_path / "run")
    assert output_bytes(run.path) == output_bytes(whole.path)
