"""Models with random weights, a few thousand of them, and tokenizers trained on a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEXTS = [
    "def add(x, y):\n    return x + y\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "x",
    "for i in range(10):\n    print(i)\n" * 4,
    "import numpy as np\n",
    "while True: pass",
    "01234567890 98765432109 abcdefghijklmnopqrstuvwxyza zyxwvutsrqponmlkjihgfedcbaz",
]


def save(kind: str, folder: Path) -> Path:
    """Write a model of a kind, "bert", "gpt2" or "codegen", to a folder, as `save_pretrained` does."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        CodeGenConfig,
        CodeGenModel,
        GPT2Config,
        GPT2Model,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    torch.manual_seed(0)
    tokenizer = _word_pieces() if kind == "bert" else _byte_pairs()
    size = len(tokenizer)
    make: Any = {
        "bert": lambda: BertModel(
            BertConfig(
                vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                max_position_embeddings=64, initializer_range=0.3,
            ),
            add_pooling_layer=False,
        ),
        "gpt2": lambda: GPT2Model(
            GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3)
        ),
        "codegen": lambda: CodeGenModel(
            CodeGenConfig(
                vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_ctx=64, rotary_dim=4,
                initializer_range=0.3,
            )
        ),
    }  # fmt: skip
    make[kind]().save_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.save_pretrained(folder)
    return folder


def _word_pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def _byte_pairs() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", bos_token="<|endoftext|>")
