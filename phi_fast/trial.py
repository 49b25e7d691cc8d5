"""Hide a suite's items in real files, and count which of them a decontamination found."""

from __future__ import annotations

import os
import random
import sysconfig
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi_fast.disguise import DISGUISES, disguise, hide
from phi_fast.suites.items import Suite

if TYPE_CHECKING:
    from phi_fast.decontaminate.record import Run


@dataclass(frozen=True, slots=True)
class Host:
    """A clean document: its name and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Hidden:
    """A document with one item hidden in it."""

    id: str
    text: str
    item: str
    disguise: str


@dataclass(frozen=True, slots=True)
class Recall:
    """What was found of one disguise. Found counts only items whose hidden text is testable."""

    disguise: str
    hidden: int
    testable: int
    found: int
    missed: tuple[str, ...]
    untestable: tuple[str, ...]
    untestable_found: int

    @property
    def share(self) -> float:
        """Share of the testable ones that was found."""
        return self.found / self.testable if self.testable else 0.0


def library_files(max_bytes: int, max_file: int = 300_000) -> list[Host]:
    """Read the Python library's own source on this machine.

    Parameters
    ----------
    max_bytes
        Files are taken, in an order that does not depend on the file system, until their sizes pass this.
    max_file
        Larger files are left out.

    Returns
    -------
    list of Host
        Sorted by name. Files that are not UTF-8 are left out, and so are installed packages.
    """
    root = Path(sysconfig.get_path("stdlib"))
    names: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")]
        names += [Path(folder, name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    names.sort()
    random.Random(0).shuffle(names)  # so a cut-off takes a little of everything
    hosts: list[Host] = []
    total = 0
    for name in names:
        if total > max_bytes:
            break
        try:
            raw = (root / name).read_bytes()
            text = raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if raw and len(raw) <= max_file:
            hosts.append(Host(name, text))
            total += len(raw)
    return sorted(hosts, key=lambda host: host.name)


def hide_all(
    suite: Suite, hosts: Sequence[Host], disguises: Collection[str] = tuple(DISGUISES), seed: int = 0
) -> Iterator[Hidden]:
    """Hide every item once in every disguise it can wear, each in a host and at a line drawn by `seed`."""
    for name in disguises:
        for item in suite.items:
            leak = disguise(item, name, seed)
            if leak is None:
                continue
            rng = random.Random(f"{seed}:host:{name}:{item.id}")
            host = rng.choice(hosts)
            yield Hidden(f"{item.id}, {name}, in {host.name}", hide(host.text, leak, rng), item.id, name)


def condemned(run: Run) -> dict[str, set[str]]:
    """Give for each document with a verdict the items that condemned it, by id."""
    from phi_fast.decontaminate.record import EVIDENCE
    from phi_fast.decontaminate.verdicts import condemned as condemned_documents

    found = condemned_documents(run.path / EVIDENCE, run.policy, run.index().parts)
    return {document.id: {match.item for match in document.matches} for document in found}


def parts_testable(run: Run) -> dict[str, set[str]]:
    """Give for each item its testable parts."""
    parts: dict[str, set[str]] = {}
    for part in run.parts():
        parts.setdefault(part.item, set())
        if part.findable:
            parts[part.item].add(part.part)
    return parts


def recall_by_disguise(
    hidden: Sequence[Hidden], found: Mapping[str, Collection[str]], testable: Mapping[str, Collection[str]]
) -> list[Recall]:
    """Count found of testable for each disguise.

    Parameters
    ----------
    hidden
        What was hidden.
    found
        Document id to the items it was condemned for.
    testable
        Item to its testable parts. A hidden item is testable when a part that its disguise keeps is.
    """
    rows: dict[str, list[Hidden]] = {}
    for one in hidden:
        rows.setdefault(one.disguise, []).append(one)
    result: list[Recall] = []
    for name, ones in rows.items():
        keeps = DISGUISES[name].keeps
        is_testable = {one.id: any(part in testable[one.item] for part in keeps) for one in ones}
        is_found = {one.id: one.item in found.get(one.id, ()) for one in ones}
        result.append(
            Recall(
                disguise=name,
                hidden=len(ones),
                testable=sum(is_testable.values()),
                found=sum(is_testable[one.id] and is_found[one.id] for one in ones),
                missed=tuple(one.item for one in ones if is_testable[one.id] and not is_found[one.id]),
                untestable=tuple(one.item for one in ones if not is_testable[one.id]),
                untestable_found=sum(is_found[one.id] and not is_testable[one.id] for one in ones),
            )
        )
    return result
