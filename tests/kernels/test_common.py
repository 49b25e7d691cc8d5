"""The kernels' shared file: dispatch, checks, launch settings, dropout's numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.kernels import _common as common
from phi_fast.kernels._common import keeps, tl


def test_dispatch_chooses_by_device_and_by_order(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2)
    monkeypatch.delenv("PHI_FAST_KERNELS", raising=False)
    assert common.dispatch(x, None) == "reference"
    monkeypatch.setenv("PHI_FAST_KERNELS", "reference")
    assert common.dispatch(x) == "reference"
    monkeypatch.setenv("PHI_FAST_KERNELS", "cuda")
    with pytest.raises(InputError, match='PHI_FAST_KERNELS: expected "reference" or "triton", got "cuda"'):
        common.dispatch(x)


def test_triton_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", "triton")
    assert common.dispatch(torch.zeros(2)) == "triton"
    with pytest.raises(InputError, match="float64 runs on the reference alone"):
        common.dispatch(torch.zeros(2, dtype=torch.float64))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(InputError, match="on the CPU; kernels run there with TRITON_INTERPRET=1"):
        common.dispatch(torch.zeros(2))
    monkeypatch.setattr(common, "triton", None)
    with pytest.raises(InputError, match="pip install triton"):
        common.dispatch(torch.zeros(2))


def test_kernel_files_work_without_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from phi_fast.kernels import cross_entropy, layer_norm, mlp, residual, rotary
one = torch.ones(3, 4)
layer_norm.layer_norm(one, one[0], one[0]); mlp.bias_gelu(one, one[0]); residual.residual(one, one, one, 0.5)
rotary.rotary(one[:, None], one[:, None], *rotary.rotary_tables(3, 2))
print(cross_entropy.linear_cross_entropy(one, one, None, torch.tensor([0, 1, 2])).item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(torch.log(torch.tensor(3.0)).item())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [1.0]}, "x: expected a torch.Tensor, got list"),
        ({"dtypes": (torch.float16,)}, "x: expected torch.float16, got torch.float32"),
        ({"shape": (3, None)}, r"x: expected shape \(3, any\), got \(2, 4\)"),
        ({"shape": (2,)}, r"x: expected shape \(2\), got \(2, 4\)"),
        ({"like": torch.zeros(1, device="meta")}, "x: expected a tensor on meta, got cpu"),
        ({"value": torch.zeros(4, 2).t(), "contiguous": True}, "x: expected a contiguous tensor"),
        ({"value": torch.zeros(4, 2).t(), "last_contiguous": True}, "x: expected stride 1 in the last dimension"),
    ],
)
def test_check_tensor_names_argument_and_what_is_allowed(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        common.check_tensor("x", **({"value": torch.zeros(2, 4)} | change))  # type: ignore[arg-type]


def test_one_column_has_no_stride_to_mind() -> None:
    common.check_tensor("x", torch.zeros(1, 4).t(), last_contiguous=True)


@pytest.mark.parametrize("ends", [[1, 4], [0, 3], [0, 3, 2, 4], [0, 2, 2, 4], [0, 5, 4]])
def test_boundaries_that_do_not_add_up(ends: list[int]) -> None:
    boundaries = torch.tensor(ends, dtype=torch.int32)
    with pytest.raises(InputError, match="cu_seqlens: expected boundaries that start at 0"):
        common.check_cu_seqlens_values(boundaries, 4)


def test_boundaries_of_wrong_make() -> None:
    x = torch.zeros(4)
    with pytest.raises(InputError, match=r"cu_seqlens: expected torch.int32, got torch.int64"):
        common.check_cu_seqlens(torch.tensor([0, 4]), 4, like=x)
    with pytest.raises(InputError, match="cu_seqlens: expected 0 and at least one end, got 1 entries"):
        common.check_cu_seqlens(torch.tensor([0], dtype=torch.int32), 4, like=x)
    with pytest.raises(InputError, match="cu_seqlens: expected at least one token"):
        common.check_cu_seqlens(torch.tensor([0, 0], dtype=torch.int32), 0, like=x)
    common.check_cu_seqlens_values(torch.tensor([0, 1, 4], dtype=torch.int32), 4)


def test_config_for_takes_the_newest_architecture_and_the_first_row_that_holds() -> None:
    table = {80: [(8, {"BLOCK": 1}), (64, {"BLOCK": 2})], 90: [(1 << 62, {"BLOCK": 3})]}
    chosen = [common.config_for(table, arch, size)["BLOCK"] for arch, size in ((75, 8), (86, 9), (89, 65), (100, 1))]
    assert chosen == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("key", "counters", "words"),
    [
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (-1, (-1, -1, -1, -1), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            0x299F31D0A4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(key: int, counters: tuple[int, ...], words: tuple[int, ...]) -> None:
    """The known answers of Random123, philox4x32 with 10 rounds."""
    assert tuple(int(word) for word in common.philox(torch.tensor(key), *counters)) == words


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1), st.floats(0, 0.99))
@settings(max_examples=10)
def test_philox_and_masks_are_triton_s(key: int, word: int, p: float) -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")
    seed, threshold = torch.tensor([key, word]), common.dropout_threshold(p)
    out = torch.zeros(5, 64, dtype=torch.int32)
    numbers_kernel[(1,)](out, seed, threshold, SIZE=64)
    index = torch.arange(64)
    expected = common.philox(seed[0], index, index * 77, seed[1])
    for row, column in zip(out, expected, strict=False):
        assert torch.equal(row.long() & 0xFFFFFFFF, column)
    assert torch.equal(out[4].bool(), common.kept(expected[0], threshold))


@common.jit
def numbers_kernel(out, seed, threshold, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    index = tl.arange(0, SIZE)
    third = tl.load(seed + 1).to(tl.int32) + index * 0
    a, b, c, d = tl.philox(tl.load(seed), index, index * 77, third, index * 0)
    tl.store(out + index, a.to(tl.int32, bitcast=True))
    tl.store(out + SIZE + index, b.to(tl.int32, bitcast=True))
    tl.store(out + 2 * SIZE + index, c.to(tl.int32, bitcast=True))
    tl.store(out + 3 * SIZE + index, d.to(tl.int32, bitcast=True))
    tl.store(out + 4 * SIZE + index, keeps(a, threshold).to(tl.int32))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_mask_drops_its_share(p: float) -> None:
    numbers = common.philox(torch.tensor(5), torch.arange(200_000))
    for word in numbers:
        share = 1 - common.kept(word, common.dropout_threshold(p)).double().mean().item()
        assert abs(share - p) < 5 * (p * (1 - p) / 200_000) ** 0.5


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(InputError, match=r"dropout: expected a probability in \[0, 1\)"):
        common.dropout_threshold(p)


def test_seeds_follow_pytorch_s_generator() -> None:
    torch.manual_seed(3)
    one = common.new_seed(torch.device("cpu"))
    other = common.new_seed(torch.device("cpu"))
    torch.manual_seed(3)
    assert torch.equal(one, common.new_seed(torch.device("cpu"))) and not torch.equal(one, other)
    common.check_seed(one, like=one)
    with pytest.raises(InputError, match=r"seed: expected shape \(2\), got \(1\)"):
        common.check_seed(one[:1], like=one)
