"""Rotary positions: against complex numbers, Hugging Face's formula, and the kernels against the reference."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels.rotary import document_positions, reference, rotary, rotary_, rotary_tables
from tests.kernels.support import DTYPES, judge, normal


def arguments(*leading: int, heads: tuple[int, int] = (3, 2), head_dim: int = 16) -> list[torch.Tensor]:
    return [normal(*leading, count, head_dim, seed=count) for count in heads]


@pytest.mark.parametrize("rotary_dim", [2, 6, 16])
def test_it_is_a_turn_of_complex_numbers(rotary_dim: int) -> None:
    q, k = arguments(2, 5)
    tables = rotary_tables(9, rotary_dim, 100.0)
    half = rotary_dim // 2
    angle = torch.arange(5)[:, None].double() * 100.0 ** (-torch.arange(half).double() / half)
    for function in (rotary, reference):
        for given_, turned in zip((q, k), function(q, k, *tables), strict=True):
            value = torch.complex(given_[..., :half], given_[..., half:rotary_dim])
            value = value * torch.exp(1j * angle)[None, :, None]
            expected = torch.cat((value.real, value.imag, given_[..., rotary_dim:]), -1)
            torch.testing.assert_close(turned, expected, atol=1e-5, rtol=1e-5)


def test_it_is_hugging_face_s() -> None:
    phi = pytest.importorskip("transformers.models.phi.modeling_phi")
    q, k = (one.float() for one in arguments(2, 7))
    cos, sin = rotary_tables(7, 8)
    doubled = [torch.cat((table, table), -1)[None] for table in (cos, sin)]
    heads_first = [one[..., :8].transpose(1, 2) for one in (q, k)]
    expected = phi.apply_rotary_pos_emb(*heads_first, *doubled)
    for turned, wanted, given_ in zip(rotary(q, k, cos, sin), expected, (q, k), strict=True):
        torch.testing.assert_close(turned[..., :8], wanted.transpose(1, 2))
        assert torch.equal(turned[..., 8:], given_[..., 8:])


def test_documents_begin_anew() -> None:
    boundaries = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
    positions = document_positions(boundaries, 9)
    assert positions.dtype == torch.int32 and positions.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4]
    q, k = arguments(9)
    tables = rotary_tables(5, 8)
    packed = rotary(q, k, *tables, positions=positions)
    for start, end in ((0, 3), (3, 4), (4, 9)):
        alone = rotary(q[start:end], k[start:end], *tables)
        assert all(torch.equal(one[start:end], other) for one, other in zip(packed, alone, strict=True))


def test_an_offset_goes_on_where_a_cache_ends() -> None:
    q, k = arguments(1, 8)
    tables = rotary_tables(8, 16)
    whole, last = rotary(q, k, *tables), rotary(q[:, 5:], k[:, 5:], *tables, offset=5)
    assert all(torch.equal(one[:, 5:], other) for one, other in zip(whole, last, strict=True))


def test_gradients_of_the_reference_path() -> None:
    leaves = [one.requires_grad_() for one in arguments(1, 3, head_dim=6)]
    tables = [table.double() for table in rotary_tables(3, 4)]
    assert torch.autograd.gradcheck(lambda q, k: rotary(q, k, *tables), leaves)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("leading", "heads", "head_dim", "rotary_dim"),
    [
        ((1, 1), (1, 1), 2, 2),
        ((2, 17), (3, 2), 64, 32),
        ((9,), (32, 32), 64, 32),
        ((1, 5), (33, 1), 80, 32),
        ((7,), (2, 2), 36, 36),
        ((3,), (2, 5), 17, 10),
    ],
)
def test_kernels_against_the_reference(
    leading: tuple[int, ...],
    heads: tuple[int, int],
    head_dim: int,
    rotary_dim: int,
    dtype: torch.dtype,
    interpreter: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cos, sin = rotary_tables(40, rotary_dim)
    arguments_ = arguments(*leading, heads=heads, head_dim=head_dim)
    one, other = (functools.partial(function, cos=cos, sin=sin, offset=23) for function in (rotary, reference))
    judge(one, other, arguments_, dtype, monkeypatch)


@given(ends=st.lists(st.integers(1, 6), min_size=1, max_size=5), pairs=st.integers(1, 8), data=st.integers(0, 2**31))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_documents(
    ends: list[int], pairs: int, data: int, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(ends)
    boundaries = torch.tensor([0, *ends], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    cos, sin = rotary_tables(max(ends), 2 * pairs)
    q, k = normal(total, 2, 16, seed=data), normal(total, 3, 16, seed=data + 1)
    positions = document_positions(boundaries, total)
    one, other = (
        functools.partial(function, cos=cos, sin=sin, positions=positions) for function in (rotary, reference)
    )
    judge(one, other, [q, k], torch.float32, monkeypatch)


@pytest.mark.parametrize("forced", ["reference", "triton"])
def test_slices_of_a_joint_tensor_and_in_place(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", forced)
    joint = normal(2, 5, 3, 4, 16).float()
    before = joint.clone()
    tables = rotary_tables(5, 8)
    q, k = joint[:, :, 0], joint[:, :, 1]
    expected = reference(q, k, *tables)
    for one, other in zip(rotary(q, k, *tables), expected, strict=True):
        assert one.is_contiguous()
        torch.testing.assert_close(one, other)
    assert torch.equal(joint, before)
    result = rotary_(q, k, *tables)
    assert result[0] is q and result[1] is k
    for part, other in enumerate((*expected, before[:, :, 2])):
        torch.testing.assert_close(joint[:, :, part], other)
    with pytest.raises(InputError, match="q, k: expected tensors without gradients"):
        rotary_(q.clone().requires_grad_(), k, *tables)


def test_torch_compile_and_opcheck() -> None:
    q, k = (one.float().requires_grad_() for one in arguments(2, 5))
    tables = rotary_tables(5, 8)
    positions = torch.arange(5, dtype=torch.int32).expand(2, 5).contiguous()
    for given_ in (None, positions):
        torch.library.opcheck(torch.ops.phi_fast.rotary.default, (q, k, *tables, given_, 0, False))
    plain = [one.detach() for one in (q, k)]
    torch.library.opcheck(torch.ops.phi_fast.rotary_.default, (*(one.clone() for one in plain), *tables, None, 0))
    torch.library.opcheck(
        torch.ops.phi_fast.document_positions.default, (torch.tensor([0, 2, 5], dtype=torch.int32), 5)
    )
    compiled = torch.compile(rotary, backend="aot_eager", fullgraph=True)
    one, other = compiled(q, k, *tables), rotary(q, k, *tables)
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)
    slopes = [torch.autograd.grad(pair[0].sum() + pair[1].square().sum(), (q, k)) for pair in (one, other)]
    for left, right in zip(*slopes, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 4)}, r"q: expected \(batch, tokens, heads, head_dim\)"),
        ({"q": torch.zeros(1, 0, 2, 8)}, r"q: expected \(batch, tokens, heads, head_dim\)"),
        ({"q": torch.zeros(1, 3, 8, 2).transpose(2, 3)}, "q: expected stride 1 in the last dimension"),
        ({"k": torch.zeros(1, 4, 2, 8)}, r"k: expected shape \(1, 3, any, 8\)"),
        ({"k": torch.zeros(1, 3, 2, 8).half()}, "k: expected torch.float32"),
        ({"cos": torch.zeros(3, 5), "sin": torch.zeros(3, 5)}, "cos: expected 1 to 4 pairs"),
        ({"cos": torch.zeros(3, 2).half()}, "cos: expected torch.float32"),
        ({"sin": torch.zeros(3, 3)}, r"sin: expected shape \(3, 2\)"),
        ({"offset": -1}, "offset: expected 0 or more"),
        ({"offset": 1}, r"cos: expected at least 4 positions \(offset \+ tokens\), got 3"),
        ({"positions": torch.zeros(1, 3)}, "positions: expected torch.int32"),
        ({"positions": torch.zeros(1, 3, dtype=torch.int32), "offset": 1}, "offset: expected 0 beside positions"),
        ({"positions": torch.full((1, 3), 3, dtype=torch.int32)}, "positions: expected numbers from 0 to 2"),
        ({"positions": torch.full((1, 3), -1, dtype=torch.int32)}, "positions: expected numbers from 0 to 2"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    good = {
        "q": torch.zeros(1, 3, 2, 8),
        "k": torch.zeros(1, 3, 2, 8),
        "cos": torch.zeros(3, 2),
        "sin": torch.zeros(3, 2),
    }
    with pytest.raises(InputError, match=message):
        rotary(**(good | change))  # type: ignore[arg-type]


def test_bad_tables_and_documents_are_named() -> None:
    for numbers, message in (((0, 4), "positions"), ((4, 3), "rotary_dim"), ((4, 4, -1.0), "theta")):
        with pytest.raises(InputError, match=f"{message}: expected"):
            rotary_tables(*numbers)
    with pytest.raises(InputError, match=r"cu_seqlens: expected torch\.int32"):
        document_positions(torch.tensor([0, 3]), 3)
    with pytest.raises(InputError, match=r"cu_seqlens: expected boundaries that start at 0, .* end at 4"):
        document_positions(torch.tensor([0, 3], dtype=torch.int32), 4)
