"""The search: intervals, the grid, and the choice among policies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from phi_fast.calibrate.search import COVERAGES, NODES, RATES, Point, best, evaluate, grid, interval
from phi_fast.calibrate.tally import Likeness, Tally
from phi_fast.decontaminate.policy import Policy
from phi_fast.trial import Hidden


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (1, 1000, 0.000177, 0.005645), (0, 0, 0, 1)],
)
def test_wilson_intervals(count: int, of: int, low: float, high: float) -> None:
    assert interval(count, of) == pytest.approx((low, high), abs=6e-5)


def test_the_grid_holds_every_set_of_channels_and_every_threshold() -> None:
    policies = list(grid(("ngram", "syntax"), Policy(mode="flag")))
    assert len(policies) == len(set(map(str, map(Policy.as_dict, policies))))
    both, words, trees = len(COVERAGES) * len(RATES) ** 2 * len(NODES), len(COVERAGES), len(RATES) ** 2 * len(NODES)
    assert len(policies) == both + words + trees
    assert {policy.channels for policy in policies} == {("ngram", "syntax"), ("ngram",), ("syntax",)}
    assert Policy(mode="flag") in [dataclasses.replace(one) for one in policies] or 0.85 in RATES
    assert any((one.coverage, one.tau, one.alpha) == (0.7, 0.95, 0.85) for one in policies)


def point(recall: float, flagged: int, **thresholds: float | None) -> Point:
    return Point(Policy(**thresholds), recall, flagged)  # type: ignore[arg-type]


def test_the_choice_meets_the_rate_with_the_best_recall() -> None:
    points = [point(0.9, 0), point(0.97, 2), point(0.99, 3)]
    assert best(points, 2000, 0.001) == (points[1], True)
    assert best(points, 3000, 0.001) == (points[2], True)
    assert best(points, 2000, 0.0) == (points[0], True)
    assert best(points, 100, 1.0) == (points[2], True)


def test_ties_go_to_fewer_flagged_then_more_channels_then_the_stricter() -> None:
    points = [
        point(0.9, 1, coverage=0.9), point(0.9, 0, coverage=0.6), point(0.9, 0, coverage=0.9, tau=None, alpha=None),
        point(0.9, 0, coverage=0.8, alpha=0.9), point(0.9, 0, coverage=0.8, alpha=0.95, tau=0.9),
    ]  # fmt: skip
    for order in (points, points[::-1]):
        assert best(order, 1000, 0.01) == (points[4], True)


def test_where_no_policy_meets_the_rate_the_nearest_is_given() -> None:
    points = [point(0.99, 9), point(0.5, 4), point(0.6, 4)]
    assert best(points, 1000, 0.001) == (points[2], False)


def likeness(coverage: list[float], tau: list[float], distance: list[float]) -> Likeness:
    one = Likeness.of(len(coverage))
    one.coverage[:], one.tau[:], one.distance[:] = coverage, tau, distance
    return one


def test_recall_is_the_mean_over_rows_of_what_any_channel_could_find() -> None:
    hidden = [Hidden(str(at), "", "s", str(at), "verbatim") for at in range(4)]
    hidden += [Hidden("4", "", "s", "0", "commented out"), Hidden("5", "", "s", "0", "prompt only")]
    tally = Tally(
        channels=("ngram", "syntax"),
        hidden=hidden,
        planted=likeness([1.0, 0.6, 0.2, 0.9, 0.1, 0.9], [0.9, 0.9, 1.0, -1, 1.0, 1.0], [9] * 6),
        clean={"s": likeness([0.75, 0.1, 0.1], [-1, 0.97, -1], [9] * 3)},
        could={
            "ngram": np.array([True, True, False, False, True, False]),
            "syntax": np.array([True, True, True, False, False, False]),
            "embedding": np.ones(6, np.bool_),
        },
        groups=[("s", "verbatim"), ("s", "commented out"), ("s", "prompt only")],
        group=np.array([0, 0, 0, 0, 1, 2]),
    )
    rules = [Policy(coverage=0.7), Policy(coverage=0.6, tau=None, alpha=None), Policy(coverage=0.8, tau=1.0, alpha=1.0)]
    found = [(one.recall, one.flagged) for one in evaluate(tally, rules)]
    # Three of the first row are testable and one of the second; the third row has nothing testable, so it counts not.
    # The fourth is found, and is not testable; the fifth is found by a channel that could not be relied on.
    assert found == [(pytest.approx((2 / 3 + 1) / 2), 2), (pytest.approx((2 / 3 + 0) / 2), 1),
                     (pytest.approx((2 / 3 + 1) / 2), 0)]  # fmt: skip
