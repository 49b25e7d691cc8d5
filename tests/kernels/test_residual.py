"""The residual sum with dropout: masks, the plain sum, the kernels against the reference."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels.residual import masks, reference, residual
from tests.kernels.support import DTYPES, judge, normal

SEED = torch.tensor([1234567890123, 42])


def arguments(*shape: int) -> list[torch.Tensor]:
    return [normal(*shape, seed=seed) for seed in range(3)]


def test_without_dropout_it_is_the_sum() -> None:
    x, one, other = arguments(5, 7)
    assert torch.equal(residual(x, one, other), x + one + other)
    assert torch.equal(
        residual(x.half(), one.half(), other.half()), (x.half().float() + one.half() + other.half()).half()
    )


def test_what_stays_is_scaled_and_what_goes_is_gone() -> None:
    x, one, other = arguments(40, 50)
    keep_one, keep_other = masks(x.shape, SEED, 0.25)
    assert abs(keep_one.double().mean() - 0.75) < 0.05 and abs(keep_other.double().mean() - 0.75) < 0.05
    both = (keep_one & keep_other).double().mean()
    assert abs(both - 0.75**2) < 0.05, "the branches' masks must not follow each other"
    expected = x + keep_one * one / 0.75 + keep_other * other / 0.75
    torch.testing.assert_close(residual(x, one, other, 0.25, SEED), expected)


def test_the_mean_over_seeds_is_the_sum() -> None:
    x, one, other = arguments(4)
    torch.manual_seed(0)
    total = torch.stack([residual(x, one, other, 0.5) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(total, x + one + other, atol=0.15, rtol=0)


def test_seeds_and_pytorch_s_generator() -> None:
    x, one, other = arguments(200)
    torch.manual_seed(1)
    first, second = residual(x, one, other, 0.5), residual(x, one, other, 0.5)
    torch.manual_seed(1)
    assert torch.equal(residual(x, one, other, 0.5), first) and not torch.equal(first, second)
    moved = SEED + torch.tensor([0, 1])
    assert not torch.equal(residual(x, one, other, 0.5, SEED), residual(x, one, other, 0.5, moved))


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_of_the_reference_path(p: float) -> None:
    leaves = [one.requires_grad_() for one in arguments(3, 4)]
    assert torch.autograd.gradcheck(functools.partial(residual, p=p, seed=SEED), leaves)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("shape", [(1,), (3, 1), (7, 33), (2, 3, 1024)])
def test_kernels_against_the_reference(
    shape: tuple[int, ...], p: float, dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (functools.partial(function, p=p, seed=SEED) for function in (residual, reference))
    judge(one, other, arguments(*shape), dtype, monkeypatch)


@given(size=st.integers(1, 2500), p=st.floats(0, 0.95), key=st.integers(0, 2**63 - 1), offset=st.integers(0, 2**63 - 1))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_are_the_reference_s_to_the_bit(size: int, p: float, key: int, offset: int, interpreter: None) -> None:
    seed = torch.tensor([key, offset])
    zero, one, other = torch.zeros(size), torch.ones(size, requires_grad=True), torch.ones(size, requires_grad=True)
    slopes = [
        torch.autograd.grad(function(zero, one, other, p, seed).sum(), (one, other))
        for function in (residual, reference)
    ]
    for left, right in zip(*slopes, strict=True):
        assert torch.equal(left != 0, right != 0)


def test_upstream_gradients_of_any_stride(interpreter: None) -> None:
    x, one, other = (part.float().requires_grad_() for part in arguments(4, 6))
    slopes = torch.autograd.grad(residual(x, one, other, 0.5, SEED).sum(), (x, one, other))
    plain = torch.autograd.grad(reference(x, one, other, 0.5, SEED).sum(), (x, one, other))
    assert all(torch.equal(left, right) for left, right in zip(slopes, plain, strict=True))


def test_torch_compile_and_opcheck() -> None:
    x, one, other = (part.float().requires_grad_() for part in arguments(3, 8))
    for p in (0.0, 0.5):
        torch.library.opcheck(torch.ops.phi_fast.residual.default, (x, one, other, SEED, p))
    compiled = torch.compile(residual, backend="aot_eager", fullgraph=True)
    left, right = compiled(x, one, other, 0.5, SEED), residual(x, one, other, 0.5, SEED)
    assert torch.equal(left, right)
    for a, b in zip(*(torch.autograd.grad(y.sum(), (x, one, other)) for y in (left, right)), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(compiled(x, one, other, 0.5), compiled(x, one, other, 0.5)), "a seed must not be frozen in"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 2).t()}, "x: expected a contiguous tensor"),
        ({"x": torch.zeros(0)}, "x: expected at least one element"),
        ({"attention": torch.zeros(2, 5)}, r"attention: expected shape \(2, 4\), got \(2, 5\)"),
        ({"mlp": torch.zeros(2, 4).half()}, "mlp: expected torch.float32, got torch.float16"),
        ({"p": 1.0}, r"dropout: expected a probability in \[0, 1\)"),
        ({"seed": torch.zeros(2)}, "seed: expected torch.int64"),
        ({"seed": torch.zeros(2, dtype=torch.int64, device="meta")}, "seed: expected a tensor on cpu"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good = {name: torch.zeros(2, 4) for name in ("x", "attention", "mlp")}
    with pytest.raises(InputError, match=message):
        residual(**(good | change))  # type: ignore[arg-type]
