"""GELU with bias, the branch around it, and product, bias and GELU in one kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels import mlp as ops
from tests.kernels.support import DTYPES, judge, normal


def weights(rows: int, width: int, inner: int, out: int) -> list[torch.Tensor]:
    shapes = ((rows, width), (inner, width), (inner,), (out, inner), (out,))
    return [normal(*shape, seed=seed, scale=0.5) for seed, shape in enumerate(shapes)]


def test_references_are_pytorch_s() -> None:
    x, weight1, bias1, weight2, bias2 = weights(5, 4, 6, 3)
    inner = F.gelu(x @ weight1.t() + bias1, approximate="tanh")
    for one in (ops.mlp, ops.reference):
        torch.testing.assert_close(one(x, weight1, bias1, weight2, bias2), inner @ weight2.t() + bias2)
    for one in (ops.linear_bias_gelu, ops.linear_bias_gelu_reference):
        torch.testing.assert_close(one(x, weight1, bias1), inner)
    for one in (ops.bias_gelu, ops.bias_gelu_reference):
        torch.testing.assert_close(one(x @ weight1.t(), bias1), inner)


def test_gradients_of_the_reference_path() -> None:
    leaves = [one.requires_grad_() for one in weights(3, 4, 5, 2)]
    assert torch.autograd.gradcheck(ops.mlp, leaves)
    assert torch.autograd.gradcheck(ops.linear_bias_gelu, leaves[:3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 257), (19, 1), (9, 256), (33, 300), (2, 5, 64)])
def test_bias_gelu_against_the_reference(
    shape: tuple[int, ...], dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [normal(*shape, scale=3), normal(shape[-1], seed=1)]
    judge(ops.bias_gelu, ops.bias_gelu_reference, inputs, dtype, monkeypatch)


@given(rows=st.integers(1, 40), width=st.integers(1, 300), scale=st.sampled_from([1e-3, 1.0, 30.0]))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape_and_size(
    rows: int, width: int, scale: float, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [normal(rows, width, scale=scale), normal(width, seed=1)]
    judge(ops.bias_gelu, ops.bias_gelu_reference, inputs, torch.float32, monkeypatch)


def test_far_tails_are_the_identity_and_zero(interpreter: None) -> None:
    x = torch.tensor([[-6e4, -100.0, 0.0, 100.0, 6e4]], dtype=torch.float16, requires_grad=True)
    y = ops.bias_gelu(x, torch.zeros(5))
    assert y.tolist() == [[0.0, 0.0, 0.0, 100.0, x[0, 4].item()]]
    assert torch.autograd.grad(y.float().sum(), x)[0].tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mlp_against_the_reference(dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(ops.mlp, ops.reference, weights(17, 24, 40, 12), dtype, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "out"), [(1, 1, 1), (1, 64, 17), (130, 70, 140), (65, 33, 1)])
def test_linear_bias_gelu_against_the_reference(
    rows: int, width: int, out: int, dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = weights(rows, width, out, 1)[:3]
    judge(ops.linear_bias_gelu, ops.linear_bias_gelu_reference, inputs, dtype, monkeypatch)


def test_torch_compile_and_opcheck() -> None:
    leaves = [one.float().requires_grad_() for one in weights(3, 4, 6, 5)]
    x, weight1, bias1 = leaves[:3]
    torch.library.opcheck(torch.ops.phi_fast.bias_gelu.default, (x @ weight1.t(), bias1))
    torch.library.opcheck(torch.ops.phi_fast.linear_bias_gelu.default, (x, weight1, bias1))
    for function, given_ in ((ops.mlp, leaves), (ops.linear_bias_gelu, leaves[:3])):
        one, other = torch.compile(function, backend="aot_eager", fullgraph=True)(*given_), function(*given_)
        torch.testing.assert_close(one, other)
        for a, b in zip(*(torch.autograd.grad(y.sum(), given_) for y in (one, other)), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 4, dtype=torch.int8)}, "x: expected .*got torch.int8"),
        ({"x": torch.zeros(4, 2).t()}, "x: expected a contiguous tensor"),
        ({"x": torch.zeros(0, 4)}, "x: expected at least one row"),
        ({"weight1": torch.zeros(6, 5)}, r"weight1: expected shape \(any, 4\)"),
        ({"weight1": torch.zeros(6, 4).half()}, "weight1: expected torch.float32"),
        ({"bias1": torch.zeros(5)}, r"bias1: expected shape \(6\)"),
        ({"weight2": torch.zeros(3, 7)}, r"weight2: expected shape \(any, 6\)"),
        ({"bias2": torch.zeros(3, device="meta")}, "bias2: expected a tensor on cpu"),
    ],
)
def test_bad_input_is_named(change: dict[str, torch.Tensor], message: str) -> None:
    shapes = {"x": (2, 4), "weight1": (6, 4), "bias1": (6,), "weight2": (3, 6), "bias2": (3,)}
    good = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(InputError, match=message):
        ops.mlp(**(good | change))


def test_bad_bias_is_named() -> None:
    with pytest.raises(InputError, match=r"bias: expected shape \(4\), got \(3\)"):
        ops.bias_gelu(torch.zeros(2, 4), torch.zeros(3))
