"""JSONL in units: every line owned exactly once, whatever the lines, the unit size and the compression."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import fsspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phi_fast.corpus import Buffer, Lines, Unit, discover, read, source, units, work
from phi_fast.errors import RunError
from tests.corpus.support import CODECS, documents, jsonl, pack, read_whole

LINES = st.lists(st.tuples(st.integers(0, 90), st.sampled_from([b"\n", b"\r\n"])), max_size=40)


def _content(lines: list[tuple[int, bytes]], final: bool, bom: bool) -> bytes:
    data = b"".join(bytes([97 + i % 26]) * size + end for i, (size, end) in enumerate(lines))
    data = data if final or not data else data.removesuffix(b"\n").removesuffix(b"\r")
    return (b"\xef\xbb\xbf" if bom else b"") + data


@given(lines=LINES, final=st.booleans(), bom=st.booleans(), unit=st.integers(1, 200))
@example(lines=[], final=False, bom=True, unit=1)
@example(lines=[(0, b"\n")] * 5, final=True, bom=False, unit=1)
@example(lines=[(90, b"\n")] * 3, final=False, bom=True, unit=2)
@pytest.mark.parametrize("codec", [None, "gz", "zst"])
def test_units_cover_every_line_once(
    tmp_path_factory: pytest.TempPathFactory,
    codec: str | None,
    lines: list[tuple[int, bytes]],
    final: bool,
    bom: bool,
    unit: int,
) -> None:
    data = _content(lines, final, bom)
    path = tmp_path_factory.mktemp("p") / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.write_bytes(pack(data, codec))
    (whole,) = read_whole(discover([str(path)]), unit)
    text = data.removeprefix(b"\xef\xbb\xbf")
    assert whole.data == text and not whole.faults
    at = len(data) - len(text)
    expected = []
    for line in text.split(b"\n")[: None if text and not text.endswith(b"\n") else -1]:
        expected.append((at, line))
        at += len(line) + 1
    assert whole.lines == expected


@given(lines=LINES, final=st.booleans(), cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_any_byte_ranges_share_the_lines_between_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, bytes]], final: bool, cuts: list[int]
) -> None:
    data = _content(lines, final, bom=False)
    path = tmp_path_factory.mktemp("p") / "a.jsonl"
    path.write_bytes(data)
    (found,) = discover([str(path)])
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    buffer, joined = Buffer(), b""
    for start, stop in pairwise(bounds):
        batch = read(Unit(0, 0, start, stop, 0, last=False), found, buffer)
        assert isinstance(batch, Lines)
        assert not batch.data or start <= batch.offset < stop
        assert batch.offset == len(joined) or not batch.data
        joined += bytes(batch.data)
    assert joined == data


@pytest.mark.parametrize("codec", CODECS)
def test_block_bounds_depend_on_the_text_alone(tmp_path: Path, codec: str) -> None:
    data = jsonl(documents(3000))
    spans = []
    for name, members in (("one", [data]), ("two", [data[:70_000], data[70_000:]])):
        path = tmp_path / f"{name}.jsonl.{codec}"
        path.write_bytes(b"".join(pack(member, codec) for member in members))
        spans.append([(u.start, u.stop, u.index) for u, _ in units(0, discover([str(path)])[0], unit_bytes=5000)])
    assert spans[0] == spans[1] and len(spans[0]) > 50
    assert spans[0][0][0] == 0 and spans[0][-1][1] == len(data)
    assert all(before[1] == after[0] for before, after in zip(spans[0], spans[0][1:], strict=False))


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_an_empty_file_is_one_empty_unit(tmp_path: Path, codec: str | None) -> None:
    path = tmp_path / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.write_bytes(pack(b"", codec))
    (whole,) = read_whole(discover([str(path)]), 100)
    assert (whole.units, whole.data, whole.faults) == (1, b"", [])


@pytest.mark.parametrize("codec", [None, "zst"])
def test_sizes_of_units_add_up_to_the_file(tmp_path: Path, codec: str | None) -> None:
    path = tmp_path / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.write_bytes(pack(jsonl(documents(5000)), codec))
    (found,) = discover([str(path)])
    assert sum(unit.size for unit, _ in units(0, found, unit_bytes=10_000)) == found.size


@pytest.mark.parametrize("codec", [None, "gz", "zst"])
def test_a_line_of_100_mb(tmp_path: Path, codec: str | None) -> None:
    long = b'{"text": "' + b"long " * (20 << 20) + b'"}'
    data = b'{"text": "a"}\n' + long + b'\n{"text": "b"}\n{"text": "c"}'
    path = tmp_path / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.write_bytes(pack(data, codec) if codec != "gz" else pack(data[:50], codec) + pack(data[50:], codec))
    buffer, got = Buffer(), []
    (found,) = discover([str(path)])
    for unit, batch in units(0, found):
        batch = read(unit, found, buffer) if batch is None else batch
        assert isinstance(batch, Lines)
        got.append((unit.index, batch.offset, bytes(batch.data)))
    joined = b"".join(part for _, _, part in sorted(got))
    assert joined == data
    assert len(got) == (13 if codec is None else 3)


@pytest.mark.parametrize("codec", [None, "gz"])
@pytest.mark.parametrize("length", [300_000, 300_001, 900_000])
@pytest.mark.parametrize("place", ["first", "middle", "last", "last without newline"])
def test_a_line_over_the_limit_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str | None, length: int, place: str
) -> None:
    monkeypatch.setattr(source, "MAX_LINE", 300_000)
    short = [b'{"text": "%d"}' % i for i in range(400)]
    at = {"first": 0, "middle": 200}.get(place, 400)
    lines = [*short[:at], b"x" * length, *short[at:]]
    data = b"\n".join(lines) + (b"" if "without" in place else b"\n")
    path = tmp_path / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.write_bytes(pack(data, codec))
    (whole,) = read_whole(discover([str(path)]), 4096)
    if length <= 300_000:
        assert whole.data == data and not whole.faults
        return
    ((row, fault),) = whole.faults
    offset = sum(len(line) + 1 for line in lines[:at])
    assert (row, fault.rows, fault.offset, fault.length) == (at, 1, offset, length)
    assert fault.reason == f"line of {length:,} bytes: longer than the limit of 300,000"
    assert [line for _, line in whole.lines] == short


def test_finished_units_and_sources_are_left_out(tmp_path: Path) -> None:
    for name, codec in (("a.jsonl", None), ("b.jsonl.zst", "zst"), ("c.jsonl.gz", "gz")):
        (tmp_path / name).write_bytes(pack(jsonl(documents(500)), codec))
    sources = discover([str(tmp_path)])
    everything = {(u.source, u.index) for u, _ in work(sources, unit_bytes=4000)}
    done = {key for key in everything if sum(key) % 3}
    os.truncate(sources[2].path, 0)  # complete: not opened
    rest = {(u.source, u.index) for u, _ in work(sources, done, {2}, unit_bytes=4000)}
    assert rest == {key for key in everything - done if key[0] != 2} and len(rest) > 5


def test_batches_hold_until_the_next_read_and_the_buffer_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"y" * 3_000_000 + b"\n" + b"x\n" * 100_000)
    (found,) = discover([str(path)])
    buffer = Buffer()
    first = read(Unit(0, 0, 0, 1000, 0, last=False), found, buffer)
    assert isinstance(first, Lines) and len(first.data) == 3_000_001
    held = len(buffer.data)
    second = read(Unit(0, 0, 3_050_000, 3_051_000, 0, last=False), found, buffer)
    assert isinstance(second, Lines) and len(second.data) == 1000
    assert len(buffer.data) < held / 4


def test_stopping_early_ends_the_threads(tmp_path: Path) -> None:
    import threading

    for i in range(6):
        (tmp_path / f"{i}.jsonl.zst").write_bytes(pack(jsonl(documents(3000)), "zst"))
    before = threading.active_count()
    steps = work(discover([str(tmp_path)]), threads=4, unit_bytes=1000)
    next(steps)
    assert threading.active_count() > before
    steps.close()
    assert threading.active_count() == before


class _Lost(Exception):
    """As the libraries of remote stores raise them, of no common kind."""


@pytest.mark.parametrize(("kind", "says"), [(OSError, "cannot be read"), (_Lost, "was lost")])
def test_a_lost_network_source_is_a_run_error(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], says: str
) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/net/a.jsonl", jsonl(documents(100)))
    fs.pipe("/net/b.jsonl.zst", pack(jsonl(documents(100)), "zst"))
    try:
        plain, packed = discover(["memory://net"])

        def lost(*_: object, **__: object) -> bytes:
            raise kind("connection reset")

        monkeypatch.setattr(type(fs), "cat_file", lost)
        monkeypatch.setattr(type(fs), "open", lost)
        with pytest.raises(RunError, match=rf"a\.jsonl {says} \(.*connection reset\).*run the same command again"):
            read(next(units(0, plain))[0], plain, Buffer())
        with pytest.raises(RunError, match=rf"b\.jsonl\.zst {says} \(.*connection reset\)"):
            list(units(0, packed))
    finally:
        fs.rm("/net", recursive=True)
