"""Bad input and bad luck: a clear message, and nothing lost."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from phi_fast.decontaminate import decontaminate
from phi_fast.decontaminate import run as run_module
from phi_fast.decontaminate.scan import Unwatched
from phi_fast.errors import InputError, RunError
from phi_fast.suites import Item, Part, Suite
from tests.decontaminate.corpora import documents, exam, jsonl, leaking, lines, output_bytes

GOOD = json.dumps({"id": "good", "text": "a plain line of words"}).encode()
BAD = {
    b"{broken": "malformed JSON",
    b'{"id": 1}': 'no field "text"',
    b'{"id": 2, "text": null}': '"text" is null, expected a string',
    b'{"id": 3, "text": 17}': '"text" is a number, expected a string',
    b'[1, "text"]': "not a JSON object",
    b'{"text": "a\xff"}': "invalid UTF-8 at byte 11 of the line",
    b'{"text": "\\ud800"}': "a lone surrogate",
    b'{"text": "nul \x00 inside"}': "malformed JSON",
}


def test_each_bad_line_is_set_aside_with_file_row_and_reason(tmp_path: Path) -> None:
    raw = b"".join(GOOD + b"\n" + line + b"\n" for line in BAD) + b"\n  \n" + GOOD
    (tmp_path / "a.jsonl").write_bytes(raw)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", unit_bytes=100)
    rejected = lines(run.path / "rejected.jsonl")
    assert [one["row"] for one in rejected] == list(range(1, 2 * len(BAD), 2))
    assert {one["file"] for one in rejected} == {"a.jsonl"}
    for one, (line, reason) in zip(rejected, BAD.items(), strict=True):
        assert one["reason"].startswith(reason)
        held = base64.b64decode(one["raw_base64"]) if "raw_base64" in one else one["raw"].encode()
        assert held == line
        assert raw[one["offset"] : one["offset"] + one["length"]] == line
    assert (run.path / "clean/a.jsonl").read_bytes() == (GOOD + b"\n") * len(BAD) + b"\n  \n" + GOOD
    assert (run.counts["documents"], run.counts["rejected"]) == (len(BAD) + 1, len(BAD))


@pytest.mark.parametrize("threads", [1, 4])
def test_strict_stops_at_the_first_bad_row(threads: int, tmp_path: Path) -> None:
    rows = [json.dumps(row).encode() for row in documents(300)]
    rows[201] = b"{broken"
    rows[250] = b"{too"
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(rows))
    arguments: dict[str, Any] = {"unit_bytes": 5_000, "threads": threads}
    for _ in range(2):  # again: what the journal holds is refused as well
        with pytest.raises(InputError, match=r"a.jsonl line 202: malformed JSON.* Without --strict"):
            decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", strict=True, **arguments)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", **arguments)
    assert [one["row"] for one in lines(run.path / "rejected.jsonl")] == [201, 250]


def test_nul_characters_are_text(tmp_path: Path) -> None:
    rows = documents(20)
    rows[3]["text"] += "\0 a nul"
    jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run")
    assert run.counts["rejected"] == 0
    assert lines(run.path / "removed.jsonl")[0]["text"] == rows[3]["text"]


def test_null_texts_of_a_table_are_set_aside(tmp_path: Path) -> None:
    rows = documents(40)
    for number in (5, 13, 39):
        rows[number]["text"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=12)
    run = decontaminate(tmp_path / "a.parquet", exam(), tmp_path / "run")
    rejected = lines(run.path / "rejected.jsonl")
    assert [(one["row"], one["id"]) for one in rejected] == [(5, "doc-5"), (13, "doc-13"), (39, "doc-39")]
    assert all("null" in one["reason"] for one in rejected)
    gone = {5, 13, 39, *leaking(40)}
    assert pq.read_table(run.path / "clean/a.parquet").to_pylist() == [
        row for number, row in enumerate(rows) if number not in gone
    ]


def test_a_long_line_across_many_units(tmp_path: Path) -> None:
    rows = documents(40)
    rows[3]["text"] += "padding " * 300_000
    rows[20]["text"] = "clean and long " * 200_000
    corpus = jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=10_000, threads=3)
    kept = [line for number, line in enumerate(corpus.read_bytes().splitlines(True)) if number not in leaking(40)]
    assert (run.path / "clean/a.jsonl").read_bytes() == b"".join(kept)
    assert lines(run.path / "removed.jsonl")[0]["text"] == rows[3]["text"]


def test_an_empty_file_is_an_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/empty.jsonl").touch()
    jsonl(tmp_path / "c/a.jsonl", documents(10))
    run = decontaminate(tmp_path / "c", exam(), tmp_path / "run")
    assert (run.path / "clean/empty.jsonl").read_bytes() == b""
    assert [one["documents"] for one in run.record["inputs"]] == [10, 0]


@pytest.mark.parametrize("codec", ["gz", "zst"])
def test_a_truncated_file_gives_what_can_be_read(codec: str, tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "plain/a.jsonl", documents(400)).read_bytes()
    packed = gzip.compress(plain) if codec == "gz" else zstandard.ZstdCompressor().compress(plain)
    corpus = tmp_path / f"a.jsonl.{codec}"
    corpus.write_bytes(packed[: len(packed) * 2 // 3])
    run = decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=20_000)
    rejected = lines(run.path / "rejected.jsonl")
    assert len(rejected) == 1
    assert rejected[0]["row"] == run.counts["documents"]
    assert (
        "truncated" in rejected[0]["reason"] or "incomplete" in rejected[0]["reason"] or "end" in rejected[0]["reason"]
    )
    removed = leaking(run.counts["documents"])
    assert [one["row"] for one in run.verdicts().to_pylist()] == removed
    clean = (run.path / f"clean/a.jsonl.{codec}").read_bytes()
    unpacked = (
        gzip.decompress(clean) if codec == "gz" else zstandard.ZstdDecompressor().decompressobj().decompress(clean)
    )
    kept = [line for number, line in enumerate(plain.splitlines(True)) if number not in removed]
    assert kept[: len(unpacked.splitlines())] == unpacked.splitlines(True)
    assert len(unpacked.splitlines()) == run.counts["documents"] - len(removed)


def test_a_corrupt_page_costs_its_rows_alone(tmp_path: Path) -> None:
    rows = documents(90)
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.Table.from_pylist(rows), path, row_group_size=30, compression="zstd", use_dictionary=False,
        write_page_checksum=True,
    )  # fmt: skip
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    assert chunk.path_in_schema == "text"
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(data)
    run = decontaminate(path, exam(), tmp_path / "run")
    rejected = lines(run.path / "rejected.jsonl")
    assert sum(one.get("rows", 1) for one in rejected) == 30
    assert {one["row"] for one in rejected} <= set(range(30, 60))
    assert [one["row"] for one in run.verdicts().to_pylist()] == [row for row in leaking(90) if not 30 <= row < 60]
    kept = [row for number, row in enumerate(rows) if number not in leaking(90) and not 30 <= number < 60]
    assert pq.read_table(run.path / "clean/a.parquet").to_pylist() == kept


def test_a_suite_with_nothing_testable_is_refused(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(5))
    short = Suite("short", (Item("short/1", (Part("question", "add two numbers"),)),), "a test", "0" * 64)
    with pytest.raises(InputError, match=r'suite "short" from a test: no item of it is testable.*3 words, under 13'):
        decontaminate(corpus, [exam(), short], tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Meanwhile(Unwatched):
    """Does something to the corpus once the first unit is scanned, or once writing begins."""

    at = "scanning"

    @staticmethod
    def happen() -> None:
        raise NotImplementedError

    def stage(self, name: str) -> None:
        if name == self.at:
            self.happen()


def meanwhile(stage: str, what: Any) -> type[Meanwhile]:
    return type("Now", (Meanwhile,), {"at": stage, "happen": staticmethod(what)})


@pytest.mark.parametrize("stage", ["scanning", "writing"])
def test_a_file_that_grows_is_read_as_it_was(stage: str, tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(50))
    before = corpus.read_bytes()

    def grow() -> None:
        with corpus.open("ab") as file:
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in documents(10, seed="late-")))

    run = decontaminate(corpus, exam(), tmp_path / "run", unit_bytes=4_000, progress=meanwhile(stage, grow))
    kept = [line for number, line in enumerate(before.splitlines(True)) if number not in leaking(50)]
    assert (run.path / "clean/a.jsonl").read_bytes() == b"".join(kept)
    assert run.counts["documents"] == 50
    assert len(run.record["notes"]) == 1
    assert "a.jsonl" in run.record["notes"][0]


@pytest.mark.parametrize("stage", ["scanning", "writing"])
def test_a_vanished_file_stops_and_can_be_gone_on_with(stage: str, tmp_path: Path) -> None:
    corpus, aside = jsonl(tmp_path / "c/a.jsonl", documents(50)), tmp_path / "aside"
    jsonl(tmp_path / "c/b.jsonl", documents(50, seed="b-"))
    whole = decontaminate(tmp_path / "c", exam(), tmp_path / "whole", unit_bytes=4_000)
    vanish = meanwhile(stage, lambda: shutil.move(corpus, aside))
    with pytest.raises(RunError, match=r"a\.jsonl"):
        decontaminate(tmp_path / "c", exam(), tmp_path / "run", unit_bytes=4_000, progress=vanish)
    shutil.move(aside, corpus)
    run = decontaminate(tmp_path / "c", exam(), tmp_path / "run", unit_bytes=4_000)
    assert output_bytes(run.path) == output_bytes(whole.path)


@pytest.mark.parametrize("step", ["write_evidence", "write_verdicts", "write_excerpts", "write_corpus"])
def test_a_full_disk_stops_and_can_be_gone_on_with(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fsync fails from this step on, as on a full disk; then there is room again."""
    import phi_fast.decontaminate.evidence as evidence
    import phi_fast.decontaminate.excerpts as excerpts
    import phi_fast.decontaminate.write as write

    corpus = jsonl(tmp_path / "a.jsonl", documents(50))
    whole = decontaminate(corpus, exam(), tmp_path / "whole")
    module = {"write_evidence": evidence, "write_excerpts": excerpts}.get(step, write)
    real = getattr(module, step)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    def stepping(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(os, "fsync", full)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, step, stepping)
    with pytest.raises(RunError, match=r"(?i)(no space left|disk full).*again"):
        decontaminate(corpus, exam(), tmp_path / "run")
    monkeypatch.undo()
    assert not list((tmp_path / "run").rglob("*.part"))
    run = decontaminate(corpus, exam(), tmp_path / "run")
    assert output_bytes(run.path) == output_bytes(whole.path)


def test_failing_reports_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(50))
    whole = decontaminate(corpus, exam(), tmp_path / "whole")
    import phi_fast.decontaminate.report as report

    monkeypatch.setattr(report, "write_reports", lambda folder: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(RunError, match=r"No space left. Nothing is lost: make room"):
        decontaminate(corpus, exam(), tmp_path / "run")
    monkeypatch.undo()
    assert output_bytes(decontaminate(corpus, exam(), tmp_path / "run").path) == output_bytes(whole.path)
    assert run_module.usable_cores() >= 1
