"""Clean copies of Parquet, Arrow and `datasets` folders: everything but the removed rows is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.corpus import Removal, Source, clean_tables, discover, write_clean, write_companions
from phi_fast.errors import InputError, RunError
from tests.corpus.support import documents, read_whole, write_jsonl
from tests.corpus.test_tables import TYPES, _corrupt_page, _table, _write_arrow

METADATA = {b"huggingface": b'{"info": 1}', b"own": b"value"}
CODECS = ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]


def _rich(count: int = 1000) -> pa.Table:
    """Columns of many types, of which one is not nullable and one carries metadata."""
    docs = documents(count)
    schema = pa.schema(
        [
            pa.field("n", pa.int32(), nullable=False),
            pa.field("when", pa.timestamp("us", "UTC"), metadata={b"unit": b"micro"}),
            pa.field("text", pa.large_string()),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("nested", pa.struct([("a", pa.float64()), ("b", pa.list_(pa.int8()))])),
            pa.field("kind", pa.dictionary(pa.int8(), pa.string())),
            pa.field("price", pa.decimal128(9, 2)),
        ],
        METADATA,
    )
    columns = {
        "n": [doc["n"] for doc in docs],
        "when": [doc["n"] * 1_000_000 for doc in docs],
        "text": [doc["text"] for doc in docs],
        "tags": [["x"] * (doc["n"] % 3) for doc in docs],
        "nested": [{"a": doc["n"] / 7, "b": [1]} if doc["n"] % 5 else None for doc in docs],
        "kind": [f"k{doc['n'] % 4}" for doc in docs],
        "price": [doc["n"] for doc in docs],
    }
    return pa.table(columns, schema=schema)


def _cut(text: str) -> str:
    return "cut: " + text[:5] + " é"


def _expected(table: pa.Table, removals: list[Removal]) -> pa.Table:
    texts = table["text"].to_pylist()
    keep = np.ones(len(table), bool)
    for removal in removals:
        if removal.edit is None:
            keep[removal.row : removal.row + removal.rows] = False
        else:
            texts[removal.row] = removal.edit(texts[removal.row])
    position = table.schema.get_field_index("text")
    column = pa.array(texts, pa.large_string()).cast(table.schema.field("text").type)
    return table.set_column(position, table.schema.field("text"), column).filter(pa.array(keep))


REMOVALS = [Removal(0), Removal(3, edit=_cut), *(Removal(row) for row in range(300, 600)), Removal(999, edit=_cut)]


def _same_layout(old: Path, new: Path, rows: list[int]) -> None:
    before, after = pq.ParquetFile(old), pq.ParquetFile(new)
    assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
    assert after.schema.equals(before.schema)
    assert (after.metadata.metadata or {}).keys() == (before.metadata.metadata or {}).keys()
    assert after.metadata.format_version == before.metadata.format_version
    assert [after.metadata.row_group(g).num_rows for g in range(after.num_row_groups)] == rows
    for i in range(before.metadata.num_columns):
        for name in ("path_in_schema", "physical_type", "compression", "is_stats_set", "has_dictionary_page"):
            was, now = (getattr(f.metadata.row_group(0).column(i), name) for f in (before, after))
            assert was == now, (name, i)
        old_index, new_index = (f.metadata.row_group(0).column(i).has_offset_index for f in (before, after))
        assert old_index == new_index


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"version": "1.0", "use_dictionary": False, "write_statistics": False, "store_schema": False},
        {"use_dictionary": ["kind"], "write_page_index": True, "use_compliant_nested_type": False},
        {"sorting_columns": [pq.SortingColumn(0)], "use_deprecated_int96_timestamps": True},
    ],
    ids=["plain", "bare", "indexed", "sorted"],
)
def test_parquet_keeps_schema_metadata_codec_and_row_groups(
    tmp_path: Path, codec: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_rich(), path, row_group_size=300, compression=codec, **options)
    (source,) = discover([str(path)])
    written = write_clean(source, tmp_path / "out", REMOVALS)
    _same_layout(path, tmp_path / "out", [299, 300, 100])  # the second row group lost all its rows
    assert pq.read_table(tmp_path / "out").equals(_expected(pq.read_table(path), REMOVALS), check_metadata=True)
    assert (written.dropped, written.cut, written.copied, written.faults) == (301, 2, False, ())
    assert pq.ParquetFile(tmp_path / "out").metadata.row_group(0).sorting_columns == (
        pq.ParquetFile(path).metadata.row_group(0).sorting_columns
    )


def test_parquet_codec_by_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_rich(), path, compression={"text": "zstd", "n": "none"})
    (source,) = discover([str(path)])
    write_clean(source, tmp_path / "out", [Removal(5)])
    _same_layout(path, tmp_path / "out", [999])


def test_parquet_with_nothing_removed_is_the_same_bytes(tmp_path: Path) -> None:
    pq.write_table(_rich(), tmp_path / "a.parquet")
    (source,) = discover([str(tmp_path)])
    assert write_clean(source, tmp_path / "out", iter([])).copied
    assert (tmp_path / "out").read_bytes() == (tmp_path / "a.parquet").read_bytes()


def test_parquet_with_everything_removed_is_a_table_of_no_rows(tmp_path: Path) -> None:
    pq.write_table(_rich(), tmp_path / "a.parquet")
    (source,) = discover([str(tmp_path)])
    write_clean(source, tmp_path / "out", [Removal(row) for row in range(1000)])
    table = pq.read_table(tmp_path / "out")
    before = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 0 and table.schema.equals(before.schema, check_metadata=True)


def test_a_row_group_too_large_for_memory_is_written_as_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(_rich(), tmp_path / "a.parquet", use_dictionary=False)
    (source,) = discover([str(tmp_path)])
    monkeypatch.setattr(clean_tables, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(clean_tables, "WHOLE_GROUP", 100_000)
    write_clean(source, tmp_path / "out", REMOVALS)
    assert pq.ParquetFile(tmp_path / "out").num_row_groups > 1
    result, expected = pq.read_table(tmp_path / "out"), _expected(pq.read_table(tmp_path / "a.parquet"), REMOVALS)
    assert result.schema.equals(expected.schema) and result.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("layout", ["parquet", "file", "stream"])
def test_every_text_type_can_be_cut(tmp_path: Path, layout: str, kind: pa.DataType) -> None:
    table = _table(300, kind)
    removals = [Removal(3, edit=_cut), Removal(4), Removal(150, edit=_cut), Removal(151, edit=_cut)]
    path = tmp_path / "a.arrow"
    if layout == "parquet":
        path = tmp_path / "a.parquet"
        pq.write_table(table, path, row_group_size=100)
    else:
        _write_arrow(path, table, layout, 100)
    (source,) = discover([str(path)])
    if pa.types.is_dictionary(kind) and layout != "parquet":
        with pytest.raises(InputError, match="dictionary-encoded and cannot be cut: use the drop mode"):
            write_clean(source, tmp_path / "out", removals)
        removals = [Removal(4)]
    write_clean(source, tmp_path / "out", removals)
    result = _read(tmp_path / "out", layout)
    plain = pa.large_string() if "binary" not in str(kind) else pa.large_binary()
    plain = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else plain
    assert result.schema.equals(_read(path, layout).schema)
    assert result["text"].cast(plain).cast(pa.large_string()).to_pylist() == (
        _expected(_table(300), removals)["text"].to_pylist()
    )
    assert result["id"].equals(_expected(_table(300), removals)["id"])


def _read(path: Path, layout: str) -> pa.Table:
    if layout == "parquet":
        return pq.read_table(path)
    with pa.OSFile(str(path)) as file:
        return (pa.ipc.open_file if layout == "file" else pa.ipc.open_stream)(file).read_all()


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("layout", ["file", "stream"])
def test_arrow_keeps_schema_metadata_codec_and_batches(tmp_path: Path, layout: str, codec: str | None) -> None:
    path = _write_arrow(tmp_path / "a.arrow", _rich(), layout, 300, codec)
    (source,) = discover([str(path)])
    written = write_clean(source, tmp_path / "out", REMOVALS)
    result = _read(tmp_path / "out", layout)
    assert result.equals(_expected(_read(path, layout), REMOVALS), check_metadata=True)
    assert [chunk.__len__() for chunk in result["n"].chunks] == [299, 300, 100]
    assert (written.dropped, written.cut) == (301, 2)
    assert clean_tables.batch_codec(source) == codec
    assert clean_tables.batch_codec(discover([str(_named(tmp_path / "out"))])[0]) == codec


def _named(path: Path) -> Path:
    return path.rename(path.with_suffix(".arrow"))


def test_a_corrupt_row_group_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_table(2000), path, row_group_size=500, use_dictionary=False, compression="zstd")
    _corrupt_page(path, 2, where=0)
    (source,) = discover([str(path)])
    ((row, fault),) = read_whole([source], 1 << 20)[0].faults
    written = write_clean(source, tmp_path / "out", [Removal(7), Removal(row, rows=fault.rows)])
    assert (written.dropped, written.faults) == (501, ())
    expected = _table(2000)["id"].to_pylist()
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == expected[:7] + expected[8:1000] + expected[1500:]


@pytest.mark.parametrize("slices", [False, True])
def test_rows_lost_to_a_column_that_is_not_scanned_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slices: bool
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(_table(2000), path, row_group_size=500, use_dictionary=False, compression="zstd")
    _corrupt_page(path, 1, column="n", where=0)
    (source,) = discover([str(path)])
    assert not read_whole([source], 1 << 20)[0].faults
    if slices:
        monkeypatch.setattr(clean_tables, "UNIT_BYTES", 5_000)
    written = write_clean(source, tmp_path / "out", [Removal(600), Removal(1700)])
    ((row, fault),) = written.faults
    assert (row, fault.rows) == (500, 500) and "corrupt row group 1" in fault.reason
    assert pq.read_table(tmp_path / "out").num_rows == 1499


def test_a_truncated_arrow_stream_keeps_its_whole_batches(tmp_path: Path) -> None:
    path = _write_arrow(tmp_path / "a.arrow", _table(2000), "stream", 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (source,) = discover([str(path)])
    ((row, fault),) = read_whole([source], 10_000)[0].faults
    written = write_clean(source, tmp_path / "out", [Removal(row, rows=fault.rows)])
    assert written.faults == ()
    assert _read(tmp_path / "out", "stream").equals(_table(2000).slice(0, row))


def test_removals_beyond_the_table_are_refused(tmp_path: Path) -> None:
    pq.write_table(_table(10), tmp_path / "a.parquet")
    _write_arrow(tmp_path / "b.arrow", _table(10), "file", 5)
    for source in discover([str(tmp_path)]):
        with pytest.raises(RunError, match="not what was scanned"):
            write_clean(source, tmp_path / "out/x", [Removal(10)])
        assert os.listdir(tmp_path / "out") == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path) -> None:
    pq.write_table(_table(2000), tmp_path / "a.parquet")
    _write_arrow(tmp_path / "b.arrow", _table(2000), "file", 500)
    for source in discover([str(tmp_path)]):
        (tmp_path / "out").mkdir(exist_ok=True)
        os.symlink("/dev/full", tmp_path / "out/.x.partial")
        with pytest.raises(RunError, match="disk full while writing"):
            write_clean(source, tmp_path / "out/x", [Removal(1)])
        assert os.listdir(tmp_path / "out") == []


def _dataset(tmp_path: Path) -> list[Source]:
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list(documents(300))
    datasets.DatasetDict(train=train, test=train.select(range(50))).save_to_disk(
        tmp_path / "dd", num_shards={"train": 3, "test": 1}
    )
    return discover([str(tmp_path / "dd")])


def test_a_datasets_folder_loads_again_without_the_rows(tmp_path: Path) -> None:
    sources = _dataset(tmp_path)
    datasets = pytest.importorskip("datasets")
    clean = tmp_path / "clean"
    changed = sources[2].name
    assert changed == "train/data-00001-of-00003.arrow"
    for source in sources:
        write_clean(source, clean / source.name, [Removal(0), Removal(9, edit=_cut)] if source.name == changed else [])
    write_companions(sources, clean, {changed})
    old, new = datasets.load_from_disk(tmp_path / "dd"), datasets.load_from_disk(clean)
    expected = list(old["train"]["text"])
    expected[109] = _cut(expected[109])
    del expected[100]
    assert list(new["train"]["text"]) == expected and new["train"].features == old["train"].features
    assert list(new["test"]["text"]) == list(old["test"]["text"])
    assert new["test"]._fingerprint == old["test"]._fingerprint
    assert new["train"]._fingerprint != old["train"]._fingerprint
    state = [json.loads((folder / "train/state.json").read_text()) for folder in (tmp_path / "dd", clean)]
    assert {k for k in state[0] if state[0][k] != state[1][k]} == {"_fingerprint"}
    for name in ("dataset_dict.json", "train/dataset_info.json", "test/state.json"):
        assert (clean / name).read_bytes() == (tmp_path / "dd" / name).read_bytes()


def test_companions_keep_their_place_beside_renamed_sources(tmp_path: Path) -> None:
    sources = _dataset(tmp_path)
    write_jsonl(tmp_path / "other/train/data-00000-of-00003.arrow.jsonl", documents(1))
    (tmp_path / "two").symlink_to(tmp_path / "dd")
    both = discover([str(tmp_path / "dd"), str(tmp_path / "two")])
    assert len(both) == 2 * len(sources)
    names = {name for source in both for _, name in source.companions}
    assert {"dd/dataset_dict.json", "two/dataset_dict.json", "two/train/state.json"} < names
