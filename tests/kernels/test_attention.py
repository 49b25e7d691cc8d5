"""Attention: the reference against PyTorch's, the interpreted kernels against the reference, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from phi_fast.errors import InputError
from phi_fast.kernels import attention as module
from phi_fast.kernels import attention_backward, attention_forward
from phi_fast.kernels.attention import attention, document_bounds, kept_probabilities, reference

SEED = torch.tensor([0x1234_5678_9ABC, 5])
# Blocks far smaller than a GPU's, rows and keys unequal both ways: so that ranges begin, end and straddle everywhere.
SMALL_BLOCKS = [(16, 16), (32, 16), (16, 32)]


def inputs(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """Draw q, k, v and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4)]


def cumulated(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)


def run(function: Callable[..., Tensor], data: list[Tensor], *args: Any, **options: Any) -> list[Tensor]:
    """Give the output and the gradients of q, k and v."""
    leaves = [one.detach().clone().requires_grad_() for one in data[:3]]
    out = function(*leaves, *args, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, data[3].to(out.dtype))]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-30))


def assert_as_good(data: list[Tensor], *args: Any, **options: Any) -> None:
    """Hold the kernels to the rule: at most 2 times the reference's own error at that dtype, 3 times for gradients."""
    exact = run(reference, [one.double() for one in data], *args, **options)
    plain = run(reference, data, *args, **options)
    fast = run(attention, data, *args, **options)
    epsilon = torch.finfo(data[0].dtype).eps
    # On a handful of numbers the reference may be right by chance, and the rule would then ask for as much.
    floor = epsilon * (0.25 if data[0].numel() > 1000 else 8)
    for name, factor, one, two, true in zip(
        ("out", "d_q", "d_k", "d_v"), (2, 3, 3, 3), fast, plain, exact, strict=True
    ):
        assert one.shape == true.shape and one.dtype == data[0].dtype
        assert one.isfinite().all(), name
        if float(true.norm()) < 1e-12:  # q and k have no gradient where each document is one token
            assert float(one.double().norm()) <= epsilon * float(exact[3].norm()), name
            continue
        assert error(one, true) <= factor * error(two, true) + floor, name


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int, keys: int) -> None:
    """Let all three kernels run with blocks of that many rows and keys."""
    table = {80: [(128, {"BLOCK_M": rows, "BLOCK_N": keys, "num_warps": 4, "num_stages": 1})]}
    for place, names in (
        (attention_forward, ("HALF", "FLOAT")),
        (attention_backward, ("KEYS_HALF", "KEYS_FLOAT", "QUERIES_HALF", "QUERIES_FLOAT")),
    ):
        for name in names:
            monkeypatch.setattr(place, name, table)


# The reference


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", [reference, attention])
@pytest.mark.parametrize(("batch", "length", "head_dim"), [(2, 1, 64), (1, 17, 32), (3, 100, 80)])
def test_reference_is_scaled_dot_product_attention(
    function: Callable[..., Tensor], dtype: torch.dtype, batch: int, length: int, head_dim: int
) -> None:
    def pytorch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    data = inputs(batch, length, 2, head_dim, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for found, true in zip(run(function, data), run(pytorch, data), strict=True):
        torch.testing.assert_close(found, true, atol=tolerance, rtol=10 * tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_gradients_are_those_of_finite_differences(dropout: float) -> None:
    q, k, v, _ = inputs(9, 2, 16, dtype=torch.float64)
    for one in (q, k, v):
        one.requires_grad_()
    cu_seqlens = cumulated([1, 5, 3])

    def function(*leaves: Tensor) -> Tensor:
        return attention(*leaves, cu_seqlens, rotary_dim=8, dropout=dropout, seed=SEED, scale=0.3)

    assert torch.autograd.gradcheck(function, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_op_runs_the_reference_on_the_cpu(dtype: torch.dtype) -> None:
    data = inputs(40, 2, 32, dtype=dtype)
    options = {"rotary_dim": 16, "dropout": 0.2, "seed": SEED}
    plain = run(reference, data, cumulated([13, 27]), **options)
    for found, true in zip(run(attention, data, cumulated([13, 27]), **options), plain, strict=True):
        torch.testing.assert_close(found, true)


def test_rotary_turns_pairs_as_complex_numbers() -> None:
    q, k, v, _ = inputs(24, 2, 64, dtype=torch.float64)
    lengths = [7, 1, 16]
    positions = torch.cat([torch.arange(length) for length in lengths]).double()
    angles = positions[:, None] * 500.0 ** -(torch.arange(16).double() / 16)

    def turned(x: Tensor) -> Tensor:
        pairs = torch.complex(x[..., :16], x[..., 16:32]) * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.cat((pairs.real, pairs.imag, x[..., 32:]), -1)

    expected = reference(turned(q), turned(k), v, cumulated(lengths))
    found = reference(q, k, v, cumulated(lengths), rotary_dim=32, rotary_base=500.0)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_packed_documents_are_separate_ones(
    implementation: str, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHI_FAST_KERNELS", implementation)
    small_blocks(monkeypatch, 32, 16)
    data = inputs(75, 2, 32)
    lengths = [1, 30, 2, 1, 41]
    packed = run(attention, data, cumulated(lengths), rotary_dim=32)
    parts = [run(attention, part, rotary_dim=32) for part in zip(*(one.split(lengths) for one in data), strict=True)]
    for found, separate in zip(packed, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(separate), atol=1e-5, rtol=1e-4)


# The kernels, interpreted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 64, 100, 255])
def test_kernels_at_any_length(interpreter: None, dtype: torch.dtype, length: int) -> None:
    assert_as_good(inputs(length, 2, 64, dtype=dtype), rotary_dim=32)


@pytest.mark.parametrize(
    ("dtype", "head_dim"),
    [(torch.float16, size) for size in range(16, 129, 16)] + [(torch.float32, size) for size in (32, 80, 128)],
)
def test_kernels_at_any_head_dimension(interpreter: None, dtype: torch.dtype, head_dim: int) -> None:
    assert_as_good(inputs(2, 37, 2, head_dim, dtype=dtype), dropout=0.1, seed=SEED)


@pytest.mark.parametrize("rotary_dim", [0, 2, 6, 24, 48])
def test_kernels_at_any_rotary_dimension(interpreter: None, rotary_dim: int) -> None:
    assert_as_good(inputs(2, 20, 2, 48), rotary_dim=rotary_dim, rotary_base=100.0, scale=0.5)


@pytest.mark.parametrize(("dtype", "dropout"), [(torch.float32, 0.1), (torch.float16, 0.0)])
@pytest.mark.parametrize(("rows", "keys"), SMALL_BLOCKS)
@pytest.mark.parametrize("lengths", [[1] * 40, [40, 1, 23, 1, 1, 9], [16, 32, 16], [3, 70]])
def test_kernels_on_ragged_documents(
    interpreter: None,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    dropout: float,
    rows: int,
    keys: int,
    lengths: list[int],
) -> None:
    small_blocks(monkeypatch, rows, keys)
    data = inputs(sum(lengths), 2, 32, dtype=dtype)
    assert_as_good(data, cumulated(lengths), rotary_dim=16, dropout=dropout, seed=SEED)


@settings(max_examples=6)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    heads=st.integers(1, 3),
    blocks=st.sampled_from(SMALL_BLOCKS),
    dropout=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**31),
)
def test_kernels_on_generated_documents(
    lengths: list[int], heads: int, blocks: tuple[int, int], dropout: float, seed: int
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI_FAST_KERNELS", "triton")
        small_blocks(patch, *blocks)
        data = inputs(sum(lengths), heads, 16, seed=seed)
        assert_as_good(data, cumulated(lengths), rotary_dim=8, dropout=dropout, seed=torch.tensor([seed, seed >> 3]))


def test_views_of_one_projection_need_no_copy_and_nothing_beyond_is_read(interpreter: None) -> None:
    total, heads, head_dim = 45, 2, 48
    buffer = torch.full((total + 64, 3, heads, head_dim + 16), float("nan"))
    buffer[:total, ..., :head_dim] = torch.stack(inputs(total, heads, head_dim)[:3], 1)
    q, k, v = (buffer[:total, i, :, :head_dim] for i in range(3))
    assert not q.is_contiguous()
    cu_seqlens = cumulated([20, 25])
    separate = attention(q.contiguous(), k.contiguous(), v.contiguous(), cu_seqlens)
    assert torch.equal(attention(q, k, v, cu_seqlens), separate)
    torch.testing.assert_close(separate, reference(q, k, v, cu_seqlens))


def test_an_expanded_gradient_is_taken(interpreter: None) -> None:
    data = inputs(20, 2, 32)
    data[3] = torch.ones(()).expand(20, 2, 32)
    for found, true in zip(run(attention, data, rotary_dim=8), run(reference, data, rotary_dim=8), strict=True):
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-4)


def test_scores_far_apart_neither_overflow_nor_vanish(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, 16, 16)
    data = inputs(50, 2, 32)
    data[0] *= 300.0
    found, true = run(attention, data), run(reference, data)
    for one, other in zip(found, true, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)


def test_the_same_input_gives_the_same_bits(interpreter: None) -> None:
    data = inputs(90, 2, 64, dtype=torch.float16)
    options = {"rotary_dim": 32, "dropout": 0.1, "seed": SEED}
    for one, other in zip(run(attention, data, **options), run(attention, data, **options), strict=True):
        assert torch.equal(one, other)


# Dropout


def shown_mask(function: Callable[..., Tensor], dropout: float, seed: Tensor) -> Tensor:
    """Read the mask off the output: equal scores, and values that name their key. Bool (heads, rows, keys)."""
    heads, total = 3, 128
    zeros = torch.zeros(total, heads, total)
    out = function(zeros, zeros, torch.eye(total)[:, None, :].expand(total, heads, total), dropout=dropout, seed=seed)
    counts = out * torch.arange(1, total + 1)[:, None, None]
    kept = counts > 0.5
    kept_share = 1 - round(dropout * 65536) / 65536
    torch.testing.assert_close(counts, kept / kept_share, atol=1e-4, rtol=1e-4)
    return kept.transpose(0, 1)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.97])
def test_kernels_drop_exactly_what_the_reference_drops(
    interpreter: None, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    places = torch.arange(128)
    mask = kept_probabilities(SEED, 3, places, places, round(dropout * 65536)).tril()
    assert torch.equal(shown_mask(reference, dropout, SEED), mask)
    assert torch.equal(shown_mask(attention, dropout, SEED), mask)
    small_blocks(monkeypatch, 16, 32)
    assert torch.equal(shown_mask(attention, dropout, SEED), mask)


def test_the_mask_drops_the_share_asked_for_everywhere() -> None:
    places = torch.arange(512)
    kept = kept_probabilities(SEED, 4, places, places, round(0.1 * 65536)).double()
    assert kept.mean() == pytest.approx(0.9, abs=4 * (0.09 / kept.numel()) ** 0.5)
    for view in (kept.mean((1, 2)), kept.mean((0, 1)), kept.mean((0, 2))):  # by head, by key, by row
        deviation = (0.09 / (kept.numel() / view.numel())) ** 0.5
        assert ((view - 0.9).abs() < 5 * deviation).all()
    # Neighbours, and heads, are independent: their correlations are those of chance.
    centred = (kept - 0.9) / 0.3
    pairs = (
        (centred[:, :, :-1], centred[:, :, 1:]),
        (centred[:, :-1], centred[:, 1:]),
        (centred[:-1], centred[1:]),
        (centred[:, :, :-8], centred[:, :, 8:]),
    )
    for one, other in pairs:
        assert abs(float((one * other).mean())) < 5 / one.numel() ** 0.5


def test_key_and_offset_each_change_the_mask() -> None:
    places = torch.arange(64)
    masks = [
        kept_probabilities(torch.tensor(seed), 1, places, places, 32768)
        for seed in ([1, 0], [2, 0], [1, 1], [1 << 33, 0])
    ]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert 0.4 < float((one == other).double().mean()) < 0.6


def test_dropout_keeps_the_mean(interpreter: None) -> None:
    q, k, v, _ = inputs(16, 4, 16)
    v = v.abs()
    seeds = [torch.tensor([i, 0]) for i in range(40)]
    mean = torch.stack([attention(q, k, v, dropout=0.1, seed=seed) for seed in seeds]).mean(0)
    assert float((mean / attention(q, k, v)).mean()) == pytest.approx(1, abs=0.02)


def test_without_a_seed_pytorchs_generator_rules() -> None:
    q, k, v, _ = inputs(40, 2, 16)
    torch.manual_seed(3)
    first, second = attention(q, k, v, dropout=0.5), attention(q, k, v, dropout=0.5)
    torch.manual_seed(3)
    assert torch.equal(attention(q, k, v, dropout=0.5), first)
    assert not torch.equal(first, second)


def test_no_dropout_draws_nothing() -> None:
    q, k, v, _ = inputs(4, 1, 16)
    state = torch.get_rng_state()
    attention(q, k, v)
    assert torch.equal(torch.get_rng_state(), state)


# Tracing


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_torch_compile_traces_through(
    interpreter: None, monkeypatch: pytest.MonkeyPatch, implementation: str, dropout: float
) -> None:
    monkeypatch.setenv("PHI_FAST_KERNELS", implementation)
    torch.compiler.reset()
    data = inputs(33, 2, 32)

    def function(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
        return attention(q, k, v, cu_seqlens, rotary_dim=16, dropout=dropout, seed=SEED if dropout else None) * 2

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    cu_seqlens = cumulated([10, 23])
    for found, true in zip(run(compiled, data, cu_seqlens), run(function, data, cu_seqlens), strict=True):
        torch.testing.assert_close(found, true, atol=1e-6, rtol=1e-5)
    with pytest.raises(InputError, match="boundaries that start at 0"):
        compiled(*data[:3], cu_seqlens + 1)


def test_ops_are_registered_as_pytorch_wants_them() -> None:
    q, k, v, _ = inputs(12, 2, 16)
    for one in (q, k, v):
        one.requires_grad_()
    bounds = document_bounds(cumulated([5, 7]), 12)
    torch.library.opcheck(module._spread, (cumulated([5, 7]), 12))
    torch.library.opcheck(module._attend, (q, k, v, bounds, None, 0.25, 0))
    torch.library.opcheck(module._attend, (q, k, v, bounds, SEED, 0.25, 6554))
    angles = module.rotary_angles(bounds, 8, 10000.0, torch.float32)
    torch.library.opcheck(module.rotate, (q, *angles, False))


# What is refused


def changed(**new: Any) -> dict[str, Any]:
    q, k, v, _ = inputs(10, 2, 32)
    return {"q": q, "k": k, "v": v} | new


X = inputs(10, 2, 32)[0]
BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "dtype": ("q: expected .*float16.*, got torch.int64", changed(q=X.long())),
    "other dtype": ("k: expected torch.float32, got torch.float16", changed(k=X.half())),
    "no tensor": ("v: expected a torch.Tensor, got list", changed(v=[1.0])),
    "other device": ("v: expected a tensor on cpu, got meta", changed(v=X.to("meta"))),
    "other shape": (r"k: expected shape \(10, 2, 32\), got \(9, 2, 32\)", changed(k=X[:9])),
    "other heads": (r"v: expected shape \(10, 2, 32\), got \(10, 1, 32\)", changed(v=X[:, :1])),
    "rank": (r"q: expected \(tokens, heads, head_dim\) or .*, got \(2, 32\)", changed(q=X[0], k=X[0], v=X[0])),
    "stride": (
        "q: expected stride 1 in the last dimension",
        changed(q=X.repeat_interleave(2, -1)[..., ::2]),
    ),
    "head_dim 24": ("q: expected a head_dim that is a multiple of 16 from 16 to 128, got 24",
                    changed(q=X[..., :24], k=X[..., :24], v=X[..., :24])),
    "head_dim 144": ("head_dim .* got 144", {name: torch.zeros(3, 1, 144) for name in "qkv"}),
    "no tokens": ("q: expected at least one token", {name: X[:0] for name in "qkv"}),
    "no heads": ("q: expected at least one head", {name: X[:, :0] for name in "qkv"}),
    "rotary odd": ("rotary_dim: expected an even number from 0 to 32, got 7", changed(rotary_dim=7)),
    "rotary wide": ("rotary_dim: expected an even number from 0 to 32, got 34", changed(rotary_dim=34)),
    "rotary base": ("rotary_base: expected a positive number, got 0.0", changed(rotary_dim=8, rotary_base=0.0)),
    "scale": ("scale: expected a positive number, got nan", changed(scale=float("nan"))),
    "dropout 1": (r"dropout: expected a probability in \[0, 1\), got 1.0", changed(dropout=1.0)),
    "dropout < 0": (r"dropout: expected a probability in \[0, 1\), got -0.1", changed(dropout=-0.1)),
    "seed": ("seed: expected torch.int64, got torch.int32", changed(dropout=0.1, seed=SEED.int())),
    "seed shape": (r"seed: expected shape \(2\), got \(1\)", changed(dropout=0.1, seed=SEED[:1])),
    "cu dtype": ("cu_seqlens: expected torch.int32, got torch.int64", changed(cu_seqlens=cumulated([10]).long())),
    "cu shape": (r"cu_seqlens: expected shape \(any\), got \(1, 2\)", changed(cu_seqlens=cumulated([10])[None])),
    "cu device": ("cu_seqlens: expected a tensor on cpu, got meta", changed(cu_seqlens=cumulated([10]).to("meta"))),
    "cu short": ("cu_seqlens: expected 0 and at least one end, got 1", changed(cu_seqlens=cumulated([]))),
    "cu start": ("cu_seqlens: expected boundaries that start at 0", changed(cu_seqlens=cumulated([4, 6])[1:])),
    "cu end": ("cu_seqlens: expected boundaries .* end at 10", changed(cu_seqlens=cumulated([4, 5]))),
    "cu beyond": ("cu_seqlens: expected boundaries .* end at 10", changed(cu_seqlens=cumulated([4, 7]))),
    "cu falls": ("cu_seqlens: expected boundaries .* rise", changed(cu_seqlens=cumulated([6, -2, 6]))),
    "cu empty": ("cu_seqlens: expected boundaries .* rise", changed(cu_seqlens=cumulated([4, 0, 6]))),
    "both": ("bounds: expected cu_seqlens or bounds, not both",
             changed(cu_seqlens=cumulated([10]), bounds=document_bounds(cumulated([10]), 10))),
    "bounds": (r"bounds: expected shape \(2, 10\), got \(2, 9\)", changed(bounds=document_bounds(cumulated([9]), 9))),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name_before_any_launch(
    interpreter: None, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    def launched(*_: object, **__: object) -> None:
        raise AssertionError("launched")

    monkeypatch.setattr(module, "_attend", launched)
    monkeypatch.setattr(module, "rotate", launched)
    message, arguments = BAD[case]
    with pytest.raises(InputError, match=message):
        attention(**arguments)
    with pytest.raises(InputError, match=message):
        reference(**arguments)


def test_float64_is_refused_by_the_kernels_alone(interpreter: None) -> None:
    q, k, v, _ = inputs(4, 1, 16, dtype=torch.float64)
    with pytest.raises(InputError, match="float64"):
        attention(q, k, v)


def test_bounds_are_where_documents_start_and_end() -> None:
    bounds = document_bounds(cumulated([2, 1, 3]), 6)
    assert bounds.tolist() == [[0, 0, 2, 3, 3, 3], [2, 2, 3, 6, 6, 6]]
    data = inputs(6, 1, 16)
    assert torch.equal(attention(*data[:3], bounds=bounds), attention(*data[:3], cumulated([2, 1, 3])))
