"""One step: micro-batches, ragged documents, clipping, skipped steps, the loss scale, the schedule, the optimiser."""

from __future__ import annotations

from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

from phi_fast.errors import InputError  # noqa: E402
from phi_fast.train.optimiser import adamw, fill_state  # noqa: E402
from phi_fast.train.schedule import learning_rate  # noqa: E402
from phi_fast.train.settings import Settings  # noqa: E402
from phi_fast.train.step import LossScale, target_count, train_step  # noqa: E402
from tests.train import runs  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Batch(NamedTuple):
    ids: torch.Tensor
    cu_seqlens: torch.Tensor | None = None
    labels: torch.Tensor | None = None


def drawn(rows: int, length: int = 16, seed: int = 3) -> torch.Tensor:
    return torch.randint(0, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def parameters(model: torch.nn.Module) -> list[torch.Tensor]:
    return [one.detach().clone() for one in model.parameters()]


def test_micro_batches_are_the_big_batch_whatever_their_numbers_of_targets() -> None:
    ids = drawn(8)
    bounds = [torch.tensor([0, 3, 16, 20, 32, 48, 64], dtype=torch.int32), torch.tensor([0, 16, 32, 48, 64]).int()]
    big = torch.cat([bounds[0], bounds[1][1:] + 64])
    left, right = ids.clone()[:4], ids.clone()[4:]
    right[1:, 4:] = -100
    labels = torch.cat([left, right])
    ends = []
    for batches in (
        [Batch(ids, big, labels)],
        [Batch(ids[:4], bounds[0], left), Batch(ids[4:], bounds[1], right)],
    ):
        model = runs.fresh()
        result = train_step(model, adamw(model, lr=1e-3, eps=1e-4), batches, clip=0.3)
        ends.append((result, parameters(model)))
    (one, a), (two, b) = ends
    plain = runs.fresh()(ids, labels=labels, cu_seqlens=big).loss
    assert torch.allclose(one.loss, plain) and torch.allclose(two.loss, one.loss)
    assert torch.allclose(two.grad_norm, one.grad_norm, rtol=1e-5)
    assert two.parts.shape == (2,) and torch.allclose(two.parts.sum(), two.loss)
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))


def test_targets_are_counted_as_the_model_counts_them() -> None:
    ids, bounds = drawn(2), torch.tensor([0, 5, 16, 17, 32], dtype=torch.int32)
    labels = ids.clone()
    labels[0, :7] = -100
    for batch in (Batch(ids), Batch(ids, bounds), Batch(ids, bounds, labels), Batch(ids, None, labels)):
        model = runs.fresh()
        given = ids if batch.labels is None else batch.labels
        mean = model(ids, labels=given, cu_seqlens=batch.cu_seqlens).loss
        total = model(ids, labels=given, cu_seqlens=batch.cu_seqlens, num_items=1).loss
        assert target_count(batch) == round((total / mean).item())


def test_clipping_is_pytorchs_and_the_norm_is_that_before_it() -> None:
    model, twin = runs.fresh(), runs.fresh()
    result = train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), [Batch(drawn(4))], clip=0.25)
    twin(drawn(4), labels=drawn(4)).loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.25)
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert torch.allclose(result.grad_norm, norm) and norm > 0.25
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(parameters(model), parameters(twin), strict=True))


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_over_its_limit_leaves_weights_and_moments(fused: bool) -> None:
    model = runs.fresh()
    optimiser = adamw(model, lr=1e-2, fused=fused)
    assert not train_step(model, optimiser, [Batch(drawn(4))]).skipped
    before = parameters(model)
    moments = [one["exp_avg"].clone() for one in optimiser.state.values()]
    result = train_step(model, optimiser, [Batch(drawn(4))], limit=1.0)
    assert result.skipped and result.loss > 1.0
    assert all(torch.equal(a, b) for a, b in zip(parameters(model), before, strict=True))
    after = [one["exp_avg"] for one in optimiser.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert all(float(one["step"]) == 1 for one in optimiser.state.values())
    assert not train_step(model, optimiser, [Batch(drawn(4))]).skipped
    assert not all(torch.equal(a, b) for a, b in zip(parameters(model), before, strict=True))


def test_a_loss_scale_that_overflows_skips_halves_and_grows_again() -> None:
    model = runs.fresh()
    optimiser, scale = adamw(model, lr=1e-3), LossScale("cpu", 2.0**127, interval=2)
    before, skipped = parameters(model), 0
    while (result := train_step(model, optimiser, [Batch(drawn(4))], precision="fp16", scale=scale)).skipped:
        assert result.loss.isfinite() and not result.grad_norm.isfinite()
        skipped += 1
        assert scale.value == 2.0 ** (127 - skipped)
        assert all(torch.equal(a, b) for a, b in zip(parameters(model), before, strict=True))
    assert skipped > 50
    at = float(scale.value)
    train_step(model, optimiser, [Batch(drawn(4))], precision="fp16", scale=scale)
    assert scale.value == 2 * at
    other = LossScale("cpu")
    other.load(scale.state())
    assert other.state() == scale.state() == {"value": 2 * at, "steps": 0.0}


def test_a_scaled_step_is_the_step_without_scale() -> None:
    ends = []
    for scale in (None, LossScale("cpu", 1024.0)):
        model = runs.fresh()
        result = train_step(model, adamw(model, lr=1e-3), [Batch(drawn(4))], clip=0.5, scale=scale)
        ends.append((result.grad_norm, *parameters(model)))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*ends, strict=True))


def test_dropout_is_a_function_of_its_seed_and_the_place_of_the_micro_batch() -> None:
    losses = []
    for noise, seed in ((1, (0, 5)), (2, (0, 5)), (1, (0, 6))):
        model = runs.fresh(attention_dropout=0.3, residual_dropout=0.3)
        torch.manual_seed(noise)
        result = train_step(model, adamw(model, lr=1e-3), [Batch(drawn(4)), Batch(drawn(4))], seed=seed)
        losses.append(result)
    assert torch.equal(losses[0].parts, losses[1].parts) and not torch.equal(losses[0].parts, losses[2].parts)
    assert losses[0].parts[0] != losses[0].parts[1]  # the same tokens, other masks


def test_a_step_without_micro_batches_or_of_an_unknown_precision_is_refused() -> None:
    model = runs.fresh()
    with pytest.raises(InputError, match="batches: give one or more"):
        train_step(model, adamw(model, lr=1e-3), [])
    with pytest.raises(InputError, match="precision 'int8'"):
        train_step(model, adamw(model, lr=1e-3), [Batch(drawn(4))], precision="int8")


def test_the_schedule_by_hand() -> None:
    rates = [learning_rate(step, peak=1.0, warmup_steps=4, schedule_steps=12, final=0.2) for step in range(14)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2])
    # phi-1-base: 36,000 steps scheduled, the model of step 24,000 used.
    assert learning_rate(23_999, peak=1e-3, warmup_steps=750, schedule_steps=36_000) == pytest.approx(
        1e-3 * 12_001 / 35_250
    )
    with pytest.raises(InputError, match="step -1"):
        learning_rate(-1, peak=1.0, warmup_steps=0, schedule_steps=1)
    with pytest.raises(InputError, match="warmup_steps 3"):
        learning_rate(0, peak=1.0, warmup_steps=3, schedule_steps=3)


def test_matrices_decay_and_nothing_else_does() -> None:
    model = runs.fresh()
    decaying, rest = adamw(model, lr=1e-3, weight_decay=0.1).param_groups
    assert decaying["weight_decay"] == 0.1 and rest["weight_decay"] == 0.0
    named = {id(one): name for name, one in model.named_parameters()}
    assert all(named[id(one)].endswith("weight") and one.dim() == 2 for one in decaying["params"])
    assert all("norm" in named[id(one)] or named[id(one)].endswith("bias") for one in rest["params"])
    assert len(decaying["params"]) + len(rest["params"]) == len(named)
    with pytest.raises(InputError, match="none of its parameters"):
        adamw(model.requires_grad_(False), lr=1e-3)


def test_filled_moments_are_those_of_an_optimiser_that_made_no_step() -> None:
    ends = []
    for fill in (False, True):
        model = runs.fresh()
        optimiser = adamw(model, lr=1e-2)
        if fill:
            fill_state(optimiser)
        train_step(model, optimiser, [Batch(drawn(4))])
        ends.append(parameters(model))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "phi_9"}, "model 'phi_9': give one of phi_1"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"micro": 3}, "batch 8: no multiple of micro, 3"),
        ({"batch": 0}, "batch 0: give a whole number, 1 or more"),
        ({"lr": 0.0}, r"lr 0\.0: give a number above 0"),
        ({"weight_decay": -1.0}, r"weight_decay -1\.0: give a number of 0 or more"),
        ({"warmup_steps": 14}, "warmup_steps 14: give fewer than schedule_steps, 14"),
        ({"stop_step": 15}, "stop_step 15: beyond schedule_steps"),
        ({"min_lr": 1.0}, r"min_lr 1\.0: above lr"),
        ({"betas": (0.9,)}, "betas"),
        ({"held_out": 1.0}, "held_out"),
        ({"length": 64}, "length 64: over the model's max_positions, 32"),
        ({"fields": {"depth": 3}}, 'no field "depth"'),
        ({"weights": ("much",)}, "weights"),
        ({"checkpointing": 1}, "checkpointing 1: give true or false"),
        ({"residual_dropout": 1.5}, r"residual_dropout 1\.5"),
    ],
)
def test_settings_that_are_none_name_their_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runs.settings(**change)


def test_settings_come_back_from_json_and_say_what_differs() -> None:
    given = runs.settings(weights=(0.5, 0.5), residual_dropout=0.2)
    held = given.as_dict()
    assert Settings.from_dict(held) == given and given.config().residual_dropout == 0.2
    assert Settings().tokens_per_step == 2_097_152 and Settings().config().attention_dropout == 0.1
    runs.settings(micro=2).check_resumable(runs.settings().as_dict(), "there")
    with pytest.raises(InputError, match=r"there: its run has betas \[0\.9, 0\.95\], this one \[0\.9, 0\.99\]"):
        runs.settings(betas=(0.9, 0.99)).check_resumable(runs.settings().as_dict(), "there")
    with pytest.raises(InputError, match='no setting "learning_rate"'):
        Settings.from_dict({"learning_rate": 1})
