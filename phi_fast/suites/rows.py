"""Rows of a suite's file: JSONL in any common compression, a JSON array, or Parquet."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import zstandard

from phi_fast.errors import InputError
from phi_fast.suites.items import Rejected

Row = tuple[int, dict[str, Any]]


@dataclass(slots=True)
class Rows:
    """A file's rows: 0-based numbers with their fields, the rejected ones, and what the file calls a row."""

    unit: Literal["line", "element", "row"]
    rows: list[Row] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def keep(self, number: int, value: object) -> None:
        """Take a row if it is an object, else reject it."""
        if isinstance(value, dict):
            self.rows.append((number, cast("dict[str, Any]", value)))
        else:
            self.reject(number, "not a JSON object")

    def reject(self, number: int, reason: str) -> None:
        """Set a row aside."""
        self.rejected.append(Rejected(number, reason, self.place(number)))

    def place(self, number: int) -> str:
        """Where a row stands, in words: JSONL counts lines from 1, tables count rows from 0."""
        return f"line {number + 1}" if self.unit == "line" else f"{self.unit} {number}"


def read_rows(path: Path) -> Rows:
    """Read every row of a suite's file.

    Compression and format are told by the file's first bytes, so its name does not matter.

    Parameters
    ----------
    path
        JSONL (plain, gz, zst, bz2, xz), a JSON array of objects, or Parquet.

    Returns
    -------
    Rows
        The rows that are JSON objects, and the others with the reason.

    Raises
    ------
    InputError
        The file is absent, unreadable, truncated or of no known format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(6)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. A suite is given as NAME=PATH, PATH or humaneval.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if head.startswith(b"PAR1"):
        return _parquet(path)
    try:
        with _decompressed(path, head) as stream:
            if _opens_array(stream):
                return _json_array(path, stream)
            return _jsonl(stream)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path}: truncated or corrupt compressed file: {error}. Fetch it again.") from error


def _decompressed(path: Path, head: bytes) -> io.BufferedReader:
    raw: Any
    if head.startswith(b"\x1f\x8b"):
        raw = gzip.GzipFile(path)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        raw = _ZstdStream(path)
    elif head.startswith(b"BZh"):
        raw = bz2.BZ2File(path)
    elif head.startswith(b"\xfd7zXZ\x00"):
        raw = lzma.LZMAFile(path)  # noqa: SIM115  the reader below closes it
    else:
        raw = io.FileIO(path)
    return io.BufferedReader(raw, 1 << 20)


class _ZstdStream(io.RawIOBase):
    """A zst file of one or more frames, which unlike zstandard's own reader refuses a truncated last frame."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._input = b""
        self._ready = b""
        self._inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._input:
                self._input = self._file.read(1 << 17)
                if not self._input:
                    if self._inside:
                        raise EOFError("zst data ended before its last frame did")
                    return 0
            self._inside = True
            self._ready = self._frame.decompress(self._input)
            if self._frame.eof:
                self._input, self._inside = self._frame.unused_data, False
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            else:
                self._input = b""
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _opens_array(stream: io.BufferedReader) -> bool:
    return stream.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _jsonl(stream: BinaryIO) -> Rows:
    found = Rows("line")
    for number, line in enumerate(stream):
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            found.keep(number, json.loads(line))
        except UnicodeDecodeError as error:
            found.reject(number, f"invalid UTF-8 at byte {error.start} of the line")
        except json.JSONDecodeError as error:
            found.reject(number, f"malformed JSON: {error.msg} at character {error.pos}")
        except RecursionError:
            found.reject(number, "malformed JSON: nested too deeply")
    return found


def _json_array(path: Path, stream: BinaryIO) -> Rows:
    found = Rows("element")
    try:
        values = json.loads(stream.read().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: starts like a JSON array but is malformed: {error}") from error
    for number, value in enumerate(values):
        found.keep(number, value)
    return found


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return Rows("row", list(enumerate(_objects(file))))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: corrupt Parquet file: {error}") from error


def _objects(file: Any) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches():
        yield from batch.to_pylist()
