"""The search for the rule that finds most at a wanted rate of false positives."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phi_fast.decontaminate.policy import LARGE_NODES, LEAST_NODES, Policy

if TYPE_CHECKING:
    import numpy.typing as npt

    from phi_fast.calibrate.tally import Tally

COVERAGES = tuple(round(0.3 + 0.05 * step, 2) for step in range(15))
RATES = (0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 1.0)
NODES = (LEAST_NODES, 15, 18, 21, LARGE_NODES)
DISTANCES = tuple(round(0.1 * step, 1) for step in range(1, 9))
THRESHOLDS = ("coverage", "tau", "alpha", "nodes", "distance")
_GRID = {"ngram": (COVERAGES,), "syntax": (RATES, RATES, NODES), "embedding": (DISTANCES,)}
_NAMES = {"ngram": ("coverage",), "syntax": ("tau", "alpha", "nodes"), "embedding": ("distance",)}


@dataclass(frozen=True, slots=True)
class Point:
    """What a policy gives: the mean of its recall by suite and disguise, and the clean documents it flags."""

    policy: Policy
    recall: float
    flagged: int


def interval(count: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Give the 95 % interval of a share by Wilson's score method (Wilson 1927); (0, 1) where there is nothing."""
    if not of:
        return 0.0, 1.0
    share, z2 = count / of, z * z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return (max(0.0, middle - half) if count else 0.0, min(1.0, middle + half) if count < of else 1.0)


def grid(channels: Sequence[str], base: Policy) -> Iterator[Policy]:
    """All policies that are tried: every set of the channels scanned, every combination of their thresholds."""
    for size in range(len(channels), 0, -1):
        for chosen in itertools.combinations(channels, size):
            names = [name for channel in chosen for name in _NAMES[channel]]
            off = [name for channel, ones in _NAMES.items() if channel not in chosen for name in ones]
            rest: dict[str, Any] = {name: LEAST_NODES if name == "nodes" else None for name in off}
            for values in itertools.product(*(values for channel in chosen for values in _GRID[channel])):
                given = rest | dict(zip(names, values, strict=True))
                yield dataclasses.replace(base, both=False, run=None, **given)


def evaluate(tally: Tally, policies: Sequence[Policy]) -> list[Point]:
    """Say what each policy finds and flags. Recall is of what any channel scanned could find."""
    weight = _weights(tally)
    found: dict[tuple[Any, ...], npt.NDArray[np.bool_]] = {}
    flagged: dict[tuple[Any, ...], npt.NDArray[np.bool_]] = {}
    points = []
    for policy in policies:
        keys = [(name, *(getattr(policy, one) for one in _NAMES[name])) for name in policy.channels]
        for key in keys:  # each setting of a channel once, however many policies share it
            if key not in found:
                found[key], flagged[key] = tally.found(policy, key[:1]), tally.flagged(policy, key[:1])
        together = np.logical_or.reduce([found[key] for key in keys])
        wrong = np.logical_or.reduce([flagged[key] for key in keys])
        points.append(Point(policy, float(round(weight[together].sum(), 12)), int(wrong.sum())))
    return points


def _weights(tally: Tally) -> npt.NDArray[np.float64]:
    """How much each hidden item adds to the mean recall over the rows that hold something testable."""
    could = tally.testable(tally.channels)
    counts = tally.by_group(could)
    rows = max(1, int((counts > 0).sum()))
    each = np.divide(1.0 / rows, counts, out=np.zeros(len(counts)), where=counts > 0)
    weights: npt.NDArray[np.float64] = np.where(could, each[tally.group], 0.0)
    return weights


def best(points: Sequence[Point], documents: int, wanted: float) -> tuple[Point, bool]:
    """Choose among policies.

    Of those that flag at most the wanted share of the clean documents, the one of the highest recall; of equal ones the
    one that flags fewest, then the one with more channels on, then the stricter: greater coverage, alpha, tau, nodes,
    smaller distance. Where none meets the rate, the one that flags fewest, chosen among equals in the same way.

    Returns
    -------
    (Point, bool)
        The choice, and whether it meets the rate.
    """
    most = math.floor(wanted * documents + 1e-9)
    meeting = [point for point in points if point.flagged <= most]
    least = min(point.flagged for point in points)
    return max(meeting or [point for point in points if point.flagged == least], key=_merit), bool(meeting)


def _merit(point: Point) -> tuple[float, ...]:
    policy = point.policy
    strict = (
        policy.coverage,
        policy.alpha,
        policy.tau,
        policy.nodes,
        None if policy.distance is None else -policy.distance,
    )
    return (point.recall, -point.flagged, len(policy.channels), *(-9.0 if one is None else one for one in strict))
