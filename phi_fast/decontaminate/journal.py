"""The journal of a run: one record a finished unit, appended, checked, and safe to cut off anywhere.

A file of records ``[b"PFJ1", length of header, length of payload, crc32] header payload``, the header in JSON. The
first record names the run. A record counts once all of it is there and its checksum holds; what follows the last such
record (the write that a kill interrupted) is cut off when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from phi_fast.errors import RunError

_FRAME = struct.Struct("<4sIQI")
_MAGIC = b"PFJ1"
_CHUNK = 1 << 20

Header = dict[str, Any]


class Journal:
    """An open journal; one process at a time, any number of threads.

    A record is of a ``kind`` and about a source, or one unit of it. Only the places of the records are held in memory.

    Parameters
    ----------
    path
        The file; created where absent.
    run
        Header of the first record, which names the run. A journal of another run is begun anew: whose folder it is was
        settled before. None: whatever run it is, only read it.

    Raises
    ------
    RunError
        Another process has it open, or it cannot be written.
    """

    def __init__(self, path: Path, run: Header | None) -> None:
        self.path = path
        self.units: dict[tuple[int, int], int] = {}  # (source, unit) to the place of its record
        self.sources: dict[str, dict[int, Any]] = {}  # kind to the sources that have such a record, and what it says
        self.lengths: dict[int, int] = {}  # how many units a source has, once its last unit is recorded
        self.totals: Counter[str] = Counter()  # sums of the numbers in the units' headers
        self._lock = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (0 if run is None else os.O_CREAT), 0o644)
        except OSError as error:
            raise RunError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise RunError(
                f"{path.parent}: another phi-fast is working on this run. Wait for it or stop it first."
            ) from error
        self._end = 0
        for header, begin, end in _sound_records(self._fd, payloads=run is not None):
            if not begin and run is not None and header != run:
                break
            if begin:
                self._note(header, begin)
            self._end = end
        if run is not None:
            os.ftruncate(self._fd, self._end)
            if not self._end:
                self._append(run, ())

    def _note(self, header: Header, place: int) -> None:
        if "unit" in header:
            self.units[header["source"], header["unit"]] = place
            self.totals.update(header["counts"])
            if header["last"]:
                self.lengths[header["source"]] = header["unit"] + 1
        else:
            self.sources.setdefault(header["kind"], {})[header["source"]] = header["says"]

    def add_unit(self, source: int, unit: int, counts: dict[str, int], parts: Sequence[bytes], *, last: bool) -> None:
        """Record a finished unit: its counts, the parts that :meth:`unit` gives back, and whether none comes after it.

        Once this returns, a kill of the process does not undo it.

        Raises
        ------
        RunError
            The disk is full or failed. The journal stays sound.
        """
        sizes = [len(part) for part in parts]
        self._append({"source": source, "unit": unit, "counts": counts, "parts": sizes, "last": last}, parts)

    def add_source(self, kind: str, source: int, says: Any = None) -> None:
        """Record that something is done for a whole source, and JSON of what came of it."""
        self._append({"kind": kind, "source": source, "says": says}, ())

    def _append(self, header: Header, payload: Sequence[bytes]) -> None:
        text = json.dumps(header, separators=(",", ":")).encode()
        length = sum(len(part) for part in payload)
        check = zlib.crc32(_FRAME.pack(_MAGIC, len(text), length, 0))
        for part in (text, *payload):
            check = zlib.crc32(part, check)
        with self._lock:
            begin = self._end
            try:
                self._end = _write(self._fd, [_FRAME.pack(_MAGIC, len(text), length, check), text, *payload], begin)
            except OSError as error:
                os.ftruncate(self._fd, begin)
                raise RunError(
                    f"{self.path}: cannot be written: {error.strerror}. "
                    "Nothing is lost: make room, then give the same command again to go on."
                ) from error
            if begin:
                self._note(header, begin)

    def unit(self, source: int, unit: int, only: Container[int]) -> tuple[dict[str, int], list[memoryview]]:
        """Read a unit's counts and parts back; parts other than ``only`` come back empty."""
        place = self.units[source, unit]
        _, text_length, _, _ = _FRAME.unpack(self._read(place, _FRAME.size))
        header = json.loads(bytes(self._read(place + _FRAME.size, text_length)))
        parts = []
        begin = place + _FRAME.size + text_length
        for number, size in enumerate(header["parts"]):
            parts.append(self._read(begin, size if number in only else 0))
            begin += size
        return header["counts"], parts

    def _read(self, offset: int, length: int) -> memoryview:
        view = memoryview(bytearray(length))
        done = 0
        while done < length:
            got = os.preadv(self._fd, [view[done:]], offset + done)
            if not got:
                raise RunError(f"{self.path}: became shorter while it was read; give the same command again")
            done += got
        return view

    def close(self) -> None:
        """Close the file and let others have it."""
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write(fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
    left = [part for part in parts if len(part)]
    while left:
        wrote = os.pwritev(fd, left[:64], offset)  # well under IOV_MAX
        offset += wrote
        while left and wrote >= len(left[0]):
            wrote -= len(left.pop(0))
        if wrote:
            left[0] = memoryview(left[0])[wrote:]
    return offset


def _sound_records(fd: int, payloads: bool) -> Iterator[tuple[Header, int, int]]:
    """Yield the records up to the first that is not whole: header, place, place of the next.

    Without ``payloads`` these are passed over unchecked: in a finished run all are whole.
    """
    size = os.fstat(fd).st_size
    at = 0
    while at + _FRAME.size <= size:
        magic, text_length, length, check = _FRAME.unpack(os.pread(fd, _FRAME.size, at))
        begin = at + _FRAME.size + text_length
        end = begin + length
        if magic != _MAGIC or end > size:
            return
        text = os.pread(fd, text_length, at + _FRAME.size)
        if payloads:
            found = zlib.crc32(text, zlib.crc32(_FRAME.pack(_MAGIC, text_length, length, 0)))
            for place in range(begin, end, _CHUNK):
                found = zlib.crc32(os.pread(fd, min(_CHUNK, end - place), place), found)
            if found != check:
                return
        yield json.loads(text), at, end
        at = end
