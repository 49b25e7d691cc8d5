"""What a phi is made of: sizes, presets of *Textbooks Are All You Need* (arXiv 2306.11644), parameters and FLOPs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from phi_fast.errors import InputError


@dataclasses.dataclass(frozen=True)
class PhiConfig:
    """The architecture of a phi: a decoder whose blocks run attention and MLP in parallel from one LayerNorm.

    The defaults are phi-1's, without dropout.

    Parameters
    ----------
    vocab_size
        Tokens the tokenizer knows: for phi-1 codegen-350M-mono's, GPT-2's 50,257 and runs of spaces and tabs.
    rows
        Rows of embedding and head: `vocab_size` padded to a size the hardware likes. Rows beyond `vocab_size` are
        trained like the others, as in Hugging Face's models, but never generated.
    layers, hidden, mlp, heads
        Blocks, width, inner width of the MLP, attention heads; `head_dim` is hidden / heads.
    rotary_dim
        How many dimensions of each head are rotated; even.
    rope_theta
        Base of the rotary frequencies.
    layer_norm_eps
        Added to the variance in every LayerNorm.
    attention_dropout, residual_dropout, embedding_dropout
        Rates in training mode: of attention weights, of both branches before they are added, of embeddings.
    max_positions
        The longest row.
    init_std
        Of the normal distribution that weights are drawn from (the paper does not say; see `Phi.initialise`).
    end_of_text
        The token that ends a document, at which generation stops; None if there is none.

    Raises
    ------
    InputError
        A value no phi can have; the message names the field and what is allowed.
    """

    vocab_size: int = 50_295
    rows: int = 51_200
    layers: int = 24
    hidden: int = 2048
    mlp: int = 8192
    heads: int = 32
    rotary_dim: int = 32
    rope_theta: float = 10_000.0
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    max_positions: int = 2048
    init_std: float = 0.02
    end_of_text: int | None = 50_256

    def __post_init__(self) -> None:
        for name in ("vocab_size", "rows", "layers", "hidden", "mlp", "heads", "rotary_dim", "max_positions"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} {value!r}: give a whole number, 1 or more")
        for name in ("attention_dropout", "residual_dropout", "embedding_dropout"):
            value = _number(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{name} {value!r}: give a rate from 0 up to, but not, 1")
        for name in ("rope_theta", "layer_norm_eps", "init_std"):
            value = _number(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"{name} {value!r}: give a number above 0")
        if self.rows < self.vocab_size:
            raise InputError(f"rows {self.rows:,}: fewer than vocab_size, {self.vocab_size:,}")
        if self.hidden % self.heads:
            raise InputError(f"heads {self.heads}: hidden {self.hidden:,} is no multiple of it")
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise InputError(f"rotary_dim {self.rotary_dim}: give an even number up to head_dim, {self.head_dim}")
        end = self.end_of_text
        if end is not None and (type(end) is not int or not 0 <= end < self.rows):
            raise InputError(f"end_of_text {end!r}: give a token from 0 to {self.rows - 1:,}, or None")

    @classmethod
    def phi_1(cls, **changes: Any) -> PhiConfig:
        """phi-1 and phi-1-base, 1.4 B parameters, with the paper's dropout of 0.1; `changes` override fields."""
        return _changed(cls(attention_dropout=0.1, residual_dropout=0.1), changes)

    @classmethod
    def phi_1_small(cls, **changes: Any) -> PhiConfig:
        """phi-1-small, 357 M parameters, with the paper's dropout of 0.1; `changes` override fields."""
        small = cls(layers=20, hidden=1024, mlp=4096, heads=16, attention_dropout=0.1, residual_dropout=0.1)
        return _changed(small, changes)

    @classmethod
    def tiny(cls, **changes: Any) -> PhiConfig:
        """The same vocabulary and head size in 13.6 M parameters, without dropout: for trying things on a CPU."""
        return _changed(cls(layers=2, hidden=128, mlp=512, heads=2), changes)

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """How many numbers are trained: 1,418,270,720 for phi-1, 356,794,368 for phi-1-small."""
        h, m = self.hidden, self.mlp
        attention = 4 * (h * h + h)
        mlp = 2 * h * m + m + h
        norms = 2 * h
        return self.layers * (attention + mlp + norms) + norms + 2 * self.rows * h + self.rows

    def flops_per_token(self, length: int | None = None, *, causal: bool = True) -> float:
        """Floating-point operations of one training step, forward and backward, a token.

        Six a parameter, the embedding's left out, as it is looked up and not multiplied, and for attention twelve a
        block, key and dimension: a multiply-add is two, the backward pass twice the forward one (PaLM, arXiv
        2204.02311, appendix B). What checkpointing computes again is not counted. phi-1 at 2,048: 8.48e9 causal,
        9.09e9 full-square.

        Parameters
        ----------
        length
            Tokens of a row; `max_positions` by default.
        causal
            Count the (length + 1) / 2 keys that a token sees on average; else all `length` of the square, as many
            published figures do.
        """
        length = self.max_positions if length is None else length
        if length < 1:
            raise InputError(f"length {length}: give 1 or more")
        keys = (length + 1) / 2 if causal else length
        return 6 * (self.parameters - self.rows * self.hidden) + 12 * self.layers * self.hidden * keys


def _number(config: PhiConfig, name: str) -> float:
    value = getattr(config, name)
    if type(value) not in (int, float):
        raise InputError(f"{name} {value!r}: give a number")
    return float(value)


def _changed(config: PhiConfig, changes: dict[str, Any]) -> PhiConfig:
    known = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in known:
            raise InputError(f'no field "{name}": a phi has {", ".join(known)}')
    return dataclasses.replace(config, **changes)
