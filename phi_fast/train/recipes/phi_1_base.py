"""phi-1-base: pretraining on filtered code and synthetic textbooks, 50 B tokens, 8 passes over the paper's 7 B.

phi-fast tokenize corpus/ --tokenizer Salesforce/codegen-350M-mono --output tokens
torchrun --nproc-per-node 8 --no-python phi-fast train phi_1_base --data tokens --output phi-1-base

Numbers are those of *Textbooks Are All You Need* (arXiv 2306.11644), section 2.3, but for those marked as ours.
"""

from phi_fast.train.settings import Settings

SETTINGS = Settings(
    model="phi_1",  # 24 layers, width 2048, MLP 8192, 32 heads of 64; dropout 0.1 of attention and residual
    length=2048,
    batch=1024,
    lr=1e-3,
    warmup_steps=750,
    schedule_steps=36_000,  # linear rise, linear fall
    stop_step=24_000,  # phi-1-base is the checkpoint at 24,000
    weight_decay=0.1,
    # Ours, where the paper leaves it open or took another way:
    precision="bf16",  # the paper: fp16, no faster on chips since, and in need of a loss scale
    betas=(0.9, 0.95),  # GPT-3's (arXiv 2005.14165)
    eps=1e-8,
    clip=1.0,
    min_lr=0.0,
    micro=8,  # 52 GB on a GPU with the fused kernels: see `phi-fast plan phi_1_base`
    held_out=0.001,
    eval_every=500,
    save_every=1000,
)
