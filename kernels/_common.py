"""What every kernel file shares: choice of implementation, checks, launch settings, dropout's random numbers.

The file loads without Triton (then only the references run), and without a GPU.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phi_fast.errors import InputError

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without Triton: the references run, kernels stay undecorated and are never launched
    triton = None
    tl = None

__all__ = [
    "FLOATS",
    "HALVES_AND_FLOAT",
    "Case",
    "Table",
    "Tunable",
    "arch_of",
    "check",
    "check_cu_seqlens",
    "check_cu_seqlens_values",
    "check_seed",
    "check_tensor",
    "check_values",
    "choices",
    "config_for",
    "dispatch",
    "dropout_threshold",
    "interpreted",
    "jit",
    "keeps",
    "kept",
    "new_seed",
    "on_device",
    "overridden",
    "philox",
    "tl",
    "triton",
]

HALVES_AND_FLOAT = (torch.float16, torch.bfloat16, torch.float32)
FLOATS = (*HALVES_AND_FLOAT, torch.float64)  # float64 runs on the references alone

jit: Callable[[Callable[..., Any]], Any] = triton.jit if triton is not None else lambda function: function


def interpreted() -> bool:
    """Say whether Triton's interpreter runs the kernels, on the CPU (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")


def dispatch(*tensors: Tensor | None) -> str:
    """Choose between the two implementations of an op: ``"reference"`` or ``"triton"``.

    Call it inside an op's body, where tensors are real. ``PHI_FAST_KERNELS=reference|triton`` forces one; else CUDA
    tensors go to Triton and all others, float64 too, to the reference.

    Raises
    ------
    InputError
        ``PHI_FAST_KERNELS`` has another value, or asks for Triton where it cannot run.
    """
    forced = os.environ.get("PHI_FAST_KERNELS", "")
    if forced not in ("", "reference", "triton"):
        raise InputError(f'PHI_FAST_KERNELS: expected "reference" or "triton", got "{forced}"')
    given = [tensor for tensor in tensors if tensor is not None]
    on_gpu = all(tensor.is_cuda for tensor in given)
    double = any(tensor.dtype == torch.float64 for tensor in given)
    if forced == "triton":
        if triton is None:
            raise InputError("PHI_FAST_KERNELS=triton: Triton is not installed; pip install triton")
        if not on_gpu and not interpreted():
            raise InputError(
                "PHI_FAST_KERNELS=triton: tensors are on the CPU; kernels run there with TRITON_INTERPRET=1"
            )
        if double:
            raise InputError("PHI_FAST_KERNELS=triton: float64 runs on the reference alone")
        return "triton"
    return "reference" if forced == "reference" or triton is None or not on_gpu or double else "triton"


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's GPU the current one, as a launch needs; nothing on the CPU."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def check(good: bool, name: str, expected: str, got: object) -> None:
    """Raise `InputError` ``NAME: expected EXPECTED, got GOT`` unless `good`."""
    if not good:
        raise InputError(f"{name}: expected {expected}, got {got}")


def check_tensor(
    name: str,
    value: Tensor,
    *,
    dtypes: Collection[torch.dtype] = HALVES_AND_FLOAT,
    shape: Sequence[int | None] | None = None,
    like: Tensor | None = None,
    contiguous: bool = False,
    last_contiguous: bool = False,
) -> None:
    """Check one tensor argument without looking at its values, so that it works while torch.compile traces.

    Parameters
    ----------
    name
        The argument's name, which the error begins with.
    dtypes
        What is allowed.
    shape
        Wanted sizes; None stands for any.
    like
        A tensor whose device this one must share.
    contiguous, last_contiguous
        Ask for row-major storage as a whole, or for stride 1 in the last dimension.

    Raises
    ------
    InputError
        Something else was given.
    """
    if not isinstance(value, Tensor):
        raise InputError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        check(False, name, " or ".join(str(dtype) for dtype in dtypes), value.dtype)
    if shape is not None:
        fits = value.dim() == len(shape) and all(
            want is None or want == have for want, have in zip(shape, value.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            check(False, name, f"shape ({wanted})", f"({', '.join(str(size) for size in value.shape)})")
    if like is not None and value.device != like.device:
        check(False, name, f"a tensor on {like.device}", value.device)
    if contiguous and not value.is_contiguous():
        check(False, name, "a contiguous tensor; call .contiguous()", f"strides {value.stride()}")
    if last_contiguous and value.dim() > 0 and value.shape[-1] > 1 and value.stride(-1) != 1:
        check(False, name, "stride 1 in the last dimension; call .contiguous()", f"strides {value.stride()}")


def check_values(good: Tensor, name: str, expected: str) -> None:
    """Check what only a tensor's values can tell; call it inside an op's body, before the launch.

    On the CPU a bad value is an `InputError` at once. On a GPU nothing waits for the answer: a device-side assertion
    with the same message is put on the stream in front of the kernels, and ends the program when it next synchronises.

    Parameters
    ----------
    good
        One boolean, on the device of the checked tensor.
    """
    if good.is_cuda:
        torch._assert_async(good, f"{name}: expected {expected}")
    elif not bool(good):
        raise InputError(f"{name}: expected {expected}")


def check_cu_seqlens(cu_seqlens: Tensor, total: int, *, like: Tensor, name: str = "cu_seqlens") -> None:
    """Check dtype, shape and device of document boundaries: int32 (documents + 1,). Works under tracing."""
    check_tensor(name, cu_seqlens, dtypes=(torch.int32,), shape=(None,), like=like, contiguous=True)
    check(cu_seqlens.shape[0] >= 2, name, "0 and at least one end", f"{cu_seqlens.shape[0]} entries")
    check(total > 0, name, "at least one token", "0 tokens")


def check_cu_seqlens_values(cu_seqlens: Tensor, total: int, name: str = "cu_seqlens") -> None:
    """Check that boundaries start at 0, rise, and end at `total`; inside an op's body, as `check_values`."""
    good = (cu_seqlens[0] == 0) & (cu_seqlens[-1] == total) & (cu_seqlens[1:] > cu_seqlens[:-1]).all()
    check_values(good, name, f"boundaries that start at 0, rise with every document and end at {total}")


def arch_of(tensor: Tensor) -> int:
    """Give compute capability as 80, 90, 100 …; 90 for tensors of the interpreter."""
    if not tensor.is_cuda:
        return 90
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return major * 10 + minor


Table = Mapping[int, Sequence[tuple[int, Mapping[str, int]]]]


def config_for(table: Table, arch: int, size: int) -> dict[str, int]:
    """Look launch settings up: newest architecture not newer than `arch`, first row that holds `size`.

    A table is ``{80: [(largest size, {"BLOCK": 1024, "num_warps": 4, "num_stages": 2}), …], 90: […]}``; sizes rise,
    and what exceeds the last row takes the last row. Older architectures than the table's first take its first. Within
    `overridden`, its settings stand in place of the row's.
    """
    known = [one for one in table if one <= arch]
    row = _row(table[max(known) if known else min(table)], size)
    tried = _OVERRIDES.get(id(row))
    return dict(tried[-1] if tried else row)


def _row(rows: Sequence[tuple[int, Mapping[str, int]]], size: int) -> Mapping[str, int]:
    return next((config for largest, config in rows if size <= largest), rows[-1][1])


# Settings being tried, by the identity of the row they stand for, the latest last. Of the process, not of a thread or
# a context: PyTorch runs a backward on a GPU in threads of its own.
_OVERRIDES: dict[int, tuple[Mapping[str, int], ...]] = {}
_OVERRIDES_LOCK = threading.Lock()


@contextlib.contextmanager
def overridden(table: Table, config: Mapping[str, int], size: int | None = None) -> Iterator[None]:
    """Launch with other settings than a table's, everywhere in the process until the block ends, however it ends.

    Parameters
    ----------
    table
        The very object that a kernel file hands to `config_for`.
    config
        A row's settings, with the same names.
    size
        Replace only the rows that hold this size, one an architecture; by default all rows.

    Raises
    ------
    InputError
        `config` lacks a name that a row has, or has one more.
    """
    replaced = [row for rows in table.values() for row in ([_row(rows, size)] if size else [one for _, one in rows])]
    for row in replaced:
        check(set(row) == set(config), "config", f"settings for {', '.join(row)}", ", ".join(config))
    mine = dict(config)  # an object of its own, to be found again among equal ones
    with _OVERRIDES_LOCK:
        for row in replaced:
            _OVERRIDES[id(row)] = (*_OVERRIDES.get(id(row), ()), mine)
    try:
        yield
    finally:
        with _OVERRIDES_LOCK:
            for row in replaced:
                left = tuple(one for one in _OVERRIDES.get(id(row), ()) if one is not mine)
                if left:
                    _OVERRIDES[id(row)] = left
                else:
                    _OVERRIDES.pop(id(row), None)


class Tunable(NamedTuple):
    """Settings to be chosen by measuring: one row of a table. A kernel file lists its own in ``tunables()``.

    Attributes
    ----------
    name
        Which begins the titles of the kernel's `compile_cases`.
    table, size
        The row: what `overridden` takes.
    candidates
        Settings to try beside the row's own.
    launch
        ``launch(device, dtype, tokens)`` draws inputs (phi-1's sizes, `tokens` rows) and gives a function that launches
        the kernel, with whatever settings are in force, and returns its tensors.
    title
        Part of the compile cases' titles beyond `name`, such as ``"head 64"``; "" for all of them.
    """

    name: str
    table: Table
    size: int
    candidates: Sequence[Mapping[str, int]]
    launch: Callable[[torch.device, torch.dtype, int], Callable[[], Any]]
    title: str = ""


def choices(**values: Sequence[int]) -> list[dict[str, int]]:
    """Give every combination: ``choices(BLOCK=(64, 128), num_warps=(4, 8))`` gives four settings."""
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


class Case(NamedTuple):
    """One kernel with the settings it is launched with: what a table of compiled kernels lists.

    `types` maps the run-time arguments to Triton's names (``"*fp16"``, ``"*fp32"``, ``"i32"``, ``"fp32"``); `constants`
    holds the constexpr ones. A kernel file gives ``compile_cases(arch) -> list[Case]``. Pointers are taken to be
    aligned to 16 bytes, as PyTorch's are; `multiples` names integers divisible by 16, which a launch specialises on.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int = 4
    num_stages: int = 2
    multiples: Collection[str] = ()


# Dropout. A mask is a pure function of (seed, position), so the backward makes it again instead of reading it back:
# Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), which tl.philox computes too. An
# element is dropped when the upper 24 bits of its number lie below p * 2**24: integers, so both sides agree exactly.


def dropout_threshold(p: float) -> int:
    """Give the count of 24-bit numbers that mean "drop": p * 2**24, rounded.

    Raises
    ------
    InputError
        p is not in [0, 1).
    """
    check(0.0 <= p < 1.0, "dropout", "a probability in [0, 1)", p)
    return round(p * 2**24)


def new_seed(device: torch.device) -> Tensor:
    """Draw a seed, int64 (2,) = (key, offset), from PyTorch's generator of that device; nothing waits for the GPU.

    ``torch.manual_seed`` rules it, and it stays a tensor, so torch.compile and CUDA graphs draw a new one each time.
    """
    return torch.randint(0, 2**31 - 1, (2,), dtype=torch.int64, device=device)


def check_seed(seed: Tensor, *, like: Tensor, name: str = "seed") -> None:
    """Check a seed as `new_seed` gives it: int64 (2,)."""
    check_tensor(name, seed, dtypes=(torch.int64,), shape=(2,), like=like, contiguous=True)


_M32 = 0xFFFFFFFF


def _product(left: Tensor, right: int) -> tuple[Tensor, Tensor]:
    """Multiply 32-bit numbers held in int64; give the upper and the lower 32 bits."""
    low_part = (left & 0xFFFF) * right  # below 2**48; a full 32 x 32-bit product would overflow int64
    high_part = (left >> 16) * right + (low_part >> 16)
    return high_part >> 16, ((high_part & 0xFFFF) << 16) | (low_part & 0xFFFF)


def philox(seed: Tensor, *counters: Tensor | int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute Philox4x32-10 in PyTorch, equal to ``tl.philox(seed, c0, c1, c2, c3)``.

    Parameters
    ----------
    seed
        int64 scalar tensor; the key.
    counters
        Up to four, integers of 32 bits, broadcast together; the rest are 0.

    Returns
    -------
    tuple
        Four int64 tensors of numbers in [0, 2**32).
    """
    given = [torch.as_tensor(one, dtype=torch.int64, device=seed.device) & _M32 for one in counters]
    given += [torch.zeros((), dtype=torch.int64, device=seed.device)] * (4 - len(given))
    c0, c1, c2, c3 = torch.broadcast_tensors(*given)  # type: ignore[no-untyped-call]
    k0, k1 = seed & _M32, (seed >> 32) & _M32
    for _ in range(10):
        high0, low0 = _product(c0, 0xD2511F53)
        high2, low2 = _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _M32, (k1 + 0xBB67AE85) & _M32
    return c0, c1, c2, c3


def kept(numbers: Tensor, threshold: int) -> Tensor:
    """Turn Philox numbers into a boolean mask of what stays: `keeps` in PyTorch."""
    return (numbers >> 8) >= threshold


@jit
def keeps(number, threshold):  # type: ignore[no-untyped-def]
    """Give the mask of what stays: `number` is one of tl.philox's four, `threshold` an int32 of `dropout_threshold`."""
    return (number.to(tl.uint32, bitcast=True) >> 8).to(tl.int32) >= threshold
