"""JSONL in blocks of whole lines: by position in a plain file, in order in a compressed one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from phi_fast.corpus import source as limits
from phi_fast.corpus.files import Buffer, Fill, chunks, is_remote, must_fill, opened
from phi_fast.corpus.source import Fault, Lines, Source, Unit
from phi_fast.corpus.streams import StreamFault, decompressed

BOM = b"\xef\xbb\xbf"
EMPTY = memoryview(b"")
TAIL = 64 << 10
STEP = 1 << 20


class Block(NamedTuple):
    """Whole lines of a stream; `offset` counts decompressed bytes, `used` the file's bytes since the last block."""

    data: memoryview
    offset: int
    fault: Fault | None
    used: int


def plain_units(number: int, source: Source, unit_bytes: int) -> Iterator[Unit]:
    """Equal byte ranges; a unit owns the lines that start in its range."""
    last = max(0, (source.size - 1) // unit_bytes)
    for index in range(last + 1):
        start, stop = index * unit_bytes, min(source.size, (index + 1) * unit_bytes)
        yield Unit(number, index, start, stop, stop - start, index == last)


def read_lines(unit: Unit, source: Source, buffer: Buffer) -> Lines:
    """The lines that start in ``[unit.start, unit.stop)`` of a plain file, the last one to its end."""
    start, stop, size = unit.start, unit.stop, source.size
    with opened(source) as fill:
        low = max(0, start - 1)  # a line starts at `start` if the byte before it is a newline
        filled = min(size, stop + TAIL) - low
        data = buffer.room(filled)
        must_fill(fill, memoryview(data)[:filled], low, source)
        begin = 0
        if start:
            begin = data.find(b"\n", 0, max(0, stop - 1 - low)) + 1
            if not begin:
                return Lines(EMPTY, stop)
        elif data.startswith(BOM, 0, filled):
            begin = len(BOM)
        if stop >= size:
            end, fault = _to_the_end(fill, data, begin, low, source)
            return Lines(memoryview(data)[begin:end], low + begin, fault)
        searched = max(begin, stop - 1 - low)
        while True:
            end = data.find(b"\n", searched, filled) + 1
            line = data.rfind(b"\n", begin, min(searched, filled)) + 1 or begin
            if (end - 1 if end else filled) - line > limits.MAX_LINE:
                length = _line_length(fill, low + line, source)
                fault = _over_limit(low + line, length)
                return Lines(memoryview(data)[begin:line], low + begin, fault)
            if end:
                return Lines(memoryview(data)[begin:end], low + begin)
            if low + filled >= size:
                end, fault = _to_the_end(fill, data, begin, low, source)
                return Lines(memoryview(data)[begin:end], low + begin, fault)
            searched, more = filled, min(size - low, 2 * filled)
            data = buffer.room(more, keep=filled)
            must_fill(fill, memoryview(data)[filled:more], low + filled, source)
            filled = more


def _to_the_end(fill: Fill, data: bytearray, begin: int, low: int, source: Source) -> tuple[int, Fault | None]:
    """Where the lines end in a buffer that reaches the end of the file as it was discovered.

    A file that was being written may have ended inside a line then; that line is not whole and is set aside.
    """
    end = source.size - low
    if end <= begin or data[end - 1] == 10:
        return end, None
    line = data.rfind(b"\n", begin, end) + 1 or begin
    following = bytearray(1)
    if not is_remote(source.path) and fill(memoryview(following), source.size) and following != b"\n":
        reason = "unfinished line: the file is still being written; run again with a new output folder to cover it"
        return line, Fault(reason, 1, low + line, end - line, bytes(data[line:end]))
    if end - line > limits.MAX_LINE:
        return line, _over_limit(low + line, end - line)
    return end, None


def _line_length(fill: Fill, start: int, source: Source) -> int:
    """Length of the line that starts here, without its newline, in constant memory."""
    data, at = bytearray(STEP), start
    while at < source.size:
        step = min(STEP, source.size - at)
        must_fill(fill, memoryview(data)[:step], at, source)
        found = data.find(b"\n", 0, step)
        if found >= 0:
            return at + found - start
        at += step
    return source.size - start


def _over_limit(offset: int, length: int) -> Fault:
    reason = f"line of {length:,} bytes: longer than the limit of {limits.MAX_LINE:,}"
    return Fault(reason, 1, offset, length)


def stream_blocks(source: Source, unit_bytes: int) -> Iterator[Block]:
    """Blocks of whole lines of a file read in order (compressed, or plain and remote).

    A block ends with the last newline in its first `unit_bytes` bytes, else with the first newline after them: cut
    by the text alone, not by how it was packed. The last block may lack its newline. A fault comes with the block
    whose lines precede it.
    """
    blocks = _stream_blocks(source, unit_bytes)
    for block in blocks:
        if block.data[: len(BOM)] == BOM:
            block = block._replace(data=block.data[len(BOM) :], offset=len(BOM))
        yield block
        break
    yield from blocks


def _stream_blocks(source: Source, unit_bytes: int) -> Iterator[Block]:
    parts: list[bytes] = []  # text not yet handed over: `held` bytes from `offset` on
    held = offset = used = seen = 0  # used, seen: bytes of the file that were read, and that were handed over
    long = lost = False  # all that is held is the start of one line; it is over the limit and only its length is kept
    reason = ""
    try:
        for text, used in decompressed(source) if source.compression else _plain(source):
            parts.append(text)
            held += len(text)
            if held < unit_bytes:
                continue
            if long:
                newline = text.find(b"\n")
                length = held - len(text) + newline if newline >= 0 else held
                lost = lost or length > limits.MAX_LINE
                if lost:
                    parts.clear()
                if newline < 0:
                    continue
                if lost:
                    yield Block(EMPTY, offset, _over_limit(offset, length), used - seen)
                    offset, seen = offset + length + 1, used
                    parts, held = [text[newline + 1 :]], len(text) - newline - 1
                long = lost = False
            joined, start = b"".join(parts), 0
            while held >= unit_bytes:
                end = joined.rfind(b"\n", start, start + unit_bytes) + 1
                end = end or joined.find(b"\n", start + unit_bytes) + 1
                long = not end
                if long:
                    break
                if end - start - 1 > limits.MAX_LINE:
                    yield Block(EMPTY, offset, _over_limit(offset, end - start - 1), used - seen)
                else:
                    yield Block(memoryview(joined)[start:end], offset, None, used - seen)
                offset, held, seen, start = offset + end - start, held - (end - start), used, end
            parts = [joined[start:]]
    except StreamFault as error:
        reason = str(error)
    if lost or (long and held > limits.MAX_LINE):
        parts.clear()
        yield Block(EMPTY, offset, _over_limit(offset, held), used - seen)
        offset, seen = offset + held, used
    text = b"".join(parts)
    end, fault = len(text), None
    if reason:
        end = text.rfind(b"\n") + 1
        fault = Fault(reason, 1 if end < len(text) else 0, offset + end, len(text) - end, text[end:])
    if text or fault:
        yield Block(memoryview(text)[:end], offset, fault, source.size - seen)


def _plain(source: Source) -> Iterator[tuple[bytes, int]]:
    used = 0
    for chunk in chunks(source):
        used += len(chunk)
        yield chunk, used


def stream_units(number: int, source: Source, unit_bytes: int) -> Iterator[tuple[Unit, Lines]]:
    """Units of a compressed file, in order, each with its lines."""
    blocks = stream_blocks(source, unit_bytes)
    block, index = next(blocks, Block(EMPTY, 0, None, source.size)), 0
    while True:
        following = next(blocks, None)
        stop = block.offset + len(block.data)
        unit = Unit(number, index, block.offset, stop, block.used, following is None)
        yield unit, Lines(block.data, block.offset, block.fault)
        if following is None:
            return
        block, index = following, index + 1
