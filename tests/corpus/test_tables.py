"""Parquet and Arrow: every layout and text type, slices of big row groups, corrupt pages and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.corpus import Buffer, Column, discover, read, tables, units
from phi_fast.errors import RunError
from tests.corpus.support import Whole, documents, read_whole

TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int16(), pa.large_string()),
    *([pa.json_(pa.string())] if hasattr(pa, "json_") else []),
]


def _table(count: int, kind: pa.DataType | None = None) -> pa.Table:
    docs = documents(count)
    texts = [None if doc["n"] % 50 == 49 else doc["text"] for doc in docs]
    value = kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind
    column = pa.array(texts, pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.ExtensionArray.from_storage(kind, column)
    elif kind is not None:
        column = column.cast(pa.large_binary()).cast(value) if "binary" in str(kind) else column.cast(value)
        column = column.dictionary_encode().cast(kind) if value is not kind else column
    return pa.table({"n": [doc["n"] for doc in docs], "text": column, "id": [doc["id"] for doc in docs]})


def _write_arrow(path: Path, table: pa.Table, layout: str, rows: int, codec: str | None = None) -> Path:
    new = pa.ipc.new_file if layout == "file" else pa.ipc.new_stream
    with new(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def _check(whole: Whole, count: int) -> None:
    table = _table(count)
    assert whole.texts == table["text"].to_pylist()
    assert whole.ids == table["id"].to_pylist()
    assert not whole.faults


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("layout", ["parquet", "file", "stream"])
def test_every_text_type(tmp_path: Path, layout: str, kind: pa.DataType) -> None:
    if layout == "parquet":
        pq.write_table(_table(300, kind), tmp_path / "a.parquet", row_group_size=100)
    else:
        _write_arrow(tmp_path / "a.arrow", _table(300, kind), layout, 100)
    (source,) = discover([str(tmp_path)])
    for _, batch in units(0, source):
        if batch is not None:
            assert isinstance(batch, Column) and batch.text.type in (pa.string(), pa.large_string())
    _check(read_whole([source], 1 << 20)[0], 300)


def test_invalid_utf8_in_a_binary_column_is_left_to_the_scan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": pa.array([b"ok", b"\xff\xfe"])}), tmp_path / "a.parquet")
    (source,) = discover([str(tmp_path)])
    batch = read(next(units(0, source))[0], source, Buffer())
    assert isinstance(batch, Column)
    assert batch.text.view(pa.binary()).to_pylist() == [b"ok", b"\xff\xfe"]


def test_a_column_of_nulls_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(5)}), tmp_path / "a.parquet")
    assert read_whole(discover([str(tmp_path)]), 100)[0].texts == [None] * 5


@pytest.mark.parametrize("unit_bytes", [500, 5_000, 1 << 20])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet_row_groups_and_slices(tmp_path: Path, unit_bytes: int, compression: str) -> None:
    pq.write_table(_table(2000), tmp_path / "a.parquet", row_group_size=700, compression=compression)
    (source,) = discover([str(tmp_path)])
    plan = [unit for unit, _ in tables.parquet_units(0, source, unit_bytes)]
    assert [unit.index for unit in plan] == list(range(len(plan))) and [unit.last for unit in plan].count(True) == 1
    assert (len(plan) == 3) == (unit_bytes == 1 << 20)
    assert 0.9 < sum(unit.size for unit in plan) / source.size <= 1
    _check(read_whole([source], unit_bytes)[0], 2000)


def test_a_slice_holds_about_a_unit_of_a_big_row_group(tmp_path: Path) -> None:
    text = pa.array([f"{i:06d}" * 200 for i in range(20_000)])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet", use_dictionary=False)
    (source,) = discover([str(tmp_path)])
    got: dict[int, Any] = {}
    for unit, batch in units(0, source, unit_bytes=1 << 20):
        assert isinstance(batch, Column)
        assert batch.text.nbytes < 1.1 * (1 << 20)
        got[unit.index] = batch.text
    assert pa.concat_arrays([got[i] for i in range(len(got))]).equals(text) and len(got) == 24


@pytest.mark.parametrize("layout", ["parquet", "file", "stream"])
@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_tiny_tables(tmp_path: Path, layout: str, rows: int) -> None:
    table = _table(1).slice(0, rows)
    if layout == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        _write_arrow(tmp_path / "a.arrow", table, layout, 10)
    (whole,) = read_whole(discover([str(tmp_path)]), 100)
    assert (whole.units, len(whole.texts), whole.faults) == (1, rows, [])


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("layout", ["file", "stream"])
@pytest.mark.parametrize("rows", [1, 40, 2000])
def test_arrow_batches_are_joined_and_cut_to_units(tmp_path: Path, layout: str, codec: str | None, rows: int) -> None:
    _write_arrow(tmp_path / "a.arrow", _table(2000), layout, rows, codec)
    (source,) = discover([str(tmp_path)])
    assert source.layout == layout
    seen = list(units(0, source, unit_bytes=10_000))
    assert 5 < len(seen) < 60
    assert [unit.index for unit, _ in seen] == list(range(len(seen)))
    assert [unit.start for unit, _ in seen[1:]] == [unit.stop for unit, _ in seen[:-1]] and seen[-1][0].stop == 2000
    assert 0.9 < sum(unit.size for unit, _ in seen) / source.size <= 1
    _check(read_whole([source], 10_000)[0], 2000)


def _corrupt_page(path: Path, group: int, column: str = "text", where: float = 0.5, size: int = 30) -> None:
    """Overwrite the first page header of a column chunk, or bytes inside it."""
    metadata = pq.read_metadata(path)
    chunk = next(
        metadata.row_group(group).column(i)
        for i in range(metadata.num_columns)
        if metadata.row_group(group).column(i).path_in_schema == column
    )
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    place = start + int(chunk.total_compressed_size * where)
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)


def _pages(path: Path, **options: Any) -> None:
    options = {"row_group_size": 500, "use_dictionary": False, "compression": "zstd", "data_page_size": 2000} | options
    pq.write_table(_table(2000), path, **options)


@pytest.mark.parametrize("where", [0.0, 0.5])
@pytest.mark.parametrize("options", [{}, {"compression": "none", "write_page_checksum": True}], ids=["zstd", "crc"])
def test_a_corrupt_row_group_is_rejected_and_the_others_go_on(
    tmp_path: Path, where: float, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.parquet"
    _pages(path, **options)
    _corrupt_page(path, 2, where=where)
    (whole,) = read_whole(discover([str(path)]), 1 << 20)
    ((row, fault),) = whole.faults
    assert (row, fault.rows) == (1000, 500)
    assert fault.reason.startswith("corrupt row group 2 (") and fault.reason.endswith("): 500 rows cannot be read")
    expected = _table(2000)["text"].to_pylist()
    assert whole.texts == expected[:1000] + [None] * 500 + expected[1500:]


def test_a_corrupt_page_in_a_sliced_row_group_spares_the_slices_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _pages(path, row_group_size=1000, write_batch_size=20, write_page_checksum=True)
    _corrupt_page(path, 1, where=0.7, size=900)
    (whole,) = read_whole(discover([str(path)]), 2_000)
    ((row, fault),) = whole.faults
    assert 1300 < row < 2000 and row + fault.rows == 2000
    expected = _table(2000)["text"].to_pylist()
    assert whole.texts == expected[:row] + [None] * fault.rows


def test_a_table_that_shrank_is_a_run_error_and_no_corrupt_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _pages(path)
    (source,) = discover([str(path)])
    plan = [unit for unit, _ in units(0, source)]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RunError, match="shorter than"):
        for unit in plan:
            read(unit, source, Buffer())
    path.unlink()
    with pytest.raises(RunError, match="vanished"):
        read(plan[0], source, Buffer())


@pytest.mark.parametrize("share", [0.35, 0.7])
def test_a_truncated_arrow_stream(tmp_path: Path, share: float) -> None:
    path = _write_arrow(tmp_path / "a.arrow", _table(2000), "stream", 100)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    (whole,) = read_whole(discover([str(path)]), 10_000)
    ((row, fault),) = whole.faults
    assert row % 100 == 0 and 0 < row < 2000 and fault.rows == 0
    assert fault.reason.startswith(f"corrupt record batch {row // 100} (") and "unread" in fault.reason
    assert whole.texts == _table(2000)["text"].to_pylist()[:row]


def test_a_truncated_arrow_file_is_a_fault_of_the_whole(tmp_path: Path) -> None:
    path = _write_arrow(tmp_path / "a.arrow", _table(2000), "file", 100)
    path.write_bytes(path.read_bytes()[:9000])
    _write_arrow(tmp_path / "b.arrow", _table(20), "file", 100)
    first, second = read_whole(discover([str(tmp_path)]), 10_000)
    assert first.faults[0][1].reason.startswith("not a readable Arrow file") and len(second.texts) == 20


@pytest.mark.parametrize("layout", ["file", "stream"])
def test_offsets_that_lead_outside_are_a_fault_not_a_crash(tmp_path: Path, layout: str) -> None:
    table = pa.table({"text": pa.array(["abc", "defg", "hi"])})
    path = _write_arrow(tmp_path / "a.arrow", pa.concat_tables([table] * 3), layout, 3)
    data = path.read_bytes()
    good = np.array([0, 3, 7, 9], np.int32).tobytes()
    for bad in ([0, 3, 7, 2**31 - 1], [0, 8, 7, 9], [-5, 3, 7, 9]):
        place = data.index(good, data.index(good) + 1)
        path.write_bytes(data[:place] + np.array(bad, np.int32).tobytes() + data[place + 16 :])
        (whole,) = read_whole(discover([str(path)]), 1)
        ((row, fault),) = whole.faults
        assert row == 3 and "corrupt record batch 1" in fault.reason
        assert [text for text in whole.texts if text] == ["abc", "defg", "hi"] * 2


def test_a_datasets_folder_and_a_dict_of_them(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list(documents(300))
    train.save_to_disk(tmp_path / "one", num_shards=3)
    (tmp_path / "one/cache-123.arrow").write_bytes(b"left by map()")
    sources = discover([str(tmp_path / "one")])
    assert [source.name for source in sources] == [f"data-0000{i}-of-00003.arrow" for i in range(3)]
    assert {name for _, name in sources[0].companions} == {"state.json", "dataset_info.json"}
    wholes = read_whole(sources, 1 << 20)
    assert [text for whole in wholes for text in whole.texts] == [doc["text"] for doc in documents(300)]
    datasets.DatasetDict(train=train, test=train.select(range(5))).save_to_disk(tmp_path / "two")
    sources = discover([str(tmp_path / "two")])
    assert [source.name for source in sources] == ["test/data-00000-of-00001.arrow", "train/data-00000-of-00001.arrow"]
    assert {name for _, name in sources[1].companions} == {
        "dataset_dict.json",
        "train/state.json",
        "train/dataset_info.json",
    }


def test_units_of_one_file_come_in_order_large_and_small_row_groups_mixed(tmp_path: Path) -> None:
    """What counts rows as it goes (vectors, tokens) would give documents wrong rows otherwise."""
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for number in range(12):
            texts = [f"{number} {row} " + "x" * 100 for row in range(300 if number % 3 == 1 else 5)]
            writer.write_table(pa.table({"text": texts}))
    (source,) = discover([str(path)])
    found = list(units(0, source, unit_bytes=2000))
    assert [unit.index for unit, _ in found] == list(range(len(found)))
    assert {batch is None for _, batch in found} == {True, False}
    assert [unit.last for unit, _ in found] == [False] * (len(found) - 1) + [True]
    done = {(0, index) for index in (0, 1, 2, 3, len(found) - 1)}
    assert [unit.index for unit, _ in units(0, source, done, unit_bytes=2000)] == list(range(4, len(found) - 1))
    texts = [text for unit, batch in found for text in (batch or read(unit, source, Buffer())).text.to_pylist()]
    assert texts == pq.read_table(path).column("text").to_pylist()
