"""Documents fetched again, and the sample: the same documents, the same every time, evenly spread."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.corpus import Column, Files, Lines, Source, discover, sample, texts
from phi_fast.errors import RunError
from tests.corpus.support import CODECS, documents, jsonl, read_whole, write_jsonl
from tests.corpus.test_tables import _corrupt_page, _table, _write_arrow

ROWS = [0, 1, 57, 58, 299]


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_lines_again(tmp_path: Path, codec: str | None) -> None:
    source = discover([str(write_jsonl(tmp_path / "a.jsonl", documents(300), codec))])[0]
    lines = read_whole([source], 1 << 20)[0].lines
    places = [(row, lines[row][0], len(lines[row][1])) for row in ROWS]
    assert list(texts(source, places)) == [(row, documents(300)[row]["text"]) for row in ROWS]
    with pytest.raises(RunError, match="not what was scanned"):
        list(texts(source, [(1, places[1][1] + 1, places[1][2])]))


@pytest.mark.parametrize("layout", ["parquet", "file", "stream"])
def test_rows_again(tmp_path: Path, layout: str) -> None:
    if layout == "parquet":
        pq.write_table(_table(300), tmp_path / "a.parquet", row_group_size=70)
    else:
        _write_arrow(tmp_path / "a.arrow", _table(300), layout, 70)
    (source,) = discover([str(tmp_path)])
    expected = _table(300)["text"].to_pylist()
    assert list(texts(source, [(row, -1, -1) for row in ROWS])) == [(row, expected[row]) for row in ROWS]


def test_files_again(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.py").write_text(f"# {i} é")
    (source,) = discover([str(tmp_path)])
    assert list(texts(source, [(1, -1, -1), (4, -1, -1)])) == [(1, "# 1 é"), (4, "# 4 é")]


def _corpus(tmp_path: Path) -> list[Source]:
    for name, codec in (("a.jsonl", None), ("b.jsonl.zst", "zst"), ("c.jsonl.gz", "gz")):
        write_jsonl(tmp_path / "c" / name, documents(20_000), codec)
    pq.write_table(
        _table(20_000), tmp_path / "c/d.parquet", row_group_size=1000, use_dictionary=False, compression="none"
    )
    _write_arrow(tmp_path / "c/e.arrow", _table(20_000), "stream", 1000)
    for i in range(400):
        path = tmp_path / f"t/p{i % 10}/m{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"x{i} = {i}\n" * (i * 3))
    return discover([str(tmp_path / "c"), str(tmp_path / "t")])


def _all_texts(source: Source, batch: Lines | Column | Files) -> list[str | None]:
    if isinstance(batch, Column):
        return list(batch.text.to_pylist())
    if isinstance(batch, Files):
        return [data.decode() for data in batch.data]
    data = bytes(batch.data)
    assert data.endswith(b"\n")
    return [json.loads(line)["text"] for line in data.splitlines()]


@pytest.mark.parametrize("limit", [1 << 20, 2 << 20, 1 << 30])
def test_a_sample_is_of_whole_documents_within_its_limit(tmp_path: Path, limit: int) -> None:
    sources = _corpus(tmp_path)
    wholes = read_whole(sources, 1 << 20)
    seen: dict[int, list[str | None]] = {}
    size = 0
    for number, batch in sample(sources, limit):
        found = _all_texts(sources[number], batch)
        seen.setdefault(number, []).extend(found)
        size += sum(len(text.encode()) for text in found if text)
    if limit == 1 << 30:
        assert {number: whole.texts for number, whole in enumerate(wholes)} == seen
    else:
        assert 0.4 * limit < size < 1.6 * limit
        for number, found in seen.items():
            missing = set(found) - set(wholes[number].texts)
            assert not missing
            firsts = [wholes[number].texts.index(text) for text in found if text is not None and len(text) < 20]
            assert firsts == sorted(firsts)
        assert {sources[number].format for number in seen} == {"jsonl", "parquet", "arrow", "tree"} or limit < 2 << 20


def test_a_sample_is_the_same_every_time_and_from_all_over(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", documents(200_000))
    (source,) = discover([str(path)])
    assert source.size > 20 << 20
    runs = []
    for _ in range(2):
        runs.append([(b.offset, bytes(b.data)) for _, b in sample([source], 2 << 20) if isinstance(b, Lines)])
    assert runs[0] == runs[1] and len(runs[0]) == 8
    gaps = [b[0] - a[0] for a, b in zip(runs[0], runs[0][1:], strict=False)]
    assert max(gaps) - min(gaps) < 2000 and abs(gaps[0] - source.size / 8) < 2000


def test_a_sample_leaves_out_what_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{i} " * 400 for i in range(4000)]})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="none")
    _corrupt_page(path, 1, where=0)
    sources = discover([str(path)])
    found = [text for _, batch in sample(sources, 1 << 20) for text in _all_texts(sources[0], batch) if text]
    assert {int(text.split()[0]) // 1000 for text in found} == {0, 2, 3}


def test_a_sample_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert list(sample(discover([str(tmp_path)]))) == []
    (tmp_path / "a.jsonl").write_bytes(jsonl(documents(1)))
    assert len(list(sample(discover([str(tmp_path)])))) == 1
