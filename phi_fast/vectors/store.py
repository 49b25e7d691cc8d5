"""Vectors of any number of texts in a folder: written in order, block by block, and gone on with after a kill.

A folder holds ``vectors.npy``, ``rows.arrow`` (what each vector is of; an Arrow stream), ``rejected.jsonl`` and
``store.json``, which says how far all of these are whole. Nothing in it is an absolute path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa

from phi_fast.differences import differences
from phi_fast.errors import InputError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phi_fast.vectors.models import Embedder

FORMAT = 1
VECTORS, ROWS, REJECTED, STATE = "vectors.npy", "rows.arrow", "rejected.jsonl", "store.json"
_OURS = (VECTORS, ROWS, REJECTED, STATE, f".{STATE}.part")
StoredAs = Literal["float32", "float16"]
Progress = Callable[[int], None]

_HEADER = 128
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_BLOCK = 4096
_IDS = pa.schema([("id", pa.string())])


class VectorStore:
    """Vectors read from a folder; see `open_vectors`.

    Attributes
    ----------
    vectors : np.memmap, shape (rows, dim)
        float32 or float16; nothing is read until it is used.
    rows : pyarrow.Table
        What each vector is of: ``id``, and of a corpus also ``file``, ``row``, ``start``, ``end`` (characters).
    model : str
        Name and hash of the model.
    settings : dict
        All that decided what the vectors are.
    finished : bool
        False where `embed_to` was interrupted: these are the rows so far.
    """

    def __init__(self, folder: Path, state: Mapping[str, Any]) -> None:
        self.settings: dict[str, Any] = dict(state["settings"])
        self.model: str = self.settings["embedder"]["model"]
        self.finished: bool = state["finished"]
        shape = (state["rows"], self.settings["embedder"]["dim"])
        stored = self.settings["stored_as"]
        with _says_what_is_wrong(folder):
            if os.path.getsize(folder / VECTORS) < _HEADER + shape[0] * shape[1] * np.dtype(stored).itemsize:
                raise RunError(f"{folder / VECTORS}: shorter than {STATE} says")
            self.vectors: NDArray[Any] = (
                np.memmap(folder / VECTORS, stored, "r", _HEADER, shape) if shape[0] else np.zeros(shape, stored)
            )
            whole = pa.memory_map(str(folder / ROWS)).read_buffer()
        self.rows: pa.Table = pa.ipc.open_stream(whole.slice(0, state["rows_bytes"])).read_all()
        if self.rows.num_rows != shape[0]:
            raise RunError(f"{folder / ROWS}: has {self.rows.num_rows:,} rows, not {shape[0]:,} as {STATE} says")

    @property
    def ids(self) -> list[str]:
        """The id of each vector."""
        ids: list[str] = self.rows.column("id").to_pylist()
        return ids

    def __len__(self) -> int:
        return len(self.vectors)


def open_vectors(folder: str | os.PathLike[str]) -> VectorStore:
    """Open what `embed_to` or ``phi-fast embed`` wrote.

    Raises
    ------
    InputError
        The folder is no store.
    RunError
        Its files are damaged.
    """
    state = _read_state(Path(folder))
    if state is None:
        raise InputError(f"{folder}: holds no sound {STATE}, so it is no store of vectors")
    return VectorStore(Path(folder), state)


def embed_to(
    folder: str | os.PathLike[str],
    texts: Iterable[str],
    embedder: Embedder,
    *,
    ids: Iterable[str] | None = None,
    stored_as: StoredAs = "float32",
    block: int = _BLOCK,
    progress: Progress | None = None,
) -> VectorStore:
    """Embed texts into a folder, one vector a text; the same call after an interruption goes on where it stopped.

    Parameters
    ----------
    folder
        Where; made if it is not there.
    texts
        Any number; read once, and of the ones done already only a hash is compared. Text beyond the model's window is
        not seen: cut longer ones with `Embedder.windows`.
    embedder
        The model.
    ids
        As many as texts; the number of the text otherwise.
    stored_as
        "float32" or "float16".
    block
        Texts between two records of how far it is.
    progress
        Called with the number of texts done.

    Raises
    ------
    RunError
        The folder holds vectors of another model, settings or texts (it says what differs), another process writes
        there, or the disk is full.
    InputError
        There are fewer ids than texts, or more; the folder holds something else.
    """
    settings = {"embedder": embedder.settings, "stored_as": stored_as, "of": "texts", "block": block}
    numbered = iter(texts)
    names = None if ids is None else iter(ids)
    with Writer(Path(folder), settings, _IDS) as out:
        digest, done = hashlib.sha256().hexdigest(), 0
        while part := list(islice(numbered, block)):
            mine = [str(number) for number in range(done, done + len(part))]
            if names is not None:
                mine = [str(one) for one in islice(names, len(part))]
                if len(mine) < len(part):
                    raise InputError(f"{done + len(mine):,} ids for more texts than that: give one a text")
            digest = _chained(digest, mine, part)
            done += len(part)
            if done <= out.rows:
                if done == out.rows and digest != out.position:
                    raise RunError(f"{folder}: its {done:,} vectors are of other texts or ids; give another folder")
            elif out.finished or done - len(part) < out.rows:
                raise RunError(f"{folder}: its {out.rows:,} vectors are of fewer texts; give another folder")
            else:
                out.append(embedder.embed(part), pa.record_batch([mine], schema=_IDS), position=digest)
            if progress:
                progress(done)
        if done < out.rows:
            raise RunError(f"{folder}: its {out.rows:,} vectors are of more texts than these {done:,}")
        if names is not None and next(names, None) is not None:
            raise InputError(f"more ids than the {done:,} texts: give one a text")
        out.finish()
    return open_vectors(folder)


def _chained(digest: str, ids: list[str], texts: list[str]) -> str:
    said = hashlib.sha256(digest.encode())
    for one in (*ids, *texts):
        data = one.encode("utf-8", "surrogatepass")
        said.update(len(data).to_bytes(8, "little") + data)
    return said.hexdigest()


class Writer:
    """A store being written: whole blocks, of which a kill takes back one at most. One process at a time.

    Attributes
    ----------
    rows : int
        Vectors there already.
    position : object
        What came with the last block, to go on from: JSON.
    finished : bool
        Nothing is missing.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], schema: pa.Schema) -> None:
        self.folder, self._schema = folder, schema
        stored = settings["stored_as"]
        if stored not in ("float32", "float16"):
            raise InputError(f'stored as "{stored}": give float32 or float16')
        self._dtype, self._dim = np.dtype(stored), settings["embedder"]["dim"]
        fresh = {
            "format": FORMAT, "settings": json.loads(json.dumps(settings)), "rows": 0, "rows_bytes": 0,
            "rejected_bytes": 0, "position": None, "finished": False,
        }  # fmt: skip
        with _says_what_is_wrong(folder):
            if folder.exists() and not folder.is_dir():
                raise InputError(f"{folder}: is a file; give a folder")
            there = _read_state(folder)
            if there is None and folder.exists() and any(one.name not in _OURS for one in folder.iterdir()):
                raise InputError(f"{folder}: holds something that is no store of vectors; give an empty or new folder")
            if there is not None and there["settings"] != fresh["settings"]:
                lines = "\n".join(f"  {line}" for line in differences(there["settings"], fresh["settings"]))
                raise RunError(f"{folder} holds other vectors:\n{lines}\nGive another folder, or remove that one.")
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644) for name in (VECTORS, ROWS, REJECTED)]
            try:
                fcntl.flock(self._files[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self._close()
                raise RunError(f"{folder}: another process writes there. Wait for it or stop it first.") from error
            self._state: dict[str, Any] = _read_state(folder) or fresh
            self.rejected = self._state.get("rejected", 0)
            if not self._state["rows_bytes"]:
                head = bytes(schema.serialize())
                os.pwrite(self._files[1], head, 0)
                self._state["rows_bytes"] = len(head)
                self._record()
            self._cut()

    rows = property(lambda self: int(self._state["rows"]))
    position = property(lambda self: self._state["position"])
    finished = property(lambda self: bool(self._state["finished"]))

    def append(
        self, vectors: NDArray[Any], rows: pa.RecordBatch, *, position: Any, rejected: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Add a block: vectors of shape (n, dim), what they are of, and what was no document."""
        if vectors.shape != (rows.num_rows, self._dim) or rows.schema != self._schema:
            raise ValueError(f"{vectors.shape} vectors do not go with {rows.num_rows} rows")
        data = np.ascontiguousarray(vectors, self._dtype).data.cast("B") if len(vectors) else memoryview(b"")
        names = bytes(rows.serialize()) if len(vectors) else b""
        bad = [json.dumps(one, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for one in rejected]
        state = self._state
        with _says_what_is_wrong(self.folder):
            width = self._dim * self._dtype.itemsize
            _write(self._files[0], data, _HEADER + state["rows"] * width)
            _write(self._files[1], memoryview(names), state["rows_bytes"])
            _write(self._files[2], memoryview(b"".join(bad)), state["rejected_bytes"])
            for file in self._files:
                os.fsync(file)
            state["rows"] += len(vectors)
            state["rows_bytes"] += len(names)
            state["rejected_bytes"] += sum(map(len, bad))
            self.rejected += len(bad)
            state["rejected"], state["position"] = self.rejected, position
            self._record()

    def finish(self) -> None:
        """Say that all is there."""
        if self.finished:
            return
        with _says_what_is_wrong(self.folder):
            self._cut()
            _write(self._files[1], memoryview(_END_OF_STREAM), self._state["rows_bytes"])
            self._state["rows_bytes"] += len(_END_OF_STREAM)
            for file in self._files:
                os.fsync(file)
            self._state["finished"] = True
            self._record()

    def _cut(self) -> None:
        """Take off what a kill left half done, and say in the array's own header how long it is."""
        shape = (self._state["rows"], self._dim)
        said = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
        room = _HEADER - 10
        header = b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + said.ljust(room - 1) + b"\n"
        os.pwrite(self._files[0], header, 0)
        os.ftruncate(self._files[0], _HEADER + shape[0] * shape[1] * self._dtype.itemsize)
        os.ftruncate(self._files[1], self._state["rows_bytes"])
        os.ftruncate(self._files[2], self._state["rejected_bytes"])

    def _record(self) -> None:
        partial = self.folder / f".{STATE}.part"
        with partial.open("wb") as file:
            file.write(json.dumps(self._state, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / STATE)

    def _close(self) -> None:
        for file in self._files:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._cut()
        self._close()


def _write(file: int, data: memoryview, offset: int) -> None:
    while len(data):
        done = os.pwrite(file, data, offset)
        data, offset = data[done:], offset + done


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state = json.loads((folder / STATE).read_bytes())
        sound = state["format"] == FORMAT and {"settings", "rows", "rows_bytes", "finished"} <= state.keys()
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return state if sound else None


@contextlib.contextmanager
def _says_what_is_wrong(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise RunError(
            f"{where}: {error.strerror or error}. Mend that, then give the same command again; it goes on from there."
        ) from error
