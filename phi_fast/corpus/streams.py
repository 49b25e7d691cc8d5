"""Compressed streams: gz, zst, bz2 and xz, of one or many members; nothing before a fault is lost."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from phi_fast.corpus.files import chunks
from phi_fast.corpus.source import Compression, Source

igzip_lib: Any
isal_zlib: Any
try:
    from isal import igzip_lib, isal_zlib
except ImportError:  # no wheel for this machine: zlib reads and writes the same, at a third of the speed
    igzip_lib = isal_zlib = None

PIECE = 8 << 10
"""Compressed bytes fed at once: few enough that no piece can unpack into more memory than there is."""

MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gz",
    b"\x28\xb5\x2f\xfd": "zst",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
SUFFIXES: dict[str, Compression] = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".bz2": "bz2", ".xz": "xz"}
WORDS: dict[Compression, str] = {"gz": "gzip", "zst": "zstd", "bz2": "bzip2", "xz": "xz"}
ERRORS: list[type[Exception]] = [zlib.error, OSError, ValueError, EOFError, lzma.LZMAError, zstandard.ZstdError]
if isal_zlib is not None:
    ERRORS.append(isal_zlib.error)


class StreamFault(Exception):
    """The compressed stream is truncated or corrupt from here on; all before it has been handed over."""


def _gz() -> Any:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP) if igzip_lib else zlib.decompressobj(31)


def _zst() -> Any:
    # 2 GiB is the widest window `zstd --long` writes; the default limit of 128 MiB refuses such files.
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()


_DECOMPRESSORS: dict[Compression, Callable[[], Any]] = {
    "gz": _gz,
    "zst": _zst,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}


def decompressed(source: Source) -> Iterator[tuple[bytes, int]]:
    """The text of a compressed file, in order.

    Yields
    ------
    (bytes, int)
        Some text, and how many bytes of the file have been used so far.

    Raises
    ------
    StreamFault
        After the last byte that can be had from a truncated or corrupt stream.
    RunError
        When the file vanished, shrank or cannot be reached.
    """
    assert source.compression is not None
    make, word = _DECOMPRESSORS[source.compression], WORDS[source.compression]
    member, used = 0, 0  # where the member being read starts, and what has been fed
    engine: Any = None
    between = False  # after a whole member: only another member or zero padding may follow
    for chunk in chunks(source):
        at = 0
        while at < len(chunk):
            if engine is None:
                if between and (padding := _zeros(chunk, at)):
                    at += padding
                    used += padding
                    continue
                engine, member = make(), used
            piece = chunk[at : at + PIECE]
            try:
                text = engine.decompress(piece)
            except tuple(ERRORS) as error:
                if between and member == used and not text_like_member(piece, source.compression):
                    left = source.size - used
                    raise StreamFault(f"{left:,} bytes after the end of the {word} stream are not {word}") from error
                yield from _up_to_fault(source, make, member, used, piece)
                raise StreamFault(
                    f"corrupt {word} stream near byte {used:,} of {source.size:,} ({error}): the rest is unread, "
                    "and the last lines before it may be damaged"
                ) from error
            taken = len(piece)
            if engine.eof:
                taken -= len(engine.unused_data)
                engine, between = None, True
            at += taken
            used += taken
            if text:
                yield text, used
    if engine is not None or not source.size:
        raise StreamFault(f"truncated {word} stream after {source.size:,} bytes")


def text_like_member(piece: bytes, compression: Compression) -> bool:
    """Whether these bytes begin like a stream of this kind."""
    return any(piece.startswith(magic) for magic, kind in MAGIC.items() if kind == compression)


def _zeros(chunk: bytes, at: int) -> int:
    end = at
    while end < len(chunk) and chunk[end] == 0:
        end += 1
    return end - at


def _up_to_fault(
    source: Source, make: Callable[[], Any], member: int, used: int, piece: bytes
) -> Iterator[tuple[bytes, int]]:
    """Read a member again up to the piece that failed, then that piece byte by byte: a decompressor that
    fails keeps to itself what it had unpacked from the same piece."""
    engine, at = make(), member
    for chunk in chunks(source, member, PIECE):
        if at >= used:
            break
        engine.decompress(chunk[: used - at])
        at += len(chunk)
    for byte in range(len(piece)):
        try:
            text = engine.decompress(piece[byte : byte + 1])
        except tuple(ERRORS):
            return
        if text:
            yield text, used + byte + 1


def compressor(compression: Compression) -> Any:
    """An object with ``compress(data)`` and ``flush()`` that writes one stream, the same bytes for the same calls."""
    if compression == "gz":
        return isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31) if isal_zlib else zlib.compressobj(1, zlib.DEFLATED, 31)
    if compression == "zst":
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    if compression == "bz2":
        return bz2.BZ2Compressor(9)
    return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=2)
