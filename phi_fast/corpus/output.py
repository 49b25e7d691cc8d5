"""Files written whole or not at all, and the fastest way to copy a range of bytes into them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from phi_fast.corpus.files import AGAIN
from phi_fast.errors import RunError

Tick = Callable[[int], None]

STEP = 8 << 20
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

    def __init__(self, path: Path, tick: Tick | None = None) -> None:
        self.path = path
        self.size = 0
        self._tick = tick or (lambda _: None)
        self._partial = path.with_name(f".{path.name}.partial")
        self._ways = [way for way in ("copy_file_range", "sendfile") if hasattr(os, way)]
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")
        with output_errors(self.path):
            done = 0
            while done < len(view):
                done += os.write(self._fd, view[done : done + STEP])
        self.size += len(view)
        return len(view)

    def copy(self, source_fd: int, start: int, stop: int) -> int:
        """Append bytes of another file without moving them through user space, where the kernel can; returns how
        many there were, fewer than asked only at the source's end."""
        at = start
        while at < stop:
            step = min(STEP, stop - at)
            done = self._in_kernel(source_fd, at, step)
            if not done:
                data = os.pread(source_fd, step, at)
                done = self.write(data)
                if not done:
                    break
            self._tick(done)
            at += done
        return at - start

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
            os.fsync(self._fd)
            self._end()
            os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Remove what was written."""
        self._end()
        self._partial.unlink(missing_ok=True)

    def _end(self) -> None:
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
