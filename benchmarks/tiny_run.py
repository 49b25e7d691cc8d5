"""examples/tiny.sh as it stands: the losses it ends with, what it writes, and how long each part took.

python benchmarks/tiny_run.py

The corpus is this Python's library, so other versions of Python end a little elsewhere; the seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import cache_dir, report, run_child, table

from phi_fast.train.log import LOG, PLOT, read
from phi_fast.train.tokens import open_tokens

ROOT = Path(__file__).resolve().parents[1]


def losses(run: Path) -> dict[str, Any]:
    """What a run's log says: first and last loss, each validation loss by step, tokens a second."""
    lines = read(run / LOG)
    training = [one for one in lines if "loss" in one]
    held_out = {one["step"]: one["validation_loss"] for one in lines if "validation_loss" in one}
    rates = sorted(one["tokens_per_s"] for one in training)
    waited = sum(one["waited_for_data_s"] for one in training) / sum(one["seconds"] for one in training)
    return {
        "steps": training[-1]["step"], "tokens": training[-1]["tokens"], "first": training[0]["loss"],
        "last": training[-1]["loss"], "held_out": held_out, "best": min(held_out.values()),
        "tokens_per_s": rates[len(rates) // 2], "waited": waited,
    }  # fmt: skip


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(description="examples/tiny.sh: its losses.")
    parser.add_argument("--output", type=Path, help="folder to keep; one that is removed unless given")
    given = parser.parse_args()
    folder = given.output or Path(tempfile.mkdtemp(dir=cache_dir()))
    bin_folder = Path(tempfile.mkdtemp(dir=cache_dir()))  # the commands of this interpreter, installed or not
    for name, words in (("python", ""), ("phi-fast", "-m phi_fast.cli ")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (bin_folder / name).chmod(0o755)
    env = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    try:
        child = run_child([ROOT / "examples" / "tiny.sh", folder], env=env)
        seconds = time.perf_counter() - began
        store = open_tokens(folder / "tokens")
        base, tuned = losses(folder / "base"), losses(folder / "tuned")
        written = child.output[child.output.rindex("def total_price") :].rstrip()
        if (ROOT / "benchmarks" / "results").is_dir():
            shutil.copy(folder / "base" / PLOT, ROOT / "benchmarks" / "results" / "tiny_run.png")
    finally:
        shutil.rmtree(bin_folder)
        if given.output is None:
            shutil.rmtree(folder)
    rows = []
    for name, one in (("pretraining, library", base), ("finetuning, exercises", tuned)):
        best = min(one["held_out"], key=one["held_out"].__getitem__)
        rows.append([
            name, f"{one['steps']:,}", f"{one['tokens'] / 1e6:.2f} M", f"{one['first']:.3f}", f"{one['last']:.3f}",
            f"{one['best']:.3f} (step {best})", f"{one['tokens_per_s']:,.0f}", f"{one['waited']:.2%}",
        ])  # fmt: skip
    headings = ["run", "steps", "tokens", "loss, first logged", "last", "held out, best", "tokens/s", "waited for data"]
    body = (
        table(headings, rows)
        + f"\n\nThe finetuned model, by plain transformers, greedily:\n\n```python\n{written}\n```"
    )
    report(
        "tiny_run", "tiny: pretrained on the Python library, finetuned on sixty exercises", body,
        {"base": base, "tuned": tuned, "seconds": seconds, "written": written, "torch": torch.__version__},
        [
            f"{store.documents:,} library files, {len(store):,} tokens of a vocabulary of {store.vocabulary:,}; "
            f"a guess at random has a loss of {math.log(store.vocabulary):.2f}",
            f"{seconds:.0f} s in all, tokenizer, tokens, both runs, export and generation included",
            "`waited for data`: share of the steps' time in which they waited for the loader",
            f"torch {torch.__version__}",
        ],
    )  # fmt: skip
    print(json.dumps({"base": base["best"], "tuned": tuned["best"]}))


if __name__ == "__main__":
    main()
