"""Files that are either as they were or complete, and disk errors in words."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phi_fast.errors import RunError

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what stands there in the end takes the place of ``path`` at once."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file at once."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that says how to go on."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Make room" if full else "Mend that"
        raise RunError(
            f"{where}{said}. Nothing is lost: {advice.lower()}, then give the same command again; it goes on from "
            f"{folder}."
        ) from error
