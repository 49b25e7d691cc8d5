"""Which lines of JSONL are documents."""

from __future__ import annotations

import json
from typing import NamedTuple

DEEPEST = 512


class Number(str):
    """A number as written: no limit on digits, and never taken for a string value."""


class Line(NamedTuple):
    """A line that is not blank. ``text`` is None if it is rejected; ``offset`` and ``length``: without its newline."""

    row: int
    offset: int
    length: int
    text: str | None


def depth(line: str) -> int:
    """How many arrays and objects of valid JSON are open at once."""
    deepest = level = 0
    inside = escaped = False
    for char in line:
        if inside:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                inside = False
        elif char == '"':
            inside = True
        elif char in "[{":
            level += 1
            deepest = max(deepest, level)
        elif char in "]}":
            level -= 1
    return deepest


def has_lone_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def text_of(line: bytes, key: str) -> str | None:
    """The text that a line holds under ``key``, None if the line is rejected."""
    try:
        decoded = line.decode("utf-8")
        value = json.loads(decoded, parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or depth(decoded) > DEEPEST:
        return None
    text = value.get(key)
    if not isinstance(text, str) or isinstance(text, Number) or has_lone_surrogate(text):
        return None
    return text


def is_blank(line: bytes) -> bool:
    return not line.strip(b" \t\r")


def rows(block: bytes) -> int:
    """How many lines a block has, blank ones included. A newline ends a line: nothing follows the last one."""
    return block.count(b"\n") + (not block.endswith(b"\n") and bool(block))


def lines(block: bytes, key: str) -> list[Line]:
    """The lines of a block that are not blank."""
    found = []
    offset = 0
    for row, line in enumerate(block.split(b"\n")):
        if not is_blank(line):
            found.append(Line(row, offset, len(line), text_of(line, key)))
        offset += len(line) + 1
    return found
