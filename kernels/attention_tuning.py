"""The launch settings of `phi_fast.kernels.attention` that are worth measuring; `attention_forward` and
`attention_backward` hold the tables they are chosen for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from phi_fast.kernels import attention_backward, attention_forward
from phi_fast.kernels._common import Case, Tunable, choices

# (head dimension, dropout), in halves. With dropout another setting may be best, but a table has one row for both.
TUNED = ((64, False), (64, True), (128, False))


def tunables() -> list[Tunable]:
    """List what to measure: the forward, and both halves of the backward, each timed with all of the backward."""
    forward = choices(BLOCK_M=(64, 128), BLOCK_N=(32, 64, 128), num_warps=(4, 8), num_stages=(2, 3, 4))
    keys = choices(BLOCK_M=(32, 64), BLOCK_N=(64, 128), num_warps=(4, 8), num_stages=(1, 2, 3))
    queries = choices(BLOCK_M=(64, 128), BLOCK_N=(32, 64), num_warps=(4, 8), num_stages=(1, 2, 3))
    return [
        Tunable(name, table, size, _held(name, candidates, size, dropout), launch(size, dropout), _title(size, dropout))
        for name, table, candidates, launch in (
            ("attention forward", attention_forward.HALF, forward, _forward),
            ("attention keys", attention_backward.KEYS_HALF, keys, _backward),
            ("attention queries", attention_backward.QUERIES_HALF, queries, _backward),
        )
        for size, dropout in TUNED
    ]


# Scores a warp that registers hold, by what compiles for sm_90 without spills; in the order of TUNED.
_ROOM = {
    "attention forward": (2048, 1024, 1024),
    "attention keys": (1024, 512, 256),
    "attention queries": (1024, 512, 512),
}


def _held(name: str, candidates: list[dict[str, int]], head_dim: int, dropout: bool) -> list[dict[str, int]]:
    """Leave out what would spill: blocks too large for their warps, and 128 rows or keys in one group of four."""
    room = _ROOM[name][TUNED.index((head_dim, dropout))]
    return [
        one
        for one in candidates
        if one["BLOCK_M"] * one["BLOCK_N"] <= room * one["num_warps"]
        and not (room < 2048 and one["num_warps"] == 4 and max(one["BLOCK_M"], one["BLOCK_N"]) == 128)
    ]


def compile_cases(arch: int) -> list[Case]:
    """List the kernels at the head dimensions that are tuned."""
    shapes = [("bf16", size, dropout) for size, dropout in TUNED]
    return attention_forward.compile_cases(arch, shapes) + attention_backward.compile_cases(arch, shapes)


def _title(head_dim: int, dropout: bool) -> str:
    return f"head {head_dim}{', dropout' if dropout else ''}"


def _inputs(head_dim: int, dropout: bool, device: torch.device, dtype: torch.dtype, tokens: int) -> tuple[Any, ...]:
    """Draw q, k, v, bounds, seed, scale and threshold: rows of 2,048 tokens, 2,048 / head_dim heads."""
    heads = 2048 // head_dim if device.type == "cuda" else 1
    q, k, v = torch.randn(3, tokens, heads, head_dim, device=device, dtype=dtype)
    place = torch.arange(tokens, dtype=torch.int32, device=device)
    starts = place - place % 2048
    bounds = torch.stack((starts, (starts + 2048).clamp(max=tokens)))
    seed = torch.tensor([1, 2], device=device) if dropout else None
    return q, k, v, bounds, seed, head_dim**-0.5, 6554 if dropout else 0


def _forward(head_dim: int, dropout: bool) -> Callable[[torch.device, torch.dtype, int], Callable[[], Any]]:
    def launch(device: torch.device, dtype: torch.dtype, tokens: int) -> Callable[[], tuple[Tensor, Tensor]]:
        inputs = _inputs(head_dim, dropout, device, dtype, tokens)
        return lambda: attention_forward.forward(*inputs)

    return launch


def _backward(head_dim: int, dropout: bool) -> Callable[[torch.device, torch.dtype, int], Callable[[], Any]]:
    def launch(device: torch.device, dtype: torch.dtype, tokens: int) -> Callable[[], tuple[Tensor, ...]]:
        q, k, v, *rest = _inputs(head_dim, dropout, device, dtype, tokens)
        out, lse = attention_forward.forward(q, k, v, *rest)
        d_out = torch.randn_like(out)
        bounds, seed, scale, threshold = rest
        return lambda: attention_backward.backward(d_out, q, k, v, out, lse, bounds, seed, scale, threshold)

    return launch
