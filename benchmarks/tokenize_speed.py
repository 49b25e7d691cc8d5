"""How fast a corpus becomes tokens, beside the package tokenizers alone.

    python benchmarks/tokenize_speed.py --size 100MB --rounds 5

The same documents and the same tokenizer (CodeGen's manner: byte-level BPE, tokens for runs of spaces and tabs, trained
here unless --tokenizer names another) on the same cores. phi_fast: the whole work, from JSONL on disk to shards there,
its worker processes started and ended within the time. tokenizers alone: ``encode_batch`` and ``encode_batch_fast`` on
all documents in memory, with its own threads, in a process of its own; ids are neither taken out nor written, and
neither its start nor reading is in its time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corpus import add_arguments, make_corpus
from harness import alternate, cache_dir, cores, report, run_child, shown, spread, table

from phi_fast.train import open_tokenizer, tokenize_corpus, train_tokenizer


def texts_of(path: Path) -> list[str]:
    """Read the documents."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def alone(name: str, corpus: Path, tokenizer: str) -> None:
    """Print the seconds that tokenizers takes by itself: what a child process does."""
    texts, call = texts_of(corpus), getattr(open_tokenizer(tokenizer).tokenizer, name)
    began = time.perf_counter()
    call(texts, add_special_tokens=False)
    print(time.perf_counter() - began)


def main() -> None:
    """Measure, print and write the result."""
    if sys.argv[1:2] == ["--alone"]:
        return alone(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, default="100MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", help="how many; 1 and all unless given")
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--tokenizer", help="a tokenizer.json, a folder or a hub name")
    given = parser.parse_args()
    made = make_corpus(given.size, given.root, given.files)
    scratch, usable = cache_dir() / "scratch", os.sched_getaffinity(0)
    scratch.mkdir(exist_ok=True)
    named: str = given.tokenizer or str(scratch / f"tokenizer-{given.vocab}.json")
    if not given.tokenizer:
        train_tokenizer(made.path, named, vocabulary=given.vocab, runs=True)
    tokenizer, output = open_tokenizer(named), scratch / "tokens"
    text_bytes = sum(len(text.encode()) for text in texts_of(made.path))
    rows: list[list[str]] = []
    data: dict[str, Any] = {"text_bytes": text_bytes}
    for count in given.cores or sorted({1, len(usable)}):
        on = cores(count)

        def ours(count: int = count, on: set[int] = on) -> float:
            shutil.rmtree(output, ignore_errors=True)
            os.sched_setaffinity(0, on)
            began = time.perf_counter()
            store = tokenize_corpus(made.path, output, tokenizer, workers=count)
            seconds = time.perf_counter() - began
            os.sched_setaffinity(0, usable)
            data["tokens"] = len(store)
            return text_bytes / 1e6 / seconds

        def theirs(name: str, count: int = count, on: set[int] = on) -> float:
            command = [sys.executable, __file__, "--alone", name, str(made.path), named]
            env = {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(count)}
            return text_bytes / 1e6 / float(run_child(command, on=on, env=env).output.split()[-1])

        mine = f"phi-fast tokenize, {count} core{'s' * (count > 1)}"
        cases = {mine: ours}
        for name in ("encode_batch", "encode_batch_fast"):
            cases[f"tokenizers, {name}, {count} core{'s' * (count > 1)}"] = partial(theirs, name)
        values = alternate(cases, given.rounds)
        best = spread(values[mine])["median"]
        for name, found in values.items():
            rate = data["tokens"] / text_bytes * spread(found)["median"]
            rows.append([name, shown(found), f"{rate:.2f}", f"{best / spread(found)['median']:.2f}"])
            data[name] = spread(found)
    shutil.rmtree(output, ignore_errors=True)
    body = table(["case", "MB of text/s, median (range)", "M tokens/s", "phi_fast is so many times as fast"], rows)
    notes = [
        f"{made.documents:,} documents, {text_bytes / 1e6:,.0f} MB of text, {data['tokens']:,} tokens; "
        f"{tokenizer.vocabulary:,} tokens in the vocabulary; tokenizers {version('tokenizers')}.",
        "phi_fast reads JSONL and writes shards with checksums within its time; tokenizers alone does neither.",
    ]
    report("tokenize_speed", "A corpus as tokens", body, data, notes)


if __name__ == "__main__":
    main()
