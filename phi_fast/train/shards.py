"""Tokens in a folder of shards: written in order, gone on with after a kill, each shard with its checksum.

``tokens-00000.bin``, ``tokens-00001.bin``, ... are raw little-endian ids and nothing else; ``documents-00000.bin``
says of each document of that shard where it starts and which row of the corpus it was (`DOCUMENT`). A shard ends with
the document that fills it: none is split. ``tokens.json`` says how far all of these are whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from phi_fast.differences import differences
from phi_fast.errors import InputError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
STATE, INPUTS, REJECTED, TOKENIZER = "tokens.json", "inputs.json", "rejected.jsonl", "tokenizer.json"
DOCUMENT = np.dtype([("start", "<u8"), ("row", "<u8"), ("source", "<u4")])
"""A document: its first token in the shard, its row in its file, and the file's number in inputs.json."""
SHARD_TOKENS = 1 << 27

_ENDS = 64 << 10
_CHUNK = 1 << 20
_ITS_KEYS = {"format", "tokenizer", "dtype", "settings", "tokens", "documents", "rejected", "shards", "finished"}


def tokens_file(number: int) -> str:
    """Name of a shard."""
    return f"tokens-{number:05d}.bin"


def documents_file(number: int) -> str:
    """Name of the file that says where a shard's documents start."""
    return f"documents-{number:05d}.bin"


def smallest_dtype(vocabulary: int) -> np.dtype[Any]:
    """uint16 where every id fits into it, else uint32."""
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def read_state(folder: Path) -> dict[str, Any] | None:
    """What tokens.json says, or None where there is none that is sound."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        sound = state["format"] == FORMAT and state.keys() >= _ITS_KEYS
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return state if sound else None


def ends_of(path: Path) -> str:
    """Hash of the first and last 64 KB of a file: what tells a swapped shard at once, whatever its length."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=0) as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()


def sha256_of(path: Path, length: int | None = None) -> Any:
    """SHA-256 of the first `length` bytes of a file, to go on with or to read."""
    digest, left = hashlib.sha256(), length if length is not None else path.stat().st_size
    with path.open("rb", buffering=0) as file:
        while left and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
    return digest


class Writer:
    """A folder of tokens being written, by one process at a time.

    What `append` was given counts once `record` returns: a kill takes back no more than what came after it.

    Parameters
    ----------
    folder
        Made if it is not there.
    identity
        Of the tokenizer, as `Tokenizer.identity`.
    settings
        What else decides the bytes; ``shard_tokens`` among it.
    inputs
        The files of the corpus: name, format, text, size, stamp, and a tree's files.
    tokenizer
        JSON of the tokenizer, kept beside the tokens.

    Raises
    ------
    InputError
        The folder holds something else.
    RunError
        It holds other tokens (the message says what differs), another process writes there, or the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        settings: Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
        tokenizer: str,
    ) -> None:
        self.folder = folder
        self.dtype = smallest_dtype(identity["vocabulary"])
        said = json.dumps(list(inputs), ensure_ascii=True, indent=1).encode() + b"\n"
        fresh: dict[str, Any] = {
            "format": FORMAT, "version": _version(), "tokenizer": dict(identity), "dtype": self.dtype.name,
            "settings": dict(settings) | {"inputs": hashlib.sha256(said).hexdigest()}, "tokens": 0, "documents": 0,
            "rejected": 0, "rejected_bytes": 0, "shards": [], "position": None, "finished": False,
        }  # fmt: skip
        self._files: list[int] = []
        with disk_errors(folder):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder}: is a file; give a folder")
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder, os.O_RDONLY)
            try:
                self._begin(fresh, said, tokenizer)
            except BaseException:
                self._close()
                raise

    def _begin(self, fresh: dict[str, Any], inputs: bytes, tokenizer: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{self.folder}: another process writes there. Wait for it or stop it first.") from error
        there = read_state(self.folder)
        if there is None:
            foreign = [one.name for one in self.folder.iterdir() if not _ours(one.name)]
            if foreign:
                raise InputError(f"{self.folder}: holds {foreign[0]}, so it is no folder of tokens; give a new one")
            for one in self.folder.iterdir():
                one.unlink()
            _replace(self.folder / INPUTS, inputs)
            _replace(self.folder / TOKENIZER, tokenizer.encode())
            _replace(self.folder / REJECTED, b"")
        else:
            known = ("tokenizer", "dtype", "settings")
            differing = differences({key: there[key] for key in known}, {key: fresh[key] for key in known})
            lines = list(differing)
            if lines:
                lines += list(_changed_inputs(self.folder / INPUTS, inputs))
                listed = "\n".join(f"  {line}" for line in lines)
                raise RunError(f"{self.folder} holds other tokens:\n{listed}\nGive another folder, or remove that one.")
        self._state = there or fresh
        self._rejected = os.open(self.folder / REJECTED, os.O_RDWR | os.O_CREAT, 0o644)
        self._files.append(self._rejected)
        if there is None:
            self._write_state()
        if not self.finished:
            self._cut()
        if self._state["shards"] and self._state["shards"][-1]["sha256"] is None:
            self._open_shard(len(self._state["shards"]) - 1)

    tokens = property(lambda self: int(self._state["tokens"]))
    documents = property(lambda self: int(self._state["documents"]))
    rejected = property(lambda self: int(self._state["rejected"]))
    position = property(lambda self: self._state["position"])
    finished = property(lambda self: bool(self._state["finished"]))

    def append(
        self,
        tokens: NDArray[Any],
        lengths: NDArray[np.int64],
        rows: NDArray[np.int64],
        source: int,
        rejected: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Add documents of one file.

        Parameters
        ----------
        tokens
            (n,) of the folder's dtype: the documents one after the other, each with its end-of-text token.
        lengths, rows
            (documents,): tokens of each, and its row in the file.
        source
            The file's number.
        rejected
            Lines for rejected.jsonl.
        """
        if tokens.dtype != self.dtype or int(lengths.sum()) != len(tokens):
            raise ValueError(f"{len(tokens):,} tokens of {tokens.dtype} for documents of {int(lengths.sum()):,} tokens")
        full, ends, done, document = self._state["settings"]["shard_tokens"], np.cumsum(lengths), 0, 0
        with disk_errors(self.folder):
            while document < len(lengths):
                shards = self._state["shards"]
                if not shards or shards[-1]["sha256"] is not None:
                    entry = {"file": tokens_file(len(shards)), "tokens": 0, "documents": 0}
                    shards.append(entry | {"sha256": None, "documents_sha256": None, "ends": None})
                    self._open_shard(len(shards) - 1)
                shard = shards[-1]
                last = int(np.searchsorted(ends, done + full - shard["tokens"])) + 1  # the one that fills it, and it
                last = min(last, len(lengths))
                stop = int(ends[last - 1])
                starts = np.empty(last - document, DOCUMENT)
                starts["start"] = shard["tokens"] - done + ends[document:last] - lengths[document:last]
                starts["row"], starts["source"] = rows[document:last], source
                self._put(0, tokens[done:stop])
                self._put(1, starts)
                shard["tokens"] += stop - done
                shard["documents"] += last - document
                self._state["tokens"] += stop - done
                self._state["documents"] += last - document
                done, document = stop, last
                if shard["tokens"] >= full:
                    self._close_shard()
            lines = [json.dumps(one, ensure_ascii=False).encode("utf-8", "backslashreplace") for one in rejected]
            if lines:
                self._state["rejected_bytes"] += _write(
                    self._rejected, memoryview(b"\n".join(lines) + b"\n"), self._state["rejected_bytes"]
                )
                self._state["rejected"] += len(lines)

    def record(self, position: Any) -> None:
        """Make all that was appended last, and note how far it goes."""
        with disk_errors(self.folder):
            for file in self._files:
                os.fsync(file)
            self._state["position"] = position
            self._write_state()

    def finish(self, position: Any) -> None:
        """Say that all is there."""
        if self.finished:
            return
        with disk_errors(self.folder):
            if self._state["shards"] and self._state["shards"][-1]["sha256"] is None:
                self._close_shard()
            self._state["finished"] = True
            self.record(position)

    def _open_shard(self, number: int) -> None:
        shard = self._state["shards"][number]
        sizes = shard["tokens"] * self.dtype.itemsize, shard["documents"] * DOCUMENT.itemsize
        self._digests = []
        for name, size in zip((tokens_file(number), documents_file(number)), sizes, strict=True):
            self._files.append(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644))
            os.ftruncate(self._files[-1], size)
            self._digests.append(sha256_of(self.folder / name, size))

    def _close_shard(self) -> None:
        number = len(self._state["shards"]) - 1
        for file in self._files[1:]:
            os.fsync(file)
            os.close(file)
        del self._files[1:]
        names = tokens_file(number), documents_file(number)
        said = {"ends": "-".join(ends_of(self.folder / name) for name in names)}
        said |= {"sha256": self._digests[0].hexdigest(), "documents_sha256": self._digests[1].hexdigest()}
        self._state["shards"][number].update(said)

    def _put(self, which: int, values: NDArray[Any]) -> None:
        shard = self._state["shards"][-1]
        data = memoryview(np.ascontiguousarray(values).tobytes())
        before = shard["documents"] * DOCUMENT.itemsize if which else shard["tokens"] * self.dtype.itemsize
        _write(self._files[1 + which], data, before)
        self._digests[which].update(data)

    def _cut(self) -> None:
        """Take off what a kill left half done; what is missing is no work of a kill."""
        shards = self._state["shards"]
        for number, shard in enumerate(shards):
            sizes = shard["tokens"] * self.dtype.itemsize, shard["documents"] * DOCUMENT.itemsize
            for name, size in zip((tokens_file(number), documents_file(number)), sizes, strict=True):
                path = self.folder / name
                if not path.exists() or path.stat().st_size < size:
                    raise RunError(f"{path}: shorter than {STATE} says. Remove {self.folder} and begin again.")
                os.truncate(path, size)
        for one in self.folder.iterdir():
            digits = one.stem.partition("-")[2] if one.suffix == ".bin" else ""
            if digits.isdecimal() and int(digits) >= len(shards):
                one.unlink()
        os.ftruncate(self._rejected, self._state["rejected_bytes"])

    def _write_state(self) -> None:
        _replace(self.folder / STATE, json.dumps(self._state, indent=1).encode() + b"\n")

    def _close(self) -> None:
        for file in (*self._files, self._lock):
            os.close(file)
        self._files = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def _ours(name: str) -> bool:
    names = (STATE, INPUTS, REJECTED, TOKENIZER)
    shard = name.startswith(("tokens-", "documents-")) and name.endswith(".bin")
    return shard or name in names or name in {f".{one}.part" for one in names}


def _write(file: int, data: memoryview, offset: int) -> int:
    whole = len(data)
    while len(data):
        done = os.pwrite(file, data, offset)
        data, offset = data[done:], offset + done
    return whole


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _version() -> str:
    try:
        return version("phi-fast")
    except PackageNotFoundError:  # run from its source
        return "source"


def _changed_inputs(path: Path, here: bytes) -> Iterator[str]:
    try:
        was = {one["name"]: one for one in json.loads(path.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):
        return
    now = {one["name"]: one for one in json.loads(here)}
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            what = "is new" if name not in was else "is gone" if name not in now else "has changed"
            yield f"{name}: {what}"
            return


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into one that says how to go on."""
    try:
        yield
    except OSError as error:
        advice = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Mend that"
        raise RunError(
            f"{error.filename or folder}: {error.strerror or error}. Nothing is lost: {advice.lower()}, then give the "
            "same command again; it goes on from there."
        ) from error
