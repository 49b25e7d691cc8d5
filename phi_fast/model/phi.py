"""phi, the model of *Textbooks Are All You Need* (arXiv 2306.11644), whole.

    model = Phi(PhiConfig.phi_1_small())
    loss = model(ids, ids).loss

Modules and parameters are named as in Hugging Face's `PhiForCausalLM`, so a state dict of one is one of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from phi_fast.errors import InputError
from phi_fast.model.config import PhiConfig
from phi_fast.model.documents import check_bounds
from phi_fast.model.generate import LayerCache, generate
from phi_fast.model.operations import IGNORED, PLAIN, Operations, Places


class Output(NamedTuple):
    """What `Phi.forward` returns: logits (B, T, rows) without labels, loss () float32 with them, the other None.

    With labels there are no logits, so that an operation may compute the loss without ever holding them.
    """

    loss: Tensor | None
    logits: Tensor | None


class SelfAttention(nn.Module):
    """Causal self-attention with partial rotary embedding; every projection has a bias."""

    def __init__(self, config: PhiConfig) -> None:
        super().__init__()
        self.shape = (config.heads, config.head_dim)
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.dense = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, places: Places, ops: Operations, cache: LayerCache | None) -> Tensor:
        q, k, v = (part(x).unflatten(-1, self.shape) for part in (self.q_proj, self.k_proj, self.v_proj))
        if cache is not None:
            mixed = cache.attention(q, k, v, places)
        else:
            mixed = ops.attention(q, k, v, places, self.dropout if self.training else 0.0)
        projected: Tensor = self.dense(mixed.flatten(-2))
        return projected


class MLP(nn.Module):
    """Two linear maps with GELU (tanh form) between them."""

    def __init__(self, config: PhiConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.mlp)
        self.fc2 = nn.Linear(config.mlp, config.hidden)

    def forward(self, x: Tensor, ops: Operations) -> Tensor:
        return ops.mlp(x, self.fc1.weight, self.fc1.bias, self.fc2.weight, self.fc2.bias)


class Block(nn.Module):
    """Attention and MLP in parallel: both read one LayerNorm of x, both are added to x."""

    def __init__(self, config: PhiConfig) -> None:
        super().__init__()
        self.dropout = config.residual_dropout
        self.input_layernorm = nn.LayerNorm(config.hidden, config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, places: Places, ops: Operations, cache: LayerCache | None = None) -> Tensor:
        norm = self.input_layernorm
        if ops.block is not None and cache is None:
            attention_dropout = self.self_attn.dropout if self.training else 0.0
            return ops.block(
                x, self.weights(), places, self.self_attn.shape[0], norm.eps,
                attention_dropout, self.dropout if self.training else 0.0,
            )  # fmt: skip
        normed = ops.layer_norm(x, norm.weight, norm.bias, norm.eps)
        attended = self.self_attn(normed, places, ops, cache)
        transformed = self.mlp(normed, ops)
        return ops.residual(x, attended, transformed, self.dropout if self.training else 0.0)

    def weights(self) -> list[Tensor]:
        """Weight and bias of the LayerNorm, q_proj, k_proj, v_proj, dense, fc1 and fc2."""
        attention, mlp = self.self_attn, self.mlp
        linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.dense, mlp.fc1, mlp.fc2)
        return [part for module in (self.input_layernorm, *linears) for part in (module.weight, module.bias)]


class Trunk(nn.Module):
    """Everything but the head."""

    def __init__(self, config: PhiConfig) -> None:
        super().__init__()
        self.dropout = config.embedding_dropout
        self.embed_tokens = nn.Embedding(config.rows, config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_layernorm = nn.LayerNorm(config.hidden, config.layer_norm_eps)

    def forward(
        self, ids: Tensor, places: Places, ops: Operations, caches: Sequence[LayerCache] | None, checkpointing: bool
    ) -> Tensor:
        x: Tensor = self.embed_tokens(ids)
        x = F.dropout(x, self.dropout, self.training)
        for number, block in enumerate(self.layers):
            if caches is not None:
                x = block(x, places, ops, caches[number])
            elif checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, places, ops, use_reentrant=False)
            else:
                x = block(x, places, ops)
        norm = self.final_layernorm
        return ops.layer_norm(x, norm.weight, norm.bias, norm.eps)


class Phi(nn.Module):
    """A phi with a language-model head.

    Parameters
    ----------
    config
        Sizes; see `PhiConfig`. Weights are drawn from torch's global generator.
    ops
        The operations it is computed with; also an attribute, `model.ops`.
    checkpointing
        Keep only each block's input for the backward pass and compute the rest again: less memory, a third more work.
        Also an attribute, `model.checkpointing`.
    """

    def __init__(self, config: PhiConfig, *, ops: Operations = PLAIN, checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.ops = ops
        self.checkpointing = checkpointing
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden, config.rows)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights anew: GPT-2's scheme, as the paper leaves it open.

        Weights from N(0, init_std²), those of the two projections that add to the residual stream (dense, fc2) divided
        by sqrt(2 · layers); biases 0; LayerNorms 1 and 0.
        """
        std, scaled = self.config.init_std, self.config.init_std / math.sqrt(2 * self.config.layers)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=scaled if name.endswith((".dense", ".fc2")) else std)
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Tensor,
        labels: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        num_items: Tensor | int | None = None,
    ) -> Output:
        """Logits, or with labels the next-token loss.

        Parameters
        ----------
        ids
            (B, T) int64, tokens; T up to `max_positions`.
        labels
            (B, T) int64, the tokens themselves, as in Hugging Face: what is predicted at a token is the label of the
            one after it, and the first label of a document is used by none. -100 is left out of the loss.
        cu_seqlens
            (documents + 1,) int32: where documents begin in the rows read one after the other, and B · T; see
            `document_bounds`. Positions start again with each document, attention and loss stay within it. Without it
            every row is one document. On the CPU its values are checked, elsewhere and in compiled code they are not.
        num_items
            What the summed loss is divided by, in place of the number of targets: see `operations.cross_entropy`.

        Raises
        ------
        InputError
            An argument of the wrong type, shape, device or, on the CPU, value; the message names it.
        """
        self._check(ids, labels)
        places = self.ops.prepare(self.places(ids, cu_seqlens))
        x = self.model(ids, places, self.ops, None, self.checkpointing)
        if labels is None:
            return Output(None, self.lm_head(x))
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
        if cu_seqlens is not None:
            last = cu_seqlens[1:].to(ids.device).long() - 1
            targets = targets.flatten().index_fill(0, last, IGNORED).view_as(labels)
        loss = self.ops.cross_entropy(x, self.lm_head.weight, self.lm_head.bias, targets, num_items)
        return Output(loss, None)

    def places(self, ids: Tensor, cu_seqlens: Tensor | None = None) -> Places:
        """Positions and documents of a batch of ids (B, T); see `forward`."""
        rows, length = ids.shape
        rotary = (self.config.rotary_dim, self.config.rope_theta)
        if cu_seqlens is None:
            return Places(torch.arange(length, device=ids.device)[None], *rotary)
        check_bounds(cu_seqlens, rows, length)
        bounds = cu_seqlens.to(ids.device, non_blocking=True)
        every = torch.arange(rows * length, dtype=torch.int32, device=ids.device)
        documents = torch.searchsorted(bounds, every, right=True, out_int32=True) - 1
        positions = (every - bounds[documents.long()]).long()
        return Places(positions.view(rows, length), *rotary, documents.view(rows, length), bounds)

    def generate(
        self,
        prompts: Tensor | Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """What follows each prompt, token by token, with a cache of keys and values.

        Parameters
        ----------
        prompts
            Tokens of each prompt, lengths may differ: lists of int, or (B, T) int64.
        max_new_tokens
            Most tokens of an answer; the longest prompt and this together up to `max_positions` + 1.
        temperature
            0 takes the likeliest token; else logits are divided by it and a token is drawn.
        top_p
            Draw from the fewest likeliest tokens that together have this probability.
        generator
            Randomness, on the model's device; torch's own by default.

        Returns
        -------
        list of list of int
            The new tokens alone, closed by `config.end_of_text` where that was reached. Dropout is off meanwhile.
        """
        return generate(self, prompts, max_new_tokens, temperature=temperature, top_p=top_p, generator=generator)

    @classmethod
    def from_pretrained(
        cls, place: str | Path, *, dtype: torch.dtype | str | None = None, device: torch.device | str = "cpu"
    ) -> Phi:
        """Read a checkpoint of Hugging Face's `PhiForCausalLM`, or of `save_pretrained`.

        Parameters
        ----------
        place
            A folder with config.json and safetensors, in one file or several; or a name on the hub ("microsoft/phi-1").
        dtype
            Of the parameters; the file's own by default.
        device
            Where they go.

        Returns
        -------
        Phi
            In evaluation mode.

        Raises
        ------
        InputError
            No checkpoint there, a config that is not a phi's, or a tensor missing, unexpected or of another shape.
        """
        from phi_fast.model.checkpoint import read

        return read(place, dtype=dtype, device=device)

    def save_pretrained(self, folder: str | Path, *, max_shard_bytes: int = 5_000_000_000) -> None:
        """Write config.json and weights so that transformers 4 and 5 and `from_pretrained` read them.

        A new folder appears whole or not at all; in one that is there files are replaced one by one, each whole.

        Parameters
        ----------
        folder
            Made where it is not there; of what it holds only an older checkpoint's files are replaced.
        max_shard_bytes
            Weights beyond this go into several files with an index.
        """
        from phi_fast.model.checkpoint import write

        write(self, Path(folder), max_shard_bytes)

    def _check(self, ids: Tensor, labels: Tensor | None) -> None:
        for name, tensor in (("ids", ids), ("labels", labels)):
            if tensor is None:
                continue
            if tensor.dtype != torch.int64:
                raise InputError(f"{name} of {tensor.dtype}: give torch.int64")
            if tensor.device != self.lm_head.weight.device:
                raise InputError(f"{name} on {tensor.device}: the model is on {self.lm_head.weight.device}")
        if ids.dim() != 2 or ids.shape[0] < 1 or not 1 <= ids.shape[1] <= self.config.max_positions:
            raise InputError(
                f"ids of shape {tuple(ids.shape)}: give (rows, tokens), 1 to {self.config.max_positions:,} tokens"
            )
        if labels is not None and labels.shape != ids.shape:
            raise InputError(f"labels of shape {tuple(labels.shape)}: give ids' shape, {tuple(ids.shape)}")
        if ids.device.type != "cpu" or torch.compiler.is_compiling():
            return  # looking at values would wait for the GPU, or break the compiled graph
        _in_range("ids", ids, self.config.rows)
        if labels is not None:
            _in_range("labels", labels[labels != IGNORED], self.config.rows, f", or {IGNORED}")


def _in_range(name: str, tokens: Tensor, rows: int, besides: str = "") -> None:
    if bool(((tokens < 0) | (tokens >= rows)).any()):
        wrong = int(tokens[(tokens < 0) | (tokens >= rows)][0])
        raise InputError(f"{name} hold {wrong}: give tokens from 0 to {rows - 1:,}{besides}")
