"""`Phi` with the kernels' operations against `Phi` with PyTorch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from phi_fast.model import FUSED, PLAIN, Operations, Phi, PhiConfig

CONFIG = PhiConfig.tiny(
    vocab_size=90, rows=96, hidden=64, mlp=96, heads=2, rotary_dim=16, max_positions=64, end_of_text=3
)
IDS = torch.randint(0, 90, (2, 21), generator=torch.Generator().manual_seed(1))
BOUNDS = torch.tensor([0, 5, 6, 21, 33, 42], dtype=torch.int32)


def pair(ops: Operations = FUSED, **changes: float) -> tuple[Phi, Phi]:
    """The same weights, computed with PyTorch's operations and with `ops`."""
    torch.manual_seed(0)
    plain = Phi(PhiConfig(**{**CONFIG.__dict__, **changes}))
    with torch.no_grad():
        for value in plain.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    ours = copy.deepcopy(plain)
    ours.ops = ops
    return plain, ours


def gradients_of(model: Phi, labels: Tensor, **more: Tensor | int) -> tuple[Tensor, list[Tensor]]:
    loss = model(IDS, labels, **more).loss
    assert loss is not None
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("ops", [FUSED, FUSED._replace(block=None)], ids=["block", "op by op"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_gradients_and_logits(ops: Operations, packed: bool, checkpointing: bool, kernels: str) -> None:
    plain, ours = pair(ops)
    ours.checkpointing = checkpointing
    more = {"cu_seqlens": BOUNDS} if packed else {}
    labels = IDS.clone()
    labels[0, 3:9] = -100
    torch.testing.assert_close(ours(IDS, **more).logits, plain(IDS, **more).logits, atol=1e-5, rtol=0)
    wanted, found = gradients_of(plain, labels, **more), gradients_of(ours, labels, **more)
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=0)
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_divisor_and_a_batch_without_targets(reference: None) -> None:
    plain, ours = pair()
    for items in (7, torch.tensor(7)):
        torch.testing.assert_close(ours(IDS, IDS, num_items=items).loss, plain(IDS, IDS, num_items=items).loss)
    nothing = torch.full_like(IDS, -100)
    assert ours(IDS, nothing).loss == plain(IDS, nothing).loss == 0


@pytest.mark.parametrize("ops", [FUSED, FUSED._replace(block=None)], ids=["block", "op by op"])
def test_autocast(ops: Operations, reference: None) -> None:
    exact, ours = pair(ops)
    labels = IDS.clone()
    wanted = gradients_of(exact, labels)
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients_of(exact, labels)
        found = gradients_of(ours, labels)
    assert all(one.dtype == torch.float32 for one in found[1])
    assert abs(found[0] - wanted[0]) <= 2 * abs(plain[0] - wanted[0]) + 5e-3
    for one, other, true in zip(found[1], plain[1], wanted[1], strict=True):
        assert (one - true).abs().max() <= 3 * (other - true).abs().max() + 1e-4


@pytest.mark.parametrize("ops", [FUSED, FUSED._replace(block=None)], ids=["block", "op by op"])
def test_dropout_is_on_in_training_alone_and_follows_the_seed(ops: Operations, reference: None) -> None:
    _, model = pair(ops, attention_dropout=0.3, residual_dropout=0.3)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model.train()(IDS, IDS).loss)
    assert losses[0] == losses[1] != losses[2]
    assert model.eval()(IDS, IDS).loss == model(IDS, IDS).loss


def test_generation_is_the_same(reference: None) -> None:
    plain, ours = pair()
    prompts = [[4, 5, 6], [7], [8, 9]]
    assert ours.generate(prompts, 12) == plain.generate(prompts, 12)


def test_plain_has_no_block() -> None:
    assert PLAIN.block is None and FUSED.block is not None
