"""Clean copies of lines and trees: what stays is the same bytes, what goes is gone, and failure leaves nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_fast.corpus import Removal, Source, discover, output, units, write_clean
from phi_fast.errors import RunError
from tests.corpus.support import CODECS, documents, jsonl, pack, read_whole, unpack, write_jsonl

MIXED = (
    b'\xef\xbb\xbf{"id": 1, "text": "first"}\n'
    b"\n"
    b'  {"text" : "two\\u00e9", "n": [1, {"text": "inner"}] }\r\n'
    b'{"text": "not this", "id": 3, "text": "three \xc3\xa9"}\n'
    b"   \r\n"
    b"broken\n"
    b'{"text":"last, without newline"}'
)


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    """Offset and content of each line, without newline; as the scan gives them."""
    lines, at = [], 0
    for line in data.split(b"\n"):
        lines.append((at, line))
        at += len(line) + 1
    if lines[0][1].startswith(b"\xef\xbb\xbf"):
        lines[0] = (3, lines[0][1][3:])
    return lines


def _removals(
    data: bytes, edits: dict[int, Callable[[str], str | None] | None], carriage: bool = True
) -> list[Removal]:
    lines = _lines(data)
    found = []
    for row, edit in sorted(edits.items()):
        offset, line = lines[row]
        length = len(line if carriage else line.removesuffix(b"\r"))
        found.append(Removal(row, offset, length, edit=edit))
    return found


def _store(tmp_path: Path, data: bytes, codec: str | None) -> Source:
    path = tmp_path / "in" / ("a.jsonl" + (f".{codec}" if codec else ""))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pack(data, codec))
    return discover([str(path)])[0]


@pytest.fixture(params=["copy_file_range", "sendfile", "write"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to copy a range, the faster ones failing as file systems make them fail."""

    def fails(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if request.param != "copy_file_range":
        monkeypatch.setattr(os, "copy_file_range", fails)
    if request.param == "write":
        monkeypatch.setattr(os, "sendfile", fails)
    return str(request.param)


@pytest.mark.parametrize("codec", [None, *CODECS])
def test_nothing_removed_copies_the_files_own_bytes(tmp_path: Path, codec: str | None, way: str) -> None:
    source = _store(tmp_path, MIXED, codec)
    written = write_clean(source, tmp_path / "out/sub/a", [])
    assert (tmp_path / "out/sub/a").read_bytes() == Path(source.path).read_bytes()
    assert written.copied and (written.bytes, written.dropped, written.cut) == (source.size, 0, 0)
    assert os.listdir(tmp_path / "out/sub") == ["a"]


@pytest.mark.parametrize("carriage", [True, False])
@pytest.mark.parametrize("codec", [None, *CODECS])
def test_dropped_lines_leave_every_other_byte(tmp_path: Path, codec: str | None, carriage: bool, way: str) -> None:
    pieces = MIXED.removeprefix(b"\xef\xbb\xbf").splitlines(keepends=True)
    source = _store(tmp_path, MIXED, codec)
    for rows in ([0], [2], [6], [0, 2, 3, 5, 6], [3, 5], [5]):
        written = write_clean(source, tmp_path / "out", _removals(MIXED, dict.fromkeys(rows), carriage))
        expected = b"\xef\xbb\xbf" + b"".join(piece for row, piece in enumerate(pieces) if row not in rows)
        assert unpack((tmp_path / "out").read_bytes(), codec) == expected
        assert (written.dropped, written.cut, written.copied) == (len(rows), 0, False)


@pytest.mark.parametrize("codec", [None, "zst"])
def test_a_cut_line_changes_in_its_text_value_alone(tmp_path: Path, codec: str | None) -> None:
    source = _store(tmp_path, MIXED, codec)
    seen: list[str] = []

    def cut(text: str) -> str | None:
        seen.append(text)
        return None if text == "first" else text.upper() + ' "q"'

    written = write_clean(source, tmp_path / "out", _removals(MIXED, dict.fromkeys([0, 2, 3, 6], cut)))
    assert seen == ["first", "two\u00e9", "three é", "last, without newline"]
    assert unpack((tmp_path / "out").read_bytes(), codec) == (
        b"\xef\xbb\xbf"
        b"\n"
        b'  {"text" : "TWO\\u00c9 \\"q\\"", "n": [1, {"text": "inner"}] }\r\n'
        b'{"text": "not this", "id": 3, "text": "THREE \xc3\x89 \\"q\\""}\n'
        b"   \r\n"
        b"broken\n"
        b'{"text":"LAST, WITHOUT NEWLINE \\"q\\""}'
    )
    assert (written.dropped, written.cut) == (1, 3)


def test_bytes_as_they_pack_are_the_same_every_time(tmp_path: Path) -> None:
    for codec in CODECS:
        source = _store(tmp_path, MIXED, codec)
        packed = []
        for name in ("one", "two"):
            write_clean(source, tmp_path / name, _removals(MIXED, {0: None}))
            packed.append((tmp_path / name).read_bytes())
        assert packed[0] == packed[1]


@given(data=st.data())
@pytest.mark.parametrize("codec", [None, "gz"])
def test_any_rows_of_any_lines(
    tmp_path_factory: pytest.TempPathFactory, codec: str | None, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.text('ab\u00e9\U0001f600\\"', max_size=20), min_size=1, max_size=30))
    ends = data.draw(st.lists(st.sampled_from(["\n", "\r\n", "\n\n"]), min_size=len(rows), max_size=len(rows)))
    ascii_only = data.draw(st.booleans())
    content = "".join(
        json.dumps({"text": row, "n": i}, ensure_ascii=ascii_only) + end
        for i, (row, end) in enumerate(zip(rows, ends, strict=True))
    ).encode()
    kept = content if data.draw(st.booleans()) else content.rstrip()
    lines = [(row, line) for row, (_, line) in enumerate(_lines(kept)) if line.strip()]
    chosen = data.draw(st.dictionaries(st.sampled_from([row for row, _ in lines]), st.booleans()))
    source = _store(tmp_path_factory.mktemp("p"), kept, codec)
    out = Path(source.path).with_name("out")
    edits = {row: (lambda text: text[::-1]) if cut else None for row, cut in chosen.items()}
    write_clean(source, out, _removals(kept, edits))
    expected = b""
    for row, line in enumerate(kept.splitlines(keepends=True)):
        if row not in chosen:
            expected += line
        elif chosen[row]:
            value = json.loads(line)
            value["text"] = value["text"][::-1]
            bare = line.rstrip(b"\r\n")
            as_ascii = ascii_only or bare.isascii()
            expected += json.dumps(value, ensure_ascii=as_ascii).encode() + line[len(bare) :]
    assert unpack(out.read_bytes(), codec) == expected


@pytest.mark.parametrize("codec", ["gz", "zst", "bz2", "xz"])
def test_a_truncated_stream_comes_out_whole_without_its_fault(tmp_path: Path, codec: str) -> None:
    data = jsonl(documents(300))
    first, second = pack(data[:20_000], codec), pack(data[20_000:], codec)
    path = tmp_path / f"a.jsonl.{codec}"
    path.write_bytes(first + second[:-20])
    (source,) = discover([str(path)])
    (whole,) = read_whole([source], 1 << 20)
    ((row, fault),) = whole.faults
    written = write_clean(source, tmp_path / "out", [Removal(row, fault.offset, fault.length, fault.rows)])
    assert unpack((tmp_path / "out").read_bytes(), codec) == whole.data
    assert written.dropped == fault.rows
    with pytest.raises(RunError, match="not what was scanned"):
        write_clean(source, tmp_path / "other", [Removal(0, 0, 0, 0)])
    assert not (tmp_path / "other").exists()


def test_a_source_that_is_one_fault_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    write_jsonl(tmp_path / "b.jsonl", documents(2))
    source = discover([str(tmp_path)])[0]
    written = write_clean(source, tmp_path / "out/a.parquet", [Removal(0, rows=0)])
    assert written.path is None and not (tmp_path / "out/a.parquet").exists()


@pytest.mark.parametrize("codec", [None, "gz"])
@pytest.mark.parametrize(
    "removal",
    [Removal(1, 5, 3), Removal(400, 10**9, 4), Removal(0, 0, 2), Removal(0, 1, 20)],
    ids=["inside a line", "beyond the end", "not to a newline", "not at a start"],
)
def test_removals_that_do_not_fit_the_file_are_refused(tmp_path: Path, codec: str | None, removal: Removal) -> None:
    source = _store(tmp_path, jsonl(documents(30)), codec)
    with pytest.raises(RunError, match="not what was scanned: start again"):
        write_clean(source, tmp_path / "out/a", [removal])
    assert os.listdir(tmp_path / "out") == []


def test_removals_out_of_order_are_refused(tmp_path: Path) -> None:
    data = jsonl(documents(30))
    source = _store(tmp_path, data, None)
    with pytest.raises(ValueError, match="in order"):
        write_clean(source, tmp_path / "out", _removals(data, {3: None, 5: None})[::-1])


def test_a_changed_source_is_refused(tmp_path: Path) -> None:
    source = _store(tmp_path, MIXED, None)
    Path(source.path).write_bytes(MIXED.replace(b"broken", b"unbent"))
    with pytest.raises(RunError, match="was modified"):
        write_clean(source, tmp_path / "out", [])
    os.unlink(source.path)
    with pytest.raises(RunError, match="vanished"):
        write_clean(source, tmp_path / "out", [])


def test_a_grown_source_is_written_as_far_as_it_was_scanned(tmp_path: Path) -> None:
    source = _store(tmp_path, jsonl(documents(30)), None)
    with open(source.path, "ab") as file:
        file.write(b'{"text": "new"}\n')
    write_clean(source, tmp_path / "out", [])
    assert (tmp_path / "out").read_bytes() == jsonl(documents(30))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("codec", [None, "zst"])
@pytest.mark.parametrize("rows", [[], [3]])
def test_a_full_disk_is_a_run_error_that_names_the_file(tmp_path: Path, codec: str | None, rows: list[int]) -> None:
    data = jsonl(documents(3000))
    source = _store(tmp_path, data, codec)
    out = tmp_path / "out/a"
    out.parent.mkdir()
    os.symlink("/dev/full", out.parent / ".a.partial")
    with pytest.raises(RunError, match=f"disk full while writing {out}: free some space, then run the same command"):
        write_clean(source, out, _removals(data, dict.fromkeys(rows)))
    assert os.listdir(out.parent) == []


@pytest.mark.parametrize("call", ["copy_file_range", "fsync"])
def test_a_full_disk_met_in_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    source = _store(tmp_path, MIXED, None)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunError, match="disk full"):
        write_clean(source, tmp_path / "out/a", [])
    assert os.listdir(tmp_path / "out") == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source = _store(tmp_path, MIXED, None)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"out/a cannot be written"):
        write_clean(source, tmp_path / "out/a", [])


@pytest.mark.parametrize("codec", [None, "zst"])
def test_tick_counts_the_bytes_and_may_stop(tmp_path: Path, codec: str | None) -> None:
    source = _store(tmp_path, jsonl(documents(3000)), codec)
    ticks: list[int] = []
    write_clean(source, tmp_path / "one", [], tick=ticks.append)
    assert sum(ticks) == source.size

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clean(source, tmp_path / "two/a", _removals(jsonl(documents(3000)), {5: None}), tick=stop)
    assert os.listdir(tmp_path / "two") == []


def test_an_older_copy_is_replaced(tmp_path: Path) -> None:
    source = _store(tmp_path, MIXED, None)
    (tmp_path / "out").write_text("old")
    (tmp_path / ".out.partial").write_text("left by a killed run, longer than the new one" * 100)
    write_clean(source, tmp_path / "out", [])
    assert (tmp_path / "out").read_bytes() == MIXED


@pytest.mark.parametrize("codec", [None, "gz"])
def test_remote_sources(tmp_path: Path, codec: str | None) -> None:
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/clean/a.jsonl", pack(MIXED, codec))
        (source,) = discover(["memory://clean/a.jsonl"])
        write_clean(source, tmp_path / "one", [])
        assert (tmp_path / "one").read_bytes() == pack(MIXED, codec) or codec
        assert unpack((tmp_path / "one").read_bytes(), codec) == MIXED
        write_clean(source, tmp_path / "two", _removals(MIXED, {3: None}))
        assert unpack((tmp_path / "two").read_bytes(), codec) == MIXED.replace(MIXED.split(b"\n")[3] + b"\n", b"")
    finally:
        fs.store.clear()


def _tree(tmp_path: Path) -> Source:
    for name in ("a.py", "sub/b.py", "sub/c.py", "sub/deep/d.py"):
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"# é {name}\r\n".encode())
    (tmp_path / "t/e.py").write_bytes(b"\0")
    return discover([str(tmp_path / "t")])[0]


def _read_tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_tree(tmp_path: Path) -> None:
    source = _tree(tmp_path)
    original = _read_tree(tmp_path / "t")
    removals = [Removal(1), Removal(2, edit=lambda text: text.replace("é", "ü")), Removal(4, edit=lambda _: None)]
    assert source.files == ("a.py", "e.py", "sub/b.py", "sub/c.py", "sub/deep/d.py")
    ticks: list[int] = []
    written = write_clean(source, tmp_path / "out/t", removals, tick=ticks.append)
    expected = original | {"sub/b.py": "# ü sub/b.py\r\n".encode()}
    del expected["e.py"], expected["sub/deep/d.py"]
    assert _read_tree(tmp_path / "out/t") == expected
    assert (written.dropped, written.cut, written.bytes) == (2, 1, sum(map(len, expected.values())))
    write_clean(source, tmp_path / "out/t", [Removal(row) for row in range(5)])
    assert _read_tree(tmp_path / "out/t") == {}
    assert os.listdir(tmp_path / "out") == ["t"]


def test_a_tree_that_does_not_fit_its_removals(tmp_path: Path) -> None:
    source = _tree(tmp_path)
    for removals in ([], [Removal(1), Removal(7)]):
        with pytest.raises(RunError, match="not what was scanned"):
            write_clean(source, tmp_path / "out/t", removals)
        assert os.listdir(tmp_path / "out") == []


def test_a_full_disk_under_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _tree(tmp_path)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"disk full while writing .*out/t"):
        write_clean(source, tmp_path / "out/t", [Removal(1)])
    assert os.listdir(tmp_path / "out") == []


def test_scan_offsets_fit_the_writer(tmp_path: Path) -> None:
    """With the engine itself: rejected rows and matched documents, by the places it gives."""
    from phi_fast.engines.ngram import NgramIndex
    from phi_fast.suites import Item, Part, Suite

    words = " ".join(f"word{i} of part" for i in range(40))
    suite = Suite("s", (Item("s/0", (Part("question", words),)),), "here", "0")
    index = NgramIndex.build([suite])
    data = (
        b'\xef\xbb\xbf{"text": "clean", "n": 1}\r\n\nbroken\r\n'
        + json.dumps({"n": 2, "text": f"before {words} after"}).encode()
        + b'\r\n{"text": null}\n{"text": "stays"}'
    )
    for codec in (None, "gz"):
        source = _store(tmp_path, data, codec)
        removals: list[Removal] = []
        rows = 0
        for unit, batch in units(0, source, unit_bytes=50):
            removals += _scanned(index, source, unit, batch, rows)
            rows += _scanned.rows  # type: ignore[attr-defined]
        write_clean(source, tmp_path / "out", removals)
        assert unpack((tmp_path / "out").read_bytes(), codec) == (
            b'\xef\xbb\xbf{"text": "clean", "n": 1}\r\n\n{"n": 2, "text": "before  after"}\r\n{"text": "stays"}'
        )


def _scanned(index: Any, source: Source, unit: Any, batch: Any, first: int) -> list[Removal]:
    from phi_fast.corpus import Buffer, read

    batch = read(unit, source, Buffer()) if batch is None else batch
    result = index.scan_jsonl(batch.data, source.text, source.id)
    _scanned.rows = result.rows  # type: ignore[attr-defined]
    removals = [Removal(first + row, batch.offset + at, length) for row, at, length, _ in result.rejected]
    for number, doc in enumerate(result.docs):
        match = next(m for m in result.matches if m["doc"] == number)
        start, end = int(match["doc_start"]), int(match["doc_end"])
        place = Removal(first + int(doc["row"]), batch.offset + int(doc["offset"]), int(doc["length"]))
        removals.append(place._replace(edit=lambda text, a=start, b=end: text[:a] + text[b:]))  # type: ignore[misc]
    return sorted(removals)


@pytest.mark.parametrize("refused", [None, 0, 2])
def test_large_outputs_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    """Ranges that start and end anywhere, written in whole blocks; also where the file system refuses, now or later."""
    monkeypatch.setattr(output, "LARGE", 1)
    calls = 0
    pwrite = os.pwrite

    def sometimes(fd: int, data: bytes, at: int) -> int:
        nonlocal calls
        calls += 1
        if refused is not None and calls > refused:
            raise OSError(errno.EINVAL, "no direct writes here")
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", sometimes)
    rng = random.Random(5)
    lines = [
        json.dumps({"text": rng.choice("abc") * rng.choice([1, 700, 4080, 70_000])}).encode() + b"\n"
        for _ in range(2500)
    ]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    [source] = discover([str(tmp_path / "a.jsonl")], text="text", id=None)
    dropped = sorted(rng.sample(range(2500), 60))
    starts = [0, *itertools.accumulate(map(len, lines))]
    removals = [Removal(row, starts[row], len(lines[row]) - 1) for row in dropped]
    written = write_clean(source, tmp_path / "out.jsonl", removals)
    wanted = b"".join(line for row, line in enumerate(lines) if row not in set(dropped))
    assert (tmp_path / "out.jsonl").read_bytes() == wanted
    assert written.dropped == 60 and len(wanted) > output.STEP
    copied = write_clean(source, tmp_path / "same.jsonl", [])
    assert copied.copied and (tmp_path / "same.jsonl").read_bytes() == b"".join(lines)
    if not calls:
        pytest.skip("this file system has no direct writes, so only the other way was tested")
