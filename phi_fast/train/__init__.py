"""Training: a corpus as tokens, their order, and the batches of each rank.

>>> from phi_fast.train import Loader, open_tokens
>>> loader = Loader([open_tokens("tokens")], length=2048, batch=1024, micro=8)  # doctest: +SKIP

Names are imported when they are first used; torch only where a batch is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phi_fast.train.checkpoint import export
    from phi_fast.train.loader import Batch, Loader
    from phi_fast.train.loop import Result, train
    from phi_fast.train.optimiser import adamw
    from phi_fast.train.order import Order, Split
    from phi_fast.train.schedule import learning_rate
    from phi_fast.train.settings import Settings
    from phi_fast.train.step import LossScale, StepResult, train_step
    from phi_fast.train.tokenize import tokenize_corpus
    from phi_fast.train.tokenizer import Tokenizer, open_tokenizer, train_tokenizer
    from phi_fast.train.tokens import TokenStore, open_tokens

_HOME = {
    "Batch": "loader",
    "Loader": "loader",
    "LossScale": "step",
    "Order": "order",
    "Result": "loop",
    "Settings": "settings",
    "Split": "order",
    "StepResult": "step",
    "TokenStore": "tokens",
    "Tokenizer": "tokenizer",
    "adamw": "optimiser",
    "export": "checkpoint",
    "learning_rate": "schedule",
    "open_tokenizer": "tokenizer",
    "open_tokens": "tokens",
    "tokenize_corpus": "tokenize",
    "train": "loop",
    "train_step": "step",
    "train_tokenizer": "tokenizer",
}

__all__ = [
    "Batch",
    "Loader",
    "LossScale",
    "Order",
    "Result",
    "Settings",
    "Split",
    "StepResult",
    "TokenStore",
    "Tokenizer",
    "adamw",
    "export",
    "learning_rate",
    "open_tokenizer",
    "open_tokens",
    "tokenize_corpus",
    "train",
    "train_step",
    "train_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"phi_fast.train.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
