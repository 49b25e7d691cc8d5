"""phi-1: finetuning of phi-1-base on CodeExercises, 880,000 functions to complete, 180 M tokens.

phi-fast tokenize exercises/ --tokenizer Salesforce/codegen-350M-mono --output exercise-tokens
torchrun --nproc-per-node 8 --no-python phi-fast finetune --from phi-1-base --data exercise-tokens --output phi-1

Numbers are those of *Textbooks Are All You Need* (arXiv 2306.11644), section 2.3, but for those marked as ours. With
`finetune` the model's sizes are those of the checkpoint, so the same recipe makes phi-1-small of its base.
"""

from phi_fast.train.settings import Settings

SETTINGS = Settings(
    model="phi_1",
    length=2048,
    batch=256,
    lr=1e-4,
    warmup_steps=50,
    schedule_steps=6000,
    weight_decay=0.01,
    save_every=1000,  # of the six the best is used: by --score, else by the loss on what is held out
    # Ours, where the paper leaves it open or took another way:
    precision="bf16",  # the paper: fp16
    betas=(0.9, 0.95),
    eps=1e-8,
    clip=1.0,
    min_lr=0.0,
    micro=8,
    held_out=0.005,
    eval_every=500,
    keep_last=6,
)
