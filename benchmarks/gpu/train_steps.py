"""Whole training steps of phi-1 and phi-1-small as the recipes take them, beside Hugging Face's, on this GPU.

    PYTHONPATH=. python benchmarks/gpu/train_steps.py --output results
    PYTHONPATH=. python benchmarks/gpu/train_steps.py --rehearse      # the same road on a CPU: measures nothing

All ways train alike: float32 parameters, bf16 by autocast, clipping, fused AdamW, dropout as the recipe has it. Each
runs in a process of its own; train_steps.json is written after every one. Ours is profiled too: where its time goes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from machine import environment
from torch import Tensor, nn

from phi_fast.model import FUSED, PLAIN, Phi, PhiConfig
from phi_fast.train import adamw, train_step
from phi_fast.train.loader import Batch
from phi_fast.train.log import peak_flops
from phi_fast.train.recipes import read_recipe

WAYS = ("phi_fast", "Hugging Face, accelerated", "Hugging Face, eager", "Hugging Face, SDPA", "Hugging Face, compiled",
        "Hugging Face, Liger", "phi_fast, plain")  # fmt: skip
SHAPES = {"phi_1": [(8, 2048), (16, 2048), (4, 1024)], "phi_1_small": [(16, 2048), (32, 2048), (16, 1024)]}
GROUPS = {
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "xmma"),
    "attention": ("attention", "flash", "fmha", "_forward_kernel", "_dq", "_dkv"),
    "loss": ("cross_entropy", "softmax", "nll"),
    "optimiser and clipping": ("adam", "multi_tensor", "norm_l2", "foreach"),
    "casts and copies": ("copy", "memcpy", "memset", "cat"),
}  # by words of a kernel's name, the first that holds one


def config(recipe: str, rehearsal: bool) -> PhiConfig:
    """The recipe's model, or for a rehearsal a tiny one."""
    if not rehearsal:
        return read_recipe(recipe).config()
    sizes: dict[str, Any] = {"vocab_size": 90, "rows": 96, "hidden": 32, "mlp": 64, "rotary_dim": 8, "heads": 2}
    return PhiConfig.tiny(**sizes, max_positions=32, end_of_text=None)


class Theirs(nn.Module):
    """A model of transformers that takes what `train_step` gives a `Phi`."""

    def __init__(self, model: nn.Module, liger: bool) -> None:
        super().__init__()
        self.model, self.liger = model, liger

    def forward(self, ids: Tensor, labels: Tensor, cu_seqlens: Any, num_items: Any) -> Any:
        if not self.liger:
            return self.model(input_ids=ids, labels=labels, num_items_in_batch=num_items)
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        inner: Any = self.model
        hidden = inner.model(input_ids=ids).last_hidden_state[:, :-1].flatten(0, 1)
        loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
        head = inner.lm_head
        total = loss(head.weight, hidden, labels[:, 1:].flatten(), head.bias)
        return type("Output", (), {"loss": total / num_items})


def make(way: str, sizes: PhiConfig, device: str) -> nn.Module:
    """A model in training mode; weights in float32."""
    torch.manual_seed(0)
    if way.startswith("phi_fast"):
        with torch.device(device):
            return Phi(sizes, ops=PLAIN if way.endswith("plain") else FUSED).train()
    from transformers import PhiConfig as TheirConfig
    from transformers import PhiForCausalLM

    given = TheirConfig(
        vocab_size=sizes.rows, hidden_size=sizes.hidden, intermediate_size=sizes.mlp, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, partial_rotary_factor=sizes.rotary_dim / sizes.head_dim,
        max_position_embeddings=sizes.max_positions, hidden_act="gelu_new", use_cache=False, bos_token_id=None,
        eos_token_id=None, attention_dropout=sizes.attention_dropout, resid_pdrop=sizes.residual_dropout,
        attn_implementation="eager" if way.endswith("eager") else "sdpa",
    )  # fmt: skip
    with torch.device(device):
        model = PhiForCausalLM(given).train()
    if way.endswith("accelerated"):
        import phi_fast

        phi_fast.accelerate(model)
    if way.endswith("compiled"):
        for layer in model.model.layers:
            layer.compile()
    if way.endswith("Liger"):
        from liger_kernel.transformers import LigerLayerNorm

        for module in list(model.modules()):
            for name, one in list(module.named_children()):
                if isinstance(one, nn.LayerNorm):
                    swapped = LigerLayerNorm(one.normalized_shape[0], eps=one.eps, bias=True).to(device)
                    swapped.load_state_dict(one.state_dict())
                    setattr(module, name, swapped)
    return Theirs(model, way.endswith("Liger")).train()


@contextlib.contextmanager
def attention_of(way: str) -> Iterator[None]:
    """SDPA by cuDNN first, the fastest on Hopper, where it takes the shapes."""
    if not torch.cuda.is_available() or not way.startswith("Hugging Face,"):
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        yield


def measure(recipe: str, way: str, rows: int, length: int, rehearsal: bool) -> dict[str, Any]:
    """Time steps of one way; in a process of its own."""
    if way.endswith("Liger") and importlib.util.find_spec("liger_kernel") is None:
        return {"error": "liger_kernel is not installed"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = config(recipe, rehearsal)
    model = make(way, sizes, device)
    optimiser = adamw(model, lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    parts = [Batch(torch.randint(0, sizes.vocab_size, (rows, length), generator=generator).to(device))]
    times, losses = [], []

    def step(number: int) -> float:
        result = train_step(model, optimiser, parts, precision="bf16", clip=1.0, limit=1e9, seed=(0, number))
        return float(result.loss)  # waits for all of it

    with attention_of(way):
        for number in range(3 if rehearsal else 13):
            began = time.perf_counter()
            losses.append(step(number))
            if number >= 3 or rehearsal:
                times.append(time.perf_counter() - began)
        where = parts_of_a_step(lambda: step(99)) if way == "phi_fast" and device == "cuda" else None
    seconds = statistics.median(times)
    rate, per_token = rows * length / seconds, sizes.flops_per_token(length, causal=True)
    peak = peak_flops(torch.cuda.get_device_name()) if device == "cuda" else None
    return {
        "seconds": seconds, "tokens_per_s": rate, "mfu_causal": rate * per_token / peak if peak else None,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None, "losses": losses,
        "gflop_per_token_causal": per_token / 1e9, "milliseconds": where,
    }  # fmt: skip


def parts_of_a_step(run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of a step's kernels by group; a group's own limit is operations or bytes over the chip's rate."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
    sums: dict[str, float] = {}
    for event in found.key_averages():
        name = event.key.lower()
        group = next((one for one, words in GROUPS.items() if any(word in name for word in words)), "other kernels")
        sums[group] = sums.get(group, 0.0) + event.self_device_time_total / 1e3
    return sums


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "| model | rows x length | way | tokens/s | MFU (causal) | memory, GB |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for one in results:
        head = f"| {one['recipe']} | {one['rows']} x {one['length']} | {one['way']} | "
        if "error" in one:
            lines.append(f"{head}{one['error']} | - | - |")
            continue
        mfu, memory = one["mfu_causal"], one["peak_gb"]
        shown = ["-" if mfu is None else f"{mfu:.1%}", "-" if memory is None else f"{memory:.1f}"]
        lines.append(f"{head}{one['tokens_per_s']:,.0f} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every way at every shape."""
    parser = argparse.ArgumentParser(description="Whole training steps beside Hugging Face's.")
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--recipe", action="append", choices=list(SHAPES))
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--timeout", type=float, default=240, help="seconds of one measurement")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(**json.loads(given.one))))
        return
    if not given.rehearse and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU here; --rehearse goes the same road on a CPU")
    given.output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for recipe in given.recipe or SHAPES:
        for rows, length in [(2, 32)] if given.rehearse else SHAPES[recipe]:
            for way in given.way or WAYS:
                case = {"recipe": recipe, "way": way, "rows": rows, "length": length}
                results.append({**case, **child({**case, "rehearsal": given.rehearse}, given.timeout)})
                print(table(results[-1:]).splitlines()[-1], flush=True)
                record = {"machine": environment(), "rehearsal": given.rehearse, "results": results}
                (given.output / "train_steps.json").write_text(json.dumps(record, indent=1) + "\n")
    (given.output / "train_steps.md").write_text(table(results) + "\n")


def child(case: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Measure in a process of its own: what fails or does not fit costs its own result."""
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    env = {**os.environ, **({"PHI_FAST_KERNELS": "reference"} if case["rehearsal"] else {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=env)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"error": "out of memory" if "out of memory" in done.stderr.lower() else said[:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
