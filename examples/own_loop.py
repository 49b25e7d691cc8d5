"""A training loop of one's own, in plain PyTorch, with phi_fast's loader, optimiser, step and kernels.

python examples/own_loop.py tokens --steps 100
"""

from __future__ import annotations

import argparse

import torch

from phi_fast.model import FUSED, PLAIN, Phi, PhiConfig
from phi_fast.train import Loader, adamw, learning_rate, open_tokens, train_step


def main() -> None:
    """Train a tiny phi and print each step's loss."""
    parser = argparse.ArgumentParser(description="A training loop of one's own.")
    parser.add_argument("tokens", help="folder of phi-fast tokenize")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--length", type=int, default=256)
    given = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_tokens(given.tokens)
    rows = -(-store.vocabulary // 64) * 64
    config = PhiConfig.tiny(vocab_size=store.vocabulary, rows=rows, end_of_text=store.end_of_text)
    loader = Loader(store, length=given.length, batch=16, micro=8, vocabulary=rows)
    torch.manual_seed(0)
    model = Phi(config, ops=FUSED if device == "cuda" else PLAIN).to(device).train()
    optimiser = adamw(model, lr=2e-3)

    for number, micro_batches in loader.steps(0, given.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number, peak=2e-3, warmup_steps=10, schedule_steps=max(given.steps, 11))
        # One call instead of the usual five: forward and backward of each micro-batch, clipping, step, zero_grad.
        precision = "bf16" if device == "cuda" else "fp32"
        result = train_step(model, optimiser, micro_batches, precision=precision, clip=1.0, seed=(0, number))
        print(f"{number} loss {float(result.loss):.4f} norm {float(result.grad_norm):.2f}")


if __name__ == "__main__":
    main()
