"""phi-1-small-base: phi-1-base's pretraining of a model of 357 M parameters. Finetune it by the recipe phi_1.

phi-fast tokenize corpus/ --tokenizer Salesforce/codegen-350M-mono --output tokens
torchrun --nproc-per-node 8 --no-python phi-fast train phi_1_small --data tokens --output phi-1-small-base
torchrun --nproc-per-node 8 --no-python phi-fast finetune --from phi-1-small-base --data exercises --output phi-1-small

*Textbooks Are All You Need* (arXiv 2306.11644) gives the sizes (section 2.3) and says that the pipeline is phi-1's
(section 1); so batch, rates and steps are taken to be phi-1-base's. What is ours is marked.
"""

from phi_fast.train.settings import Settings

SETTINGS = Settings(
    model="phi_1_small",  # 20 layers, width 1024, MLP 4096, 16 heads of 64; dropout 0.1 of attention and residual
    length=2048,
    batch=1024,
    lr=1e-3,
    warmup_steps=750,
    schedule_steps=36_000,
    stop_step=24_000,
    weight_decay=0.1,
    # Ours, where the paper leaves it open or took another way:
    precision="bf16",  # the paper: fp16
    betas=(0.9, 0.95),
    eps=1e-8,
    clip=1.0,
    min_lr=0.0,
    micro=16,
    held_out=0.001,
    eval_every=500,
    save_every=1000,
)
