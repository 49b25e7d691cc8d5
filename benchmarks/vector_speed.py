"""How fast exact L2 search is, beside faiss and scikit-learn.

    pip install faiss-cpu
    python benchmarks/vector_speed.py --rounds 5

One core, 100,000 normalised vectors of 384 dimensions in memory, their 5 nearest for each query, at 164 and 1,000
queries; and all pairs within a radius. faiss runs as it comes and with ``distance_compute_blas_threshold = 20``, which
takes its faster path for few queries too. GFLOP/s count 2 x queries x vectors x dimensions whatever was really done.
"""

from __future__ import annotations

import argparse
import importlib
import os

# before numpy, faiss and numba start their threads
os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from harness import alternate, cores, report, shown, spread, table

from phi_fast.vectors import NearestNeighbors, knn, within

DIM, K = 384, 5


def normalised(rng: np.random.Generator, rows: int) -> Any:
    """Random directions."""
    made = rng.standard_normal((rows, DIM), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--files", action="store_true", help="a try-out: leave results/ as it is")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, cores(1))
    rng = np.random.default_rng(0)
    vectors = normalised(rng, arguments.vectors)
    notes = [f"{arguments.vectors:,} x {DIM} float32 in memory, {K} nearest, one core; numba {version('numba')}."]
    from sklearn.neighbors import NearestNeighbors as Theirs

    brute = Theirs(n_neighbors=K, algorithm="brute").fit(vectors)
    notes.append(f"scikit-learn {version('scikit-learn')}, algorithm brute.")
    index: Any = None
    faiss: Any = None
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        notes.append("faiss is not installed here: not compared (pip install faiss-cpu).")
    else:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatL2(DIM)
        index.add(vectors)
        as_it_comes = faiss.cvar.distance_compute_blas_threshold
        notes.append(f"faiss {version('faiss-cpu')}, IndexFlatL2; its threshold is {as_it_comes} as it comes.")
    ours = NearestNeighbors(n_neighbors=K, threads=1).fit(vectors)
    rows, data = [], {}
    for count in (164, 1000):
        queries = normalised(rng, count)
        flops = 2.0 * count * len(vectors) * DIM

        def rate(run: Callable[[], object], flops: float = flops) -> Callable[[], float]:
            def timed() -> float:
                started = time.perf_counter()
                run()
                return flops / (time.perf_counter() - started) / 1e9

            return timed

        def faiss_at(threshold: int, queries: Any = queries) -> Any:
            faiss.cvar.distance_compute_blas_threshold = threshold
            return index.search(queries, K)

        wanted = ours.kneighbors(queries)
        cases: dict[str, Callable[[], float]] = {
            f"{count} queries, phi_fast": rate(partial(ours.kneighbors, queries)),
            f"{count} queries, phi_fast, within 1.2": rate(partial(within, queries, vectors, 1.2, threads=1)),
            f"{count} vectors, 100 k queries, phi_fast": rate(partial(knn, vectors, queries, K, threads=1)),
        }
        if index is not None:
            cases[f"{count} queries, faiss as it comes"] = rate(partial(faiss_at, as_it_comes))
            cases[f"{count} queries, faiss, threshold 20"] = rate(partial(faiss_at, 20))
            squares, places = faiss_at(20)
            same = (places == wanted[1]).mean()
            off = np.abs(np.sqrt(np.maximum(squares, 0)) - wanted[0]).max()
            notes.append(
                f"{count} queries: faiss gives {same:.2%} of the places, and distances within {off:.1e} of ours."
            )
        cases[f"{count} queries, scikit-learn"] = rate(partial(brute.kneighbors, queries))
        for run in cases.values():
            run()  # compiled, and every page touched
        values = alternate(cases, arguments.rounds)
        best = spread(values[f"{count} queries, phi_fast"])["median"]
        for name, found in values.items():
            rows.append([name, shown(found), f"{best / spread(found)['median']:.2f}"])
            data[name] = spread(found)
    body = table(["case", "GFLOP/s, median (range)", "phi_fast is so many times as fast"], rows)
    report("vector_speed", "Exact L2 search", body, data, notes)


if __name__ == "__main__":
    main()
