"""transformers' Trainer on phi_fast's tokens, with phi_fast's kernels under the model.

python examples/trainer.py tokens --steps 100 --output trained
"""

from __future__ import annotations

import argparse
import os

import torch
from transformers import PhiConfig, PhiForCausalLM, Trainer, TrainingArguments

import phi_fast
from phi_fast.train import Loader, open_tokens
from phi_fast.train.for_trainer import Sequences

BATCH, LENGTH = 16, 256


def main() -> None:
    """Train a small phi of transformers and save it."""
    parser = argparse.ArgumentParser(description="transformers' Trainer on phi_fast's tokens.")
    parser.add_argument("tokens", help="folder of phi-fast tokenize")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output", default="trained")
    given = parser.parse_args()

    store = open_tokens(given.tokens)
    torch.manual_seed(0)
    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=store.vocabulary, hidden_size=128, intermediate_size=512, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=LENGTH, bos_token_id=None, eos_token_id=store.end_of_text,
        )
    )  # fmt: skip
    if torch.cuda.is_available():
        model.to("cuda")
    else:
        os.environ["PHI_FAST_KERNELS"] = "reference"  # what the kernels compute, in plain PyTorch
    print(phi_fast.accelerate(model))

    arguments = TrainingArguments(
        given.output, max_steps=given.steps, per_device_train_batch_size=BATCH, learning_rate=2e-3, warmup_steps=10,
        lr_scheduler_type="linear", weight_decay=0.1, logging_steps=1, save_strategy="no", report_to=[],
        bf16=torch.cuda.is_available(), use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
    )  # fmt: skip
    data = Sequences(Loader(store, length=LENGTH, batch=BATCH))
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    trainer.save_model(given.output)


if __name__ == "__main__":
    main()
