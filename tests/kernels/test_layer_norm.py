"""LayerNorm: the reference against PyTorch's, the kernels against the reference."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels.layer_norm import MAX_WIDTH, layer_norm, reference
from tests.kernels.support import DTYPES, judge, normal


def arguments(rows: int, width: int) -> list[torch.Tensor]:
    return [normal(rows, width) * 2 + 1, normal(width, seed=1) + 1, normal(width, seed=2)]


def test_reference_is_pytorch_s() -> None:
    x, weight, bias = arguments(7, 33)
    for one in (layer_norm, reference):
        torch.testing.assert_close(one(x, weight, bias), F.layer_norm(x, (33,), weight, bias, 1e-5))


def test_gradients_of_the_reference_path() -> None:
    leaves = [one.requires_grad_() for one in arguments(3, 5)]
    assert torch.autograd.gradcheck(layer_norm, leaves)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 64), (3, 1), (5, 37), (9, 256), (2, 1030), (37, 128)])
def test_kernels_against_the_reference(
    rows: int, width: int, dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(layer_norm, reference, arguments(rows, width), dtype, monkeypatch)


@given(rows=st.integers(1, 12), width=st.integers(1, 300), offset=st.floats(-8, 8), eps=st.sampled_from([1e-5, 1e-2]))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_and_mean(
    rows: int, width: int, offset: float, eps: float, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = arguments(rows, width)
    one, other = (functools.partial(function, eps=eps) for function in (layer_norm, reference))
    judge(one, other, [x + offset, weight, bias], torch.float32, monkeypatch)


def test_rows_of_a_slice_and_mixed_dtypes(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = normal(6, 100).half()
    weight, bias = (one.float() for one in arguments(1, 40)[1:])
    x = wide[::2, 10:50]
    assert not x.is_contiguous()
    result = layer_norm(x, weight, bias)
    assert result.dtype == torch.float16 and result.is_contiguous()
    torch.testing.assert_close(result, reference(x, weight, bias), atol=2e-3, rtol=1e-3)
    leaves = [wide.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    slopes = torch.autograd.grad(layer_norm(wide[::2, 10:50], weight, bias).float().square().sum(), leaves)
    plain = torch.autograd.grad(reference(wide[::2, 10:50], weight, bias).float().square().sum(), leaves)
    assert [one.dtype for one in slopes] == [torch.float16, torch.float32, torch.float32]
    for one, other in zip(slopes, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2, rtol=1e-2)


def test_upstream_gradients_of_any_stride(interpreter: None) -> None:
    x, weight, bias = (one.float().requires_grad_() for one in arguments(4, 6))
    y = layer_norm(x, weight, bias)
    for upstream in (torch.ones(()).expand(4, 6), normal(6, 4).float().t()):
        slopes = torch.autograd.grad(y, (x, weight, bias), upstream, retain_graph=True)
        plain = torch.autograd.grad(reference(x, weight, bias), (x, weight, bias), upstream)
        for one, other in zip(slopes, plain, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_leading_dimensions_are_kept() -> None:
    x = normal(2, 3, 4)
    assert layer_norm(x, x[0, 0], x[0, 1]).shape == x.shape
    assert layer_norm(x[0, 0], x[0, 0], x[0, 1]).shape == (4,)


def test_torch_compile_and_opcheck() -> None:
    x, weight, bias = (one.float().requires_grad_() for one in arguments(3, 8))
    torch.library.opcheck(torch.ops.phi_fast.layer_norm.default, (x, weight, bias, 1e-5))
    compiled = torch.compile(layer_norm, backend="aot_eager", fullgraph=True)
    one, other = compiled(x, weight, bias), layer_norm(x, weight, bias)
    assert torch.equal(one, other)
    for left, right in zip(*(torch.autograd.grad(y.sum(), (x, weight, bias)) for y in (one, other)), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 4, dtype=torch.int32)}, "x: expected .*got torch.int32"),
        ({"x": torch.zeros(4, 2).t()}, "x: expected stride 1"),
        ({"x": torch.zeros(0, 4)}, "x: expected at least one row"),
        ({"x": torch.zeros(2, MAX_WIDTH + 1)}, "x: expected rows of at most 8192 columns"),
        ({"weight": torch.zeros(5)}, r"weight: expected shape \(4\)"),
        ({"bias": torch.zeros(4, device="meta")}, "bias: expected a tensor on cpu"),
        ({"eps": 0.0}, "eps: expected a positive number, got 0.0"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good = {"x": torch.zeros(2, 4), "weight": torch.zeros(4), "bias": torch.zeros(4)}
    with pytest.raises(InputError, match=message):
        layer_norm(**(good | change))  # type: ignore[arg-type]
