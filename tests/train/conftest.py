from __future__ import annotations

from pathlib import Path

import pytest

from phi_fast.train.tokenizer import Tokenizer, open_tokenizer, train_tokenizer
from tests.train.support import texts, write_lines


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
