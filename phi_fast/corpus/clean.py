"""The clean copy of a source: everything that stays is written back as it was, byte for byte where bytes allow."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from phi_fast.corpus.blocks import BOM, Block, stream_blocks
from phi_fast.corpus.clean_tables import write_arrow, write_parquet
from phi_fast.corpus.edits import Edits, Tally, changed
from phi_fast.corpus.files import chunks, is_remote, open_raw, source_errors, verify_unchanged
from phi_fast.corpus.output import Output, Tick, output_errors
from phi_fast.corpus.source import UNIT_BYTES, Removal, Source, Written
from phi_fast.corpus.streams import compressor
from phi_fast.corpus.trees import read_file

Field = Callable[[bytes, str], "tuple[int, int] | None"]


def write_clean(source: Source, out: Path, removals: Iterable[Removal], *, tick: Tick | None = None) -> Written:
    """Write a source without what is to be removed.

    JSONL lines, blank lines and line ends stay byte for byte; of a cut line only the text's value is rewritten.
    Compressed files are packed again with the same codec. Parquet and Arrow keep schema, metadata, columns, codec
    and the bounds of their row groups (a row group over 64 MiB gains some); a tree keeps its folders. Where nothing
    is removed the file's own bytes are copied.

    Parameters
    ----------
    source
        As `discover` gave it.
    out : Path
        The file to write, or the folder for a tree. It appears under this name only when it is whole.
    removals
        In order of `row`: documents, rejected rows, and the row of every `Fault` (with the fault's ``rows``,
        ``offset`` and ``length``; also of one with no rows). JSONL needs the offsets.
    tick : callable, optional
        Called with the number of bytes handled, about every 8 MB; what it raises stops the writing.

    Raises
    ------
    RunError
        The disk is full, or the source vanished or is not what was scanned. No half-written file is left.
    """
    tick = tick or (lambda _: None)
    verify_unchanged(source)
    rest = iter(removals)
    first = next(rest, None)
    edits = Edits(chain([first] if first is not None else [], rest), source)
    if source.fault is not None:
        dropped = sum(removal.rows for removal in edits)
        return Written(None, 0, dropped, 0, copied=False)
    if source.format == "tree":
        return _write_tree(source, out, edits, tick)
    tally = Tally()
    with Output(out, tick, expected=source.size if source.compression is None else 0) as output:
        if first is None:
            _copy_all(source, output, tick)
        elif source.format == "parquet":
            write_parquet(source, output, edits, tally, tick)
        elif source.format == "arrow":
            write_arrow(source, output, edits, tally, tick)
        elif source.compression is None and not is_remote(source.path):
            _write_plain(source, output, edits, tally)
        else:
            _write_stream(source, output, edits, tally, tick)
        edits.finish()
        verify_unchanged(source)
    faults = [(row, fault) for row, fault in tally.faults if fault.rows or row not in edits.without_rows]
    return Written(str(out), output.size, tally.dropped, tally.cut, first is None, tuple(faults))


def _copy_all(source: Source, output: Output, tick: Tick) -> None:
    if is_remote(source.path):
        for chunk in chunks(source, size=UNIT_BYTES):
            output.write(chunk)
            tick(len(chunk))
        return
    with source_errors(source), open_raw(source.path) as file:
        if output.copy(file.fileno(), 0, source.size) < source.size:
            raise changed(source)


def _write_plain(source: Source, output: Output, edits: Edits, tally: Tally) -> None:
    """Copy the ranges between the edits; only edited lines are ever looked at."""
    with source_errors(source), open_raw(source.path) as file:
        fd = file.fileno()
        at = 0

        def copy(stop: int) -> None:
            if stop < at or output.copy(fd, at, stop) < stop - at:
                raise changed(source)

        for removal in edits:
            start, end = removal.offset, removal.offset + removal.length
            copy(start)
            before = os.pread(fd, 3, max(0, start - 3))
            if end > source.size or (start and not before.endswith(b"\n") and before != BOM):
                raise changed(source)
            new = None
            if removal.edit is not None:
                new = edited_line(os.pread(fd, removal.length, start), source, removal.edit, tally)
            if new is None:
                tally.dropped += removal.rows
                end += _line_end(os.pread(fd, 2, end), source, at_end=end == source.size or not removal.length)
            else:
                output.write(new)
            at = end
        copy(source.size)


def _line_end(following: bytes, source: Source, at_end: bool) -> int:
    """Length of the newline that belongs to a dropped line."""
    if at_end:
        return 0
    if following.startswith(b"\n"):
        return 1
    if following != b"\r\n":
        raise changed(source)
    return 2


def _write_stream(source: Source, output: Output, edits: Edits, tally: Tally, tick: Tick) -> None:
    """Unpack, leave out, pack again, in one pass and in the memory of a few blocks."""
    packer = compressor(source.compression) if source.compression else None

    def put(data: bytes | memoryview) -> None:
        if len(data):
            output.write(packer.compress(data) if packer else data)

    for number, block in enumerate(stream_blocks(source, UNIT_BYTES)):
        if not number and block.offset == len(BOM):
            put(BOM)
        for piece in _spliced(block, source, edits, tally):
            put(piece)
        if block.fault is not None:
            fault = edits.next_at_offset(block.fault.offset)
            if fault is None or fault.length != block.fault.length:
                raise changed(source)
            tally.dropped += fault.rows
        tick(block.used)
    if packer is not None:
        output.write(packer.flush())


def _spliced(block: Block, source: Source, edits: Edits, tally: Tally) -> Iterator[bytes | memoryview]:
    data, at = block.data, 0
    for removal in edits.before_offset(block.offset + len(data)):
        start = removal.offset - block.offset
        end = start + removal.length
        if start < at or end > len(data) or (start and data[start - 1] != 10):
            raise changed(source)
        new = None
        if removal.edit is not None:
            new = edited_line(bytes(data[start:end]), source, removal.edit, tally)
        yield data[at:start]
        if new is None:
            tally.dropped += removal.rows
            end += _line_end(bytes(data[end : end + 2]), source, at_end=end == len(data) or not removal.length)
        else:
            yield new
        at = end
    yield data[at:]


def edited_line(
    line: bytes, source: Source, edit: Callable[[str], str | None], tally: Tally, field: Field | None = None
) -> bytes | None:
    """A JSON line with the text's value replaced and every other byte as it was; None to drop it."""
    try:
        text = json.loads(line)[source.text]
    except (ValueError, KeyError, TypeError) as error:
        raise changed(source) from error
    new = edit(text)
    if new is None:
        return None
    if field is None:  # imported here alone: the rest of the room needs no compiled engine
        from phi_fast import _native

        field = _native.json_field
    span = field(line, source.text)
    if span is None:
        raise changed(source)
    start, end = span
    tally.cut += 1
    value = json.dumps(new, ensure_ascii=line[start:end].isascii())
    return line[:start] + value.encode() + line[end:]


def _write_tree(source: Source, out: Path, edits: Edits, tick: Tick) -> Written:
    """All files into a folder with a temporary name, which is then renamed."""
    partial = out.with_name(f".{out.name}.partial")
    tally, written = Tally(), 0
    with output_errors(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        for row, name in enumerate(source.files):
            new: str | None = None
            planned = edits.before(row + 1)
            if any(removal.edit is None for removal in planned):
                tally.dropped += 1
                continue
            data, reason = read_file(source, row)
            if reason:
                raise changed(source)
            for removal in planned:
                new = removal.edit(data.decode()) if removal.edit is not None else None
            if planned and new is None:
                tally.dropped += 1
                continue
            if new is not None:
                tally.cut += 1
                data = new.encode()
            with output_errors(out):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(data)
            written += len(data)
            tick(source.sizes[row])
        edits.finish()
        verify_unchanged(source)
        with output_errors(out):
            _sync(partial)
            shutil.rmtree(out, ignore_errors=True)
            os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Written(str(out), written, tally.dropped, tally.cut, not (tally.dropped or tally.cut))


def _sync(folder: Path) -> None:
    """Flush the file system of a folder once; thousands of small files one by one would take minutes."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        if hasattr(ctypes.CDLL(None), "syncfs"):
            ctypes.CDLL(None).syncfs(fd)
        else:
            os.sync()
    finally:
        os.close(fd)


def write_companions(sources: Sequence[Source], clean: Path, changed: Container[str]) -> None:
    """Copy the JSON files of `datasets` folders beside their clean shards, once, after all of these are written.

    Parameters
    ----------
    sources
        All of the corpus.
    clean : Path
        The folder that holds the clean copies under their names.
    changed
        Names of the sources from which something was removed: the fingerprint in the state of their folder becomes
        another one, else `datasets` would take results cached for the old rows.
    """
    shards: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        for companion in source.companions:
            shards.setdefault(companion, [])
            if source.name in changed and os.path.dirname(companion[1]) == os.path.dirname(source.name):
                shards[companion].append(source.name)
    for (path, name), names in shards.items():
        with open_raw(path) as file:
            data = bytes(file.read())
        if os.path.basename(name) == "state.json" and names:
            data = _renewed(data, [clean / shard for shard in names])
        with Output(clean / name) as output:
            output.write(data)


def _renewed(state: bytes, shards: Sequence[Path]) -> bytes:
    value = json.loads(state)
    digest = hashlib.blake2b(str(value.get("_fingerprint")).encode(), digest_size=8)
    for shard in sorted(shards):
        with open(shard, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    value["_fingerprint"] = digest.hexdigest()
    return json.dumps(value, indent=2).encode()
