"""The words of the corpus room: a source, a unit of work, the batches a unit is read into, a removal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

UNIT_BYTES = 8 << 20
"""Bytes of text in a unit of work: small enough to spread one file over every core, large enough to scan fast."""

MAX_LINE = 1 << 30
"""A JSONL line longer than this many bytes is set aside, so that no input can exhaust the memory."""

TEXT_COLUMNS = ("text", "content", "code")
"""Where a document's text is looked for, in this order, when it is not named."""

ID_COLUMN = "id"

Format = Literal["jsonl", "parquet", "arrow", "tree"]
Compression = Literal["gz", "zst", "bz2", "xz"]


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, or one tree of source files.

    Attributes
    ----------
    path : str
        What to open: an absolute path or an fsspec URL. For a tree, its root folder.
    name : str
        Relative POSIX path, unique in the corpus: the `file` column, and the place under ``clean/``.
        For a tree the name of its root; its document `row` is the file ``f"{name}/{files[row]}"``.
    format, compression : str
        How it is stored; ``compression`` is None where it is not compressed as a whole.
    text, id : str
        Column (key) of the text and of the id; both are unused for a tree. ``id`` is None where there is none.
    size : int
        Bytes when it was discovered; of a file that grows, only these are covered.
    stamp : str
        Changes when the file changes (modification time and a hash of both ends, or what the remote store gives).
    layout : {"file", "stream"}, optional
        Arrow only: which of the two IPC formats.
    files, sizes : tuple
        Tree only: sorted POSIX paths below the root, and their sizes. Document `row` is ``files[row]``.
    companions : tuple of (path, name)
        Small files that go with it (a `datasets` folder's JSON files): see `write_companions`.
    fault : str, optional
        Why not one row of it can be read (say, a Parquet file without footer). It still has one unit, whose
        batch is empty and carries the fault.
    """

    path: str
    name: str
    format: Format
    compression: Compression | None
    text: str
    id: str | None
    size: int
    stamp: str
    layout: Literal["file", "stream"] | None = None
    files: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    companions: tuple[tuple[str, str], ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a source that is read, scanned and journalled as one.

    The units of a source are numbered 0, 1, ... by what the file holds alone, never by threads or machine; each
    source has at least one, and exactly the highest has ``last``. The rows of unit k follow those of unit k - 1,
    so a document's row in the file is its row in the batch plus the rows of all earlier units.

    Attributes
    ----------
    source, index : int
        Number of the source in the list, and of the unit in the source: together the key of the journal.
    start, stop : int
        JSONL: owns the lines that start in this byte range (of the decompressed text).
        Parquet: row groups. Arrow: rows. Tree: files.
    size : int
        Bytes of input this unit stands for; over a source they add up to about ``source.size``: for progress.
    last : bool
        No unit of this source comes after it.
    """

    source: int
    index: int
    start: int
    stop: int
    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that could not be read; they come right after the rows of the batch that carries the fault.

    Attributes
    ----------
    reason : str
        Ready for ``rejected.jsonl``.
    rows : int
        How many rows it takes the place of; 0 where nobody can know. Add them to the rows of the batch.
    offset, length : int
        JSONL: where the unread line lies in the (decompressed) file, as in `Removal`; -1 elsewhere.
    raw : bytes
        The part of the line that could be read.
    """

    reason: str
    rows: int
    offset: int = -1
    length: int = -1
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole JSONL lines, for `NgramIndex.scan_jsonl`.

    ``data`` is valid until the next `read` into the same buffer. ``offset`` is the place of ``data[0]`` in the
    (decompressed) file: a scanned row's absolute offset is ``offset + docs["offset"]``.
    """

    data: memoryview
    offset: int
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """Rows of a table, for `NgramIndex.scan_arrow`.

    ``text`` is a `string` or `large_string` array (nulls stay nulls, bytes are not checked to be UTF-8);
    ``id``, if any, is an array of whatever type the file has, of the same length: ``str(batch.id[row].as_py())``.
    """

    text: pa.Array
    id: pa.Array | None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Files:
    """Whole files of a tree, for `NgramIndex.scan_utf8`.

    ``data[row]`` is the content, ``names[row]`` the path below the root. ``rejected`` has the form of
    `ScanResult.rejected` (row, -1, -1, reason); those rows hold ``b""`` in ``data``.
    """

    data: list[bytes]
    names: list[str]
    rejected: list[tuple[int, int, int, str]]
    fault: Fault | None = None


Batch = Lines | Column | Files


class Removal(NamedTuple):
    """What the clean writer leaves out or rewrites: a document, a rejected row, or a fault's rows.

    Attributes
    ----------
    row : int
        Row in the file, from 0.
    offset, length : int
        JSONL (plain and compressed): the raw line in the (decompressed) file, without its newline. Needed there.
    rows : int
        A fault can stand for many rows (or none: it still says that the file's own bytes cannot be copied).
    edit : callable, optional
        None: drop the row. Else it is called once, with the document's text, and returns the new text, or None to
        drop the row after all. So it is also the place to put the text into ``removed.jsonl``.
    """

    row: int
    offset: int = -1
    length: int = -1
    rows: int = 1
    edit: Callable[[str], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_clean` did.

    ``path`` is None when nothing of the source could be read, so that there is nothing to write. ``faults`` are
    (row, fault): rows lost because a column that is not scanned cannot be read; they belong in ``rejected.jsonl``.
    """

    path: str | None
    bytes: int
    dropped: int
    cut: int
    copied: bool
    faults: tuple[tuple[int, Fault], ...] = ()
