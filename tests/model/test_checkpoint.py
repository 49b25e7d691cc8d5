"""Checkpoints of Hugging Face's PhiForCausalLM in and out, bit for bit, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from phi_fast.errors import InputError
from phi_fast.model import Phi, PhiConfig, checkpoint
from tests.model import hf

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        a.dtype == second[name].dtype and torch.equal(a, second[name]) for name, a in first.items()
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_files_of_weights_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = hf.make().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Phi.from_pretrained(tmp_path / "theirs")
    assert not ours.training and {value.dtype for value in ours.parameters()} == {dtype}
    ours.save_pretrained(tmp_path / "ours")
    assert sorted(tree(tmp_path / "ours")) == ["config.json", "model.safetensors"]
    written = (tmp_path / "ours" / "model.safetensors").read_bytes()
    assert written == (tmp_path / "theirs" / "model.safetensors").read_bytes()

    again: Any = transformers.PhiForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert again.dtype == dtype and same(again.state_dict(), theirs.state_dict())
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == written


@pytest.mark.parametrize("shape", hf.SHAPES)
def test_transformers_reads_what_is_written(shape: str, tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "theirs", attention_dropout=0.1, resid_pdrop=0.2, **hf.SHAPES[shape])
    ours = Phi.from_pretrained(folder)
    assert (ours.config.attention_dropout, ours.config.residual_dropout) == (0.1, 0.2)
    ours.save_pretrained(tmp_path / "ours")
    again: Any = transformers.PhiForCausalLM.from_pretrained(tmp_path / "ours")
    ids = hf.tokens(theirs, 2, 20)
    assert torch.equal(again(ids).logits, theirs(ids).logits)
    # tokenizer_vocab_size is ours; what begins a text and what ends it are one token in a phi
    apart = {"transformers_version", "tokenizer_vocab_size", "bos_token_id", "dtype", "_name_or_path"}
    was, now = theirs.config.to_dict(), again.config.to_dict()
    assert {k: v for k, v in was.items() if k not in apart} == {k: v for k, v in now.items() if k not in apart}


def test_a_model_of_ours_comes_back(tmp_path: Path) -> None:
    config = PhiConfig.tiny(vocab_size=50, rows=64, rotary_dim=18, end_of_text=7, embedding_dropout=0.3, init_std=0.1)
    model = Phi(config)
    model.save_pretrained(tmp_path / "deep" / "new")
    again = Phi.from_pretrained(str(tmp_path / "deep" / "new"))
    assert again.config == config and same(again.state_dict(), model.state_dict())
    assert all(value.requires_grad for value in again.parameters())


def test_dtype_converts(tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "model")
    for dtype in (*DTYPES, "bfloat16"):
        found = Phi.from_pretrained(folder, dtype=dtype)
        wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        assert same(found.state_dict(), {name: value.to(wanted) for name, value in theirs.state_dict().items()})
    for wrong in ("int8", torch.int64):
        with pytest.raises(InputError, match=r"dtype .*int.*: give float32, bfloat16, float16"):
            Phi.from_pretrained(folder, dtype=wrong)


def test_sharded_both_ways(tmp_path: Path) -> None:
    theirs = hf.make(num_hidden_layers=3)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 3
    ours = Phi.from_pretrained(tmp_path / "theirs")
    assert same(ours.state_dict(), theirs.state_dict())

    ours.save_pretrained(tmp_path / "ours", max_shard_bytes=60_000)
    files = sorted((tmp_path / "ours").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * ours.config.parameters
    assert sorted(set(index["weight_map"].values())) == [file.name for file in files] and len(files) > 3
    assert all(sum(4 * v.numel() for v in load_file(file).values()) <= 60_000 for file in files)
    again: Any = transformers.PhiForCausalLM.from_pretrained(tmp_path / "ours")
    assert same(again.state_dict(), theirs.state_dict())
    assert same(Phi.from_pretrained(tmp_path / "ours").state_dict(), theirs.state_dict())

    ours.save_pretrained(tmp_path / "each", max_shard_bytes=1)  # a tensor is never cut
    assert same(Phi.from_pretrained(tmp_path / "each").state_dict(), theirs.state_dict())


V4 = {
    "_name_or_path": "microsoft/phi-1", "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0,
    "bos_token_id": None, "embd_pdrop": 0.0, "eos_token_id": None, "hidden_act": "gelu_new", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 128, "layer_norm_eps": 1e-05, "max_position_embeddings": 128,
    "model_type": "phi", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": None,
    "partial_rotary_factor": 0.5, "qk_layernorm": False, "resid_pdrop": 0.0, "rope_scaling": None,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32",
    "transformers_version": "4.37.0", "use_cache": True, "vocab_size": 96,
}  # fmt: skip
"""As transformers 4 write it, and as the hub's phi-1 has it but for its sizes."""


def test_a_config_of_transformers_4_reads_the_same(tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "model")
    five = Phi.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(V4))
    four = Phi.from_pretrained(folder)
    assert four.config.end_of_text is None
    assert {**four.config.__dict__, "end_of_text": 2} == five.config.__dict__
    ids = hf.tokens(theirs, 2, 30)
    assert torch.equal(four(ids).logits, five(ids).logits)

    theirs, folder = hf.saved(tmp_path / "other", rope_theta=5e5, partial_rotary_factor=0.25)
    (folder / "config.json").write_text(json.dumps(V4 | {"rope_theta": 5e5, "partial_rotary_factor": 0.25}))
    torch.testing.assert_close(Phi.from_pretrained(folder)(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


def test_a_config_of_few_words_has_the_defaults_of_transformers(tmp_path: Path) -> None:
    theirs, folder = hf.saved(tmp_path / "model")
    keep = {name: V4[name] for name in ("model_type", "vocab_size", "hidden_size", "num_attention_heads",
            "intermediate_size", "num_hidden_layers")}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(keep))
    ids = hf.tokens(theirs, 1, 30)
    torch.testing.assert_close(Phi.from_pretrained(folder)(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama': a phi's is \"phi\""),
        ({"model_type": ...}, "model_type None"),
        ({"qk_layernorm": True}, "qk_layernorm True: a phi normalises neither"),
        (
            {"num_key_value_heads": 2},
            "num_key_value_heads 2, but each of a phi's heads has keys and values of its own: 4",
        ),
        ({"head_dim": 32}, "head_dim 32, but .*: 16 here"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu': a phi's is \"gelu_new\""),
        ({"tie_word_embeddings": True}, "tie_word_embeddings true"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters of type 'yarn'"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling of type 'linear'"),
        ({"rope_parameters": ..., "rope_scaling": {"factor": 2.0}}, "rope_scaling of type None"),
        ({"rope_parameters": 3}, "rope_parameters 3: give an object"),
        ({"rope_theta": 7.0}, "rope_theta is 7.0, but 10000.0 in rope_parameters"),
        ({"rope_parameters": ..., "rope_theta": "big"}, "rope_theta 'big': give a number above 0"),
        ({"rope_parameters": ..., "partial_rotary_factor": 0.2}, "rotary_dim 3: give an even number"),
        ({"num_attention_heads": 5}, "num_attention_heads 5 does not divide hidden_size 64"),
        ({"eos_token_id": [1, 2]}, r"eos_token_id \[1, 2\]: leave one"),
        ({"attention_dropout": 1.5}, "attention_dropout 1.5"),
        ({"num_hidden_layers": "2"}, "layers '2': give a whole number"),
    ],
)
def test_another_architecture_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, folder = hf.saved(tmp_path / "model")
    hf.edit_config(folder, changes)
    with pytest.raises(InputError, match=message) as caught:
        Phi.from_pretrained(folder)
    assert str(caught.value).startswith(str(folder / "config.json"))


NORM = "model.layers.1.input_layernorm.weight"


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    _, folder = hf.saved(tmp_path / "model")
    whole = weights(folder)

    def refused(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(InputError) as caught:
            Phi.from_pretrained(folder)
        return str(caught.value).replace(str(folder), "")

    lacking = {name: value for name, value in whole.items() if name != NORM}
    assert refused(lacking) == f': the weights lack tensor "{NORM}"'
    del lacking["lm_head.bias"]
    assert refused(lacking).endswith(", and 1 more")
    assert (
        refused(whole | {"extra": torch.ones(2)}) == '/model.safetensors: tensor "extra" is none of a phi of 2 layers'
    )
    assert refused(whole | {NORM: torch.ones(63)}) == (
        f'/model.safetensors: tensor "{NORM}" has shape (63,), but config.json makes it (64,)'
    )
    assert refused(whole | {NORM: torch.ones(64, dtype=torch.int32)}).endswith("is of torch.int32: give floating point")
    assert refused(whole | {NORM: whole[NORM].half()}) == (
        ": the weights are of several types (float16, float32): choose one with dtype="
    )
    assert Phi.from_pretrained(folder, dtype="float32").lm_head.weight.dtype == torch.float32

    save_file(whole | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / "model.safetensors")
    assert same(Phi.from_pretrained(folder).state_dict(), whole)

    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match="is no whole safetensors file"):
        Phi.from_pretrained(folder)


def test_shards_that_do_not_fit_are_named(tmp_path: Path) -> None:
    hf.make().save_pretrained(tmp_path, max_shard_size="60KB")
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    files = sorted(set(index["weight_map"].values()))

    def refused(weight_map: Any) -> str:
        path.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(InputError) as caught:
            Phi.from_pretrained(tmp_path)
        return str(caught.value).replace(str(tmp_path), "")

    wrong = next(file for file in files if file != index["weight_map"][NORM])
    assert f'/{wrong}: lacks tensor "{NORM}"' in refused(index["weight_map"] | {NORM: wrong})
    assert "is no file of the folder" in refused(index["weight_map"] | {NORM: "../elsewhere.safetensors"})
    assert "has no weight_map" in refused([])
    (tmp_path / files[1]).unlink()
    assert refused(index["weight_map"]) == f"/{files[1]}: is not there"
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Phi.from_pretrained(tmp_path)


def test_places_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder, and no name on the hub"):
        Phi.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"config.json: is not there"):
        Phi.from_pretrained(tmp_path)
    _, folder = hf.saved(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds neither .*\*\.bin, are not read"):
        Phi.from_pretrained(folder)


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, folder = hf.saved(tmp_path / "model")
    asked = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if name == "owner/none":
            raise OSError("cannot reach the hub")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert same(Phi.from_pretrained("owner/phi").state_dict(), theirs.state_dict())
    assert asked == [("owner/phi", ["config.json", "*.safetensors", "model.safetensors.index.json"])]
    with pytest.raises(
        InputError, match=r'"owner/none": no such folder, and the hub gives no such model: cannot reach'
    ):
        Phi.from_pretrained("owner/none")


def test_saving_over_a_checkpoint_leaves_one_and_what_else_was_there(tmp_path: Path) -> None:
    first, second = (Phi.from_pretrained(hf.saved(tmp_path / str(seed), seed)[1]) for seed in (1, 2))
    folder = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (folder / "tokenizer.json").write_text("{}")
    for model, size in ((first, 60_000), (second, 90_000), (first, 10**9), (second, 60_000), (first, 60_000)):
        model.save_pretrained(folder, max_shard_bytes=size)
        assert same(Phi.from_pretrained(folder).state_dict(), model.state_dict())
        assert same(weights(folder), model.state_dict()), "files of an older checkpoint are left"
        assert (folder / "tokenizer.json").read_text() == "{}"
    assert not [name for name in tree(folder) if name.startswith(".")]
    Phi.from_pretrained(folder).save_pretrained(folder)  # onto the files it was read from
    assert same(weights(folder), first.state_dict())
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((folder / "tokenizer.json").stat().st_mode), path


class Killed(BaseException):
    """Stands for a process that ends at once."""


@pytest.mark.parametrize("sharded", [False, True])
def test_a_write_that_ends_midway_never_leaves_a_mixture(
    sharded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before each rename in turn: the old model, the new one, or an error; and no new folder at all."""
    old, new = (Phi.from_pretrained(hf.saved(tmp_path / str(seed), seed)[1]) for seed in (1, 2))
    size = 60_000 if sharded else 10**9
    real = os.replace
    outcomes = []
    for stop in range(20):
        folder = tmp_path / f"out{stop}"
        old.save_pretrained(folder, max_shard_bytes=size)
        left = stop

        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            real(source, target)

        monkeypatch.setattr(checkpoint.os, "replace", replace)
        try:
            new.save_pretrained(folder, max_shard_bytes=size)
        except Killed:
            finished = False
        else:
            finished = True
        monkeypatch.setattr(checkpoint.os, "replace", real)
        try:
            found = Phi.from_pretrained(folder).state_dict()
            outcomes.append("old" if same(found, old.state_dict()) else "new")
            assert same(found, old.state_dict()) or same(found, new.state_dict())
        except InputError:
            outcomes.append("error")
        if finished:
            break
    assert finished and outcomes[-1] == "new"
    assert "error" in outcomes if sharded else outcomes[0] == "old"

    monkeypatch.setattr(checkpoint, "_settle", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        new.save_pretrained(tmp_path / "absent", max_shard_bytes=size)
    assert not (tmp_path / "absent").exists() and not list(tmp_path.glob(".absent*"))


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    model = Phi(PhiConfig.tiny(vocab_size=50, rows=64, end_of_text=None))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; give a folder"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(InputError, match="max_shard_bytes 0"):
        model.save_pretrained(tmp_path / "new", max_shard_bytes=0)
    model.lm_head.half()
    with pytest.raises(InputError, match="parameters are of several types"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
