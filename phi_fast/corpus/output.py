"""Files written whole or not at all, and the fastest way to copy a range of bytes into them."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from phi_fast.corpus.files import AGAIN
from phi_fast.errors import RunError

Tick = Callable[[int], None]

STEP = 8 << 20
LARGE = 64 << 20
"""Outputs from here on go past the page cache: what is flushed to the disk at the end anyway need not push out of
memory what others read, and memory that is new to the machine is slower to fill than a disk."""
_BLOCK = 4096  # what direct writes are aligned to: a multiple of every disk's block
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT = (
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.EIO,
    errno.ENOTSOCK,
)


@contextmanager
def output_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """A RunError that names the output, where writing fails."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(f"disk full while writing {path}: free some space, {AGAIN}") from error
        raise RunError(f"{path} cannot be written ({error.strerror or error}): see to it, {AGAIN}") from error


class Output:
    """A file under a temporary name, which gets its own when all went well. Also a file object for pyarrow."""

    def __init__(self, path: Path, tick: Tick | None = None, *, expected: int = 0) -> None:
        self.path = path
        self.size = 0
        self._direct: _Direct | None = None
        self._tick = tick or (lambda _: None)
        self._partial = path.with_name(f".{path.name}.partial")
        self._ways = [way for way in ("copy_file_range", "sendfile") if hasattr(os, way)]
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            if expected >= LARGE:
                self._direct = _Direct.open(self._partial)
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        with output_errors(self.path):
            done = 0
            while done < len(view):
                if direct := self._direct:
                    if (space := self._space(direct)) is None:
                        continue
                    part = view[done : done + len(space)]
                    space[: len(part)] = part
                    direct.filled += len(part)
                    done += len(part)
                else:
                    done += os.write(self._fd, view[done : done + STEP])
        self.size += len(view)
        return len(view)

    def _space(self, direct: _Direct) -> memoryview | None:
        """Room in the direct writer's buffer, which is written out first where it is full; None where that fails."""
        if direct.filled == STEP and not direct.flush():
            self._buffered()
            return None
        return direct.view[direct.filled :]

    def _buffered(self) -> None:
        """Go on through the page cache: what is left in the direct writer's buffer first."""
        direct, self._direct = self._direct, None
        assert direct is not None
        os.lseek(self._fd, direct.written, os.SEEK_SET)
        rest = direct.view[: direct.filled]
        done = 0
        while done < len(rest):
            done += os.write(self._fd, rest[done:])
        direct.close()

    def copy(self, source_fd: int, start: int, stop: int) -> int:
        """Append bytes of another file without moving them through user space, where the kernel can; returns how
        many there were, fewer than asked only at the source's end."""
        at = start
        while at < stop:
            step = min(STEP, stop - at)
            done = self._past_cache(self._direct, source_fd, at, step) if self._direct else None
            if done is None:
                done = self._in_kernel(source_fd, at, step)
            if not done:
                data = os.pread(source_fd, step, at)
                done = self.write(data)
                if not done:
                    break
            self._tick(done)
            at += done
        return at - start

    def _past_cache(self, direct: _Direct, source_fd: int, at: int, step: int) -> int | None:
        with output_errors(self.path):
            space = self._space(direct)
        if space is None:
            return None
        done = os.preadv(source_fd, [space[:step]], at)
        direct.filled += done
        self.size += done
        return done

    def _in_kernel(self, source_fd: int, at: int, step: int) -> int:
        while self._ways:
            try:
                if self._ways[0] == "copy_file_range":
                    done = os.copy_file_range(source_fd, self._fd, step, at)
                else:
                    done = os.sendfile(self._fd, source_fd, at, step)
            except OSError as error:
                if error.errno not in _CANNOT:
                    with output_errors(self.path):
                        raise
                done = 0
            if done:
                self.size += done
                return done
            self._ways.pop(0)  # not between these two files; nor does 0 say whether it was the end
        return 0

    def commit(self) -> None:
        """Flush to the disk and give the file its name."""
        with output_errors(self.path):
            if self._direct:
                self._direct.flush()
                self._buffered()
            os.fsync(self._fd)
            self._end()
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        self._end()
        self._partial.unlink(missing_ok=True)

    def _end(self) -> None:
        if self._direct:
            self._direct.close()
            self._direct = None
        if not self.closed:
            self.closed = True
            os.close(self._fd)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            if not self.closed or kind is not None:
                self.discard()

    def close(self) -> None:
        """For pyarrow, which closes what it wrote to; `commit` and `discard` do it in truth."""

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> int:
        return self.size

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class _Direct:
    """A file written past the page cache, in whole blocks from an aligned buffer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.view = memoryview(mmap.mmap(-1, STEP))
        self.filled = 0
        self.written = 0

    @classmethod
    def open(cls, path: Path) -> _Direct | None:
        """None where the file system has no direct writes."""
        try:
            return cls(os.open(path, os.O_WRONLY | os.O_DIRECT))
        except (OSError, AttributeError):
            return None

    def flush(self) -> bool:
        """Write what fills whole blocks and keep the rest; False where the file system refuses after all."""
        whole = self.filled // _BLOCK * _BLOCK
        done = 0
        while done < whole:
            try:
                wrote = os.pwrite(self._fd, self.view[done:whole], self.written)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
            done += wrote
            self.written += wrote
        rest = self.filled - done
        self.view[:rest] = self.view[done : self.filled]
        self.filled = rest
        return done == whole

    def close(self) -> None:
        """Close the file; the buffer goes with the object."""
        os.close(self._fd)
