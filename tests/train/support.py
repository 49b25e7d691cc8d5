"""Small corpora, tokenizers and stores for the tests of tokens."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi_fast.train.shards import Writer
from phi_fast.train.tokens import TokenStore, open_tokens

END = "<|endoftext|>"


def texts(count: int, seed: int = 0) -> list[str]:
    """Documents of all sorts: code, other scripts, nothing, runs of spaces, the end-of-text token written out."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        kind = n % 7
        if kind == 0:
            made.append("def f(x):\n" + "".join(f"    y{i} = x + {i}\n" for i in range(int(rng.integers(1, 90)))))
        elif kind == 1:
            made.append("äöü ßñ 漢字 🙂 é\u0301 \t\t\t tabs   and     spaces\r\n")
        elif kind == 2:
            made.append("" if n % 2 else " ")
        elif kind == 3:
            made.append(f"ends {END} in {END}{END} the middle <|pad|> {n}")
        else:
            made.append(" ".join(f"word{int(one)}" for one in rng.integers(0, 500, int(rng.integers(1, 200)))))
    return made


def write_lines(path: Path, documents: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": one}) + "\n" for n, one in enumerate(documents)))
    return path


def store(
    folder: Path, lengths: Sequence[int], *, vocabulary: int = 1000, shard_tokens: int = 1 << 20, seed: int = 0
) -> TokenStore:
    """A store of random ids: documents of `lengths` tokens, the last of each the end-of-text token, which is 0."""
    rng = np.random.default_rng(seed)
    identity = {"sha256": f"{vocabulary:064x}", "vocabulary": vocabulary, "end_of_text": 0}
    inputs = [{"name": "a.jsonl", "format": "jsonl", "text": "text", "size": 1, "stamp": "s"}]
    inputs.append({"name": "src", "format": "tree", "text": "", "size": 1, "stamp": "s", "files": ["x.py", "y/z.py"]})
    with Writer(folder, identity, {"shard_tokens": shard_tokens}, inputs, "{}") as out:
        for row, length in enumerate(lengths):
            ids = np.append(rng.integers(1, vocabulary, length - 1), 0).astype(out.dtype)
            source, place = (1, row) if row < 2 else (0, row)
            out.append(ids, np.array([length]), np.array([place]), source)
        out.finish({"source": 2})
    return open_tokens(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def dying(given: Any) -> Callable[[Any], Any]:
    """What a worker does that is killed at the third task."""

    def job(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return task * int(given)

    return job


def failing(given: Any) -> Callable[[Any], Any]:
    """What a worker does that prints, and fails at the third task."""

    def job(task: int) -> int:
        print("noise on standard output")
        if task == 3:
            raise KeyError("three")
        return task + int(given)

    return job
