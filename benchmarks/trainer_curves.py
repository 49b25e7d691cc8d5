"""Train one phi with transformers.Trainer, accelerated and not, on real text: the loss must be the same.

python benchmarks/trainer_curves.py
python benchmarks/trainer_curves.py --device cuda      # phi-1-small in bfloat16, and tokens a second

The text is the source of Python's standard library, byte by byte. Every run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parents[1]
PAD, VOCABULARY = 256, 320
THEIRS = "transformers"
# What each run sets in its environment.
CPU_RUNS: dict[str, dict[str, str]] = {
    THEIRS: {},
    "phi_fast, references": {"PHI_FAST_KERNELS": "reference"},
    "phi_fast, kernels interpreted": {"PHI_FAST_KERNELS": "triton", "TRITON_INTERPRET": "1"},
}
GPU_RUNS: dict[str, dict[str, str]] = {THEIRS: {}, "phi_fast": {}}


def rows_of_text(length: int, count: int) -> list[dict[str, list[int]]]:
    """Pieces of the standard library's source, of lengths from half of `length` to all of it."""
    library = Path(sysconfig.get_path("stdlib"))
    text = bytearray()
    for path in sorted(library.glob("*.py")):
        text += path.read_bytes()
        if len(text) > length * count:
            break
    rows, start = [], 0
    for number in range(count):
        size = length - (number * 37) % (length // 2)
        rows.append({"input_ids": list(text[start : start + size])})
        start += size
    return [row for row in rows if len(row["input_ids"]) > 1]


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """Pad on the right and ignore the padding."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), PAD)
    for number, row in enumerate(rows):
        ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    mask = (ids != PAD).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def train(name: str, steps: int, cuda: bool) -> dict[str, Any]:
    """One run in this process; gives the loss of every step, and what it took."""
    import torch
    import transformers

    import phi_fast

    size: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    length, batch, accumulation = 96, 4, 2
    if cuda:  # phi-1-small
        size = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 20}
        length, batch, accumulation = 2048, 8, 1
    torch.manual_seed(0)
    config = transformers.PhiConfig(
        vocab_size=VOCABULARY, num_attention_heads=size["hidden_size"] // (64 if cuda else 16), bos_token_id=None,
        eos_token_id=None, pad_token_id=PAD, max_position_embeddings=2048, **size,
    )  # fmt: skip
    model = transformers.PhiForCausalLM(config)
    if cuda:
        model.to("cuda")
    made = "as it is" if name == THEIRS else str(phi_fast.accelerate(model))
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=batch, logging_steps=1,
            gradient_accumulation_steps=accumulation, learning_rate=3e-4 if cuda else 3e-3, seed=7, bf16=cuda,
            lr_scheduler_type="constant_with_warmup", warmup_steps=10, save_strategy="no", report_to="none",
            disable_tqdm=True, use_cpu=not cuda,
        )  # fmt: skip
        rows = rows_of_text(length, 4000 if not cuda else 2000)
        trainer = transformers.Trainer(model=model, args=args, train_dataset=rows, data_collator=padded)
        outcome = trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    tokens = steps * batch * accumulation * sum(len(row["input_ids"]) for row in rows) / len(rows)
    record = {"losses": losses, "seconds": outcome.metrics["train_runtime"], "tokens": tokens, "accelerate": made}
    if cuda:
        record["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return record


def run(name: str, steps: int, cuda: bool, settings: dict[str, str]) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, "--run", name, "--steps", str(steps), "--out", str(out)]
        kept = {key: value for key, value in os.environ.items() if key not in ("PHI_FAST_KERNELS", "TRITON_INTERPRET")}
        kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
        device = ["--device", "cuda" if cuda else "cpu"]
        subprocess.run([*command, *device], check=True, env={**kept, **settings}, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def where(cuda: bool) -> dict[str, Any]:
    """Say where and with what this was measured; also from a checkout in which nothing was built."""
    import torch

    try:
        from harness import machine_record

        record = machine_record()
    except (ImportError, PackageNotFoundError):
        record = {
            "cpu": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
    if cuda:
        record["gpu"] = torch.cuda.get_device_name()
    for name in ("torch", "triton", "transformers", "accelerate"):
        record[name] = version(name)
    return record


def largest(found: list[float], wanted: list[float]) -> float:
    return max(abs(one - other) for one, other in zip(found, wanted, strict=False))


def draw(runs: dict[str, dict[str, Any]], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (curves, apart) = plt.subplots(2, 1, figsize=(8, 5.2), sharex=True, height_ratios=(3, 1))
    looks = [("#9aa5b1", 5, "-"), ("#e4572e", 1.5, "-"), ("#2e4057", 1.2, "--")]
    wanted = runs[THEIRS]["losses"]
    for (name, one), (colour, width, line) in zip(runs.items(), looks, strict=False):
        steps = range(1, len(one["losses"]) + 1)
        curves.plot(steps, one["losses"], line, color=colour, linewidth=width, label=name)
        if name != THEIRS:
            gaps = [max(abs(a - b), 1e-9) for a, b in zip(one["losses"], wanted, strict=False)]
            apart.semilogy(steps, gaps, line, color=colour, linewidth=1.2)
    curves.set_ylabel("training loss")
    curves.legend(frameon=False)
    apart.set_ylabel("difference")
    apart.set_xlabel("step of transformers.Trainer")
    for axes in (curves, apart):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options.add_argument("--steps", type=int, default=200)
    options.add_argument(
        "--interpreted-steps", type=int, default=6, help="of Triton's interpreter, which is slow; 0 for none"
    )
    options.add_argument("--run", help=argparse.SUPPRESS)
    options.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    import torch

    cuda = given.device == "cuda" or (given.device == "auto" and torch.cuda.is_available())
    if given.run is not None:
        given.out.write_text(json.dumps(train(given.run, given.steps, cuda)))
        return
    runs: dict[str, dict[str, Any]] = {}
    for name, settings in (GPU_RUNS if cuda else CPU_RUNS).items():
        steps = given.interpreted_steps if "TRITON_INTERPRET" in settings else given.steps
        if steps == 0:
            continue
        print(f"{name}: {steps} steps", flush=True)
        runs[name] = run(name, steps, cuda, settings)
    wanted = runs[THEIRS]["losses"]
    lines = ["| run | steps | first loss | last loss | largest difference |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, one in runs.items():
        gap = "-" if name == THEIRS else f"{largest(one['losses'], wanted):.1e}"
        lines.append(f"| {name} | {len(one['losses'])} | {one['losses'][0]:.4f} | {one['losses'][-1]:.4f} | {gap} |")
    if cuda:
        lines += ["", "| run | tokens/s | peak memory, GB |", "| --- | ---: | ---: |"]
        lines += [
            f"| {name} | {one['tokens'] / one['seconds']:,.0f} | {one['peak_gb']:.1f} |" for name, one in runs.items()
        ]
    model = "phi-1-small in bfloat16" if cuda else "a phi of 2 layers, 64 wide, float32"
    stem = "trainer_curves_gpu" if cuda else "trainer_curves"
    machine = where(cuda)
    title = "The same loss under transformers.Trainer, accelerated and not"
    notes = [
        f"Model: {model}; no dropout, whose masks differ. Text: Python's standard library, byte by byte.",
        "Rows are of different lengths and padded; a step's loss is divided by the targets of all its micro-batches.",
        f"[Curves]({stem}.png)",
    ]
    text = f"# {title}\n\n" + "\n".join(lines) + "\n\n" + "".join(f"- {note}\n" for note in notes)
    text += "- Measured with: " + ", ".join(f"{key} {value}" for key, value in machine.items()) + "\n"
    text += f"- By: `python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}".rstrip() + "`\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.md").write_text(text)
    record = {"title": title, "machine": machine, "notes": notes, "runs": runs}
    (RESULTS / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(runs, RESULTS / f"{stem}.png")
    print("\n" + text)


if __name__ == "__main__":
    main()
