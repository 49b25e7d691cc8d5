"""Hide a suite's items in real files, and count which of them a decontamination found."""

from __future__ import annotations

import dataclasses
import os
import random
import sysconfig
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.disguise import DISGUISES, disguise, hide
from phi_fast.suites.items import Suite

if TYPE_CHECKING:
    from phi_fast.decontaminate.policy import Policy
    from phi_fast.decontaminate.record import Run
    from phi_fast.engines.ngram import PartInfo


@dataclass(frozen=True, slots=True)
class Host:
    """A clean document: its name and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Hidden:
    """A document with one item hidden in it; ``leak`` is what was hidden."""

    id: str
    text: str
    suite: str
    item: str
    disguise: str
    leak: str = ""


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
            text = hide(host.text, leak, rng)
            yield Hidden(f"{item.id}, {name}, in {host.name}", text, suite.name, item.id, name, leak)


def condemned(run: Run, policy: Policy | None = None) -> dict[str, set[tuple[str, str]]]:
    """Give for each document that a policy condemns, the run's own unless given, suite and item of all it holds."""
    from phi_fast.decontaminate.record import EVIDENCE
    from phi_fast.decontaminate.verdicts import condemned as condemned_documents

    found = condemned_documents(run.path / EVIDENCE, policy or run.policy, run.index().parts)
    return {document.id: {(match.suite, match.item) for match in document.matches} for document in found}


def only(policy: Policy, channels: Collection[str]) -> Policy:
    """Leave a policy the thresholds of some of its channels alone.

    Raises
    ------
    InputError
        It has none for any of them.
    """
    thresholds = {"ngram": ("coverage", "run"), "syntax": ("tau", "alpha"), "embedding": ("distance",)}
    off: dict[str, Any] = {name: None for one, names in thresholds.items() if one not in channels for name in names}
    return dataclasses.replace(policy, both=False, **off)


def leak_nodes(leaks: Sequence[str]) -> list[int]:
    """Count the syntax nodes of the largest function or body in each text; 0 where it has none worth comparing."""
    from phi_fast.engines.ngram import PartInfo
    from phi_fast.engines.trees import TreeIndex

    alone = [
        PartInfo("", str(number), "solution", textwrap.dedent(leak), 0, 0, {}, None)
        for number, leak in enumerate(leaks)
    ]
    return list(TreeIndex.build(alone).nodes) if alone else []


def findable(hidden: Sequence[Hidden], parts: Sequence[PartInfo]) -> dict[str, list[bool]]:
    """Say of each hidden item which channels could find it.

    Parameters
    ----------
    hidden
        What was hidden.
    parts
        ``Run.parts()``: what each channel can find of the items.

    Returns
    -------
    dict
        Channel to one answer a hidden item. Words: a part is testable whose words the disguise leaves. Syntax: the
        disguise leaves the solution as code, the item's solution has a tree that is compared, and so has what was
        hidden. Embedding: always.
    """
    by_words = {(part.suite, part.item, part.part) for part in parts if part.testable}
    by_syntax = {(part.suite, part.item) for part in parts if part.nodes > 0}
    could: dict[str, list[bool]] = {"ngram": [], "syntax": [], "embedding": [True] * len(hidden)}
    nodes = iter(leak_nodes([one.leak for one in hidden if DISGUISES[one.disguise].code]))
    for one in hidden:
        worn = DISGUISES[one.disguise]
        could["ngram"].append(any((one.suite, one.item, part) in by_words for part in worn.words))
        could["syntax"].append(worn.code and next(nodes) > 0 and (one.suite, one.item) in by_syntax)
    return could


def recall_by_disguise(
    hidden: Sequence[Hidden], found: Mapping[str, Collection[tuple[str, str]]], could: Sequence[bool]
) -> list[Recall]:
    """Count found of testable for each disguise.

    Parameters
    ----------
    hidden
        What was hidden.
    found
        Document id to suite and item of all it was condemned for.
    could
        Whether each hidden item is testable.
    """
    rows: dict[str, list[tuple[Hidden, bool, bool]]] = {}
    for one, able in zip(hidden, could, strict=True):
        is_found = (one.suite, one.item) in found.get(one.id, ())
        rows.setdefault(one.disguise, []).append((one, able, is_found))
    return [
        Recall(
            disguise=name,
            hidden=len(ones),
            testable=sum(able for _, able, _ in ones),
            found=sum(able and is_found for _, able, is_found in ones),
            missed=tuple(one.item for one, able, is_found in ones if able and not is_found),
            untestable=tuple(one.item for one, able, _ in ones if not able),
            untestable_found=sum(is_found and not able for _, able, is_found in ones),
        )
        for name, ones in rows.items()
    ]


def by_any(could: Mapping[str, Sequence[bool]], channels: Collection[str]) -> list[bool]:
    """Join what ``findable`` gave: whether any of these channels could find the hidden item."""
    return [any(answers) for answers in zip(*(could[name] for name in channels), strict=True)]
