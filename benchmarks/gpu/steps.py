"""Whole training steps of phi-1: tokens a second and the share of the chip, for each way to run the same model."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from checks import device
from machine import clock
from torch import Tensor

from phi_fast.model import Phi, PhiConfig

Value = dict[str, Any]
WAYS = ("Hugging Face, accelerated", "Phi, fused", "Hugging Face", "Hugging Face, compiled", "Phi, plain")
DATASHEET = 989.0  # TFLOP/s, dense bf16, of an H100 or H200 SXM


def config(big: bool) -> PhiConfig:
    """Give phi-1 without dropout, for that is how Hugging Face's checkpoint is trained on; or a tiny one."""
    if big:
        return PhiConfig.phi_1(attention_dropout=0.0, residual_dropout=0.0)
    small = {"vocab_size": 90, "rows": 96, "hidden": 32, "mlp": 64, "rotary_dim": 8, "max_positions": 16}
    return PhiConfig.tiny(**small, heads=2, end_of_text=None)


def model(way: str, big: bool) -> tuple[torch.nn.Module, Callable[[Tensor], Tensor]]:
    """Make a model and the function from ids to loss."""
    sizes = config(big)
    dtype = torch.bfloat16 if big else torch.float32
    torch.manual_seed(0)
    if way.startswith("Phi"):
        with torch.device(device()):
            ours = Phi(sizes).to(dtype)
        if way == "Phi, fused":
            from phi_fast.model.fused import FUSED

            ours.ops = FUSED
        return ours, lambda ids: _loss(ours(ids, ids))
    from transformers import PhiConfig as TheirConfig
    from transformers import PhiForCausalLM

    theirs_config = TheirConfig(
        vocab_size=sizes.rows, hidden_size=sizes.hidden, intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads,
        partial_rotary_factor=sizes.rotary_dim / sizes.head_dim,
        max_position_embeddings=sizes.max_positions, hidden_act="gelu_new", use_cache=False,
        attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device(device()):
        theirs = PhiForCausalLM(theirs_config)
    for parameter in theirs.parameters():  # not .to(dtype), which would round the rotary frequencies too
        parameter.data = parameter.data.to(dtype)
    if way == "Hugging Face, accelerated":
        import phi_fast

        phi_fast.accelerate(theirs)
    if way == "Hugging Face, compiled":
        for layer in theirs.model.layers:
            layer.compile()
    return theirs, lambda ids: _loss(theirs(input_ids=ids, labels=ids))


def _loss(output: Any) -> Tensor:
    loss: Tensor = output.loss
    return loss


def step(way: str, big: bool, batches: list[int], length: int, runs: int) -> Value:
    """Train a few steps on the first of `batches` that fits: forward, backward, fused AdamW, all in bf16.

    Returns
    -------
    dict
        way, batch, length, seconds (median of `runs`), tokens_a_second, peak_gb, losses; and share, of the datasheet's
        bf16 rate, operations counted causal, recomputation not.
    """
    net, loss_of = model(way, big)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=device().type == "cuda")
    for batch in batches:
        try:
            seconds, losses = _measured(loss_of, optimizer, batch, length, runs, config(big).rows)
        except torch.cuda.OutOfMemoryError:
            seconds, losses = 0.0, []
        if not losses:  # out here the error, whose frames hold the batch's tensors, is gone
            optimizer.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
            continue
        rate = batch * length / seconds
        return {
            "way": way,
            "batch": batch,
            "length": length,
            "seconds": seconds,
            "tokens_a_second": rate,
            "share": rate * config(big).flops_per_token(length) / DATASHEET / 1e12,
            "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None,
            "losses": losses,
        }
    raise RuntimeError(f"out of memory at every batch of {batches}")


def _measured(
    loss_of: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batch: int,
    length: int,
    runs: int,
    vocabulary: int,
) -> tuple[float, list[float]]:
    generator = torch.Generator(device()).manual_seed(1)
    ids = torch.randint(0, vocabulary, (batch, length), device=device(), generator=generator)
    taken, losses = [], []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for number in range(runs + 2):
        began = time.perf_counter()
        loss = loss_of(ids)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss))  # waits for all of it
        if number >= 2:  # two to warm up
            taken.append(time.perf_counter() - began)
    return statistics.median(taken), losses


def head(megabytes: int, big: bool) -> Value:
    """Time the loss head with chunks of so many megabytes of logits: time against memory."""
    from phi_fast.kernels.cross_entropy import linear_cross_entropy

    rows, width, vocabulary = (32768, 2048, 51200) if big else (24, 16, 100)
    dtype = torch.bfloat16 if big else torch.float32
    place: dict[str, Any] = {"device": device(), "dtype": dtype, "requires_grad": True}
    hidden, weight = (torch.randn(size, width, **place) for size in (rows, vocabulary))
    labels = torch.randint(0, vocabulary, (rows,), device=device())
    chunk = max(1, (megabytes << 20) // (vocabulary * dtype.itemsize)) if big else 5
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()

    def run(_: Any) -> None:
        linear_cross_entropy(hidden, weight, None, labels, chunk_rows=chunk).backward()  # type: ignore[no-untyped-call]
        hidden.grad = weight.grad = None

    taken = statistics.median(clock().times(run, budget=0.2))
    peak = (torch.cuda.max_memory_allocated() - before) / 1e6 if torch.cuda.is_available() else None
    return {"megabytes": megabytes, "chunk_rows": chunk, "milliseconds": taken, "peak_mb": peak}
