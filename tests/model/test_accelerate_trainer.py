"""transformers.Trainer, the model accelerated and not: the same losses at every step, through a checkpoint and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import phi_fast
from phi_fast.errors import InputError
from tests.model import hf

pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")

PAD = 0


@pytest.fixture(autouse=True)
def no_precision_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainer keeps the precision of the process's last run in the environment and in accelerate's state."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


def examples(count: int, seed: int) -> list[dict[str, list[int]]]:
    """Rows of different lengths that count on from some token, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(3, 20, (), generator=generator))
        start = int(torch.randint(3, 13, (), generator=generator))
        rows.append({"input_ids": list(range(start, start + length))})
    return rows


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad on the right; labels are ignored at padding."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), longest), PAD)
    for number, row in enumerate(rows):
        ids[number, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
    mask = (ids != PAD).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def trainer(model: Any, folder: Path, collator: Any = padded, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3,
        "learning_rate": 1e-2, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 4,
        "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 5, "weight_decay": 0.1,
    }  # fmt: skip
    args = transformers.TrainingArguments(**settings | changes)
    return transformers.Trainer(
        model=model, args=args, data_collator=collator, train_dataset=examples(60, 1), eval_dataset=examples(9, 2)
    )


def losses(history: list[dict[str, float]]) -> dict[tuple[float, str], float]:
    return {(one["step"], key): one[key] for one in history for key in ("loss", "eval_loss", "grad_norm") if key in one}


def same(found: Any, wanted: Any, within: float = 1e-4) -> None:
    ours, theirs = losses(found.state.log_history), losses(wanted.state.log_history)
    assert ours.keys() == theirs.keys() and len(ours) > 0
    for place, value in theirs.items():
        assert abs(ours[place] - value) < within * max(1.0, abs(value)), place


@pytest.mark.usefixtures("reference")
def test_training_evaluation_and_resuming(tmp_path: Path) -> None:
    runs = []
    for name in ("theirs", "ours"):
        model = hf.make(pad_token_id=PAD)
        if name == "ours":
            phi_fast.accelerate(model)
        run = trainer(model, tmp_path / name)
        assert run.model_accepts_loss_kwargs
        run.train()
        runs.append(run)
    same(runs[1], runs[0])
    history = losses(runs[0].state.log_history)
    assert len(history) == 8 * 2 + 2 and history[8, "loss"] < history[1, "loss"] - 0.3
    for (name, one), other in zip(runs[1].model.named_parameters(), runs[0].model.parameters(), strict=True):
        if not name.endswith("k_proj.bias"):  # softmax does not see it: its gradient is rounding, which Adam blows up
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0, msg=name)

    again = hf.make(seed=9, pad_token_id=PAD)
    phi_fast.accelerate(again)
    resumed = trainer(again, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-4"))
    same(resumed, runs[0])
    # A checkpoint of an accelerated run goes on without it, and is read by transformers alone.
    plain = trainer(hf.make(seed=9, pad_token_id=PAD), tmp_path / "plain")
    plain.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-4"))
    same(plain, runs[0])


@pytest.mark.usefixtures("reference")
def test_packed_without_padding(tmp_path: Path) -> None:
    runs = []
    for name in ("theirs", "ours"):
        model = hf.make()
        model.config.use_cache = False
        if name == "ours":
            phi_fast.accelerate(model)
        collator = transformers.DataCollatorWithFlattening(return_tensors="pt")
        run = trainer(model, tmp_path / name, collator, max_steps=3, save_strategy="no", eval_strategy="no")
        run.train()
        runs.append(run)
    same(runs[1], runs[0])


@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("how", ["gradient_checkpointing", "label_smoothing_factor", "bf16"])
def test_with(how: str, tmp_path: Path) -> None:
    runs = []
    for name in ("theirs", "ours"):
        model = hf.make(pad_token_id=PAD)
        if name == "ours":
            phi_fast.accelerate(model)
        changes = {how: 0.1 if how == "label_smoothing_factor" else True}
        run = trainer(model, tmp_path / name, max_steps=2, save_strategy="no", eval_strategy="no", **changes)
        run.train()
        runs.append(run)
    same(runs[1], runs[0], 2e-2 if how == "bf16" else 1e-4)


@pytest.mark.usefixtures("reference")
def test_before_and_after_mixed_precision(tmp_path: Path) -> None:
    """Trainer leaves a wrapper around the forward of the class that was there."""
    model = hf.make(pad_token_id=PAD)
    ids = hf.tokens(model, 1, 7)
    changes = {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no", "bf16": True}
    trainer(model, tmp_path, **changes).train()
    with pytest.raises(InputError, match=r"was replaced or wrapped: accelerate first.*unwrap_model"):
        phi_fast.accelerate(model)
    unwrapped = transformers.trainer.Accelerator().unwrap_model(model, keep_fp32_wrapper=False)
    assert phi_fast.accelerate(unwrapped).fused == 2
    trainer(model, tmp_path, **changes).train()
    assert phi_fast.accelerate(model).fused == 2 and model.train()(ids, labels=ids).logits is None
    phi_fast.restore(model)
    plain = hf.make(pad_token_id=PAD)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(ids).logits, plain(ids).logits)
    assert model.train()(ids, labels=ids).logits is not None


def test_in_triton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", "triton")
    runs = []
    for name in ("theirs", "ours"):
        model = hf.make(pad_token_id=PAD)
        if name == "ours":
            phi_fast.accelerate(model)
        run = trainer(model, tmp_path / name, max_steps=3, eval_steps=3, save_strategy="no")
        run.train()
        runs.append(run)
    same(runs[1], runs[0])
