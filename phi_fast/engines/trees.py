"""Items' functions to be found in documents: the index of the syntax channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phi_fast import _native

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

MIN_NODES = _native.MIN_NODES
"""Nodes from which on node types alone tell functions apart."""
MIN_ALPHA_NODES = _native.MIN_ALPHA_NODES
"""Nodes from which on alpha-normalised forms do; smaller functions are not compared."""
FLOOR_TAU = _native.FLOOR_TAU
"""Match rate from which on a match is recorded."""


@dataclass(frozen=True, slots=True)
class TreeIndex:
    """Functions and bodies of items' solutions, for the ``trees`` argument of `NgramIndex.scan_jsonl` and the like.

    Attributes
    ----------
    nodes : tuple of int
        Of each part of the n-gram index: nodes of the largest tree that documents are compared with; 0 for parts that
        are no solutions, are no Python, or hold nothing of `MIN_ALPHA_NODES` nodes or more.
    native
        The compiled index.

    Notes
    -----
    A solution is read as what follows its question, where the two make a program; else by itself. Its function (of
    several, those with half the nodes, or the largest) is compared as a whole and, for bodies pasted without their
    ``def`` or under another signature, by its body alone. A solution that holds no function is a body.
    """

    nodes: tuple[int, ...]
    native: _native.TreeIndex

    @classmethod
    def build(cls, parts: Sequence[PartInfo]) -> TreeIndex:
        """Index the solutions among `NgramIndex.parts`; matches carry their place there as ``part``."""
        questions = {(part.suite, part.item): part.text for part in parts if part.part == "question"}
        numbers = [number for number, part in enumerate(parts) if part.part == "solution"]
        before = [questions.get((parts[number].suite, parts[number].item), "").encode() for number in numbers]
        solutions = [parts[number].text.encode() for number in numbers]
        native, found = _native.TreeIndex.build(before, solutions, np.array(numbers, np.uint32))
        nodes = np.zeros(len(parts), np.int64)
        nodes[numbers] = found
        return cls(tuple(nodes.tolist()), native)

    def why_not(self, part: int) -> str | None:
        """Say why the syntax channel cannot find a part; None where it can."""
        if self.nodes[part]:
            return None
        return f"no function or body of {MIN_ALPHA_NODES} syntax nodes or more"
