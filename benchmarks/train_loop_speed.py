"""tiny by our loop, beside nanoGPT's loop written plainly: the same model, batch and optimiser, on the CPU.

python benchmarks/train_loop_speed.py
python benchmarks/train_loop_speed.py --rounds 1 --steps 20 --files try      # a try-out; its result goes to the cache

Each run is a process of its own, in turn. nanoGPT's loop is that of its train.py: windows at random from a memory map,
forward, backward, clipping, fused AdamW, the loss read every ten steps. Ours is `train`, with all it does each step:
order, checks, log. The first ten steps of each are left out.
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

import numpy as np
import torch
from harness import alternate, cache_dir, cores, report, run_child, shown, spread, table

from phi_fast.model import Phi
from phi_fast.train import Settings, tokenize_corpus, train, train_tokenizer
from phi_fast.train.log import LOG, read
from phi_fast.train.recipes import read_recipe
from phi_fast.trial import library_files

WARM = 10
OURS, PLAIN = "phi_fast", "nanoGPT's loop"


def settings(steps: int) -> Settings:
    """The recipe tiny, without validation and saving on the way."""
    return read_recipe("tiny", [f"schedule_steps={steps}", "warmup_steps=5", "held_out=0", f"save_every={steps}"])


def by_ours(tokens: Path, steps: int) -> dict[str, float]:
    """One run of `train`."""
    folder = Path(tempfile.mkdtemp(dir=cache_dir()))
    try:
        train(settings(steps), [tokens], folder / "run", console=False, device="cpu")
        lines = [one for one in read(folder / "run" / LOG) if one["step"] > WARM]
    finally:
        shutil.rmtree(folder)
    seconds, waited = (sum(one[name] for one in lines) for name in ("seconds", "waited_for_data_s"))
    return {"seconds": seconds, "waited": waited, "loss": lines[-1]["loss"]}


def by_plain(tokens: Path, steps: int) -> dict[str, float]:
    """The same model in nanoGPT's loop."""
    given = settings(steps)
    torch.manual_seed(given.seed)
    model = Phi(given.config()).train()
    decayed = [one for one in model.parameters() if one.dim() >= 2]
    others = [one for one in model.parameters() if one.dim() < 2]
    groups = [{"params": decayed, "weight_decay": given.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=given.lr, betas=given.betas, fused=True)
    parts, length = given.batch // given.micro, given.length
    waited = began = loss_read = 0.0

    def batch() -> torch.Tensor:
        # nanoGPT opens the map anew each time, against a leak
        data = np.memmap(tokens / "tokens-00000.bin", np.uint16, "r")
        places = torch.randint(len(data) - length, (given.micro,)).tolist()
        return torch.stack([torch.from_numpy(data[i : i + length].astype(np.int64)) for i in places])

    ids = batch()
    for step in range(steps):
        if step == WARM:
            began, waited = time.perf_counter(), 0.0
        warm = min(1.0, (step + 1) / given.warmup_steps)
        lr = given.lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = lr
        for _ in range(parts):
            loss: Any = model(ids, labels=ids).loss / parts
            since = time.perf_counter()
            ids = batch()  # nanoGPT fetches the next one here, while a GPU would be busy
            waited += time.perf_counter() - since
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), given.clip or math.inf)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 10 == 0:
            loss_read = float(loss.detach()) * parts
    return {"seconds": time.perf_counter() - began, "waited": waited, "loss": loss_read}


def main() -> None:
    """Prepare the tokens, run both in turn, and write the result."""
    parser = argparse.ArgumentParser(description="Our training loop beside nanoGPT's, on the CPU.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--files", help="a try-out: anything; the result goes to the cache")
    parser.add_argument("--one", nargs=2, metavar=("WHICH", "TOKENS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        which, tokens = given.one
        print(json.dumps((by_ours if which == OURS else by_plain)(Path(tokens), given.steps)))
        return
    folder = Path(tempfile.mkdtemp(dir=cache_dir()))
    results: dict[str, list[dict[str, float]]] = {OURS: [], PLAIN: []}
    counted = (given.steps - WARM) * settings(given.steps).tokens_per_step
    try:
        corpus = folder / "library.jsonl"
        corpus.write_text("".join(json.dumps({"text": one.text}) + "\n" for one in library_files(5_000_000)))
        train_tokenizer(corpus, folder / "tokenizer.json", vocabulary=4096, runs=True)
        tokenize_corpus([str(corpus)], folder / "tokens", str(folder / "tokenizer.json"), workers=1)

        def case(name: str) -> float:
            command = [sys.executable, Path(__file__), "--steps", str(given.steps), "--one", name, folder / "tokens"]
            threads = {"OMP_NUM_THREADS": str(given.cores), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
            child = run_child([str(one) for one in command], on=cores(given.cores), env=threads)
            results[name].append(json.loads(child.output.strip().splitlines()[-1]))
            return float(counted / results[name][-1]["seconds"])

        rates = alternate({name: lambda name=name: case(name) for name in results}, given.rounds)  # type: ignore[misc]
    finally:
        shutil.rmtree(folder)
    ratios = [ours / plain for ours, plain in zip(rates[OURS], rates[PLAIN], strict=True)]
    rows = []
    for name, values in rates.items():
        stalls = [one["waited"] / one["seconds"] for one in results[name]]
        rows.append([name, shown(values), f"{sum(stalls) / len(stalls):.3%}", f"{results[name][-1]['loss']:.3f}"])
    body = table(["loop", "tokens/s", "share of the time spent on input", "last loss read"], rows)
    body += f"\n\nphi_fast over nanoGPT's loop, pair by pair: {shown(ratios)}"
    notes = [
        f"tiny, float32, {given.steps - WARM} steps of {settings(given.steps).tokens_per_step:,} tokens, {WARM} before "
        f"them left out; {given.cores} cores; torch {torch.__version__}",
        "input: what the step waits for the loader's thread; in nanoGPT's loop, making the batch",
        "losses differ a little, for nanoGPT draws windows with replacement and decays by a cosine",
    ]
    data = {"tokens_per_s": {name: spread(values) for name, values in rates.items()}, "ratio": spread(ratios)}
    report(
        "train_loop_speed", "The training loop beside nanoGPT's, tiny on a CPU", body, {**data, "runs": results}, notes
    )


if __name__ == "__main__":
    main()
