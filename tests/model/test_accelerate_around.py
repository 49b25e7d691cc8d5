"""What people do with a model besides training it: save, copy, wrap, compile, adapt, restore; and what is refused."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers.models.phi import modeling_phi

import phi_fast
from phi_fast.errors import InputError
from phi_fast.model import Phi, PhiConfig
from phi_fast.model.accelerate import Report
from tests.model import hf
from tests.model.test_accelerate import pair, same_training, trained

pytestmark = pytest.mark.usefixtures("reference")


def classes(model: Any) -> list[type]:
    return [type(one) for one in (model, model.model, *model.model.layers)]


def lora(model: Any, **more: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **more))
    return wrapped


def test_state_names_and_checkpoints_are_as_before(tmp_path: Path) -> None:
    theirs, ours = pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert ours.config.to_dict() == theirs.config.to_dict()
    for name, model in (("theirs", theirs), ("ours", ours)):
        model.save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / file).read_bytes() == (tmp_path / "theirs" / file).read_bytes()
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(again) is modeling_phi.PhiForCausalLM
    ids = hf.tokens(theirs, 2, 9)
    assert torch.equal(again(ids).logits, theirs(ids).logits)
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_accelerated_and_their_own(copied: Any) -> None:
    theirs, ours = pair()
    other = copied(ours)
    assert classes(other) == classes(ours) != classes(theirs)
    ids = hf.tokens(theirs, 2, 9)
    same_training(theirs, other, ids, ids)
    phi_fast.restore(other)
    assert classes(other) == classes(theirs) != classes(ours)
    with torch.no_grad():
        other.lm_head.bias.add_(1.0)
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


def test_restored_is_never_accelerated_bit_for_bit() -> None:
    theirs, ours = pair()
    held = dict(theirs.__dict__)
    ids = hf.tokens(theirs, 2, 21)
    ours.train()(ids, labels=ids).loss.backward()
    ours.zero_grad()
    assert phi_fast.restore(ours) is None
    assert classes(ours) == classes(theirs) and set(ours.__dict__) == set(held)
    found, wanted = trained(ours, ids, ids), trained(theirs, ids, ids)
    assert torch.equal(found[0], wanted[0])
    assert all(torch.equal(found[1][name], slope) for name, slope in wanted[1].items())
    phi_fast.restore(ours)
    assert classes(ours) == classes(theirs)


def test_twice_is_once() -> None:
    model = hf.make()
    first, known = phi_fast.accelerate(model), classes(model)
    assert phi_fast.accelerate(model) == first == Report(2, 0, True) and classes(model) == known
    assert str(first) == "phi_fast: 2 layers fused, loss without logits in training"


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool, kernels: str) -> None:
    theirs, ours = pair(attention_dropout=0.1, resid_pdrop=0.1)
    plain = copy.deepcopy(ours)
    ids = hf.tokens(theirs, 2, 11)
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    for model in (theirs, ours):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
    losses = []
    for model in (plain, ours):
        torch.manual_seed(3)
        losses.append(trained(model, ids, ids.masked_fill(mask == 0, -100), attention_mask=mask))
    torch.testing.assert_close(losses[1][0], losses[0][0])
    for name, slope in losses[0][1].items():
        torch.testing.assert_close(losses[1][1][name], slope, atol=1e-6, rtol=0, msg=name)
    for module in (*theirs.modules(), *ours.modules()):
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    same_training(theirs, ours, ids, ids)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]])
@pytest.mark.parametrize("first", [True, False], ids=["accelerated first", "adapted first"])
def test_lora(targets: list[str], first: bool, kernels: str) -> None:
    theirs, ours = hf.make(), hf.make()
    if first:
        phi_fast.accelerate(ours)
    theirs, ours = lora(theirs, target_modules=targets), lora(ours, target_modules=targets)
    report = phi_fast.accelerate(ours)
    assert report[:3] == (0, 2, True) and "as modules: peft.tuners.lora.layer.Linear" in str(report)
    ids = hf.tokens(theirs, 2, 11)
    slopes = []
    for model in (theirs, ours):
        model.train()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        slopes.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert set(slopes[0]) == set(slopes[1]) and all("lora" in name for name in slopes[0])
    for name, slope in slopes[0].items():
        torch.testing.assert_close(slopes[1][name], slope, atol=1e-5, rtol=0, msg=name)
    merged = ours.merge_and_unload()
    assert phi_fast.accelerate(merged).fused == 2


def test_a_head_that_is_adapted_keeps_its_loss() -> None:
    theirs, ours = lora(hf.make(), target_modules=["lm_head"]), lora(hf.make(), target_modules=["lm_head"])
    report = phi_fast.accelerate(ours)
    assert report.fused == 2 and not report.fused_loss and "the head is peft.tuners.lora.layer.Linear" in str(report)
    ids = hf.tokens(theirs, 2, 9)
    losses = [model.train()(input_ids=ids, labels=ids).loss for model in (theirs, ours)]
    torch.testing.assert_close(losses[1], losses[0])
    phi_fast.restore(ours)
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)


def test_a_hooked_or_parametrised_projection_is_called() -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 9)
    seen = []
    hook = ours.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *given: seen.append(given[2].shape))
    for model in (theirs, ours):
        nn.utils.parametrizations.weight_norm(model.model.layers[1].mlp.fc1)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids, use_cache=False).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    report = phi_fast.accelerate(ours)
    assert seen == [(2, 9, 64)] and report.by_modules == 2 and "nn.Linear with hooks and torch.nn" in str(report)
    hook.remove()
    assert phi_fast.accelerate(ours).by_modules == 1
    same_training(theirs, ours, ids, ids)


def test_a_wrapped_model_is_found_inside() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = hf.make()

    model = Wrapped()
    assert phi_fast.accelerate(model).fused == 2
    phi_fast.restore(model)
    assert type(model.module) is modeling_phi.PhiForCausalLM


def test_compiled() -> None:
    theirs, ours = pair()
    ids = hf.tokens(theirs, 2, 11)
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    compiled = torch.compile(ours, backend="aot_eager")
    labels = ids.masked_fill(mask == 0, -100)
    found = compiled.train()(ids, attention_mask=mask, labels=labels).loss
    wanted = theirs.train()(ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    found.backward()
    wanted.backward()
    for (name, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_compiled_is_one_graph(fused: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from phi_fast.model import accelerated

    if not fused:  # what adapters run
        monkeypatch.setattr(accelerated.PhiDecoderLayer, "is_fused", lambda *_: False)
    theirs, ours = pair()
    if checkpointing:
        ours.gradient_checkpointing_enable()
    ids, items = hf.tokens(theirs, 1, 12), torch.tensor(9)
    compiled = torch.compile(ours.train(), backend="aot_eager", fullgraph=True)
    for given in (
        {"attention_mask": torch.ones_like(ids)}, {"position_ids": torch.arange(12)[None] % 7, "use_cache": False}, {},
    ):  # fmt: skip
        found = compiled(ids, labels=ids, num_items_in_batch=items, **given).loss
        wanted = theirs.train()(ids, labels=ids, num_items_in_batch=items, **given).loss
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        found.backward()


def test_moved_where_no_kernel_runs_it_is_transformers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair()
    monkeypatch.delenv("PHI_FAST_KERNELS")
    ids = hf.tokens(theirs, 2, 9)
    found, wanted = trained(ours, ids, ids), trained(theirs, ids, ids)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(ours.eval()(ids).logits, theirs.eval()(ids).logits)


def test_a_forward_that_was_replaced() -> None:
    theirs, ours = hf.make(attn_implementation="eager"), hf.make(attn_implementation="eager")
    ids = hf.tokens(theirs, 2, 9)
    ours(ids, output_attentions=True)  # whereafter transformers 4 leaves forwards bound to their modules
    phi_fast.accelerate(ours)
    assert all("forward" not in layer.__dict__ for layer in ours.model.layers)
    same_training(theirs, ours, ids, ids)
    ours.model.layers[1].forward = lambda x, **_: x
    with pytest.raises(InputError, match="the forward of a PhiDecoderLayer was replaced after accelerate: undo that"):
        phi_fast.restore(ours)
    phi_fast.accelerate(ours)
    del ours.model.layers[1].forward
    phi_fast.restore(ours)
    ours.model.layers[1].forward = lambda x, **_: x
    with pytest.raises(InputError, match="the forward of a PhiDecoderLayer was replaced or wrapped: accelerate first"):
        phi_fast.accelerate(ours)
    assert type(ours) is modeling_phi.PhiForCausalLM


class Sub(modeling_phi.PhiForCausalLM):
    """A model of one's own, whose forward may be another."""


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }  # fmt: skip
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**small))
    config = transformers.PhiConfig(**small)
    for model, message in (
        (llama, "expected transformers' PhiForCausalLM, got LlamaForCausalLM"),
        (modeling_phi.PhiModel(config), "expected transformers' PhiForCausalLM, got PhiModel"),
        (Phi(PhiConfig.tiny(layers=1, rows=64, vocab_size=64, end_of_text=1)), "model.ops = phi_fast.model.FUSED"),
        (Sub(config), "Sub, not transformers' own: accelerate first"),
        (hf.make().double(), "of torch.float64; kernels take float16, bfloat16 and float32"),
        (hf.make(qk_layernorm=True), "qk_layernorm=True: no kernel normalises"),
        (hf.make(num_key_value_heads=2), "num_key_value_heads=2: kernels need one for each of the 4"),
        (hf.make(hidden_act="gelu"), "hidden_act='gelu': kernels compute gelu_new"),
        (hf.make(num_attention_heads=8), "the head dimension is 8; kernels have multiples of 16"),
        ("phi", "expected transformers' PhiForCausalLM, got str"),
    ):
        known = [type(one) for one in model.modules()] if isinstance(model, nn.Module) else []
        with pytest.raises(InputError, match=message):
            phi_fast.accelerate(model)
        assert known == ([type(one) for one in model.modules()] if isinstance(model, nn.Module) else [])
    monkeypatch.setenv("PHI_FAST_KERNELS", "fast")
    with pytest.raises(InputError, match='PHI_FAST_KERNELS: expected "reference" or "triton"'):
        phi_fast.accelerate(hf.make())
    monkeypatch.delenv("PHI_FAST_KERNELS")
    with pytest.raises(InputError, match=r"embed_tokens.weight is on cpu, and kernels run on a GPU: call model.to"):
        phi_fast.accelerate(hf.make())
    monkeypatch.setenv("PHI_FAST_KERNELS", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(InputError, match="kernels run there with TRITON_INTERPRET=1"):
        phi_fast.accelerate(hf.make())


def test_names_are_there_without_torch_being_imported() -> None:
    code = "import sys, phi_fast, phi_fast.model; assert {'accelerate', 'restore'} <= set(dir(phi_fast)); "
    code += "assert 'FUSED' in dir(phi_fast.model); assert not {'torch', 'triton'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
