"""Generation with the cache against the model without one, and against transformers' greedy search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phi_fast.errors import InputError
from phi_fast.model import Phi, PhiConfig
from tests.model import hf


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Phi]:
    theirs, folder = hf.saved(tmp_path_factory.mktemp("generate") / "model")
    hf.edit_config(folder, {"eos_token_id": None})
    return theirs, Phi.from_pretrained(folder)


def without_cache(model: Phi, prompt: list[int], count: int) -> list[int]:
    """The definition: the whole text through the model for each token."""
    ids = list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids])).logits[0, -1, : model.config.vocab_size]
        ids.append(int(logits.argmax()))
        if ids[-1] == model.config.end_of_text:
            break
    return ids[len(prompt) :]


def with_end(model: Phi, end: int | None, **changes: Any) -> Phi:
    other = Phi(PhiConfig(**{**model.config.__dict__, "end_of_text": end, **changes}))
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_greedy_is_that_of_transformers(pair: tuple[Any, Phi]) -> None:
    theirs, ours = pair
    ids = hf.tokens(theirs, 4, 10)
    wanted = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    found = ours.generate(ids, 60)
    assert found == wanted[:, 10:].tolist()
    assert len({token for row in found for token in row}) > 10


def test_the_cache_changes_no_token_of_prompts_of_any_lengths(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    prompts = [hf.tokens(pair[0], 1, length, seed=length)[0].tolist() for length in (1, 30, 2, 17, 30)]
    found = ours.generate(prompts, 40)
    assert found == [without_cache(ours, prompt, 40) for prompt in prompts]
    assert found == [ours.generate([prompt], 40)[0] for prompt in prompts]


def test_it_stops_at_the_end_of_text_row_by_row(pair: tuple[Any, Phi]) -> None:
    theirs, ours = pair
    prompts = hf.tokens(theirs, 6, 8).tolist()
    free = ours.generate(prompts, 30)
    end = free[0][4]
    found = with_end(ours, end).generate(prompts, 30)
    for row, whole in zip(found, free, strict=True):
        assert row == (whole[: whole.index(end) + 1] if end in whole else whole)
    assert len(found[0]) <= 5 and max(map(len, found)) > len(found[0])


def test_padding_rows_are_never_generated(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    limited = with_end(ours, None, vocab_size=10)
    assert max(limited.generate([[1, 2, 3]], 50)[0]) < 10
    generator = torch.Generator().manual_seed(0)
    assert max(limited.generate([[1, 2, 3]], 50, temperature=5.0, generator=generator)[0]) < 10


def test_samples_have_the_models_probabilities(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    logits = ours(torch.tensor([[5, 6, 7]])).logits[0, -1]
    rows = 20_000
    generator = torch.Generator().manual_seed(0)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.6)):
        wanted = (logits / temperature).softmax(-1)
        if top_p < 1:
            ordered, order = wanted.sort(descending=True)
            kept = order[: int((ordered.cumsum(0) < top_p).sum()) + 1]
            wanted = torch.zeros_like(wanted).index_copy(0, kept, wanted[kept])
            wanted = wanted / wanted.sum()
        drawn = ours.generate([[5, 6, 7]] * rows, 1, temperature=temperature, top_p=top_p, generator=generator)
        shares = torch.tensor(drawn).flatten().bincount(minlength=96) / rows
        torch.testing.assert_close(shares, wanted, atol=0.015, rtol=0)
        assert not shares[wanted == 0].any()


def test_the_same_seed_gives_the_same_samples(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    first, second, other = (
        ours.generate([[1, 2]], 20, temperature=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert first == second != other


def test_the_mode_comes_back_and_dropout_is_off(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    model = with_end(ours, None, residual_dropout=0.5, attention_dropout=0.5).train()
    assert model.generate([[1, 2]], 20) == ours.generate([[1, 2]], 20)
    assert model.training


def test_to_the_last_position(pair: tuple[Any, Phi]) -> None:
    _, ours = pair
    prompt = hf.tokens(pair[0], 1, 120)[0].tolist()
    assert ours.generate([prompt], 9) == [without_cache(ours, prompt, 9)]
    with pytest.raises(InputError, match="128 positions, so give up to 9"):
        ours.generate([prompt], 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pair: tuple[Any, Phi], dtype: torch.dtype) -> None:
    model = with_end(pair[1], None).to(dtype)
    found = model.generate([[1, 2, 3], [4]], 12)
    assert [len(row) for row in found] == [12, 12]
    wanted = model(torch.tensor([[1, 2, 3]])).logits[0, -1].float()
    assert wanted.max() - wanted[found[0][0]] < 0.05  # half precision may break a near tie the other way


@pytest.mark.parametrize(
    ("prompts", "count", "more", "message"),
    [
        ([], 5, {}, "prompts: give one or more"),
        ([[1], []], 5, {}, "prompt 1 is empty"),
        ([[1, 96]], 5, {}, "prompt 0 holds 96: give tokens from 0 to 95"),
        (torch.ones(3, dtype=torch.int64), 5, {}, r"prompts of torch.int64, shape \(3,\)"),
        (torch.ones(1, 3), 5, {}, "prompts of torch.float32"),
        ([[1]], 0, {}, "max_new_tokens 0: give 1 or more"),
        ([[1]], 5, {"temperature": -1.0}, "temperature -1.0"),
        ([[1]], 5, {"temperature": float("nan")}, "temperature nan"),
        ([[1]], 5, {"top_p": 0.0}, "top_p 0.0: give more than 0, up to 1"),
    ],
)
def test_wrong_arguments_are_named(
    pair: tuple[Any, Phi], prompts: Any, count: int, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pair[1].generate(prompts, count, **more)


def test_nothing_but_the_folder_is_needed(tmp_path: Path) -> None:
    model = Phi(PhiConfig.tiny(vocab_size=50, rows=64, end_of_text=None, max_positions=32)).eval()
    model.save_pretrained(tmp_path / "model")
    assert Phi.from_pretrained(tmp_path / "model").generate([[1, 2]], 10) == model.generate([[1, 2]], 10)
