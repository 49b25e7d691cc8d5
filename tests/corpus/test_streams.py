"""Compressed streams: members and frames, truncation, corruption, garbage; what precedes a fault is never lost."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from phi_fast.corpus import discover, streams
from tests.corpus.support import CODECS, Whole, documents, jsonl, pack, read_whole

WORD = {"gz": "gzip", "zst": "zstd", "bz2": "bzip2", "xz": "xz"}
DATA = jsonl([doc | {"noise": random.Random(doc["n"]).randbytes(30).hex()} for doc in documents(4000)])


@pytest.fixture(params=["isal", "zlib"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With ISA-L, and as on a machine that has no wheel of it."""
    if request.param == "zlib":
        monkeypatch.setattr(streams, "igzip_lib", None)
        monkeypatch.setattr(streams, "isal_zlib", None)
    return str(request.param)


def _read(path: Path, data: bytes, unit_bytes: int = 10_000) -> Whole:
    path.write_bytes(data)
    (whole,) = read_whole(discover([str(path)]), unit_bytes)
    return whole


def _check_fault(whole: Whole, says: str, least: int, data: bytes = DATA) -> None:
    """The whole lines before the fault, then the fault with the partial line, and no byte between them lost."""
    ((row, fault),) = whole.faults
    assert says in fault.reason
    assert whole.data == data[: len(whole.data)] and whole.data[-1:] in (b"", b"\n")
    assert fault.offset == len(whole.data) and fault.length == len(fault.raw) and row == len(whole.lines)
    assert whole.data + fault.raw == data[: len(whole.data) + len(fault.raw)]
    assert fault.rows == bool(fault.raw) and b"\n" not in fault.raw
    assert len(whole.data) + len(fault.raw) >= least


@pytest.mark.parametrize("codec", CODECS)
def test_many_members(tmp_path: Path, codec: str, engine: str) -> None:
    bounds = [0, 1, 17, 40_000, 40_000, 40_001, len(DATA)]
    packed = b"".join(pack(DATA[a:b], codec) for a, b in pairwise(bounds))
    whole = _read(tmp_path / f"a.jsonl.{codec}", packed)
    assert whole.data == DATA and not whole.faults


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 1.0])
def test_truncated(tmp_path: Path, codec: str, share: float, engine: str) -> None:
    packed = pack(DATA, codec)
    keep = min(len(packed) - 1, int(len(packed) * share))
    whole = _read(tmp_path / f"a.jsonl.{codec}", packed[:keep])
    _check_fault(whole, f"truncated {WORD[codec]} stream after {keep:,} bytes", 0)
    if codec in ("gz", "zst") and share >= 0.3:  # bzip2 and xz work in blocks as large as this file
        assert len(whole.data) > (share - 0.25) * len(DATA)


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_in_a_later_member(tmp_path: Path, codec: str, engine: str) -> None:
    first, second = pack(DATA[:50_000], codec), pack(DATA[50_000:], codec)
    for keep in (1, len(second) // 2):
        whole = _read(tmp_path / f"a.jsonl.{codec}", first + second[:keep])
        _check_fault(whole, f"truncated {WORD[codec]} stream after {len(first) + keep:,} bytes", 50_000)


def _byte_by_byte(packed: bytes, codec: str) -> bytes:
    """What the decoder gives up to a fault when no output can be withheld. It may be damaged at its end: only a
    checksum, where there is one, tells."""
    decoder = streams._DECOMPRESSORS[codec]()  # type: ignore[index]
    text = bytearray()
    for i in range(len(packed)):
        try:
            text += decoder.decompress(packed[i : i + 1])
        except tuple(streams.ERRORS):
            break
    return bytes(text)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("codec", CODECS)
def test_what_precedes_a_corrupt_byte_is_all_there(tmp_path: Path, codec: str, members: int, engine: str) -> None:
    first = 50_000 if members == 2 else 0
    packed = bytearray(pack(DATA[first:], codec))
    middle = len(packed) // 2
    packed[middle : middle + 400] = b"\xff" * 400
    expected = DATA[:first] + _byte_by_byte(bytes(packed), codec)
    if codec in ("gz", "zst"):
        assert len(expected) > len(DATA) // 4
    before = pack(DATA[:first], codec) if first else b""
    whole = _read(tmp_path / f"a.jsonl.{codec}", before + bytes(packed))
    _check_fault(whole, f"corrupt {WORD[codec]} stream near byte ", len(expected), expected)


@pytest.mark.parametrize("codec", CODECS)
def test_a_wrong_checksum_is_a_fault_after_all_the_text(tmp_path: Path, codec: str, engine: str) -> None:
    packed = bytearray(pack(DATA, codec))
    place = {"gz": -6, "zst": -1, "bz2": -2, "xz": -40}[codec]
    packed[place] ^= 0x10
    whole = _read(tmp_path / f"a.jsonl.{codec}", bytes(packed))
    assert len(whole.faults) == 1 and "corrupt" in whole.faults[0][1].reason
    if codec in ("gz", "zst"):
        _check_fault(whole, "corrupt", len(DATA) - 200_000)


@pytest.mark.parametrize("codec", CODECS)
def test_garbage_after_the_stream_is_said(tmp_path: Path, codec: str, engine: str) -> None:
    whole = _read(tmp_path / f"a.jsonl.{codec}", pack(DATA, codec) + b"garbage, not a stream")
    ((row, fault),) = whole.faults
    assert whole.data == DATA and row == 4000 and fault.rows == 0
    assert fault.reason == f"21 bytes after the end of the {WORD[codec]} stream are not {WORD[codec]}"


@pytest.mark.parametrize("codec", CODECS)
def test_zero_padding_after_the_stream_is_fine(tmp_path: Path, codec: str) -> None:
    whole = _read(tmp_path / f"a.jsonl.{codec}", pack(DATA, codec) + bytes(512) + pack(DATA, codec) + bytes(40_000))
    assert whole.data == DATA + DATA and not whole.faults


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("content", [b"", b"this was never compressed\n"])
def test_no_stream_at_all(tmp_path: Path, codec: str, content: bytes) -> None:
    whole = _read(tmp_path / f"a.jsonl.{codec}", content)
    ((row, fault),) = whole.faults
    assert (row, fault.rows, whole.data) == (0, 0, b"")
    assert fault.reason.startswith("corrupt" if content else f"truncated {WORD[codec]} stream after 0 bytes")


def test_zstd_skippable_frames_and_long_windows(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compress(DATA)
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    unsized = packer.compress(DATA) + packer.flush()
    whole = _read(tmp_path / "a.jsonl.zst", skippable + wide + skippable + unsized + skippable)
    assert whole.data == DATA * 2 and not whole.faults


def test_a_truncated_file_of_random_length_never_loses_a_line(tmp_path: Path) -> None:
    draw = random.Random(7)
    packed = pack(DATA[:60_000], "gz") + pack(DATA[60_000:], "gz")
    for _ in range(20):
        keep = draw.randrange(1, len(packed))
        _check_fault(_read(tmp_path / "a.jsonl.gz", packed[:keep]), "truncated", 0)


def test_memory_is_bounded_for_a_small_file_that_unpacks_large(tmp_path: Path) -> None:
    from phi_fast.corpus import units

    path = tmp_path / "a.jsonl.zst"
    line = b'{"text": "' + b"a" * 1000 + b'"}\n'
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    path.write_bytes(b"".join(packer.compress(line * 10_000) for _ in range(30)) + packer.flush())
    assert os.path.getsize(path) < 200_000
    (source,) = discover([str(path)])
    sizes = [len(batch.data) for _, batch in units(0, source, unit_bytes=1 << 20) if batch is not None]  # type: ignore[union-attr]
    assert sum(sizes) == 300_000 * len(line) and max(sizes) <= 1 << 20
