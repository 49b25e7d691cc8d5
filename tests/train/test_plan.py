"""The plan: the paper's run, memory by hand and by what autograd saves, and what helps where it does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from phi_fast.errors import InputError
from phi_fast.train.gpus import GPUS, find_gpu
from phi_fast.train.memory import activation_bytes, memory
from phi_fast.train.plan import plan
from phi_fast.train.recipes import read_recipe
from phi_fast.train.settings import Settings

BASE = read_recipe("phi_1_base")


def test_the_papers_run_is_reproduced() -> None:
    """770 GPU-hours, under 4 days on 8 A100s: at half the peak the plan says 760."""
    found = plan(BASE, GPUS["a100"], 8, mfu=0.5, price=2.0)
    assert found.tokens == 50_331_648_000
    assert found.gpu_hours == pytest.approx(770, rel=0.02)
    assert found.gpu_hours == pytest.approx(8.48e9 * found.tokens / (0.5 * 312e12) / 3600, rel=1e-3)
    assert found.days < 4
    assert found.tokens_per_s / 8 == pytest.approx(18_400, rel=0.01)
    assert found.cost == pytest.approx(2 * found.gpu_hours)
    assert plan(BASE, GPUS["a100"], 8).cost is None
    assert found.missing == 0 and found.helps == []


def test_what_stays_in_memory_is_sixteen_bytes_a_parameter() -> None:
    found = memory(BASE, 8)
    assert found.parameters + found.gradients + found.moments == 16 * 1_418_270_720
    # of each of 24 layers and 8 x 2,048 tokens: x in float32, Kept of 26 hidden + 4 heads + 8, bounds of 8
    assert activation_bytes(BASE) == 4 * 2048 + 26 * 2048 + 4 * 32 + 8 + 8
    assert found.activations == 8 * 2048 * (24 * activation_bytes(BASE) + (4 + 4 + 2) * 2048)
    assert found.total == sum(found)


def test_sharding_divides_what_it_divides_and_gradients_only_where_they_are_not_added_up() -> None:
    shared = memory(read_recipe("phi_1_base", ["strategy=fsdp"]), 8)
    assert (shared.parameters, shared.moments) == (4 * 1_418_270_720 / 8, 8 * 1_418_270_720 / 8)
    assert shared.gradients == 4 * 1_418_270_720  # sixteen micro-batches a step
    assert memory(read_recipe("phi_1_base", ["strategy=fsdp", "batch=64"]), 8).gradients == shared.gradients / 8


def test_what_does_not_fit_is_said_with_what_helps() -> None:
    small = plan(BASE, GPUS["a100-40gb"], 8)
    assert small.missing == pytest.approx(small.memory.total - 40e9) and small.missing > 10e9
    assert [said for said, _ in small.helps] == ["--set micro=4", "--set checkpointing=true", "--set strategy=fsdp"]
    for said, taken in small.helps:
        again = plan(read_recipe("phi_1_base", [said.removeprefix("--set ")]), GPUS["a100-40gb"], 8)
        assert again.missing == 0 and again.memory.total == taken
    tight = plan(BASE, GPUS["l4"], 8).helps
    assert tight and all(said.count("--set") == 2 and taken <= 24e9 for said, taken in tight)
    assert plan(BASE, GPUS["l4"], 1).helps == []


@pytest.mark.parametrize(
    ("changes", "count", "more", "said"),
    [
        ([], 0, {}, "count 0"),
        ([], 3, {}, "no multiple of micro, 8, times 3 GPUs"),
        (["strategy=none"], 2, {}, "strategy 'none' on 2 GPUs"),
        ([], 8, {"mfu": 50.0}, "mfu 50.0"),
        ([], 8, {"price": 0.0}, "price 0.0"),
    ],
)
def test_numbers_that_are_none_are_refused(changes: list[str], count: int, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(read_recipe("phi_1_base", changes), GPUS["h200"], count, **more)


def test_gpus_are_found_however_they_are_spelt() -> None:
    assert find_gpu("RTX 4090") is find_gpu("rtx_4090") is GPUS["rtx-4090"]
    assert all(one.peak > 0 and one.memory > 0 and one.source for one in GPUS.values())
    with pytest.raises(InputError, match='no GPU "h2000": is "h200" meant'):
        find_gpu("h2000")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kernels", ["fused", "plain"])
def test_activations_are_what_autograd_saves(precision: str, kernels: str) -> None:
    """Two blocks more, on the CPU with the kernels' references: what is saved more is what was reckoned."""
    torch = pytest.importorskip("torch")
    from phi_fast.model import FUSED, PLAIN, Phi
    from phi_fast.train.step import compute_in

    saved = {}
    for layers in (2, 4):
        sizes = {"rows": 96, "vocab_size": 96, "hidden": 64, "mlp": 256, "heads": 2, "rotary_dim": 16, "end_of_text": 0}
        settings = Settings(
            model="tiny", fields=sizes | {"layers": layers}, precision=precision, kernels=kernels, length=128, batch=2,
            micro=2,
        )  # fmt: skip
        model = Phi(settings.config(), ops=FUSED if kernels == "fused" else PLAIN).train()
        own = {one.untyped_storage().data_ptr() for one in model.parameters()}
        held: dict[int, int] = {}
        alive = []

        def pack(one: Any, own: Any = own, held: Any = held, alive: Any = alive) -> Any:
            storage = one.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
                alive.append(one)
            return one

        ids = torch.randint(0, 96, (2, 128))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one), compute_in(ids.device, precision):
            loss = model(ids, labels=ids).loss
        assert loss.isfinite()
        saved[layers] = sum(held.values())
    a_token = (saved[4] - saved[2]) / 2 / 256
    if (precision, kernels) == ("bf16", "plain"):  # autocast's copies of the weights, which `weights_in_halves` counts
        a_token -= 2 * (4 * 64 * 64 + 2 * 64 * 256) / 256
    assert a_token == pytest.approx(activation_bytes(settings), abs=8)
