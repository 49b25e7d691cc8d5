"""The order: each window once an epoch, mixtures in proportion, the same step for every split of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.train.order import Order, Split, permuted

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@given(st.integers(1, 3000), st.integers(0, 2**70))
def test_a_permutation(count: int, key: int) -> None:
    found = permuted(np.arange(count), count, (key, 0, 0))
    assert np.array_equal(np.sort(found), np.arange(count))


@given(st.integers(1, 2**61), st.data())
@settings(max_examples=50)
def test_places_of_large_permutations_stay_inside_and_apart(count: int, data: Any) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=50, unique=True)), np.int64)
    found = permuted(places, count, (1,))
    assert found.min() >= 0 and found.max() < count
    assert len(np.unique(found)) == len(places)
    assert np.array_equal(found, np.concatenate([permuted(places[i : i + 1], count, (1,)) for i in range(len(places))]))


def test_permutations_look_shuffled() -> None:
    """Where place 0 goes, over many keys: every window alike (chi-square), and no neighbour keeps its neighbour."""
    for count in (2, 3, 7, 20):
        seen = np.array([permuted(np.arange(count), count, (key,)) for key in range(3000)])
        for place in range(count):
            hits = np.bincount(seen[:, place], minlength=count)
            chi = float(((hits - 3000 / count) ** 2 / (3000 / count)).sum())
            assert chi < (count - 1) + 6 * np.sqrt(2 * (count - 1)) + 6, (count, place)
    order = permuted(np.arange(100_000), 100_000, (0, 0, 0))
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.015
    assert (np.abs(np.diff(order)) == 1).mean() < 1e-4 * 3
    again = permuted(np.arange(100_000), 100_000, (0, 0, 1))
    assert (order == again).mean() < 1e-3


def test_the_order_is_written_down() -> None:
    """Runs are resumed with it: another order under the same seed would see some windows twice and others never."""
    assert permuted(np.arange(10), 10, (0, 0, 0)).tolist() == [0, 2, 6, 8, 1, 9, 7, 4, 3, 5]
    where = Order([5, 3], weights=[2, 1], seed=7).at(np.arange(9))
    assert where.store.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0]
    assert where.window.tolist() == [0, 1, 0, 1, 3, 4, 2, 2, 4]


@given(SIZES, st.integers(0, 5))
def test_every_window_once_an_epoch(sizes: list[int], seed: int) -> None:
    order = Order(sizes, seed=seed)
    where = order.at(np.arange(3 * sum(sizes)))
    for store, count in enumerate(sizes):
        mine = where.store == store
        for epoch in range(3):
            seen = where.window[mine & (where.epoch == epoch)]
            assert np.array_equal(np.sort(seen), np.arange(count))
    assert where.epoch.tolist() == sorted(where.epoch.tolist())  # all stores end their epochs together


@given(SIZES, st.data())
def test_mixtures_are_exact_and_count_their_own_epochs(sizes: list[int], data: Any) -> None:
    weights = data.draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)).filter(any))
    order = Order(sizes, weights=weights, seed=1)
    samples = 500
    where = order.at(np.arange(samples))
    counts = np.zeros(len(sizes), int)
    seen: list[list[int]] = [[] for _ in sizes]
    for n in range(samples):
        assert order.drawn(n) == counts.tolist()
        for store, weight in enumerate(weights):
            assert abs(counts[store] - Fraction(n * weight, sum(weights))) < len(sizes)
        store = int(where.store[n])
        assert where.epoch[n] == counts[store] // sizes[store]
        seen[store].append(int(where.window[n]))
        counts[store] += 1
    for count, windows in zip(sizes, seen, strict=True):
        for start in range(0, len(windows) - count + 1, count):
            assert sorted(windows[start : start + count]) == list(range(count))


def test_weights_in_any_unit() -> None:
    for weights in ([3, 1], [0.75, 0.25], [75, 25], [0.3, 0.1]):
        assert Order([10, 10], weights=weights).shares == (3, 1)
    assert Order([4, 4, 4], weights=[0.7, 0.2, 0.1]).shares == (7, 2, 1)
    thirds = Order([9, 9, 9], weights=[1 / 3, 1 / 3, 1 / 3]).shares
    assert len(set(thirds)) == 1
    assert Order([2**40, 2**40 + 1]).shares == (500000, 500000)
    big = Order([2**31, 2**31 - 7], weights=[0.123456, 0.876544])
    far = np.array([2**50 + 12345])
    assert abs(big.drawn(2**50 + 12345)[0] - (2**50 + 12345) * 0.123456) < 2
    assert 0 <= big.at(far).window[0] < 2**31


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_jumping_is_walking(samples: list[int]) -> None:
    order = Order([1234, 77, 500], weights=[5, 1, 2], seed=3)
    together = order.at(np.array(samples))
    for n, sample in enumerate(samples):
        assert [int(one[n]) for one in together] == [int(one[0]) for one in order.at(np.array([sample]))]


def test_without_shuffling() -> None:
    where = Order([3], shuffle=False).at(np.arange(7))
    assert where.window.tolist() == [0, 1, 2, 0, 1, 2, 0] and where.epoch.tolist() == [0, 0, 0, 1, 1, 1, 2]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 100))
def test_every_split_of_a_step_holds_the_same_samples_in_the_same_order(
    micro: int, world: int, parts: int, step: int
) -> None:
    batch = micro * world * parts
    splits = [Split(batch, micro, rank, world) for rank in range(world)]
    assert splits[0].parts == parts
    dealt = [one.samples(step, part) for part in range(parts) for one in splits]
    assert np.concatenate(dealt).tolist() == list(range(step * batch, (step + 1) * batch))


def test_what_is_refused() -> None:
    for windows in ([], [3, 0]):
        with pytest.raises(InputError, match="windows"):
            Order(windows)
    for weights in ([1.0], [1, -1], [0, 0], [float("nan"), 1], [float("inf"), 1]):
        with pytest.raises(InputError, match="weights"):
            Order([3, 3], weights=weights)
    with pytest.raises(InputError, match="under one in 1,000,000"):
        Order([3, 3], weights=[1e-12, 1])
    with pytest.raises(InputError, match=r"batch 10: no multiple of 4 \(micro\) · 2 \(world\) = 8"):
        Split(10, 4, 0, 2)
    with pytest.raises(InputError, match="rank 2 of 2: give 0 to 1"):
        Split(8, 4, 2, 2)
    with pytest.raises(InputError, match="each is 1 or more"):
        Split(0, 1)
