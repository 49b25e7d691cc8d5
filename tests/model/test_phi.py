"""The model against transformers' PhiForCausalLM: logits, losses, gradients; documents, dropout, checkpointing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phi_fast.errors import InputError
from phi_fast.model import PLAIN, Phi, PhiConfig, document_bounds
from tests.model import hf

SMALL = PhiConfig.tiny(
    vocab_size=90, rows=96, hidden=64, mlp=96, heads=2, rotary_dim=16, max_positions=64, end_of_text=3
)


def small(seed: int = 0, **changes: Any) -> Phi:
    torch.manual_seed(seed)
    model = Phi(SMALL if not changes else PhiConfig(**{**SMALL.__dict__, **changes}))
    with torch.no_grad():  # larger than at the start of training, so that attention looks somewhere
        for value in model.parameters():
            value.add_(torch.randn(value.shape) * 0.1)
    return model.eval()


def ids_of(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 96, (rows, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: Phi, ids: Tensor, **more: Any) -> Tensor:
    loss = model(ids, ids, **more).loss
    assert loss is not None
    return loss


def gradients(model: Phi) -> dict[str, Tensor]:
    found = {}
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        found[name] = value.grad.clone()
        value.grad = None
    return found


@pytest.mark.parametrize("shape", hf.SHAPES)
def test_logits_loss_and_gradients_are_transformers(shape: str, tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "model", **hf.SHAPES[shape])
    ours = Phi.from_pretrained(folder)
    for rows, length in ((1, 1), (2, 7), (3, 128)):
        ids = hf.tokens(theirs, rows, length)
        with torch.no_grad():
            wanted, found = theirs(ids).logits, ours(ids).logits
        assert found.dtype == torch.float32 and wanted.std() > 0.3
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)

    ids = hf.tokens(theirs, 3, 40)
    labels = ids.clone()
    labels[0, 5:30] = labels[2, :] = -100
    wanted = theirs(ids, labels=labels).loss
    found = ours(ids, labels).loss
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    wanted.backward()
    found.backward()
    found_gradients = gradients(ours)
    for name, value in theirs.named_parameters():
        torch.testing.assert_close(found_gradients.pop(name), value.grad, atol=1e-5, rtol=0, msg=name)
    assert not found_gradients


def test_half_precision_is_near_float32(tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "model")
    ids = hf.tokens(theirs, 2, 50)
    wanted = Phi.from_pretrained(folder)(ids).logits
    for dtype in (torch.float16, torch.bfloat16):
        found = Phi.from_pretrained(folder, dtype=dtype)(ids).logits
        peers = type(theirs).from_pretrained(folder, dtype=dtype)(ids).logits
        assert found.dtype == dtype
        error, peers_error = (found.float() - wanted).norm(), (peers.float() - wanted).norm()
        assert 0 < error <= 1.5 * peers_error and error < 0.03 * wanted.norm()


def test_a_loss_can_be_summed_over_micro_batches() -> None:
    model, ids = small(), ids_of(4, 16)
    labels = ids.clone()
    labels[0, 3:] = -100
    whole = model(ids, labels).loss
    count = int((labels[:, 1:] != -100).sum())
    parts = [model(ids[rows], labels[rows], num_items=count).loss for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(model(ids, labels, num_items=torch.tensor(count)).loss, whole)


def test_a_loss_without_targets_is_zero_with_gradients_of_zero() -> None:
    model, ids = small(), ids_of(1, 8)
    loss = model(ids, torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss == 0 and all(not value.any() for value in gradients(model).values())


@st.composite
def packed(draw: st.DrawFn) -> tuple[int, int, list[int]]:
    rows, length = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    cuts = draw(st.sets(st.integers(0, rows * length)))
    return rows, length, sorted(cuts | {row * length for row in range(rows + 1)})


@settings(max_examples=20)
@given(packed())
def test_packed_documents_are_as_if_alone(batch: tuple[int, int, list[int]]) -> None:
    rows, length, cuts = batch
    model, ids = small(), ids_of(rows, length)
    bounds = torch.tensor(cuts, dtype=torch.int32)
    alone = [ids.flatten()[start:end][None] for start, end in pairwise(cuts)]
    logits = torch.cat([model(one).logits[0] for one in alone]).view(rows, length, -1)
    torch.testing.assert_close(model(ids, cu_seqlens=bounds).logits, logits, atol=1e-5, rtol=0)

    count = sum(one.numel() - 1 for one in alone)
    loss = loss_of(model, ids, cu_seqlens=bounds)
    loss.backward()
    found = gradients(model)
    total = sum(loss_of(model, one, num_items=max(count, 1)) for one in alone)
    assert isinstance(total, Tensor)
    total.backward()
    torch.testing.assert_close(loss, total)
    for name, value in gradients(model).items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0, msg=name)


def test_one_document_a_row_is_the_default() -> None:
    model, ids = small(), ids_of(3, 10)
    bounds = torch.tensor([0, 10, 20, 30], dtype=torch.int32)
    torch.testing.assert_close(model(ids, cu_seqlens=bounds).logits, model(ids).logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(loss_of(model, ids, cu_seqlens=bounds), loss_of(model, ids))


def test_bounds_from_end_of_text() -> None:
    ids = torch.tensor([[5, 6, 3, 7], [3, 3, 8, 9], [1, 2, 4, 3]])
    found = document_bounds(ids, 3)
    assert found.dtype == torch.int32 and found.tolist() == [0, 3, 4, 5, 6, 8, 12]
    assert small()(ids, ids, cu_seqlens=found).loss.isfinite()
    with pytest.raises(InputError, match="ids of shape"):
        document_bounds(ids[0], 3)


def test_nothing_later_is_seen() -> None:
    model, ids = small(), ids_of(2, 20)
    other = ids.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 96
    before, after = model(ids).logits, model(other).logits
    torch.testing.assert_close(before[:, :12], after[:, :12], atol=1e-6, rtol=0)
    assert (before[:, 12:] - after[:, 12:]).abs().min(dim=-1).values.max() > 0


@pytest.mark.parametrize("with_documents", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(dropout: float, with_documents: bool) -> None:
    model = small(attention_dropout=dropout, residual_dropout=dropout, embedding_dropout=dropout).train()
    ids = ids_of(2, 24)
    bounds = torch.tensor([0, 5, 24, 48], dtype=torch.int32) if with_documents else None
    results = []
    calls = 0

    def counted(*args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return PLAIN.mlp(*args)

    model.ops = PLAIN._replace(mlp=counted)
    for model.checkpointing in (False, True):
        torch.manual_seed(5)
        loss_of(model, ids, cu_seqlens=bounds).backward()
        results.append(gradients(model))
    assert calls == 2 + 4  # each of the two blocks once, then once more for the backward pass
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-7, rtol=1e-6, msg=name)


@pytest.mark.parametrize("rate", ["attention_dropout", "residual_dropout", "embedding_dropout"])
def test_dropout_acts_in_training_alone(rate: str) -> None:
    plain, model = small(), small(**{rate: 0.1})
    ids = ids_of(1, 12)
    wanted = plain(ids).logits
    assert torch.equal(model(ids).logits, wanted)
    model.train()
    first, second = model(ids).logits, model(ids).logits
    assert (first - second).abs().max() > 0.01 and (first - wanted).abs().max() > 0.01


def test_dropout_keeps_the_mean_and_drops_its_rate() -> None:
    torch.manual_seed(0)
    places = PLAIN.prepare(small().places(ids_of(1, 6)))
    q, k, v = (torch.randn(1, 6, 2, 32).expand(4000, -1, -1, -1) for _ in range(3))
    found = PLAIN.attention(q, k, v, places, 0.1).mean(0)
    torch.testing.assert_close(found, PLAIN.attention(q[:1], k[:1], v[:1], places, 0.0)[0], atol=0.06, rtol=0)
    assert (PLAIN.attention(q, k, v, places, 0.1)[:, 0] == 0).all(-1).float().mean() == pytest.approx(0.1, abs=0.02)

    x, one = torch.zeros(20_000), torch.ones(20_000)
    both = PLAIN.residual(x, one, 2 * one, 0.1)
    assert both.mean() == pytest.approx(3, abs=0.03)
    shares = [(both * 0.9 - value).abs().lt(1e-3).float().mean().item() for value in (0, 1, 2, 3)]
    assert shares == pytest.approx([0.01, 0.09, 0.09, 0.81], abs=0.01)  # the branches are dropped independently


def test_operations_can_be_replaced_one_by_one() -> None:
    model, ids = small(), ids_of(1, 6)
    wanted = loss_of(model, ids)
    seen = []

    def watched(name: str) -> Any:
        def call(*args: Any) -> Any:
            seen.append(name)
            return getattr(PLAIN, name)(*args)

        return call

    model.ops = PLAIN._replace(**{name: watched(name) for name in PLAIN._fields if name != "block"})
    assert torch.equal(loss_of(model, ids), wanted)
    block = ["layer_norm", "attention", "mlp", "residual"]
    assert seen == ["prepare", *block, *block, "layer_norm", "cross_entropy"]


def test_first_weights() -> None:
    torch.manual_seed(0)
    model = Phi(PhiConfig.tiny(rows=5000, vocab_size=5000, end_of_text=None, layers=8, init_std=0.05))
    for name, value in model.named_parameters():
        if name.endswith("layernorm.weight"):
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            scaled = name.endswith(("dense.weight", "fc2.weight"))
            assert value.std().item() == pytest.approx(0.05 / 4 if scaled else 0.05, rel=0.03), name
            assert abs(value.mean().item()) < 0.002, name
    torch.manual_seed(0)
    again = Phi(model.config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_few_steps_learn_a_batch() -> None:
    model = small().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = ids_of(2, 32)
    losses = []
    for _ in range(40):
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 4 and losses[-1] < 0.5


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("with_documents", [False, True])
def test_it_compiles_whole(with_documents: bool, checkpointing: bool) -> None:
    """Traced without a break, documents and checkpointing included, and computes the same."""
    model, ids = small(), ids_of(2, 16)
    model.checkpointing = checkpointing
    bounds = torch.tensor([0, 5, 16, 32], dtype=torch.int32) if with_documents else None
    wanted = loss_of(model, ids, cu_seqlens=bounds)
    wanted.backward()
    plain = gradients(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = compiled(ids, ids, cu_seqlens=bounds).loss
    found.backward()
    torch.testing.assert_close(found, wanted)
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, plain[name], atol=1e-6, rtol=1e-5, msg=name)


def test_autocast_trains_in_half_precision() -> None:
    model, ids = small(), ids_of(2, 16)
    bounds = torch.tensor([0, 5, 16, 32], dtype=torch.int32)
    wanted = loss_of(model, ids, cu_seqlens=bounds)
    wanted.backward()
    exact = gradients(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(model, ids, cu_seqlens=bounds)
    found.backward()
    assert found.dtype == torch.float32 and 0 < abs(found - wanted) < 0.02
    for name, value in gradients(model).items():
        if "k_proj.bias" not in name:  # that gradient is zero but for rounding
            assert (value - exact[name]).norm() < 0.05 * exact[name].norm(), name


def test_a_copy_computes_the_same() -> None:
    """The state dict is all there is: no hidden buffers."""
    model, ids = small(), ids_of(1, 9)
    with torch.device("meta"):
        copy = Phi(SMALL)
    copy.load_state_dict(model.state_dict(), assign=True)
    assert torch.equal(copy.eval()(ids).logits, model(ids).logits)


IDS = ids_of(2, 8)


@pytest.mark.parametrize(
    ("ids", "labels", "bounds", "message"),
    [
        (IDS.int(), None, None, r"ids of torch.int32: give torch.int64"),
        (IDS[0], None, None, r"ids of shape \(8,\)"),
        (IDS[:, :0], None, None, r"ids of shape \(2, 0\).*1 to 64 tokens"),
        (IDS[:0], None, None, r"ids of shape \(0, 8\)"),
        (ids_of(1, 65), None, None, r"ids of shape \(1, 65\)"),
        (IDS.to("meta"), None, None, "ids on meta: the model is on cpu"),
        (IDS + 96, None, None, "ids hold .*from 0 to 95"),
        (IDS - 100, None, None, "ids hold -"),
        (IDS, IDS.float(), None, "labels of torch.float32"),
        (IDS, IDS[:1], None, r"labels of shape \(1, 8\): give ids' shape, \(2, 8\)"),
        (IDS, IDS * 0 + 96, None, "labels hold 96: give tokens from 0 to 95, or -100"),
        (IDS, IDS * 0 - 1, None, "labels hold -1"),
        (IDS, None, torch.tensor([0, 16]), "cu_seqlens of torch.int64: give torch.int32"),
        (IDS, None, torch.zeros(1, dtype=torch.int32), r"cu_seqlens of shape \(1,\)"),
        (IDS, None, torch.zeros(2, 2, dtype=torch.int32), r"cu_seqlens of shape \(2, 2\)"),
        (IDS, None, [1, 8, 16], "cu_seqlens from 1 to 16: they go from 0 to 16"),
        (IDS, None, [0, 8, 15], "cu_seqlens from 0 to 15"),
        (IDS, None, [0, 8, 8, 16], r"cu_seqlens\[1\] is 8 and cu_seqlens\[2\] 8"),
        (IDS, None, [0, 8, 5, 16], r"cu_seqlens\[1\] is 8 and cu_seqlens\[2\] 5"),
        (IDS, None, [0, 5, 16], "the document from 5 to 16 reaches over the end of a row of 8"),
    ],
)
def test_wrong_arguments_are_named(ids: Tensor, labels: Any, bounds: Any, message: str) -> None:
    if isinstance(bounds, list):
        bounds = torch.tensor(bounds, dtype=torch.int32)
    with pytest.raises(InputError, match=message):
        small()(ids, labels, cu_seqlens=bounds)
