"""tiny: a phi of 1.9 M parameters, pretrained on Python source in minutes on a CPU. All of it is ours.

phi-fast tokenizer train LIBRARY --vocab 4096 --runs --output tokenizer.json
phi-fast tokenize LIBRARY --tokenizer tokenizer.json --output tokens
phi-fast train tiny --data tokens --output tiny

examples/tiny.sh does this with the Python library's own source, finetunes the model on exercises, and lets it write.
"""

from phi_fast.train.settings import Settings

SETTINGS = Settings(
    model="tiny",
    fields={
        "vocab_size": 4096,
        "rows": 4096,
        "layers": 4,
        "max_positions": 512,
        "end_of_text": 0,  # as `phi-fast tokenizer train` numbers it
    },
    precision="fp32",  # CPUs gain little by halves
    length=256,
    batch=16,
    micro=16,
    lr=2e-3,
    warmup_steps=50,
    schedule_steps=600,
    weight_decay=0.1,
    held_out=0.005,
    eval_every=150,
    eval_sequences=64,
    save_every=150,
    keep_last=1,
    log_every=10,
)
