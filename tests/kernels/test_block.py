"""The parallel block: its definition against the model's, the interpreted kernels against its definition, its edges."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from phi_fast.errors import InputError
from phi_fast.kernels import attention as attention_module
from phi_fast.kernels import block_steps, residual
from phi_fast.kernels.block import (
    BlockWeights,
    block,
    document_bounds,
    joined_,
    reference,
    residual_seed,
    row_bounds,
)
from phi_fast.kernels.block_weights import joint_view
from phi_fast.kernels.rotary import document_positions, rotary_tables
from phi_fast.model.config import PhiConfig
from phi_fast.model.operations import PLAIN, Places
from phi_fast.model.phi import Block
from tests.kernels.support import DTYPES, judge, normal

SEED = torch.tensor([1234567890123, 42])
HEADS, HIDDEN, MLP = 2, 64, 112


def inputs(batch: int, length: int, hidden: int = HIDDEN, mlp: int = MLP) -> list[Tensor]:
    """Draw x and the weights, fp64."""
    weights = []
    for index, name in enumerate(BlockWeights._fields):
        rows, columns = (mlp if name.startswith("fc1") else hidden), (mlp if name.startswith("fc2") else hidden)
        matrix = name.endswith("_weight") and name != "norm_weight"
        weights.append(normal(*((rows, columns) if matrix else (rows,)), seed=index, scale=0.15 if matrix else 0.3))
    weights[0] += 1.0
    return [normal(batch, length, hidden, seed=50), *weights]


def call(function: Any, rotary_dim: int = 16, places: int = 40, heads: int = HEADS, **options: Any) -> Any:
    """Make `function` (block or reference) one of x and the weights alone."""
    cos, sin = rotary_tables(places, rotary_dim)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        out: Tensor = function(x, BlockWeights(*weights), cos, sin, heads=heads, **options)
        return out

    return run


def gradients(function: Any, data: list[Tensor]) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in data]
    out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, normal(*out.shape, seed=99).to(out.dtype))]


def assert_same(left: list[Tensor], right: list[Tensor]) -> None:
    for name, one, other in zip(("out", "x", *BlockWeights._fields), left, right, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other), name


def test_the_definition_is_the_model_s_block() -> None:
    torch.manual_seed(0)
    config = PhiConfig.tiny(hidden=HIDDEN, heads=HEADS, mlp=MLP, attention_dropout=0.0, residual_dropout=0.0)
    module = Block(config).double()
    names = [
        "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense",
        "mlp.fc1", "mlp.fc2",
    ]  # fmt: skip
    weights = [getattr(module.get_submodule(name), part) for name in names for part in ("weight", "bias")]
    x = normal(2, 11, HIDDEN).requires_grad_()
    places = PLAIN.prepare(Places(torch.arange(11)[None], config.rotary_dim, config.rope_theta))
    expected = module(x, places, PLAIN)
    out = call(reference, config.rotary_dim)(x, *weights)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)  # the tables of angles are fp32
    upstream = normal(2, 11, HIDDEN, seed=3)
    slopes = [torch.autograd.grad(one, (x, *weights), upstream) for one in (out, expected)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradients_of_the_plain_steps(dropout: float) -> None:
    options = {"attention_dropout": dropout, "residual_dropout": dropout, "seed": SEED}
    data = inputs(2, 7)
    for one, other in zip(
        gradients(call(block, **options), data), gradients(call(reference, **options), data), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dropout", [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.3)])
@pytest.mark.parametrize(("batch", "length"), [(1, 5), (2, 33)])
def test_kernels_against_the_reference(
    batch: int,
    length: int,
    dropout: tuple[float, float],
    dtype: torch.dtype,
    interpreter: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"attention_dropout": dropout[0], "residual_dropout": dropout[1], "seed": SEED}
    judge(call(block, **options), call(reference, **options), inputs(batch, length), dtype, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "rotary_dim"), [(1, 64), (4, 6)])
def test_documents_offsets_and_head_sizes(
    heads: int, rotary_dim: int, dtype: torch.dtype, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cu_seqlens = torch.tensor([0, 1, 6, 29, 40], dtype=torch.int32)
    positions = document_positions(cu_seqlens, 40).view(2, 20) + 3
    options = {"bounds": document_bounds(cu_seqlens, 40), "positions": positions}
    functions = (call(one, rotary_dim, heads=heads, **options) for one in (block, reference))
    judge(*functions, inputs(2, 20), dtype, monkeypatch)


def test_a_document_does_not_see_another(interpreter: None) -> None:
    x, *weights = (one.float() for one in inputs(1, 12))
    cu_seqlens = torch.tensor([0, 5, 12], dtype=torch.int32)
    positions = document_positions(cu_seqlens, 12).view(1, 12)
    whole = call(block, bounds=document_bounds(cu_seqlens, 12), positions=positions)(x, *weights)
    for part in (slice(0, 5), slice(5, 12)):
        torch.testing.assert_close(whole[:, part], call(block)(x[:, part].contiguous(), *weights))


def test_masks_are_the_ops_own() -> None:
    """Both branches are cut down to what dropout leaves of a constant, which the ops' own masks must explain."""
    x, *weights = inputs(2, 5)
    w = BlockWeights(*weights)._replace(dense_weight=torch.zeros(HIDDEN, HIDDEN), fc2_weight=torch.zeros(HIDDEN, MLP))
    data = [one.double() for one in (x, *w)]
    out = call(block, residual_dropout=0.4, seed=SEED)(*data)
    one, other = (bias.expand(x.shape) for bias in (w.dense_bias, w.fc2_bias))
    torch.testing.assert_close(out, residual.reference(x, one, other, 0.4, residual_seed(SEED)))
    only_attention = call(block, attention_dropout=0.4, seed=SEED)(x, *weights)
    assert not torch.equal(only_attention, call(block)(x, *weights))
    torch.testing.assert_close(only_attention, call(reference, attention_dropout=0.4, seed=SEED)(x, *weights))


def test_seeds_are_drawn_from_the_generator() -> None:
    data = inputs(1, 4)
    run = call(block, attention_dropout=0.2, residual_dropout=0.2)
    torch.manual_seed(1)
    first, second = run(*data), run(*data)
    torch.manual_seed(1)
    assert torch.equal(run(*data), first) and not torch.equal(first, second)


@pytest.mark.parametrize("kernels", ["reference", "triton"])
@pytest.mark.parametrize("rows", [0, 8192])
def test_joined_weights_give_the_same(rows: int, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI_FAST_KERNELS", kernels)
    monkeypatch.setattr(block_steps, "COPY_FROM", rows)
    data = [one.float() for one in inputs(2, 9)]
    apart = gradients(call(block), data)
    for columns in (False, True):
        weights = BlockWeights(*(nn.Parameter(one.clone()) for one in data[1:]))
        joined_(weights, columns=columns)
        assert joint_view((weights.q_weight, weights.k_weight, weights.v_weight, weights.fc1_weight), 0) is not None
        assert joint_view((weights.q_bias, weights.k_bias, weights.v_bias, weights.fc1_bias), 0) is not None
        assert (joint_view((weights.dense_weight, weights.fc2_weight), 1) is not None) == columns
        assert all(torch.equal(one, other) for one, other in zip(weights, data[1:], strict=True))
        found = gradients(call(block), [data[0], *weights])
        if columns and rows:  # one product where there were two: another order of the same sum
            for one, other in zip(found, apart, strict=True):
                torch.testing.assert_close(one, other)
        else:
            assert_same(found, apart)


def test_weights_that_were_moved_are_copied_silently() -> None:
    data = [one.float() for one in inputs(1, 5)]
    weights = BlockWeights(*(nn.Parameter(one.clone()) for one in data[1:]))
    joined_(weights, columns=True)
    weights.k_weight.data = weights.k_weight.data.clone()
    weights.fc2_weight.data = weights.fc2_weight.data.clone()
    assert joint_view((weights.q_weight, weights.k_weight), 0) is None
    assert_same(gradients(call(block), [data[0], *weights]), gradients(call(block), data))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.float32, torch.float16)])
def test_mixed_precision(
    dtypes: tuple[torch.dtype, torch.dtype], dropout: float, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream in fp32, products in fp16: held to the reference's own error, in each argument's own dtype."""
    stream, matrices = dtypes
    data = inputs(2, 17)
    data = [one.to(matrices if index in range(3, 15) else stream) for index, one in enumerate(data)]
    options = {"residual_dropout": dropout, "seed": SEED}
    found = gradients(call(block, compute_dtype=torch.float16, **options), data)
    plain = gradients(call(reference, compute_dtype=torch.float16, **options), data)
    monkeypatch.setenv("PHI_FAST_KERNELS", "reference")
    exact = gradients(call(reference, **options), [one.double() for one in data])
    for index, (one, other, true) in enumerate(zip(found, plain, exact, strict=True)):
        assert one.dtype == other.dtype == (found[0].dtype if index == 0 else data[index - 1].dtype)
        mistake, allowed = ((each.double() - true).abs().max() for each in (one, other))
        free = torch.finfo(torch.float16).eps * true.abs().max()
        assert mistake <= max((3 if index else 2) * allowed, free), index
    assert found[0].dtype == torch.float32


def test_autocast_changes_nothing(interpreter: None) -> None:
    data = [one.float() for one in inputs(1, 6)]
    expected = gradients(call(block), data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(call(block), data)
        assert torch.equal(call(reference)(*data), call(reference)(*data).float())
    assert_same(found, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_torch_compile(dropout: float) -> None:
    data = [one.float() for one in inputs(2, 6)]
    options = {"attention_dropout": dropout, "residual_dropout": dropout}
    run = call(block, seed=SEED, **options)
    assert_same(gradients(torch.compile(run, backend="aot_eager", fullgraph=True), data), gradients(run, data))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_opcheck(dropout: float) -> None:
    x, *weights = (one.float().requires_grad_() for one in inputs(2, 6))
    cos, sin = rotary_tables(6, 16)
    seed = SEED if dropout else None
    rest = (cos, sin, None, row_bounds(12, 6, x.device), seed, seed, HEADS, 6, 1e-5, round(dropout * 65536), dropout)
    torch.library.opcheck(torch.ops.phi_fast.block.default, (x.detach().view(12, -1), *weights, *rest, torch.float32))


def test_checkpointing_repeats_the_masks() -> None:
    data = [one.float() for one in inputs(2, 6)]
    run = call(block, attention_dropout=0.2, residual_dropout=0.2)
    torch.manual_seed(5)
    expected = gradients(run, data)
    torch.manual_seed(5)
    assert_same(gradients(lambda *args: checkpoint(run, *args, use_reentrant=False), data), expected)


def test_frozen_weights_have_no_gradient() -> None:
    data = [one.float() for one in inputs(1, 5)]
    expected = gradients(call(block), data)
    names = ("x", *BlockWeights._fields)
    leaves = [one.requires_grad_(name in ("x", "v_weight", "fc1_bias")) for name, one in zip(names, data, strict=True)]
    call(block)(*leaves).backward(normal(1, 5, HIDDEN, seed=99).float())
    for name, leaf, slope in zip(names, leaves, expected[1:], strict=True):
        assert (leaf.grad is not None) == leaf.requires_grad, name
        assert leaf.grad is None or torch.equal(leaf.grad, slope), name


def test_slices_are_written_in_place_by_the_attention_kernels(interpreter: None) -> None:
    """`row_bounds` and strided outputs give attention's own bits."""
    q, k, v, d_out = (normal(10, 2, 16, seed=one).float() for one in range(4))
    bounds = row_bounds(10, 5, q.device)
    assert torch.equal(bounds, document_bounds(torch.tensor([0, 5, 10], dtype=torch.int32), 10))
    forward, backward = attention_module.attention_forward.forward, attention_module.attention_backward.backward
    out, lse = forward(q, k, v, bounds, None, 0.25, 0)
    wide = torch.full((10, 50), 7.0)
    forward(q, k, v, bounds, None, 0.25, 0, wide[:, 9:41].view(10, 2, 16))
    assert torch.equal(wide[:, 9:41], out.view(10, 32)) and bool((wide[:, :9] == 7).all() and (wide[:, 41:] == 7).all())
    expected = backward(d_out, q, k, v, out, lse, bounds, None, 0.25, 0)
    into = torch.zeros(10, 100)[:, :96]
    parts = tuple(part.view(10, 2, 16) for part in into.split(32, 1))
    backward(d_out, q, k, v, out, lse, bounds, None, 0.25, 0, parts)  # type: ignore[arg-type]
    assert all(torch.equal(one, other) for one, other in zip(parts, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 64)}, r"x: expected shape \(any, any, any\)"),
        ({"x": torch.zeros(2, 64, 4).transpose(1, 2)}, "x: expected a contiguous tensor"),
        ({"x": torch.zeros(2, 0, 64)}, "x: expected at least one token"),
        ({"x": torch.zeros(2, 4, 64, dtype=torch.int32)}, "x: expected torch.float16"),
        ({"heads": 3}, "heads: expected a divisor of hidden, 64, got 3"),
        ({"heads": 8}, "heads: expected a head_dim, hidden / heads, that is a multiple of 16"),
        ({"q_weight": torch.zeros(64, 63)}, r"q_weight: expected shape \(64, 64\), got \(64, 63\)"),
        ({"fc2_weight": torch.zeros(112, 64)}, r"fc2_weight: expected shape \(64, 112\)"),
        ({"fc1_bias": torch.zeros(64)}, r"fc1_bias: expected shape \(112\)"),
        ({"v_weight": torch.zeros(64, 64).half()}, "v_weight: expected torch.float32, fc1_weight's"),
        ({"k_weight": torch.zeros(64, 64, device="meta")}, "k_weight: expected a tensor on cpu"),
        ({"cos": torch.zeros(3, 8), "sin": torch.zeros(3, 8)}, "cos: expected at least 4 positions"),
        ({"cos": torch.zeros(4, 17), "sin": torch.zeros(4, 17)}, "cos: expected 1 to 16 pairs"),
        ({"sin": torch.zeros(4, 7)}, "sin: expected shape"),
        ({"cos": torch.zeros(4, 8).half()}, "cos: expected torch.float32"),
        ({"positions": torch.zeros(2, 4, dtype=torch.int64)}, "positions: expected torch.int32"),
        ({"positions": torch.full((2, 4), 4, dtype=torch.int32)}, "positions: expected numbers from 0 to 3"),
        ({"bounds": torch.zeros(2, 4, dtype=torch.int32)}, r"bounds: expected shape \(2, 8\)"),
        ({"eps": 0.0}, "eps: expected a positive number"),
        ({"attention_dropout": 1.0}, "attention_dropout: expected a probability"),
        ({"residual_dropout": -0.1}, "residual_dropout: expected a probability"),
        ({"seed": torch.zeros(2)}, "seed: expected torch.int64"),
        ({"compute_dtype": torch.float64}, "compute_dtype: expected torch.float16"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    x, *weights = (one.float() for one in inputs(2, 4))
    cos, sin = rotary_tables(4, 16)
    good: dict[str, Any] = {"x": x, "cos": cos, "sin": sin, "heads": HEADS}
    parts = BlockWeights(*weights)._replace(
        **{key: value for key, value in change.items() if key in BlockWeights._fields}
    )
    options = good | {key: value for key, value in change.items() if key not in BlockWeights._fields}
    with pytest.raises(InputError, match=message):
        block(weights=parts, **options)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_one_token(dropout: float, interpreter: None) -> None:
    """Its probability is 1 whatever q and k are, so that their gradients are 0 but for rounding."""
    data = [one.float() for one in inputs(1, 1)]
    options = {"residual_dropout": dropout, "seed": SEED}
    found, plain = (gradients(call(one, **options), data) for one in (block, reference))
    free = 16 * torch.finfo(torch.float32).eps * max(float(one.abs().max()) for one in plain)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=free, rtol=0)


def test_positions_given_and_counted_agree() -> None:
    data = inputs(2, 5)
    positions = torch.arange(5, dtype=torch.int32).expand(2, 5).contiguous()
    left, right = (gradients(functools.partial(call(block, **one)), data) for one in ({}, {"positions": positions}))
    assert_same(left, right)
