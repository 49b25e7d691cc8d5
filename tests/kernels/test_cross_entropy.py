"""The head with its loss: against PyTorch's cross-entropy, in chunks of any size, in halves without overflow."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels import cross_entropy as ops
from phi_fast.kernels.cross_entropy import linear_cross_entropy, reference
from tests.kernels.support import DTYPES, judge, normal


def arguments(rows: int, width: int, vocabulary: int) -> list[torch.Tensor]:
    return [normal(rows, width), normal(vocabulary, width, seed=1, scale=0.3), normal(vocabulary, seed=2)]


def labels_for(rows: int, vocabulary: int, ignored: int = 0) -> torch.Tensor:
    labels = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(rows))
    labels[:ignored] = -100
    return labels


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_it_is_pytorch_s(reduction: str) -> None:
    hidden, weight, bias = arguments(9, 5, 11)
    labels = labels_for(9, 11, ignored=2)
    for shift in (bias, None):
        expected = F.cross_entropy(F.linear(hidden, weight, shift), labels, reduction=reduction)
        for function in (linear_cross_entropy, reference):
            torch.testing.assert_close(function(hidden, weight, shift, labels, reduction=reduction), expected)


def test_another_ignored_label_and_a_given_number_of_items() -> None:
    hidden, weight, bias = arguments(6, 5, 4)
    labels = torch.tensor([0, 3, 3, 1, 2, 3])
    expected = F.cross_entropy(F.linear(hidden, weight, bias), labels, ignore_index=3, reduction="sum") / 7
    for items in (7, 7.0, torch.tensor(7)):
        for function in (linear_cross_entropy, reference):
            loss = function(hidden, weight, bias, labels, ignore_index=3, num_items=items)
            torch.testing.assert_close(loss, expected)


def test_leading_dimensions_are_rows() -> None:
    hidden, weight, bias = arguments(6, 5, 4)
    labels = labels_for(6, 4)
    one = linear_cross_entropy(hidden.view(2, 3, 5), weight, bias, labels.view(2, 3))
    assert torch.equal(one, linear_cross_entropy(hidden, weight, bias, labels)) and one.shape == ()


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 7, 100])
def test_gradients_of_the_reference_path(chunk_rows: int) -> None:
    leaves = [one.requires_grad_() for one in arguments(7, 3, 5)]
    labels = labels_for(7, 5, ignored=2)
    assert torch.autograd.gradcheck(
        lambda *given_: linear_cross_entropy(*given_, labels, chunk_rows=chunk_rows), leaves
    )
    assert torch.autograd.gradcheck(
        lambda *given_: linear_cross_entropy(*given_, None, labels, num_items=3.0, chunk_rows=chunk_rows), leaves[:2]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width", "vocabulary", "chunk_rows"),
    [(1, 1, 1, 1), (1, 8, 5000, 4), (9, 5, 33, 4), (16, 32, 1024, 5), (6, 16, 1500, 100)],
)
def test_kernels_against_the_reference(
    rows: int,
    width: int,
    vocabulary: int,
    chunk_rows: int,
    dtype: torch.dtype,
    interpreter: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = labels_for(rows, vocabulary, ignored=rows // 4)
    one, other = (
        functools.partial(function, labels=labels, chunk_rows=chunk_rows)
        for function in (linear_cross_entropy, reference)
    )
    judge(one, other, arguments(rows, width, vocabulary), dtype, monkeypatch)


@given(
    labels=st.lists(st.sampled_from([-100, *range(6)]), min_size=1, max_size=9),
    chunk_rows=st.integers(1, 10),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_labels_and_chunks(labels: list[int], chunk_rows: int, scale: float, interpreter: None) -> None:
    hidden, weight, bias = (one.float().requires_grad_() for one in arguments(len(labels), 4, 6))
    target = torch.tensor(labels)
    leaves, slopes = (hidden, weight, bias), []
    losses = [
        linear_cross_entropy(hidden * scale, weight, bias, target, reduction="sum", chunk_rows=chunk_rows),
        reference(hidden * scale, weight, bias, target, reduction="sum"),
    ]
    torch.testing.assert_close(*losses, atol=1e-5 * scale + 1e-5, rtol=1e-5)
    for loss in losses:
        slopes.append(torch.autograd.grad(loss, leaves))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5 * scale + 1e-5, rtol=1e-4)


@pytest.mark.parametrize("forced", ["reference", "triton"])
def test_many_items_do_not_underflow_and_sums_do_not_overflow_in_halves(
    forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divided by many items at once, gradients would leave what fp16 holds; summed in fp16, they would exceed it."""
    if forced == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", forced)
    hidden = torch.full((400, 2), 200.0, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(3, 2, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(400, dtype=torch.int64)
    loss = linear_cross_entropy(hidden, weight, None, labels, num_items=2**15)
    slope = torch.autograd.grad(loss * 2.0, weight)[0]  # the sum, 400 * 200 * (1/3 - 1), is beyond fp16
    torch.testing.assert_close(
        slope[0].double(), torch.tensor([-400 * 200 * 2 / 3 / 2**14] * 2).double(), rtol=2e-3, atol=0
    )
    tiny = torch.ones(1, 4, dtype=torch.float16, requires_grad=True)
    head = (torch.eye(4) * 1e-2).half()
    loss = linear_cross_entropy(tiny, head, None, torch.tensor([1]), num_items=2**24)
    slope = torch.autograd.grad(loss * 2**24, tiny)[0]
    torch.testing.assert_close(slope, torch.tensor([[0.0025, -0.0075, 0.0025, 0.0025]]).half(), rtol=5e-3, atol=0)


@pytest.mark.parametrize("forced", ["reference", "triton"])
def test_rows_that_do_not_count(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", forced)
    hidden, weight, bias = (one.float().requires_grad_() for one in arguments(3, 4, 5))
    with torch.no_grad():
        hidden[0] = float("nan")  # padding may hold anything
    loss = linear_cross_entropy(hidden, weight, bias, torch.tensor([-100, 1, 2]), reduction="sum")
    assert torch.autograd.grad(loss, hidden)[0][0].tolist() == [0.0] * 4 and math.isfinite(loss.item())
    nothing = torch.full((3,), -100)
    assert linear_cross_entropy(hidden, weight, bias, nothing, reduction="sum").item() == 0
    assert math.isnan(linear_cross_entropy(hidden, weight, bias, nothing).item())


def test_logits_of_minus_infinity_are_no_choice(interpreter: None) -> None:
    hidden, weight = torch.ones(1, 1), torch.zeros(5, 1, requires_grad=True)
    bias = torch.tensor([float("-inf"), 0.0, 0.0, float("-inf"), float("-inf")])
    loss = linear_cross_entropy(hidden, weight, bias, torch.tensor([1]))
    assert loss.item() == pytest.approx(math.log(2))
    slope = torch.autograd.grad(loss, weight)[0][:, 0]
    torch.testing.assert_close(slope, torch.tensor([0.0, -0.5, 0.5, 0.0, 0.0]))


def test_nothing_is_prepared_where_no_gradient_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, bias = arguments(3, 4, 5)
    assert not linear_cross_entropy(hidden, weight, bias, labels_for(3, 5)).requires_grad
    outputs = torch.ops.phi_fast.linear_cross_entropy(hidden, weight, bias, labels_for(3, 5), -100, 2, False)
    assert [one.numel() for one in outputs] == [1, 0, 0, 0]


def test_all_logits_never_stand_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inner = ops._loss_of_chunk
    monkeypatch.setattr(
        ops, "_loss_of_chunk", lambda logits, *rest: seen.append(logits.shape[0]) or inner(logits, *rest)
    )
    monkeypatch.setattr(ops, "_CHUNK_BYTES", 4 * 5 * 8)
    linear_cross_entropy(*arguments(10, 3, 5), labels_for(10, 5))
    assert seen == [4, 4, 2]


def test_torch_compile_and_opcheck() -> None:
    hidden, weight, bias = (one.float().requires_grad_() for one in arguments(5, 3, 7))
    labels = labels_for(5, 7)
    for shift in (bias, None):
        torch.library.opcheck(
            torch.ops.phi_fast.linear_cross_entropy.default, (hidden, weight, shift, labels, -100, 2, True)
        )
    compiled = torch.compile(linear_cross_entropy, backend="aot_eager", fullgraph=True)
    one, other = compiled(hidden, weight, bias, labels), linear_cross_entropy(hidden, weight, bias, labels)
    assert torch.equal(one, other)
    for a, b in zip(*(torch.autograd.grad(loss, (hidden, weight, bias)) for loss in (one, other)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3)}, r"hidden: expected \(\.\.\., width\), not empty"),
        ({"hidden": torch.zeros(0, 4)}, r"hidden: expected \(\.\.\., width\), not empty"),
        ({"hidden": torch.zeros(4, 2).t()}, "hidden: expected a contiguous tensor"),
        ({"weight": torch.zeros(5, 3)}, r"weight: expected shape \(any, 4\)"),
        ({"weight": torch.zeros(5, 4).half()}, "weight: expected torch.float32"),
        ({"bias": torch.zeros(4)}, r"bias: expected shape \(5\)"),
        ({"labels": torch.zeros(2)}, "labels: expected torch.int64, got torch.float32"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels: expected shape \(2\)"),
        ({"labels": torch.tensor([0, 5])}, "labels: expected 0 to 4, or ignore_index -100"),
        ({"labels": torch.tensor([0, -1])}, "labels: expected 0 to 4, or ignore_index -100"),
        ({"reduction": "none"}, "reduction: expected .*'none'"),
        ({"chunk_rows": 0}, "chunk_rows: expected at least 1"),
        ({"num_items": 0}, "num_items: expected a positive number"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good = {"hidden": torch.zeros(2, 4), "weight": torch.zeros(5, 4), "bias": None, "labels": torch.tensor([0, 1])}
    with pytest.raises(InputError, match=message):
        linear_cross_entropy(**(good | change))  # type: ignore[arg-type]
