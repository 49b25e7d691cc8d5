"""An accelerated PhiForCausalLM against the same model without: logits, losses, gradients, tokens."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import phi_fast
from phi_fast.errors import InputError
from phi_fast.model.padding import batch_bounds
from tests.model import hf

PHI_2 = {"hidden_size": 160, "num_attention_heads": 2, "partial_rotary_factor": 0.4}


def pair(**changes: Any) -> tuple[Any, Any]:
    """A model, and an accelerated copy."""
    theirs = hf.make(**{"pad_token_id": 0, **changes})
    ours = copy.deepcopy(theirs)
    phi_fast.accelerate(ours)
    return theirs, ours


def mask_of(rows: int, length: int, padding: list[tuple[int, int]]) -> Tensor:
    """Ones, but for so many zeros on the left and on the right of each row."""
    mask = torch.ones(rows, length, dtype=torch.long)
    for row, (left, right) in enumerate(padding):
        mask[row, :left] = 0
        mask[row, length - right :] = 0
    return mask


def positions_of(*lengths: int) -> Tensor:
    return torch.cat([torch.arange(one) for one in lengths])[None]


def trained(model: Any, ids: Tensor, labels: Tensor, **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one training step."""
    model.train()
    loss = model(ids, labels=labels, **more).loss
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    return loss.detach(), found


def same_training(theirs: Any, ours: Any, ids: Tensor, labels: Tensor, atol: float = 1e-5, **more: Any) -> None:
    wanted, slopes = trained(theirs, ids, labels, **more)
    found, ours_slopes = trained(ours, ids, labels, **more)
    torch.testing.assert_close(found, wanted, atol=atol, rtol=0)
    assert found.isfinite()
    for name, value in slopes.items():
        torch.testing.assert_close(ours_slopes[name], value, atol=atol, rtol=0, msg=name)


PADDINGS = {
    "none": None,
    "all ones": [(0, 0), (0, 0), (0, 0)],
    "right": [(0, 4), (0, 0), (0, 22)],
    "left": [(4, 0), (0, 0), (22, 0)],
    "both, and a row of padding": [(4, 3), (0, 1), (23, 0)],
}


@pytest.mark.parametrize("padding", PADDINGS)
def test_padded_batches(padding: str, kernels: str) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 3, 23)
    given = PADDINGS[padding]
    mask = None if given is None else mask_of(3, 23, given)
    seen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    with torch.no_grad():
        wanted, found = theirs(ids, attention_mask=mask).logits, ours(ids, attention_mask=mask).logits
    torch.testing.assert_close(found[seen], wanted[seen], atol=1e-5, rtol=0)
    # What stands at padding is nobody's; so nothing may be predicted there, not the first token behind it either.
    counts = seen & torch.nn.functional.pad(seen, (1, 0))[:, :-1]
    same_training(theirs, ours, ids, ids.masked_fill(~counts, -100), attention_mask=mask)


@pytest.mark.parametrize("shape", [shape for shape in hf.SHAPES if shape != "deep"])  # its heads are too small
def test_shapes(shape: str, reference: None) -> None:
    theirs, ours = pair(**hf.SHAPES[shape])
    ids = hf.tokens(theirs, 2, 50)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    same_training(theirs, ours, ids, ids)


def test_packed_documents(kernels: str) -> None:
    theirs, ours = pair(use_cache=False)  # with a cache transformers parts no documents, even in training
    ids, positions = hf.tokens(theirs, 1, 31), positions_of(7, 1, 12, 11)
    same_training(theirs, ours, ids, ids, position_ids=positions)
    with torch.no_grad():
        wanted = theirs(ids, position_ids=positions).logits
        packed = ours(ids, position_ids=positions).logits
        ends = torch.tensor([0, 7, 8, 20, 31])
        by_lengths = ours(ids, cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=12, max_length_k=12).logits
    torch.testing.assert_close(packed, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(by_lengths, wanted, atol=1e-5, rtol=0)
    with torch.no_grad():
        wanted = theirs(ids, position_ids=positions, use_cache=True).logits
        found = ours(ids, position_ids=positions, use_cache=True).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_positions_of_each_row(reference: None) -> None:
    theirs, ours = pair(use_cache=False)
    ids = hf.tokens(theirs, 2, 12)
    positions = torch.cat([positions_of(5, 7), positions_of(12) + 3])
    same_training(theirs, ours, ids, ids, position_ids=positions)
    # With a mask positions turn queries and keys, but part no documents, as in transformers.
    same_training(theirs, ours, ids, ids, position_ids=positions, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("kind", ["linear", "yarn", "dynamic"])
def test_scaled_positions(kind: str, reference: None) -> None:
    scaled = {"rope_type": kind, "factor": 2.0, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    theirs, ours = pair(rope_parameters=scaled, rope_scaling=scaled, partial_rotary_factor=0.5)
    ids = hf.tokens(theirs, 2, 20)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("items", [None, 11, torch.tensor(11), torch.tensor(11.0)])
def test_items_in_batch(items: Any, reference: None) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 20)
    labels = ids.clone()
    labels[1, 4:] = -100
    same_training(theirs, ours, ids, labels, num_items_in_batch=items)
    shifted = torch.roll(labels, -1, 1)
    same_training(theirs, ours, ids, labels, num_items_in_batch=items, shift_labels=shifted)


def test_no_targets_are_not_a_number_as_in_transformers(reference: None) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 1, 5)
    nothing = torch.full_like(ids, -100)
    assert theirs.train()(ids, labels=nothing).loss.isnan() and ours.train()(ids, labels=nothing).loss.isnan()


def test_logits_with_labels(reference: None) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 9)
    assert ours.train()(ids, labels=ids).logits is None
    wanted = theirs.train()(ids, labels=ids)
    kept = ours.eval()(ids, labels=ids)
    torch.testing.assert_close(kept.logits, wanted.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(kept.loss, wanted.loss)
    assert kept.past_key_values is None
    report = phi_fast.accelerate(ours.train(), keep_logits=True)
    assert not report.fused_loss and "logits are kept" in str(report)
    torch.testing.assert_close(ours(ids, labels=ids).logits, wanted.logits, atol=1e-5, rtol=0)
    last = ours(ids, labels=ids[:, -3:], logits_to_keep=3)
    assert last.logits.shape[1] == 3
    as_tuple = phi_fast.accelerate(ours) and ours(ids, labels=ids, return_dict=False)
    torch.testing.assert_close(as_tuple[0], wanted.loss)


def test_hidden_states_and_embeddings(reference: None) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 9)
    wanted = theirs(ids, output_hidden_states=True).hidden_states
    found = ours(ids, output_hidden_states=True).hidden_states
    assert len(found) == len(wanted) == 3
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert ours(ids).hidden_states is None
    embedded = theirs.get_input_embeddings()(ids)
    torch.testing.assert_close(ours(inputs_embeds=embedded).logits, theirs(ids).logits, atol=1e-5, rtol=0)


def test_generation(reference: None) -> None:
    theirs, ours = pair()
    ids, mask = hf.tokens(theirs, 3, 11), mask_of(3, 11, [(0, 0), (3, 0), (9, 0)])
    for how in ({"do_sample": False}, {"num_beams": 3}, {"do_sample": False, "use_cache": False}):
        answers = []
        for model in (theirs, ours):
            torch.manual_seed(0)
            answers.append(model.generate(ids, attention_mask=mask, max_new_tokens=20, **how))
        assert torch.equal(*answers), how


def test_cache_of_a_forward_pass_is_one_to_go_on_with(reference: None) -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 12)
    first = ours(ids[:, :8], use_cache=True)
    assert first.past_key_values.get_seq_length() == 8
    rest = ours(ids[:, 8:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, theirs(ids).logits[:, 8:], atol=1e-5, rtol=0)
    assert ours.train()(ids).past_key_values is None


def test_what_kernels_do_not_serve_is_transformers_own(reference: None) -> None:
    theirs, ours = pair(attn_implementation="eager")
    ids = hf.tokens(theirs, 1, 6)
    seen = torch.ones(6, 6, dtype=torch.bool).tril() & (torch.arange(6) != 2)
    mask = torch.zeros(1, 1, 6, 6).masked_fill(~seen, torch.finfo(torch.float32).min)
    with pytest.warns(UserWarning, match="attention_mask is not"):
        found = ours(ids, attention_mask=mask).logits
    assert torch.equal(found, theirs(ids, attention_mask=mask).logits)
    with pytest.warns(UserWarning, match="attention weights"):
        output = ours(ids, output_attentions=True)
    assert len(output.attentions) == 2 and output.attentions[0].shape == (1, 4, 6, 6)
    assert torch.equal(output.logits, theirs(ids).logits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ours.double()(ids).logits, theirs.double()(ids).logits)


def test_a_mask_with_holes_is_refused(reference: None) -> None:
    _, ours = pair()
    mask = torch.tensor([[1, 1, 0, 1]])
    with pytest.raises(InputError, match=r"attention_mask: expected padding before or after"):
        ours(torch.ones(1, 4, dtype=torch.long), attention_mask=mask)
    with pytest.raises(InputError, match="cu_seqlens"):
        ours(torch.ones(1, 4, dtype=torch.long), cu_seq_lens_q=torch.tensor([0, 3]))


def test_dropout(kernels: str) -> None:
    _, ours = pair(attention_dropout=0.3, resid_pdrop=0.2, embd_pdrop=0.1)
    ids = hf.tokens(ours, 2, 12)

    def loss(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return ours(ids, labels=ids).loss.detach()

    ours.train()
    assert loss(1) == loss(1) != loss(2)
    ours.eval()
    assert loss(1) == loss(2)


@pytest.mark.parametrize("changes", [{}, PHI_2], ids=["heads of 16", "heads of 80"])
def test_half_precision(changes: dict[str, Any], kernels: str) -> None:
    dtype = torch.float16 if kernels == "triton" else torch.bfloat16  # Triton's interpreter computes bf16 wrongly
    exact = hf.make(**changes)
    theirs, ours = (model.to(dtype) for model in pair(**changes))
    ids = hf.tokens(exact, 2, 17)
    true, wanted, found = (trained(model, ids, ids) for model in (exact, theirs, ours))
    assert abs(found[0] - true[0]) <= 2 * abs(wanted[0] - true[0]) + 2e-2
    for name, slope in true[1].items():
        allowed = 3 * (wanted[1][name] - slope).abs().max() + 0.02 * slope.abs().max() + 1e-4
        assert (found[1][name] - slope).abs().max() <= allowed, name


def test_autocast_keeps_parameters_stream_and_gradients_in_float32(kernels: str) -> None:
    dtype = torch.float16 if kernels == "triton" else torch.bfloat16
    exact = hf.make()
    theirs, ours = pair()
    ids = hf.tokens(exact, 2, 17)
    true = trained(exact, ids, ids)
    with torch.autocast("cpu", dtype):
        wanted, found = trained(theirs, ids, ids), trained(ours, ids, ids)
        assert ours(ids, output_hidden_states=True).hidden_states[1].dtype == torch.float32
    for name, slope in true[1].items():
        assert found[1][name].dtype == torch.float32
        assert (found[1][name] - slope).abs().max() <= 3 * (wanted[1][name] - slope).abs().max() + 1e-3, name
    assert abs(found[0] - true[0]) <= 2 * abs(wanted[0] - true[0]) + 5e-3


@pytest.mark.parametrize("rows", [1, 3])
def test_bounds_against_a_loop(rows: int) -> None:
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        length = int(torch.randint(1, 12, (), generator=generator))
        positions = torch.randint(0, 3, (rows, length), generator=generator).cumsum(1)
        documents, number = [], 0
        for row in range(rows):
            for column in range(length):
                number += column == 0 or int(positions[row, column] - positions[row, column - 1]) != 1
                documents.append(number)
        wanted = [
            [documents.index(one) for one in documents],
            [len(documents) - documents[::-1].index(one) for one in documents],
        ]
        found = batch_bounds(rows, length, torch.device("cpu"), position_ids=positions)
        assert found.dtype == torch.int32 and found.is_contiguous() and found.tolist() == wanted
