"""The rule from evidence to verdicts: small, printed in words, never hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from phi_fast.errors import InputError

Mode = Literal["drop", "cut", "flag"]
PARTS = ("question", "solution", "tests")

# What evidence holds (see engines/ngram.py): a policy that asks for less would silently see less.
FLOOR_COVERAGE = 0.2
FLOOR_RUN = 13
FLOOR_WORDS = 8
FLOOR_TAU = 0.8
FLOOR_DISTANCE = 0.8
# Node types alone, or nearly the same alpha-normalised form, tell functions of so many nodes apart; smaller ones must
# be the same but for their names (engines/trees.py).
LARGE_NODES = 25
LEAST_NODES = 13


@dataclass(frozen=True, slots=True)
class Policy:
    """When a match condemns a document, and what happens to the document then.

    A match condemns when its part is considered and not allowed, and its channel's rule holds. Words: the part is
    testable, the match's ``n`` is the policy's, it covers at least ``words`` words, and its coverage or its longest run
    reaches the threshold. Syntax: the document's function and the item's have 25 nodes or more and are alike to
    ``tau`` by node types or to ``alpha`` in alpha-normalised form; smaller ones have the same alpha-normalised form.
    Embedding: the distance is at most ``distance``.

    Parameters
    ----------
    preset
        Where the numbers come from: ``default``, ``gpt3``, ``phi1``, ``phi1-similar`` or ``tulu3``.
    mode
        ``drop`` the document, ``cut`` the matched spans out of it, or ``flag`` it and write no clean corpus.
    n
        Length of the n-grams whose matches are looked at.
    coverage
        Least share of a part's words found in one place of the document, 0.2 to 1; None: coverage does not condemn.
    run
        Least longest run of words in common, 13 or more; None: runs do not condemn.
    words
        Least number of the part's words matched, 8 or more.
    tau
        Least match rate by node types, 0.8 to 1; None: node types do not condemn.
    alpha
        Least match rate of alpha-normalised forms, 0.8 to 1; None: they do not condemn.
    nodes
        Least syntax nodes of both functions, 13 or more.
    distance
        Largest L2 distance of embeddings, up to 0.8; None: embeddings do not condemn.
    both
        The embedding and the syntax channel condemn together only: the distance first, then τ, as in phi-1's paper.
    parts
        Parts considered.
    weights
        Part name to weight, 1 where absent. Coverage and run are multiplied by it before they are compared; a weight
        of 0.8 asks for a quarter more of that part, 0 leaves the part out.
    allow
        What is allowed to be in a corpus: suites ("mbpp"), items ("HumanEval/53") or parts ("HumanEval/53 solution").
    window
        ``cut``: characters taken out on either side of a match, moved to the nearest line boundary.
    min_piece
        ``cut``: a piece left between cuts with fewer characters goes too.
    max_pieces
        ``cut``: a document that falls into more pieces is dropped.
    """

    preset: str = "default"
    mode: Mode = "drop"
    n: int = 4
    coverage: float | None = 0.7
    run: int | None = None
    words: int = FLOOR_WORDS
    tau: float | None = 0.95
    alpha: float | None = 0.85
    nodes: int = LEAST_NODES
    distance: float | None = None
    both: bool = False
    parts: tuple[str, ...] = PARTS
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    allow: tuple[str, ...] = ()
    window: int = 200
    min_piece: int = 0
    max_pieces: int | None = None

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f'mode "{self.mode}": give drop, cut or flag')
        for part in (*self.parts, *self.weights):
            if part not in PARTS:
                raise InputError(f'part "{part}": give question, solution or tests')
        if not self.channels:
            raise InputError(
                "the policy has neither a coverage nor a run, nor a tau, alpha or distance: nothing could ever be "
                "found; give one"
            )
        for name in ("tau", "alpha"):
            value = getattr(self, name)
            if value is not None and not FLOOR_TAU <= value <= 1:
                raise InputError(f"{name} {value:g}: evidence holds match rates from {FLOOR_TAU:g} on; give that to 1")
        if self.nodes < LEAST_NODES:
            raise InputError(
                f"nodes {self.nodes}: evidence holds functions of {LEAST_NODES} nodes or more; give as many"
            )
        if self.distance is not None and not 0 <= self.distance <= FLOOR_DISTANCE:
            raise InputError(
                f"distance {self.distance:g}: evidence holds distances up to {FLOOR_DISTANCE:g}; give 0 to that"
            )
        if self.both and (self.distance is None or (self.tau is None and self.alpha is None)):
            raise InputError("both: needs a distance and a tau or alpha; give them")
        if self.words < FLOOR_WORDS:
            raise InputError(f"words {self.words}: evidence holds matches of {FLOOR_WORDS} words or more; give as many")
        for part in self.parts:
            weight = self.weights.get(part, 1.0)
            if weight < 0:
                raise InputError(f"weight {weight:g} of {part}: give 0 or more")
            if weight == 0:
                continue
            said = f" (with weight {weight:g} of {part})" if weight != 1 else ""
            if self.coverage is not None and self.coverage / weight < FLOOR_COVERAGE - 1e-9:
                raise InputError(
                    f"coverage {self.coverage:g}{said}: evidence holds matches of coverage {FLOOR_COVERAGE:g} or more, "
                    f"so less cannot be decided on; give {FLOOR_COVERAGE * max(weight, 1):g} or more"
                )
            if self.run is not None and self.run / weight < FLOOR_RUN - 1e-9:
                raise InputError(
                    f"run {self.run}{said}: evidence holds every run of {FLOOR_RUN} words or more but not every "
                    f"shorter one; give {FLOOR_RUN} or more"
                )
        if self.coverage is not None and self.coverage > 1:
            raise InputError(f"coverage {self.coverage:g}: a share, so give a number from {FLOOR_COVERAGE:g} to 1")
        for name in ("window", "min_piece"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)}: give 0 or more")
        if self.max_pieces is not None and self.max_pieces < 1:
            raise InputError(f"max_pieces {self.max_pieces}: give 1 or more")

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that can condemn under this policy."""
        words = self.coverage is not None or self.run is not None
        trees = self.tau is not None or self.alpha is not None
        on = {"ngram": words, "syntax": trees, "embedding": self.distance is not None}
        return tuple(name for name, one in on.items() if one)

    def describe(self) -> list[str]:
        """Say the rule in sentences, one a list entry, as reports and the terminal print it."""
        parts = _listed([part for part in self.parts if self.weights.get(part, 1.0) > 0] or ["(no part)"])
        does = {"drop": "dropped", "cut": "cut", "flag": "flagged (nothing is removed)"}[self.mode]
        tests = self._word_tests(parts)
        said = []
        if tests:
            said.append(
                f"A document is {does} when it {', or '.join(tests)}. Words are matched by {self.n}-grams, and a match "
                f"counts from {self.words} words on."
            )
        alike = self._syntax_tests()
        whom = "It is also" if said else "A document is"
        if alike and self.both:
            alike = [f"{' or '.join(alike)}, where its embedding lies within {self.distance:g} of the item's as well"]
        if alike:
            least = max(LARGE_NODES, self.nodes)
            smaller = ""
            if self.alpha is not None and self.nodes < LARGE_NODES:
                smaller = f"; smaller functions, of {self.nodes} nodes or more, must be the same but for their names"
            said.append(
                f"{whom} {does} when one of its functions, of {least} syntax nodes or more, matches a "
                f"solution's to {' or to '.join(alike)}{smaller}."
            )
        if self.distance is not None and not self.both:
            whom = "It is also" if said else "A document is"
            said.append(f"{whom} {does} when its embedding lies within {self.distance:g} of an item's.")
        heavy = [f"{part} {weight:g}" for part, weight in sorted(self.weights.items()) if weight != 1 and weight > 0]
        if heavy:
            said.append(f"Coverage and run are multiplied by the part's weight first: {', '.join(heavy)}.")
        if self.mode == "cut":
            pieces = f"A cut takes the match and {self.window} characters on either side, to the nearest line"
            if self.min_piece:
                pieces += f"; pieces under {self.min_piece} characters go too"
            if self.max_pieces is not None:
                pieces += f"; over {self.max_pieces} pieces the document is dropped"
            said.append(pieces + "; a document of which nothing would be left is dropped.")
        if self.allow:
            shown = ", ".join(self.allow[:10]) + (f" and {len(self.allow) - 10} more" if len(self.allow) > 10 else "")
            said.append(f"Allowed, so never a reason: {shown}.")
        said.append("Parts that cannot be tested are never a reason.")
        return said

    def _word_tests(self, parts: str) -> list[str]:
        tests = []
        if self.coverage is not None:
            tests.append(f"holds, in one place, at least {self.coverage:.0%} of the words of an item's {parts}")
        if self.run is not None:
            whose = "it" if tests else f"an item's {parts}"
            tests.append(f"shares {self.run} words or more in a row with {whose}")
        return tests

    def _syntax_tests(self) -> list[str]:
        tests = []
        if self.tau is not None:
            tests.append(f"{self.tau:.0%} by node types")
        if self.alpha is not None:
            tests.append(f"{self.alpha:.0%} in alpha-normalised form")
        return tests

    def __str__(self) -> str:
        return " ".join(self.describe())

    def as_dict(self) -> dict[str, Any]:
        """Give the policy as JSON values, as in run.json."""
        values = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return values | {"parts": list(self.parts), "weights": dict(self.weights), "allow": list(self.allow)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Policy:
        """Read a policy back from run.json."""
        plain = dict(values)
        return cls(**(plain | {"parts": tuple(plain["parts"]), "allow": tuple(plain["allow"])}))


_WORDS_ALONE: dict[str, Any] = {"tau": None, "alpha": None}
# n of the index for each preset, and its policy. Sources: GPT-3 (arXiv 2005.14165, appendix C), phi-1 (arXiv
# 2306.11644, section 5), Tulu 3 (arXiv 2411.15124, section 3.2).
PRESETS: dict[str, tuple[tuple[int, ...], Policy]] = {
    "default": ((13, 4), Policy()),
    "gpt3": (
        (13,),
        Policy("gpt3", "cut", 13, coverage=None, run=13, window=200, min_piece=200, max_pieces=10, **_WORDS_ALONE),
    ),
    "phi1": ((13,), Policy("phi1", "flag", 13, coverage=None, run=13, parts=("question",), **_WORDS_ALONE)),
    # The paper leaves its embedding threshold open: 0.5 is ours.
    "phi1-similar": (
        (13, 4),
        Policy("phi1-similar", coverage=None, tau=0.95, alpha=None, distance=0.5, both=True),
    ),
    "tulu3": ((8,), Policy("tulu3", "drop", 8, coverage=0.5, **_WORDS_ALONE)),
}


def make_policy(
    preset: str = "default",
    *,
    n: Sequence[int] | None = None,
    mode: Mode | None = None,
    coverage: float | None = None,
    run: int | None = None,
    words: int | None = None,
    tau: float | None = None,
    alpha: float | None = None,
    nodes: int | None = None,
    distance: float | None = None,
    both: bool | None = None,
    parts: Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
    allow: Sequence[str] = (),
    window: int | None = None,
    min_piece: int | None = None,
    max_pieces: int | None = None,
) -> tuple[tuple[int, ...], Policy]:
    """Take a preset and change what is given.

    Returns
    -------
    tuple
        The n of the index, descending, and the policy. Where ``n`` is given, the policy looks at the smallest.

    Raises
    ------
    InputError
        No such preset, or a value that cannot be.
    """
    if preset not in PRESETS:
        raise InputError(f'preset "{preset}": give one of {", ".join(PRESETS)}')
    index_n, policy = PRESETS[preset]
    if n:
        for one in n:
            if not 1 <= one <= 64:
                raise InputError(f"n {one}: give lengths from 1 to 64 words")
        index_n = tuple(sorted(set(n), reverse=True))
    changes = {
        "mode": mode, "n": index_n[-1] if n else None, "coverage": coverage, "run": run, "words": words, "tau": tau,
        "alpha": alpha, "nodes": nodes, "distance": distance, "both": both, "parts": parts, "weights": weights,
        "window": window, "min_piece": min_piece, "max_pieces": max_pieces,
    }  # fmt: skip
    return index_n, changed(policy, changes, allow)


def changed(policy: Policy, changes: Mapping[str, Any], allow: Sequence[str] = ()) -> Policy:
    """Change what is given of a policy: values that are not None, and the allow-list where it has entries.

    Raises
    ------
    InputError
        A value that cannot be.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if "parts" in given:
        parts = given["parts"]
        given["parts"] = tuple(p for p in PARTS if p in parts) + tuple(p for p in parts if p not in PARTS)
    if "weights" in given:
        given["weights"] = dict(given["weights"])
    if allow:
        given["allow"] = read_allow(allow)
    return dataclasses.replace(policy, **given)


def read_allow(entries: Sequence[str]) -> tuple[str, ...]:
    """Read allow-list entries; one that names a file stands for the file's lines (``#`` begins a comment).

    Returns
    -------
    tuple of str
        Sorted, each once, white space made single.
    """
    found: set[str] = set()
    for entry in entries:
        path = Path(entry).expanduser()
        if path.is_file():
            try:
                lines = path.read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"allow-list {entry}: cannot be read as text: {error}") from error
            found.update(" ".join(line.partition("#")[0].split()) for line in lines)
        else:
            found.add(" ".join(entry.split()))
    return tuple(sorted(found - {""}))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
