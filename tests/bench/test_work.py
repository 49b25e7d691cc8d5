"""Operations and bytes, counted by hand."""

from __future__ import annotations

import pytest
import torch

from phi_fast.bench.attentions import _ends
from phi_fast.bench.catalogue import OPS
from phi_fast.bench.limits import Limits, measure
from phi_fast.bench.ops import Draw, Sizes, Work

HALF = torch.float16
BY_HAND: list[tuple[str, Sizes, str, float, float]] = [
    # x and y of 2 x 3, weight and bias of 3, two bytes each; then dy, x, dx, weight, dweight, dbias
    ("layer_norm", {"rows": 2, "width": 3}, "forward", 0, (6 + 6 + 3 + 3) * 2),
    ("layer_norm", {"rows": 2, "width": 3}, "backward", 0, (6 + 6 + 6 + 3 + 3 + 3) * 2),
    ("residual", {"rows": 2, "width": 3, "dropout": 0.1}, "forward", 0, 4 * 6 * 2),
    ("residual", {"rows": 2, "width": 3, "dropout": 0.1}, "backward", 0, 3 * 6 * 2),
    ("residual", {"rows": 2, "width": 3, "dropout": 0.0}, "backward", 0, 0),
    # 4 tokens of 2 heads of 8: q and k, in and out; tables of 4 x 2 cosines and sines in fp32
    ("rotary", {"tokens": 4, "length": 4, "heads": 2, "head_dim": 8, "rotary_dim": 4}, "forward", 0, 4 * 64 * 2 + 64),
    ("bias_gelu", {"rows": 2, "width": 3}, "forward", 0, (6 + 6 + 3) * 2),
    ("bias_gelu", {"rows": 2, "width": 3}, "backward", 0, (6 + 6 + 6 + 3 + 3) * 2),
    ("linear_bias_gelu", {"rows": 2, "width": 3, "out": 5}, "forward", 2 * 30, (6 + 15 + 5 + 10) * 2),
    ("linear_bias_gelu", {"rows": 2, "width": 3, "out": 5}, "backward", 4 * 30, (10 + 6 + 15 + 5 + 6 + 15 + 5) * 2),
    ("mlp", {"rows": 2, "width": 3, "inner": 5}, "forward", 2 * 2 * 30, (6 + 15 + 5 + 15 + 3 + 6) * 2),
    # dy, x, dx; both weights and their gradients; bias1 and its gradient; the gradient of bias2
    ("mlp", {"rows": 2, "width": 3, "inner": 5}, "backward", 4 * 2 * 30, (3 * 6 + 4 * 15 + 2 * 5 + 3) * 2),
    ("cross_entropy", {"rows": 2, "width": 3, "vocabulary": 7}, "forward", 2 * 42, (6 + 21 + 7) * 2 + 16 + 4),
    ("cross_entropy", {"rows": 2, "width": 3, "vocabulary": 7}, "both", 6 * 42, 2 * (6 + 21 + 7) * 2 + 16 + 4),
    # 8 tokens: 4 hidden² + 2 hidden mlp weights, seven vectors of hidden and one of mlp; scores of 8 x 4 by hidden;
    # four cosines and sines
    (
        *("block", {"tokens": 8, "length": 4, "hidden": 2, "heads": 1, "mlp": 3}, "forward"),
        2 * 8 * (16 + 12) + 2 * 8 * 4 * 2,
        (16 + 16 + 28 + 14 + 3) * 2 + 16,
    ),
    # 2 rows x 3 heads, half of 4 x 4 scores, 8 wide, two products of 2 operations
    ("attention", {"length": 4, "head_dim": 8, "batch": 2, "heads": 3}, "forward", 6 * 8 * 8 * 4, 4 * 192 * 2),
    ("attention", {"length": 4, "head_dim": 8, "batch": 2, "heads": 3}, "backward", 6 * 8 * 8 * 10, 8 * 192 * 2),
]


@pytest.mark.parametrize(("name", "sizes", "phase", "flops", "moved"), BY_HAND)
def test_work_is_what_one_counts_by_hand(name: str, sizes: Sizes, phase: str, flops: float, moved: float) -> None:
    works = OPS[name].works(sizes, HALF)
    assert works is not None
    assert works[phase] == Work(flops, moved)


def test_both_passes_are_forward_and_backward() -> None:
    works = OPS["attention"].works({"length": 4, "head_dim": 8}, HALF)
    assert works is not None and works["both"] == works["forward"] + works["backward"]
    assert works["both"].flops == 3.5 * works["forward"].flops


def test_packed_attention_counts_the_squares_of_documents() -> None:
    sizes = {"documents": 3, "tokens": 40, "head_dim": 16, "heads": 2}
    ends = _ends(40, 3)
    assert ends[0] == 0 and ends[-1] == 40 and len(ends) == 4
    squares = sum((ends[at + 1] - ends[at]) ** 2 for at in range(3))
    works = OPS["attention_packed"].works(sizes, HALF)
    assert works is not None and works["forward"] == Work(2 * squares * 2 * 16, 4 * 40 * 2 * 16 * 2)


@pytest.mark.parametrize("name", list(OPS))
def test_bytes_are_those_of_the_tensors(name: str) -> None:
    one = OPS[name]
    for case in one.interpreted:
        args = one.inputs(case.sizes, Draw(HALF, "cpu", 1))
        results = one.eager(*args)
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        tensors += [results] if isinstance(results, torch.Tensor) else list(results)
        works = one.works(case.sizes, HALF)
        assert works is not None
        spare = 200  # seeds, boundaries of documents
        assert 0 <= sum(x.numel() * x.element_size() for x in tensors) - works["forward"].bytes <= spare


@pytest.mark.parametrize("name", list(OPS))
def test_inputs_are_the_same_for_the_same_seed_and_never_zeros(name: str) -> None:
    one = OPS[name]
    sizes = one.interpreted[0].sizes
    first, second, other = ([*one.inputs(sizes, Draw(HALF, "cpu", seed))] for seed in (1, 1, 2))
    assert any(x.requires_grad for x in first if isinstance(x, torch.Tensor))
    for left, right, third in zip(first, second, other, strict=True):
        if isinstance(left, torch.Tensor):
            assert torch.equal(left, right)
            if left.requires_grad:
                assert (left == 0).float().mean() < 0.01 and not torch.equal(left, third)


def test_the_limit_is_the_longer_of_products_and_bytes() -> None:
    limits = Limits(1000.0, {"fp16": 100.0})  # GB/s, TFLOP/s
    assert limits.milliseconds(Work(1e12, 1e9), "fp16") == pytest.approx(10)
    assert limits.milliseconds(Work(1e12, 1e11), "fp16") == pytest.approx(100)
    assert str(limits) == "copy 1,000 GB/s; matrix products fp16 100.0 TFLOP/s"


def test_limits_of_this_machine() -> None:
    limits = measure("cpu")
    assert 0.1 < limits.copy_gbs < 10_000
    assert set(limits.matmul_tflops) == {"fp16", "bf16", "fp32"}
    assert all(0 < rate < 1000 for rate in limits.matmul_tflops.values())
