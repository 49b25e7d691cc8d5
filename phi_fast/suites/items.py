"""The words of a suite: parts make an item, items make a suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

PART_NAMES = ("question", "solution", "tests")


@dataclass(frozen=True, slots=True)
class Part:
    """One text of an item: ``name`` is "question", "solution" or "tests"."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a suite. ``parts`` holds only the parts the suite has, in the order of ``PART_NAMES``."""

    id: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of a suite's file that became no item. ``row`` is 0-based, ``place`` is it in words ("line 17")."""

    row: int
    reason: str
    place: str


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark. ``source`` says where it was read, ``sha256`` names its content (ids, part names, texts)."""

    name: str
    items: tuple[Item, ...]
    source: str
    sha256: str
    rejected: tuple[Rejected, ...] = ()


def content_sha256(items: Iterable[Item]) -> str:
    """SHA-256 of ids, part names and texts: the same items give the same hash whatever file held them."""
    digest = hashlib.sha256()
    for item in items:
        record = [item.id, [[part.name, part.text] for part in item.parts]]
        digest.update(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()
