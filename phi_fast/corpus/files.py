"""Bytes of local and remote files: sizes and stamps, positioned reads, streams, and what changed since discovery."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from phi_fast.corpus.source import Source
from phi_fast.errors import InputError, PhiFastError, RunError

Fill = Callable[[memoryview, int], int]
"""Fill a view from a place in the file; returns the bytes read, fewer only at the file's end."""

END_BYTES = 4096
AGAIN = "then run the same command again; finished work is kept"


class Buffer:
    """One thread's reusable memory for `read`; it grows to the longest line met, and shrinks again."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def room(self, size: int, keep: int = 0) -> bytearray:
        """Memory for at least `size` bytes, its first `keep` bytes as they were."""
        if len(self.data) < size or (not keep and len(self.data) > 4 * size):
            grown = bytearray(size)
            grown[:keep] = memoryview(self.data)[:keep]
            self.data = grown
        return self.data


def is_remote(path: str) -> bool:
    return "://" in path


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or path, and the path in it; InputError where its package is missing."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"{url}: {error}") from error
    return fs, path


def absolute(path: str) -> str:
    """Local path without ``file://``, made absolute; a remote URL as it is."""
    if is_remote(path):
        fs, inner = filesystem(path)
        if not isinstance(fs, LocalFileSystem):
            return path if "::" in path else str(fs.unstrip_protocol(inner))
        path = inner
    return os.path.abspath(os.path.expanduser(path))


@contextmanager
def source_errors(source: Source) -> Iterator[None]:
    """Turn whatever a file or network says into a RunError that names the file and the way on."""
    try:
        yield
    except PhiFastError:
        raise
    except FileNotFoundError as error:
        raise RunError(f"{source.path} vanished during the run: put it back, {AGAIN}") from error
    except OSError as error:
        raise RunError(f"{source.path} cannot be read ({error}): see to it, {AGAIN}") from error
    except Exception as error:  # network libraries raise what they like
        if not is_remote(source.path):
            raise
        raise RunError(f"{source.path} was lost ({type(error).__name__}: {error}): see to it, {AGAIN}") from error


@contextmanager
def opened(source: Source) -> Iterator[Fill]:
    """Open for positioned reads. Never memory-mapped: a file that shrinks under a map kills the process."""
    with source_errors(source):
        if is_remote(source.path):
            fs, path = filesystem(source.path)

            def fetch(view: memoryview, offset: int) -> int:
                data = fs.cat_file(path, start=offset, end=offset + len(view))
                view[: len(data)] = data
                return len(data)

            yield fetch
            return
        fd = os.open(source.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:

            def fill(view: memoryview, offset: int) -> int:
                done = 0
                while done < len(view):
                    got = os.preadv(fd, [view[done:]], offset + done)
                    if not got:
                        break
                    done += got
                return done

            yield fill
        finally:
            os.close(fd)


def must_fill(fill: Fill, view: memoryview, offset: int, source: Source) -> None:
    """Fill the whole view, or say that the file shrank."""
    if fill(view, offset) < len(view):
        raise RunError(_shrunk(source))


def chunks(source: Source, start: int = 0, size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of the file from `start` to the size it had at discovery."""
    with source_errors(source), open_raw(source.path) as file:
        file.seek(start)
        while start < source.size:
            chunk = file.read(min(size, source.size - start))
            if not chunk:
                raise RunError(_shrunk(source))
            start += len(chunk)
            yield chunk


def open_raw(path: str) -> Any:
    """Open a local or remote file for reading bytes."""
    if is_remote(path):
        fs, inner = filesystem(path)
        return fs.open(inner, "rb")
    return open(path, "rb", buffering=0)


class _Watched:
    """A remote file for Arrow whose failures are RunErrors, so that they are not taken for corrupt data."""

    def __init__(self, source: Source) -> None:
        self._source = source
        with source_errors(source):
            self._file = open_raw(source.path)

    def read(self, size: int = -1) -> bytes:
        with source_errors(self._source):
            return bytes(self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        with source_errors(self._source):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)


def arrow_file(source: Source) -> Any:
    """Open for pyarrow's readers."""
    if is_remote(source.path):
        return pa.PythonFile(_Watched(source), mode="r")
    with source_errors(source):
        return pa.OSFile(source.path, "rb")


def is_corrupt(error: Exception, source: Source) -> bool:
    """Whether an error of pyarrow means bad bytes; a vanished, changed or failing file raises RunError instead."""
    if isinstance(error, PhiFastError):
        raise error
    verify_unchanged(source)
    if isinstance(error, OSError) and error.errno is not None:
        raise RunError(f"{source.path} cannot be read ({error}): see to it, {AGAIN}") from error
    return isinstance(error, (OSError, pa.ArrowException, ValueError, UnicodeDecodeError))


def size_and_stamp(path: str) -> tuple[int, str]:
    """Size of a file, and a string that changes when the file does."""
    if is_remote(path):
        fs, inner = filesystem(path)
        parent = getattr(fs, "_parent", None)
        fs.invalidate_cache(parent(inner) if parent else None)
        info = fs.info(inner)
        if info.get("size") is None:
            raise InputError(f"{path}: the server does not say how long it is: copy the file here first")
        return int(info["size"]), str(fs.ukey(inner))
    status = os.stat(path)
    return status.st_size, f"{status.st_mtime_ns}-{_ends(path, status.st_size)}"


def _ends(path: str, size: int) -> str:
    """Hash of the first and the last bytes of the first `size` bytes: appending leaves it as it was."""
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb", buffering=0) as file:
        digest.update(file.read(min(END_BYTES, size)))
        file.seek(max(0, size - END_BYTES))
        digest.update(file.read(min(END_BYTES, size)))
    return digest.hexdigest()


def tree_stamp(entries: list[tuple[str, int, int]]) -> str:
    """Stamp of a tree from its (name, size, mtime_ns)."""
    digest = hashlib.blake2b(digest_size=16)
    for name, size, time in entries:
        digest.update(f"{name}\0{size}\0{time}\n".encode())
    return digest.hexdigest()


def file_of(source: Source, row: int) -> str:
    """Path or URL of one file of a tree."""
    return f"{source.path}/{source.files[row]}"


def tree_entry(path: str) -> tuple[int, int]:
    """Size and modification time of a tree's file, from which its stamp is made."""
    if is_remote(path):
        fs, inner = filesystem(path)
        return int(fs.info(inner)["size"]), 0
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def verify_unchanged(source: Source) -> str | None:
    """Compare a source with what it was when it was discovered.

    Returns
    -------
    str or None
        None when nothing changed; a warning when a file of lines has only grown (its first ``source.size`` bytes
        are covered).

    Raises
    ------
    RunError
        When it vanished, shrank or was modified.
    """
    fresh = "start again with a new output folder"
    if source.format == "tree":
        entries = []
        for row, name in enumerate(source.files):
            try:
                size, time = tree_entry(file_of(source, row))
            except FileNotFoundError as error:
                raise RunError(f"{file_of(source, row)} vanished during the run: put it back, {AGAIN}") from error
            if size != source.sizes[row]:
                raise RunError(f"{file_of(source, row)} was modified during the run: {fresh}")
            entries.append((name, size, time))
        if tree_stamp(entries) != source.stamp:
            raise RunError(f"a file below {source.path} was modified during the run: {fresh}")
        return None
    with source_errors(source):
        size, stamp = size_and_stamp(source.path)
        if size < source.size:
            raise RunError(_shrunk(source))
        if stamp == source.stamp:
            return None
        grown = size > source.size and not is_remote(source.path) and source.format == "jsonl"
        if grown and _ends(source.path, source.size) == source.stamp.partition("-")[2]:
            return (
                f"{source.path} grew from {source.size:,} to {size:,} bytes during the run: the first "
                f"{source.size:,} bytes are covered; run again with a new output folder for the rest"
            )
    raise RunError(f"{source.path} was modified during the run: {fresh}")


def _shrunk(source: Source) -> str:
    return (
        f"{source.path} is shorter than the {source.size:,} bytes it had when the run began: "
        "put it back as it was, or start again with a new output folder"
    )
