"""Drawing: whole documents of every format, the same ones for the same seed."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.calibrate.draw import Drawn, draw
from phi_fast.corpus import discover

ROWS = [{"id": f"doc-{number}", "text": f"text of {number} é\n" * (1 + number % 7)} for number in range(300)]
WHOLE = [Drawn(row["id"], row["text"]) for row in ROWS]


def jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def written(kind: str, folder: Path) -> Path:
    if kind == "jsonl":
        return jsonl(folder / "a.jsonl")
    if kind == "gz":
        path = folder / "a.jsonl.gz"
        path.write_bytes(gzip.compress(jsonl(folder / "plain").read_bytes()))
        return path
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=50)
        return folder / "a.parquet"
    tree = folder / "tree"
    tree.mkdir()
    for row in ROWS:
        (tree / f"{row['id']}.py").write_text(row["text"])
    return tree


@pytest.mark.parametrize("kind", ["jsonl", "gz", "parquet", "tree"])
def test_documents_of_every_format_are_drawn_whole(kind: str, tmp_path: Path) -> None:
    sources = discover([str(written(kind, tmp_path))])
    everything = draw(sources, 10_000, 1 << 28, 0)
    assert sorted(one.text for one in everything) == sorted(row["text"] for row in ROWS)
    if kind != "tree":
        assert everything == WHOLE
    some = draw(sources, 40, 1 << 28, 0)
    assert len(some) == 40
    assert set(some) < set(everything)
    assert some == draw(sources, 40, 1 << 28, 0)
    assert some != draw(sources, 40, 1 << 28, 1)


def test_every_document_is_drawn_as_often(tmp_path: Path) -> None:
    sources = discover([str(jsonl(tmp_path / "a.jsonl"))])
    counts = Counter(one.id for seed in range(200) for one in draw(sources, 30, 1 << 28, seed))
    first, last = (sum(counts[f"doc-{n}"] for n in group) for group in (range(150), range(150, 300)))
    assert 0.9 < first / last < 1.1  # 3,000 expected of each, with a standard deviation under 55
    assert max(counts.values()) < 50


def test_a_large_corpus_is_sampled_all_over(tmp_path: Path) -> None:
    for name in "ab":
        text = "x = 1\n" * 4000
        lines = (json.dumps({"id": f"{name}{number}", "text": text}) + "\n" for number in range(200))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    drawn = draw(discover([str(tmp_path)]), 10_000, 1 << 20, 0)
    assert 20 < len(drawn) < 100
    places = [int(one.id[1:]) for one in drawn if one.id[0] == "b"]
    assert min(places) < 60
    assert max(places) > 140


def test_what_is_no_document_is_left_out_and_ids_are_made_single(tmp_path: Path) -> None:
    rows = [
        '{"id": 7, "text": "one"}', "broken {", '{"id": "x"}', '{"id": "x", "text": null}', '["text"]', "17",
        '{"id": "x", "text": "  \\n"}', '{"id": "x", "text": "\\ud800"}', '{"id": 7, "text": "two"}',
        '{"text": "three"}', "",
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    found = draw(discover([str(tmp_path / "a.jsonl")], text="text", id="id"), 10, 1 << 20, 0)
    assert [one.text for one in found] == ["one", "two", "three"]
    assert [one.id for one in found[:2]] == ["7", "7 (2)"]
    assert found[2].id.startswith("a.jsonl, sampled row")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/good.py").write_text("x = 1\n")
    (tmp_path / "tree/latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "tree/binary.py").write_bytes(b"a\0b")
    assert [one.text for one in draw(discover([str(tmp_path / "tree")]), 10, 1 << 20, 0)] == ["x = 1\n"]
    array = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"ok\xff")]
    )
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    assert [one.text for one in draw(discover([str(tmp_path / "a.parquet")]), 10, 1 << 20, 0)] == ["ok"]
