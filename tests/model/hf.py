"""Small PhiForCausalLM models of transformers with random weights, biases and LayerNorms included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

SHAPES: dict[str, dict[str, Any]] = {
    "two layers": {},
    "phi-1's head and rotary share": {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512},
    "one head, all of it rotated": {"hidden_size": 16, "num_attention_heads": 1, "partial_rotary_factor": 1.0},
    "heads of 80, as phi-2": {"hidden_size": 160, "num_attention_heads": 2, "partial_rotary_factor": 0.4},
    "other theta, eps, odd widths": {
        "rope_theta": 500.0, "layer_norm_eps": 1e-3, "vocab_size": 101, "intermediate_size": 77,
    },
    "deep": {"num_hidden_layers": 6, "hidden_size": 32},
}  # fmt: skip


def make(seed: int = 0, **changes: Any) -> Any:
    """A PhiForCausalLM in evaluation mode, its logits of order 1."""
    settings: dict[str, Any] = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    model: Any = transformers.PhiForCausalLM(transformers.PhiConfig(**settings | changes))
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.1 if value.dim() > 1 else 0.2
            value.copy_(torch.randn(value.shape) * spread + float("layernorm.weight" in name))
    return model.eval()


def saved(folder: Path, seed: int = 0, **changes: Any) -> tuple[Any, Path]:
    model = make(seed, **changes)
    model.save_pretrained(folder)
    return model, folder


def tokens(model: Any, rows: int, length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (rows, length), generator=generator)


def edit_config(folder: Path, changes: dict[str, Any]) -> None:
    """Change fields of config.json; None in `changes` is null, ... takes the field out."""
    path = folder / "config.json"
    held = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in held.items() if value is not ...}))
