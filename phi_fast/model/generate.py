"""Greedy decoding and sampling with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.errors import InputError
from phi_fast.model.operations import Places, prepare, rotate

if TYPE_CHECKING:
    from phi_fast.model.phi import Phi


class LayerCache:
    """Rotated keys, and values, of one layer: the slot of a token is its position in its row.

    So rows of different lengths need no padding on the left. Behind a shorter prompt stand the keys of its padding
    until its answer overwrites them; until then no token sees them, for each sees the slots up to its own position.
    """

    def __init__(self, rows: int, slots: int, heads: int, head_dim: int, like: Tensor) -> None:
        self.k = like.new_zeros(rows, slots, heads, head_dim)
        self.v = torch.zeros_like(self.k)
        self.rows = torch.arange(rows, device=like.device)[:, None]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, places: Places) -> Tensor:
        """Store k and v (B, T, heads, head_dim), and mix what each token sees; shapes as in `operations.attention`."""
        positions = places.positions
        self.k[self.rows, positions] = rotate(k, places).to(self.k.dtype)
        self.v[self.rows, positions] = v.to(self.v.dtype)
        slots = torch.arange(self.k.shape[1], device=positions.device)
        mask = (slots <= positions[..., None])[:, None]
        q, k, v = (x.transpose(1, 2) for x in (rotate(q, places), self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def generate(
    model: Phi,
    prompts: Tensor | Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    temperature: float,
    top_p: float,
    generator: torch.Generator | None,
) -> list[list[int]]:
    """See `Phi.generate`."""
    config, device = model.config, model.lm_head.weight.device
    lists = _checked(prompts, max_new_tokens, config.rows, config.max_positions)
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature {temperature}: give 0 or more")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p {top_p}: give more than 0, up to 1")
    longest = max(map(len, lists))
    lengths = torch.tensor([len(prompt) for prompt in lists], device=device)
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in lists], device=device)
    positions = torch.arange(longest, device=device).expand(len(lists), -1)
    slots = longest + max_new_tokens - 1
    caches = [
        LayerCache(len(lists), slots, config.heads, config.head_dim, model.lm_head.weight) for _ in range(config.layers)
    ]
    rotary = (config.rotary_dim, config.rope_theta)
    answers: list[list[int]] = [[] for _ in lists]
    going = set(range(len(lists)))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for step in range(max_new_tokens):
                places = prepare(Places(positions, *rotary))
                states = model.model(ids, places, model.ops, caches, False)
                last = states[torch.arange(len(lists), device=device), lengths - 1] if step == 0 else states[:, -1]
                logits = model.lm_head(last)[:, : config.vocab_size].float()
                chosen = _chosen(logits, temperature, top_p, generator)
                for row, token in enumerate(chosen.tolist()):
                    if row in going:
                        answers[row].append(token)
                        if token == config.end_of_text:
                            going.discard(row)
                if not going:
                    break
                ids, positions = chosen[:, None], (lengths + step)[:, None]
    finally:
        model.train(training)
    return answers


def _chosen(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """One token a row: (B, vocab_size) float32 to (B,) int64."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.where(before < top_p, ordered, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
    return torch.multinomial(probabilities, 1, generator=generator).flatten()


def _checked(
    prompts: Tensor | Sequence[Sequence[int]], max_new_tokens: int, rows: int, max_positions: int
) -> list[list[int]]:
    if isinstance(prompts, Tensor):
        if prompts.dim() != 2 or prompts.dtype != torch.int64:
            raise InputError(
                f"prompts of {prompts.dtype}, shape {tuple(prompts.shape)}: give torch.int64, (rows, tokens)"
            )
        prompts = prompts.tolist()
    lists = [list(prompt) for prompt in prompts]
    if not lists:
        raise InputError("prompts: give one or more")
    for number, prompt in enumerate(lists):
        if not prompt:
            raise InputError(f"prompt {number} is empty: give one token or more")
        if wrong := [token for token in prompt if not 0 <= token < rows]:
            raise InputError(f"prompt {number} holds {wrong[0]}: give tokens from 0 to {rows - 1:,}")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens}: give 1 or more")
    longest = max(map(len, lists))
    if longest + max_new_tokens > max_positions + 1:
        raise InputError(
            f"max_new_tokens {max_new_tokens:,} after a prompt of {longest:,} tokens: the model has {max_positions:,} "
            f"positions, so give up to {max(0, max_positions + 1 - longest):,}"
        )
    return lists
