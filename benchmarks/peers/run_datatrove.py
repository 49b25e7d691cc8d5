"""Runs in datatrove's own environment: python run_datatrove.py index|filter FOLDER_OR_SUITE INDEX [OUT].

Its indexer wants lighteval's task tables, so `index` computes the same hashes, with its own functions, from a suite in
JSONL with "question" and "answer".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import load_word_tokenizer

CONFIG = NGramsDecontConfig(find_query_ngrams=True)


def index(suite: str, folder: str) -> None:
    tokenizer = load_word_tokenizer("eng")
    hashed = create_hash_func(CONFIG.hash_config)
    n = CONFIG.n_grams
    hashes: set[int] = set()
    for line in Path(suite).read_text().splitlines():
        row = json.loads(line)
        answer = tokenizer.word_tokenize(simplify_text(row["answer"], CONFIG.norm_config))
        question = tokenizer.word_tokenize(simplify_text(row["question"], CONFIG.norm_config))
        grams = [*ngrams(answer, n), *ngrams(question, n)]
        for i in range(n - 1):
            if len(question) >= n - 1 - i and len(answer) >= i + 1:
                grams.append(question[-n + 1 + i :] + answer[: i + 1])
        hashes.update(hashed(" ".join(gram)) for gram in grams)
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.array(sorted(hashes), dtype=CONFIG.hash_config.np_descr).tofile(f"{folder}/suite.index.hashes")


def scan(corpus: str, folder: str, out: str) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(corpus, text_key="text", id_key="id"),
            NGramsDecontFilter(
                folder, config=CONFIG, language="eng", exclusion_writer=JsonlWriter(f"{out}/removed", compression=None)
            ),
            JsonlWriter(f"{out}/clean", compression=None),
        ],
        tasks=1,
        workers=1,
        logging_dir=f"{out}/log",
        skip_completed=False,
    ).run()


if __name__ == "__main__":
    if sys.argv[1] == "index":
        index(sys.argv[2], sys.argv[3])
    else:
        scan(sys.argv[2], sys.argv[3], sys.argv[4])
