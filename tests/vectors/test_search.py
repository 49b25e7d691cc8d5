"""The search against plain float64: all kinds of vectors, both orientations, files, threads, refusals, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import neighbors as neighbours

from phi_fast.errors import InputError
from phi_fast.vectors import NearestNeighbors, knn, search, within
from tests.oracles import vectors as oracle

ROOT = Path(__file__).parents[2]


def made(kind: str, rng: np.random.Generator, rows: int, dim: int, centres: Any) -> Any:
    """Vectors of a kind; `centres` are shared by both sides, so that there are neighbours."""
    noise = rng.standard_normal((rows, dim))
    chosen = centres[rng.integers(0, len(centres), rows)] if rows else np.zeros((0, dim))
    made = {
        "random": lambda: noise,
        "clustered": lambda: chosen + 1e-3 * noise,
        "duplicates": lambda: chosen,
        "huge 1e4": lambda: 1e4 * (chosen + 1e-5 * noise),
        "huge 1e6": lambda: 1e6 * chosen + noise,
        "beyond float32's squares": lambda: 1e19 * (chosen + 1e-6 * noise),
        "tiny": lambda: 1e-12 * (chosen + 1e-2 * noise),
        "below the normal numbers": lambda: 1e-23 * (chosen + 1e-2 * noise),
        "zeros": lambda: np.where(rng.random((rows, 1)) < 0.5, 0.0, chosen),
        "scales": lambda: noise * 10.0 ** rng.integers(-18, 18, (rows, 1)),
        "normalised": lambda: noise / np.linalg.norm(noise, axis=1, keepdims=True),
    }[kind]()
    return made.astype(np.float32)


KINDS = [
    "random", "clustered", "duplicates", "huge 1e4", "huge 1e6", "beyond float32's squares", "tiny",
    "below the normal numbers", "zeros", "scales", "normalised",
]  # fmt: skip
SIZES = st.one_of(st.integers(1, 60), st.sampled_from([47, 48, 49, 96, 130, 300]))
DIMS = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 200]))


def sides(data: st.DataObject) -> tuple[Any, Any]:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    kind, dim = data.draw(st.sampled_from(KINDS)), data.draw(DIMS)
    centres = rng.standard_normal((data.draw(st.sampled_from([1, 3, 30])), dim))
    return tuple(made(kind, rng, data.draw(SIZES), dim, centres) for _ in range(2))  # type: ignore[return-value]


@given(st.data())
def test_nearest_are_the_nearest(data: st.DataObject) -> None:
    queries, vectors = sides(data)
    k = data.draw(st.integers(1, min(len(vectors), data.draw(st.sampled_from([1, 5, 17, 80])))))
    distances, places = knn(queries, vectors, k, threads=data.draw(st.sampled_from([1, 3])))
    wanted, expected = oracle.knn(queries, vectors, k)
    assert distances.shape == places.shape == (len(queries), k)
    assert distances.dtype == np.float32 and places.dtype == np.int64
    np.testing.assert_allclose(distances, wanted, rtol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()
    exact = oracle.squared(queries, vectors)
    for query in range(len(queries)):
        assert len(set(places[query].tolist())) == k
        if places[query].tolist() != expected[query].tolist():  # only where the last bits of the sum decide
            chosen = exact[query, places[query]]
            np.testing.assert_allclose(chosen, exact[query, expected[query]], rtol=1e-12)


@given(st.data())
def test_all_within_are_found(data: st.DataObject) -> None:
    queries, vectors = sides(data)
    exact = np.sqrt(oracle.squared(queries, vectors))
    radius = float(np.quantile(exact, data.draw(st.sampled_from([0.0, 0.01, 0.2, 1.0]))))
    radius *= data.draw(st.sampled_from([1.0, 1 + 1e-9, 1 - 1e-9]))
    pairs = within(queries, vectors, radius, threads=data.draw(st.sampled_from([1, 3])))
    assert pairs.dtype == search.PAIR
    found = {(q, v): d for q, v, d in pairs.tolist()}
    assert list(found) == sorted(found) and len(found) == len(pairs)
    for q, v, distance in oracle.within(queries, vectors, radius):
        if distance < radius * (1 - 1e-12):
            assert (q, v) in found
    for (q, v), distance in found.items():
        assert exact[q, v] <= radius * (1 + 1e-12)
        assert distance == pytest.approx(exact[q, v], rel=1e-6)


@pytest.mark.parametrize("offset", [1.0, 1e3, 1e5])
def test_near_duplicates_of_long_vectors(offset: float) -> None:
    """Where |a|² + |b|² - 2ab in float32 is all rounding, of either sign."""
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((500, 100)) + offset).astype(np.float32)
    queries = vectors[::5] + np.float32(offset * 1e-6) * rng.standard_normal((100, 100)).astype(np.float32)
    wanted, expected = oracle.knn(queries, vectors, 3)
    distances, places = knn(queries, vectors, 3)
    assert places.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, wanted, rtol=1e-6)
    assert np.isfinite(distances).all() and (distances >= 0).all()


def test_of_equal_distances_the_lower_place_comes_first() -> None:
    rng = np.random.default_rng(2)
    few = rng.standard_normal((7, 20)).astype(np.float32)
    vectors = few[rng.integers(0, 7, 3000)]
    for queries in (few, np.repeat(few, 1000, axis=0)):
        for threads in (1, 4):
            _, places = knn(queries, vectors, 25, threads=threads)
            assert places.tolist() == oracle.knn(queries, vectors, 25)[1].tolist()


def test_like_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = rng.random((2000, 30)).astype(np.float32), rng.random((90, 30)).astype(np.float32)
    ours = NearestNeighbors(n_neighbors=4, radius=1.5).fit(vectors)
    theirs = neighbours.NearestNeighbors(n_neighbors=4, radius=1.5, algorithm="brute").fit(vectors)
    for mine, other in zip(ours.kneighbors(queries), theirs.kneighbors(queries), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4)
    assert (ours.kneighbors(queries, 7, return_distance=False) == theirs.kneighbors(queries, 7, False)).all()
    (distances, places), (others, their_places) = (
        found.radius_neighbors(queries, sort_results=True) for found in (ours, theirs)
    )
    assert places.shape == their_places.shape == (90,) and places.dtype == object
    assert sum(map(len, places)) > 200
    for query in range(90):
        assert sorted(places[query]) == sorted(their_places[query])
        np.testing.assert_allclose(distances[query], others[query], rtol=1e-4)
    unsorted = ours.radius_neighbors(queries, return_distance=False)
    assert all((np.diff(one) > 0).all() for one in unsorted)
    assert (ours.n_samples_fit_, ours.n_features_in_) == (2000, 30)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i4", "bool"])
@pytest.mark.parametrize("layout", ["C", "F", "strided", "reversed"])
def test_any_numbers_in_any_layout(dtype: str, layout: str) -> None:
    rng = np.random.default_rng(4)
    vectors = (rng.standard_normal((700, 21)) * 3).astype(dtype)
    vectors = {
        "C": lambda: vectors,
        "F": lambda: np.asfortranarray(vectors),
        "strided": lambda: np.repeat(np.repeat(vectors, 2, 0), 2, 1)[::2, ::2],
        "reversed": lambda: np.ascontiguousarray(vectors[::-1])[::-1],
    }[layout]()
    queries = rng.standard_normal((9, 21))
    wanted, expected = oracle.knn(queries, vectors, 3)
    for other in (queries, np.concatenate([queries] * 100)):
        distances, places = knn(other, vectors, 3)
        np.testing.assert_allclose(distances[:9], wanted, rtol=1e-6)
        assert dtype == "bool" or places[:9].tolist() == expected.tolist()


def test_files_are_searched_where_they_lie(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((20_000, 48)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    queries = vectors[::997] + np.float32(0.01)
    told: list[tuple[str, int, int]] = []
    _, places = knn(queries, mapped, 2, threads=2, progress=lambda *said: told.append(said))
    assert places[:, 0].tolist() == list(range(0, 20_000, 997))
    assert told[-1] == ("searching", 20_000, 20_000) and sorted(told) == told
    pairs = within(mapped, queries, 0.2)
    assert pairs["query"].tolist() == list(range(0, 20_000, 997))
    assert pairs["vector"].tolist() == list(range(len(queries)))


def test_many_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller side in several pieces, and more hits than the buffers hold."""
    monkeypatch.setattr(search, "_ITEM_BYTES", 4 * 6 * 100)
    monkeypatch.setattr(search, "_BLOCK_WORK", 6 * 100 * 200)
    rng = np.random.default_rng(6)
    one, other = rng.random((450, 6)).astype(np.float32), rng.random((2000, 6)).astype(np.float32)
    for queries, vectors in ((one, other), (other, one)):
        for threads in (1, 3):
            assert knn(queries, vectors, 9, threads=threads)[1].tolist() == oracle.knn(queries, vectors, 9)[1].tolist()
        found = [(q, v) for q, v, _ in within(queries, vectors, 0.9).tolist()]
        assert found == [(q, v) for q, v, _ in oracle.within(queries, vectors, 0.9)]
        assert len(found) > 300_000


def test_nothing_to_search() -> None:
    some = np.ones((3, 4), np.float32)
    assert [found.shape for found in knn(some[:0], some, 2)] == [(0, 2), (0, 2)]
    assert len(within(some[:0], some, 1)) == len(within(some, some[:0], 1)) == 0
    assert [len(one) for one in NearestNeighbors(radius=1).fit(some).radius_neighbors(some[:0])] == [0, 0]
    assert within(some, some, float("inf")).tolist() == [(q, v, 0.0) for q in range(3) for v in range(3)]


def test_refusals() -> None:
    some, many = np.ones((3, 4), np.float32), np.ones((5000, 4), np.float32)
    with pytest.raises(InputError, match=r"k 4: .* from 1 to 3"):
        knn(some, some, 4)
    with pytest.raises(InputError, match="k 0"):
        knn(some, some, 0)
    with pytest.raises(InputError, match="queries have 3 dimensions and vectors 4"):
        knn(some[:, :3], some, 1)
    with pytest.raises(InputError, match=r"not \(4,\)"):
        knn(some[0], some, 1)
    with pytest.raises(InputError, match="0 dimensions"):
        knn(some[:, :0], some[:, :0], 1)
    with pytest.raises(InputError, match="real numbers, not complex"):
        within(some, some.astype(np.complex64), 1)
    for radius in (-1.0, float("nan")):
        with pytest.raises(InputError, match="radius"):
            within(some, some, radius)
    with pytest.raises(InputError, match="threads 0"):
        knn(some, some, 1, threads=0)
    with pytest.raises(InputError, match="metric"):
        NearestNeighbors(metric="cosine")
    with pytest.raises(InputError, match="fit"):
        NearestNeighbors().kneighbors(some)
    for value, dtype in ((np.nan, np.float32), (np.inf, np.float16), (-np.inf, np.float64), (1e300, np.float64)):
        bad = many.astype(dtype)
        bad[4321, 2] = value
        for threads in (1, 2):
            with pytest.raises(InputError, match="row 4,321 of the vectors"):
                knn(some, bad, 1, threads=threads)
            with pytest.raises(InputError, match="row 4,321 of the queries"):
                within(bad, some, 1, threads=threads)
        few = some.astype(dtype)
        few[1, 0] = value
        with pytest.raises(InputError, match="row 1 of the queries"):
            knn(few, many, 1)


@pytest.mark.parametrize("native", ["scalar", "avx2"])
def test_narrower_registers_find_the_same(native: str) -> None:
    code = """
    import numpy as np
    from phi_fast.vectors import _micro, knn, within
    from tests.oracles import vectors as oracle
    assert _micro.LANES <= 8
    rng = np.random.default_rng(7)
    for dim in (1, 7, 8, 100):
        one, other = (rng.standard_normal((rows, dim)).astype("f4") for rows in (77, 1000))
        for a, b in ((one, other), (other, one)):
            assert (knn(a, b, 5)[1] == oracle.knn(a, b, 5)[1]).all()
            radius = float(np.quantile(np.sqrt(oracle.squared(a, b)), 0.05))
            assert [p[:2] for p in within(a, b, radius).tolist()] == [p[:2] for p in oracle.within(a, b, radius)]
    """
    environment = {**os.environ, "PHI_FAST_NATIVE": native, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment, timeout=200)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_ends_a_long_search(threads: int) -> None:
    rng = np.random.default_rng(8)
    vectors = np.broadcast_to(rng.standard_normal((1, 256)).astype(np.float32), (300_000_000, 256))
    queries = rng.standard_normal((100, 256)).astype(np.float32)
    knn(queries[:1], queries, 1)  # compiled
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(1.0, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        knn(queries, vectors, 1, threads=threads)
    assert time.monotonic() - sent[0] < 3  # a second on a machine that does nothing else
    timer.join()


def test_the_gil_is_released() -> None:
    rng = np.random.default_rng(9)
    vectors = rng.standard_normal((60_000, 256)).astype(np.float32)
    knn(vectors[:2], vectors[:2], 1)
    worker = threading.Thread(target=knn, args=(vectors[:200], vectors, 1), kwargs={"threads": 1})
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 3
