"""Decontamination end to end: what is written, in every format, whatever the threads."""

from __future__ import annotations

import bz2
import gzip
import importlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import phi_fast
from phi_fast.decontaminate import Run, decontaminate, reproduce_run
from phi_fast.errors import GateError, InputError
from tests.decontaminate.corpora import documents, exam, item_text, jsonl, leaking, lines, output_bytes

EVIDENCE_COLUMNS = [
    "id", "file", "row", "channel", "suite", "item", "part", "n", "doc_start", "doc_end", "item_start", "item_end",
    "run", "coverage", "score", "words", "form", "nodes", "item_nodes", "tau", "alpha", "distance",
]  # fmt: skip


def test_package_is_the_function(tmp_path: Path) -> None:
    importlib.import_module("phi_fast.decontaminate.policy")  # what would hide a function of the same name
    corpus = jsonl(tmp_path / "a.jsonl", documents(20))
    run = phi_fast.decontaminate(corpus, exam(), tmp_path / "run", threads=1)
    assert isinstance(run, Run)
    assert run.counts["drop"] == 2
    assert phi_fast.decontaminate.policy.Policy().coverage == 0.7


def test_jsonl_end_to_end(tmp_path: Path) -> None:
    rows = documents(200)
    corpus = jsonl(tmp_path / "corpus/a.jsonl", rows)
    run = decontaminate(tmp_path / "corpus", exam(), tmp_path / "run", threads=2)
    removed = leaking(200)

    kept = [line for number, line in enumerate(corpus.read_bytes().splitlines(True)) if number not in removed]
    assert (run.path / "clean/a.jsonl").read_bytes() == b"".join(kept)

    gone = lines(run.path / "removed.jsonl")
    assert [one["row"] for one in gone] == removed
    assert [list(one) for one in gone] == [["id", "file", "row", "verdict", "reason", "text"]] * len(removed)
    assert [one["text"] for one in gone] == [rows[number]["text"] for number in removed]
    assert gone[0]["reason"] == "exam/0 solution: coverage 1.00, run 40 words"

    verdicts = run.verdicts().to_pylist()
    assert [one["id"] for one in verdicts] == [f"doc-{number}" for number in removed]
    assert {one["verdict"] for one in verdicts} == {"drop"}
    assert run.verdicts().column_names == ["id", "file", "row", "verdict", "reason"]

    evidence = run.evidence()
    assert evidence.column_names == EVIDENCE_COLUMNS
    best = evidence.to_pylist()[0]
    assert {name: best[name] for name in ("id", "file", "row", "channel", "suite", "item", "part", "n", "run")} == {
        "id": "doc-3", "file": "a.jsonl", "row": 3, "channel": "ngram", "suite": "exam", "item": "exam/0",
        "part": "solution", "n": 13, "run": 40,
    }  # fmt: skip
    assert best["coverage"] == 1
    found = rows[3]["text"][best["doc_start"] : best["doc_end"]]
    assert found == item_text(0, "solution").strip()
    assert set(evidence["n"].to_pylist()) == {13, 4}

    assert run.counts == {
        "files": 1, "bytes": corpus.stat().st_size, "rows": 200, "documents": 200,
        "text_bytes": sum(len(row["text"]) for row in rows), "matches": evidence.num_rows, "matched_documents": 20,
        "rejected": 0, "drop": 20, "cut": 0, "flag": 0, "keep": 180,
    }  # fmt: skip
    assert run.share == 0.1
    assert not (run.path / "work").exists()
    assert "exam" in (run.path / "report.md").read_text()
    assert "<html" in (run.path / "report.html").read_text()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.ZstdCompressor().compress,
}  # fmt: skip
UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress, "bz2": bz2.decompress, "xz": lzma.decompress,
    "zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}  # fmt: skip


@pytest.mark.parametrize("codec", PACKERS)
def test_compressed(codec: str, tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "plain/a.jsonl", documents(100)).read_bytes()
    (tmp_path / f"a.jsonl.{codec}").write_bytes(PACKERS[codec](plain))
    run = decontaminate(tmp_path / f"a.jsonl.{codec}", exam(), tmp_path / "run", threads=2, unit_bytes=10_000)
    kept = [line for number, line in enumerate(plain.splitlines(True)) if number not in leaking(100)]
    assert UNPACKERS[codec]((run.path / f"clean/a.jsonl.{codec}").read_bytes()) == b"".join(kept)
    assert [one["row"] for one in run.verdicts().to_pylist()] == leaking(100)
    assert [one["id"] for one in lines(run.path / "removed.jsonl")] == [f"doc-{number}" for number in leaking(100)]


@pytest.mark.parametrize("mode", ["drop", "cut"])
def test_parquet_keeps_schema_and_columns(mode: Any, tmp_path: Path) -> None:
    rows = documents(100)
    schema = pa.schema(
        [("stars", pa.int16()), ("text", pa.large_string()), ("id", pa.string())], metadata={"made": "by hand"}
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "a.parquet", row_group_size=17)
    run = decontaminate(tmp_path / "a.parquet", exam(), tmp_path / "run", mode=mode, unit_bytes=5_000, threads=2)
    clean = pq.read_table(run.path / "clean/a.parquet")
    assert clean.schema.equals(schema, check_metadata=True)
    if mode == "drop":
        assert clean.to_pylist() == [
            {name: row[name] for name in ("stars", "text", "id")} for row in rows if row["stars"] not in leaking(100)
        ]
    else:
        assert clean["stars"].to_pylist() == list(range(100))
        changed = [one["stars"] for one, row in zip(clean.to_pylist(), rows, strict=True) if one["text"] != row["text"]]
        assert changed == leaking(100)
    assert [one["id"] for one in run.verdicts().to_pylist()] == [f"doc-{number}" for number in leaking(100)]


def test_ids_are_the_inputs_own_or_file_and_row(tmp_path: Path) -> None:
    rows = documents(90)
    ids: list[Any] = [17, 1.5, None, True, "plain", 7, "ü\ud800", "", 0]
    for number, identity in zip(leaking(90), ids, strict=True):
        rows[number]["id"] = identity
    raw = b"".join(json.dumps(row).encode().replace(b'"id": 1.5,', b'"id": 1.50,') + b"\n" for row in rows)
    (tmp_path / "a.jsonl").write_bytes(raw)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run")
    expected = ["17", "1.50", "a.jsonl:23", "true", "plain", "7", "ü\\ud800", "", "0"]
    assert [one["id"] for one in run.verdicts().to_pylist()] == expected
    assert list(dict.fromkeys(run.evidence()["id"].to_pylist())) == expected


def test_source_tree(tmp_path: Path) -> None:
    tree = tmp_path / "project"
    for number, row in enumerate(documents(30)):
        path = tree / f"pkg{number % 3}/m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"])
    run = decontaminate(tree, exam(), tmp_path / "run")
    verdicts = run.verdicts().to_pylist()
    assert [one["id"] for one in verdicts] == ["project/pkg0/m3.py", "project/pkg1/m13.py", "project/pkg2/m23.py"]
    clean = {path.relative_to(run.path / "clean/project") for path in (run.path / "clean/project").rglob("*.py")}
    assert len(clean) == 27
    assert not {Path("pkg0/m3.py"), Path("pkg1/m13.py"), Path("pkg2/m23.py")} & clean


def test_a_corpus_behind_a_url(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    rows = documents(60)
    plain = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    store.pipe("/far/a.jsonl", plain)
    store.pipe("/far/b.jsonl.gz", gzip.compress(plain))
    run = decontaminate("memory://far/*", exam(), tmp_path / "run", unit_bytes=5_000)
    assert [(one["file"], one["row"]) for one in run.verdicts().to_pylist()] == [
        (name, row) for name in ("a.jsonl", "b.jsonl.gz") for row in leaking(60)
    ]
    kept = b"".join(line for number, line in enumerate(plain.splitlines(True)) if number not in leaking(60))
    assert (run.path / "clean/a.jsonl").read_bytes() == kept
    assert gzip.decompress((run.path / "clean/b.jsonl.gz").read_bytes()) == kept


@pytest.mark.parametrize("mode", ["drop", "cut"])
def test_same_bytes_whatever_the_threads(mode: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for number in range(4):
        jsonl(corpus / f"part-{number}.jsonl", documents(150, seed=f"{number}-"))
    packed = b"".join(json.dumps(row).encode() + b"\n" for row in documents(150, seed="packed-")) + b"broken\n"
    (corpus / "packed.jsonl.gz").write_bytes(gzip.compress(packed, mtime=0))
    pq.write_table(pa.Table.from_pylist(documents(150, seed="table-")), corpus / "t.parquet", row_group_size=40)
    outputs = []
    for threads in (1, 2, 5):
        run = decontaminate(corpus, exam(), tmp_path / f"run{threads}", threads=threads, mode=mode, unit_bytes=3_000)
        outputs.append(output_bytes(run.path))
    assert len(outputs[0]) == 15
    for other in outputs[1:]:
        assert {name for name in outputs[0] if other.get(name) != outputs[0][name]} == set()


def test_cut_takes_the_match_and_keeps_the_row(tmp_path: Path) -> None:
    rows = documents(20, size=400)
    jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", mode="cut", window=50)
    clean = lines(run.path / "clean/a.jsonl")
    assert [one["id"] for one in clean] == [row["id"] for row in rows]
    for number, (new, old) in enumerate(zip(clean, rows, strict=True)):
        if number in leaking(20):
            leak = item_text(number // 10, "question" if number // 10 else "solution")
            assert not set(leak.split()) & set(new["text"].split())
            assert set(new["text"].splitlines()) < set(old["text"].splitlines())
            assert len(new["text"]) > len(old["text"]) - len(leak) - 2 * (50 + 80)
            assert new["stars"] == old["stars"]
        else:
            assert new == old
    gone = lines(run.path / "removed.jsonl")
    assert [(one["verdict"], one["text"]) for one in gone] == [("cut", rows[3]["text"]), ("cut", rows[13]["text"])]


def test_cut_of_a_document_that_is_all_leak_drops_it(tmp_path: Path) -> None:
    rows = [*documents(5, leaking=False), {"id": "leak", "text": item_text(1, "solution")}]
    jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", mode="cut")
    assert [(one["id"], one["verdict"]) for one in run.verdicts().to_pylist()] == [("leak", "drop")]
    assert lines(run.path / "clean/a.jsonl") == rows[:5]


def test_flag_writes_no_clean_corpus(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", documents(20))
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", mode="flag")
    assert [one["verdict"] for one in run.verdicts().to_pylist()] == ["flag", "flag"]
    assert not (run.path / "clean").exists()
    assert (run.path / "removed.jsonl").read_bytes() == b""
    assert run.record["clean_policy"] is None


def test_everything_dropped_leaves_empty_valid_files(tmp_path: Path) -> None:
    rows = [{"id": str(number), "text": item_text(number % 6, "question")} for number in range(12)]
    jsonl(tmp_path / "c/a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c/b.parquet")
    (tmp_path / "c/d.jsonl.gz").write_bytes(gzip.compress((tmp_path / "c/a.jsonl").read_bytes()))
    run = decontaminate(tmp_path / "c", exam(), tmp_path / "run")
    assert run.counts["keep"] == 0
    assert (run.path / "clean/a.jsonl").read_bytes() == b""
    assert gzip.decompress((run.path / "clean/d.jsonl.gz").read_bytes()) == b""
    assert pq.read_table(run.path / "clean/b.parquet").num_rows == 0
    assert run.verdicts().num_rows == 36


def test_nothing_found_leaves_empty_valid_tables(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(20, leaking=False))
    run = decontaminate(corpus, exam(), tmp_path / "run")
    assert run.evidence().num_rows == 0
    assert run.evidence().column_names == EVIDENCE_COLUMNS
    assert run.verdicts().num_rows == 0
    assert (run.path / "clean/a.jsonl").read_bytes() == corpus.read_bytes()


def test_common_n_grams_are_learnt_from_the_corpus(tmp_path: Path) -> None:
    """A passage that a third of the corpus holds tells nothing, so it condemns no document."""
    common = " ".join(item_text(0, "question").split()[:14]) + "\n"
    rows = documents(90, leaking=False)
    for row in rows[::3]:
        row["text"] += common
    jsonl(tmp_path / "a.jsonl", rows)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run", coverage=0.2)
    question = next(part for part in run.index().parts if (part.item, part.part) == ("exam/0", "question"))
    assert question.set_aside["common"] == 11
    assert run.counts["drop"] == 0
    assert run.record["sample_documents"] == 90


def test_gate_raises_once_everything_is_written(tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(100))
    with pytest.raises(GateError, match=r"10 of 100 documents \(10.0000%\)"):
        decontaminate(corpus, exam(), tmp_path / "run", fail_above=0.099)
    assert Run.load(tmp_path / "run").finished
    assert decontaminate(corpus, exam(), tmp_path / "run", fail_above=0.1).finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coverage": 0.1}, "coverage 0.1: evidence holds matches of coverage 0.2 or more"),
        ({"run": 5}, "run 5: evidence holds every run of 13 words or more"),
        ({"mode": "keep"}, 'mode "keep": give drop, cut or flag'),
        ({"preset": "gpt5"}, 'preset "gpt5": give one of default, gpt3, phi1, phi1-similar, tulu3'),
        ({"n": [0]}, "n 0: give lengths from 1 to 64 words"),
        ({"threads": 0}, "threads 0: give 1 or more"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents(5))
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        decontaminate(corpus, exam(), tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_every_public_name_is_there() -> None:
    package = importlib.import_module("phi_fast.decontaminate")
    assert all(callable(getattr(package, name)) for name in package.__all__)
    assert all(hasattr(phi_fast, name) for name in phi_fast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = phi_fast.nothing  # type: ignore[attr-defined]


def test_common_ngrams_are_learnt_from_the_files_named(tmp_path: Path) -> None:
    phrase = item_text(0, "question").split()[:12]
    clean = documents(40, leaking=False)
    full = [{"id": f"copy-{n}", "text": f"{' '.join(phrase)} and so on number {n}"} for n in range(40)]
    jsonl(tmp_path / "corpus/clean.jsonl", clean)
    jsonl(tmp_path / "corpus/planted.jsonl", full)

    def common(folder: str, **options: Any) -> tuple[int, int]:
        run = decontaminate(tmp_path / "corpus", exam(), tmp_path / folder, mode="flag", **options)
        (part,) = [part for part in run.parts() if (part.item, part.part) == ("exam/0", "question")]
        return run.record["sample_documents"], part.set_aside.get("common", 0)

    assert common("all") == (80, 9)
    assert common("some", learn_from=["clean.jsonl"]) == (40, 0)
    assert reproduce_run(tmp_path / "some").same
    with pytest.raises(InputError, match=r"learn_from other\.jsonl: no such file in the corpus"):
        common("none", learn_from=["other.jsonl"])
    with pytest.raises(InputError, match="learn_from"):
        decontaminate(tmp_path / "corpus", exam(), tmp_path / "some", mode="flag")
