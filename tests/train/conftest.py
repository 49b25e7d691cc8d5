from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phi_fast.train.tokenizer import Tokenizer, open_tokenizer, train_tokenizer
from phi_fast.train.tokens import TokenStore
from tests.train.support import store, texts, write_lines


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of 512 tokens with runs of spaces."""
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(write_lines(folder / "c.jsonl", texts(300)), folder / "tokenizer.json", vocabulary=512, runs=True)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def tokenizer(trained: Path) -> Tokenizer:
    return open_tokenizer(trained)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """So that bits do not depend on the machine, and small models do not wait for threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """87 sequences of 16, of documents of 11: 12 steps of 8 are more than one epoch."""
    return store(tmp_path_factory.mktemp("data") / "tokens", [11] * 127, vocabulary=96)
