"""Files that grow, shrink, change or vanish between discovery and reading."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.corpus import Buffer, Lines, Source, discover, read, units, verify_unchanged
from phi_fast.errors import RunError
from tests.corpus.support import CODECS, documents, jsonl, pack, read_whole, write_jsonl


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "a.jsonl", documents(400))


def _found(path: Path) -> Source:
    return discover([str(path)])[0]


def test_nothing_changed(path: Path) -> None:
    assert verify_unchanged(_found(path)) is None


def test_grown_by_whole_lines(path: Path) -> None:
    source = _found(path)
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(jsonl(documents(3)))
    warning = verify_unchanged(source)
    assert warning is not None and f"grew from {len(before):,} to {path.stat().st_size:,} bytes" in warning
    (whole,) = read_whole([source], 1000)
    assert whole.data == before and not whole.faults


def test_grown_inside_a_line(path: Path) -> None:
    """The file was listed while half a line was written: that line is set aside, with its bytes."""
    whole_lines = path.read_bytes()
    path.write_bytes(whole_lines + b'{"text": "half')
    source = _found(path)
    with path.open("ab") as file:
        file.write(b' a line"}\n')
    (whole,) = read_whole([source], 1000)
    ((row, fault),) = whole.faults
    assert whole.data == whole_lines and row == 400 and fault.rows == 1
    assert (fault.offset, fault.length, fault.raw) == (len(whole_lines), 14, b'{"text": "half')
    assert "still being written" in fault.reason


def test_a_last_line_completed_by_its_newline_counts(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.removesuffix(b"\n"))
    source = _found(path)
    path.write_bytes(data)
    (whole,) = read_whole([source], 1000)
    assert whole.data == data.removesuffix(b"\n") and not whole.faults


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_shrunk(tmp_path: Path, codec: str | None) -> None:
    path = write_jsonl(tmp_path / f"a.jsonl.{codec or 'plain'}.jsonl", documents(400), codec)
    source = _found(path)
    os.truncate(path, source.size // 2)
    with pytest.raises(RunError, match=f"shorter than the {source.size:,} bytes it had"):
        read_whole([source], 1000)
    with pytest.raises(RunError, match="shorter than"):
        verify_unchanged(source)


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_vanished(tmp_path: Path, codec: str | None) -> None:
    path = write_jsonl(tmp_path / f"a.jsonl.{codec or 'plain'}.jsonl", documents(400), codec)
    source = _found(path)
    path.unlink()
    with pytest.raises(RunError, match="vanished during the run: put it back, then run the same command again"):
        read_whole([source], 1000)
    with pytest.raises(RunError, match="vanished"):
        verify_unchanged(source)


def test_modified_in_place_or_replaced_by_something_longer(path: Path) -> None:
    source = _found(path)
    data = bytearray(path.read_bytes())
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))
    with pytest.raises(RunError, match="was modified during the run: start again"):
        verify_unchanged(source)
    data[20] ^= 1
    path.write_bytes(data + b"{}\n")
    with pytest.raises(RunError, match="was modified"):
        verify_unchanged(source)


def test_a_table_cannot_just_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"]}), path)
    source = _found(path)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(RunError, match="was modified"):
        verify_unchanged(source)


def test_a_tree(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(name)
    (source,) = discover([str(tmp_path)])
    assert verify_unchanged(source) is None
    os.utime(tmp_path / "b.py", ns=(0, 0))
    with pytest.raises(RunError, match=r"a file below .* was modified"):
        verify_unchanged(source)
    (tmp_path / "b.py").write_text("other")
    with pytest.raises(RunError, match=r"b\.py was modified"):
        verify_unchanged(source)
    (tmp_path / "b.py").unlink()
    with pytest.raises(RunError, match=r"b\.py vanished"):
        verify_unchanged(source)


def test_remote() -> None:
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/change/a.jsonl", jsonl(documents(5)))
        (source,) = discover(["memory://change/a.jsonl"])
        assert verify_unchanged(source) is None
        fs.pipe("/change/a.jsonl", jsonl(documents(6)))
        with pytest.raises(RunError, match="modified"):
            verify_unchanged(source)
        fs.rm("/change/a.jsonl")
        with pytest.raises(RunError, match="vanished"):
            verify_unchanged(source)
    finally:
        fs.store.clear()


def test_a_stamp_tells_versions_apart_and_is_stable(path: Path) -> None:
    first = _found(path)
    assert _found(path) == first
    os.utime(path, ns=(5, 5))
    assert _found(path).stamp != first.stamp


def test_a_file_that_grows_under_the_reader_keeps_its_first_part(path: Path) -> None:
    source = _found(path)
    data, buffer, got = path.read_bytes(), Buffer(), b""
    for unit, _ in units(0, source, unit_bytes=500):
        with path.open("ab") as file:
            file.write(b'{"text": "new"}\n')
        batch = read(unit, source, buffer)
        assert isinstance(batch, Lines)
        got += bytes(batch.data)
    assert got == data


def test_packed_members_appended_meanwhile_are_not_covered(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.gz", documents(100), "gz")
    source = _found(path)
    with path.open("ab") as file:
        file.write(pack(b'{"text": "new"}\n', "gz"))
    (whole,) = read_whole([source], 1000)
    assert whole.data == jsonl(documents(100)) and not whole.faults
    assert "grew" in str(verify_unchanged(source))
