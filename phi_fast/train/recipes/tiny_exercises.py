"""tiny_exercises: finetuning of tiny on functions to complete. All of it is ours.

phi-fast tokenize examples/exercises.jsonl --tokenizer tokenizer.json --output exercise-tokens
phi-fast finetune tiny_exercises --from tiny --data exercise-tokens --output tiny-exercises
"""

from phi_fast.train.settings import Settings

SETTINGS = Settings(
    model="tiny",
    fields={"vocab_size": 4096, "rows": 4096, "layers": 4, "max_positions": 512, "end_of_text": 0},
    precision="fp32",
    length=256,
    batch=8,
    micro=8,
    lr=5e-4,
    warmup_steps=5,
    schedule_steps=100,
    weight_decay=0.01,
    held_out=0.1,
    eval_every=20,
    eval_sequences=8,
    save_every=20,
    keep_last=1,
    log_every=10,
)
