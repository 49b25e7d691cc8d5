"""Rotary positions on the first `rotary_dim` of every head, for queries and keys in one launch.

NeoX's half rotation (Su et al., "RoFormer", 2021; Black et al., "GPT-NeoX-20B", 2022): with half = rotary_dim / 2,
component i < half is paired with i + half, and the pair is turned by the angle position * theta**(-i / half):

    first' = first * cos - second * sin,   second' = second * cos + first * sin

What lies beyond `rotary_dim` passes through. The gradient is the same turn the other way: only positions are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phi_fast.kernels._common import (
    FLOATS,
    Case,
    Table,
    arch_of,
    check,
    check_cu_seqlens,
    check_cu_seqlens_values,
    check_tensor,
    check_values,
    config_for,
    dispatch,
    jit,
    on_device,
    tl,
    triton,
)

_CONFIG: Table = {80: [(1024, {"HEADS": 16, "num_warps": 2}), (1 << 62, {"HEADS": 32, "num_warps": 4})]}


def rotary_tables(
    positions: int, rotary_dim: int, theta: float = 10000.0, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Tabulate cosine and sine of every position and pair, in fp32.

    Parameters
    ----------
    positions
        How many, from 0.
    rotary_dim
        Even, at least 2.
    theta
        Base of the wavelengths.

    Returns
    -------
    tuple
        Two fp32 tensors (positions, rotary_dim / 2).

    Raises
    ------
    InputError
        A number out of range, by its name.
    """
    check(positions >= 1, "positions", "at least 1", positions)
    check(rotary_dim >= 2 and rotary_dim % 2 == 0, "rotary_dim", "an even number, at least 2", rotary_dim)
    check(theta > 0, "theta", "a positive number", theta)
    frequency = 1.0 / theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device) / rotary_dim)
    angle = torch.outer(torch.arange(positions, dtype=torch.float32, device=device), frequency)
    return angle.cos(), angle.sin()


def document_positions(cu_seqlens: Tensor, total: int) -> Tensor:
    """Number the tokens of packed documents, each from 0.

    Parameters
    ----------
    cu_seqlens
        int32 (documents + 1,): starts at 0, rises, ends at `total`. On a GPU its values are checked there, later.
    total
        Tokens in all.

    Returns
    -------
    Tensor
        int32 (total,).

    Raises
    ------
    InputError
        `cu_seqlens` of another dtype or shape, or (on the CPU at once) with boundaries that do not add up.
    """
    check_cu_seqlens(cu_seqlens, total, like=cu_seqlens)
    numbered: Tensor = _document_positions(cu_seqlens, total)
    return numbered


@torch.library.custom_op(
    "phi_fast::document_positions", mutates_args=(), schema="(Tensor cu_seqlens, SymInt total) -> Tensor"
)
def _document_positions(cu_seqlens: Tensor, total: int) -> Tensor:
    check_cu_seqlens_values(cu_seqlens, total)
    token = torch.arange(total, dtype=torch.int32, device=cu_seqlens.device)
    document = torch.searchsorted(cu_seqlens, token, right=True) - 1
    return token - cu_seqlens[document]


@_document_positions.register_fake
def _(cu_seqlens: Tensor, total: int) -> Tensor:
    return torch.empty(total, dtype=torch.int32, device=cu_seqlens.device)


def rotary(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, positions: Tensor | None = None, offset: int = 0
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys by their positions.

    Parameters
    ----------
    q, k
        (batch, tokens, heads, head_dim), or packed (tokens, heads, head_dim): fp16, bf16 or fp32 (fp64 on the
        reference), one dtype. Heads may differ in number. The last dimension must have stride 1, so slices of a joint
        QKV tensor serve.
    cos, sin
        (positions, rotary_dim / 2) fp32 (or fp64), contiguous, as `rotary_tables` gives them; rotary_dim <= head_dim.
    positions
        int32, of q's leading dimensions; by default token t has position `offset` + t. For packed documents:
        ``document_positions(cu_seqlens, total)``.
    offset
        Position of the first token, 0 or more (a key-value cache's length); only without `positions`.

    Returns
    -------
    tuple
        Turned `q` and `k`, contiguous, of the same shapes and dtype. Differentiable in `q` and `k`.

    Raises
    ------
    InputError
        Wrong dtype, shape, device, stride, or a position beyond the tables, naming the argument. Values of `positions`
        on a GPU are checked there, unwaited for.
    """
    _check(q, k, cos, sin, positions, offset)
    turned: tuple[Tensor, Tensor] = _rotate(q, k, cos, sin, positions, offset, False)
    return turned


def rotary_(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, positions: Tensor | None = None, offset: int = 0
) -> tuple[Tensor, Tensor]:
    """Turn queries and keys in place: `rotary` for inference, writing the first rotary_dim of every head alone.

    Raises
    ------
    InputError
        As `rotary`, and where a gradient would be needed: what is overwritten cannot be differentiated.
    """
    _check(q, k, cos, sin, positions, offset)
    needed = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
    check(not needed, "q, k", "tensors without gradients; use rotary", "requires_grad=True")
    _rotate_in_place(q, k, cos, sin, positions, offset)
    return q, k


def _check(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int) -> None:
    check_tensor("q", q, dtypes=FLOATS, last_contiguous=True)
    check(
        q.dim() in (3, 4) and q.numel() > 0,
        "q",
        "(batch, tokens, heads, head_dim) or (tokens, heads, head_dim)",
        tuple(q.shape),
    )
    check_tensor("k", k, dtypes=(q.dtype,), shape=(*q.shape[:-2], None, q.shape[-1]), like=q, last_contiguous=True)
    check(k.shape[-2] > 0, "k", "at least one head", tuple(k.shape))
    tables = (torch.float32, torch.float64)
    check_tensor("cos", cos, dtypes=tables, shape=(None, None), like=q, contiguous=True)
    check_tensor("sin", sin, dtypes=(cos.dtype,), shape=tuple(cos.shape), like=q, contiguous=True)
    check(1 <= cos.shape[1] <= q.shape[-1] // 2, "cos", f"1 to {q.shape[-1] // 2} pairs (head_dim / 2)", cos.shape[1])
    if positions is not None:
        check_tensor("positions", positions, dtypes=(torch.int32,), shape=tuple(q.shape[:-2]), like=q, contiguous=True)
        check(offset == 0, "offset", "0 beside positions", offset)
        return
    check(offset >= 0, "offset", "0 or more", offset)
    last = offset + q.shape[-3]
    check(last <= cos.shape[0], "cos", f"at least {last} positions (offset + tokens)", cos.shape[0])


def reference(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, positions: Tensor | None = None, offset: int = 0
) -> tuple[Tensor, Tensor]:
    """Compute `rotary` in plain PyTorch: fp32 inside (fp64 for fp64), rounded once."""
    tokens = q.shape[-3]
    index = torch.arange(offset, offset + tokens, device=q.device) if positions is None else positions.long()
    wide = torch.promote_types(q.dtype, torch.float32)
    c, s = (table[index].to(wide).unsqueeze(-2) for table in (cos, sin))  # (..., tokens, 1, half)
    half = cos.shape[1]

    def turn(x: Tensor) -> Tensor:
        first, second, rest = torch.split(x.to(wide), [half, half, x.shape[-1] - 2 * half], dim=-1)
        return torch.cat((first * c - second * s, second * c + first * s, rest), dim=-1).to(x.dtype)

    return turn(q), turn(k)


@jit
def turn_heads(  # type: ignore[no-untyped-def]
    x, out, heads, head_stride, out_head_stride, c, s, half, head_dim,
    HEADS: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """All heads of one token; `x` and `out` point at the token."""
    pair = tl.arange(0, HALF)
    for start in range(0, heads, HEADS):
        head = start + tl.arange(0, HEADS)
        mask = (head < heads)[:, None] & (pair < half)[None, :]
        source = x + head[:, None] * head_stride + pair[None, :]
        target = out + head[:, None] * out_head_stride + pair[None, :]
        first = tl.load(source, mask=mask, other=0.0).to(tl.float32)
        second = tl.load(source + half, mask=mask, other=0.0).to(tl.float32)
        tl.store(target, (first * c - second * s).to(out.dtype.element_ty), mask=mask)
        tl.store(target + half, (second * c + first * s).to(out.dtype.element_ty), mask=mask)
        if COPY:
            rest = 2 * half + tl.arange(0, REST)
            beyond = (head < heads)[:, None] & (rest < head_dim)[None, :]
            value = tl.load(x + head[:, None] * head_stride + rest[None, :], mask=beyond, other=0.0)
            tl.store(out + head[:, None] * out_head_stride + rest[None, :], value, mask=beyond)


@jit
def rotary_kernel(  # type: ignore[no-untyped-def]
    q, k, q_out, k_out, cos, sin, positions, offset, tokens, q_heads, k_heads, half, head_dim,
    q_batch, q_token, q_head, k_batch, k_token, k_head,
    qo_batch, qo_token, qo_head, ko_batch, ko_token, ko_head,
    GIVEN: tl.constexpr, INVERSE: tl.constexpr, COPY: tl.constexpr,
    HEADS: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """One token a program; the strides are of batch, token and head."""
    index = tl.program_id(0)
    batch, token = (index // tokens).to(tl.int64), (index % tokens).to(tl.int64)
    position = tl.load(positions + index).to(tl.int64) if GIVEN else token + offset
    pair = tl.arange(0, HALF)
    c = tl.load(cos + position * half + pair, mask=pair < half, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + position * half + pair, mask=pair < half, other=0.0).to(tl.float32)[None, :]
    if INVERSE:
        s = -s
    turn_heads(
        q + batch * q_batch + token * q_token, q_out + batch * qo_batch + token * qo_token,
        q_heads, q_head, qo_head, c, s, half, head_dim, HEADS, HALF, REST, COPY,
    )  # fmt: skip
    turn_heads(
        k + batch * k_batch + token * k_token, k_out + batch * ko_batch + token * ko_token,
        k_heads, k_head, ko_head, c, s, half, head_dim, HEADS, HALF, REST, COPY,
    )  # fmt: skip


def _launch(
    q: Tensor, k: Tensor, outs: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor,
    positions: Tensor | None, offset: int, inverse: bool, copy: bool,
) -> None:  # fmt: skip
    tokens, head_dim, half = q.shape[-3], q.shape[-1], cos.shape[1]
    strides: list[int] = []
    for tensor in (q, k, *outs):
        strides += [tensor.stride(0) if tensor.dim() == 4 else 0, tensor.stride(-3), tensor.stride(-2)]
    config = config_for(_CONFIG, arch_of(q), q.shape[-2] * head_dim)
    constants = {
        "GIVEN": positions is not None,
        "INVERSE": inverse,
        "COPY": copy and 2 * half < head_dim,
        "HALF": triton.next_power_of_2(half),
        "REST": triton.next_power_of_2(max(1, head_dim - 2 * half)),
    }
    with on_device(q):
        rotary_kernel[(q.shape[:-2].numel(),)](
            q, k, *outs, cos, sin, cos if positions is None else positions, offset, tokens,
            q.shape[-2], k.shape[-2], half, head_dim, *strides, **constants, **config,
        )  # fmt: skip


def _check_positions(positions: Tensor | None, cos: Tensor) -> None:
    if positions is not None:
        good = ((positions >= 0) & (positions < cos.shape[0])).all()
        check_values(good, "positions", f"numbers from 0 to {cos.shape[0] - 1}, the last of the tables")


@torch.library.custom_op(
    "phi_fast::rotary",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor cos, Tensor sin, Tensor? positions, SymInt offset, bool inverse)"
    " -> (Tensor, Tensor)",
)
def _rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    if not inverse:  # the backward turns by the positions that the forward has checked
        _check_positions(positions, cos)
    if dispatch(q, k) == "reference":
        one, other = reference(q, k, cos, -sin if inverse else sin, positions=positions, offset=offset)
        return one.contiguous(), other.contiguous()
    outs = _outputs(q, k)
    _launch(q, k, outs, cos, sin, positions, offset, inverse, copy=True)
    return outs


def _outputs(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(k.shape, dtype=k.dtype, device=k.device)


@_rotate.register_fake
def _(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int, inverse: bool
) -> tuple[Tensor, Tensor]:
    return _outputs(q, k)


@torch.library.custom_op(
    "phi_fast::rotary_",
    mutates_args=("q", "k"),
    schema="(Tensor(a!) q, Tensor(b!) k, Tensor cos, Tensor sin, Tensor? positions, SymInt offset) -> ()",
)
def _rotate_in_place(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int) -> None:
    turn_(q, k, cos, sin, positions, offset)


def turn_(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int) -> None:
    """Do what `rotary_` does, inside another op's body: without its checks but that of the positions' values."""
    _check_positions(positions, cos)
    if dispatch(q, k) == "reference":
        one, other = reference(q, k, cos, sin, positions=positions, offset=offset)
        q.copy_(one)
        k.copy_(other)
        return
    _launch(q, k, (q, k), cos, sin, positions, offset, inverse=False, copy=False)


@_rotate_in_place.register_fake
def _(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None, offset: int) -> None:
    return None


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, _, cos, sin, positions, ctx.offset, ctx.inverse = inputs
    ctx.save_for_backward(cos, sin, positions)


def _gradients(ctx, dq, dk):  # type: ignore[no-untyped-def]
    cos, sin, positions = ctx.saved_tensors
    dq, dk = (one if one.stride(-1) == 1 else one.contiguous() for one in (dq, dk))
    return *_rotate(dq, dk, cos, sin, positions, ctx.offset, not ctx.inverse), None, None, None, None, None


_rotate.register_autograd(_gradients, setup_context=_setup)


def compile_cases(arch: int) -> list[Case]:
    """List the kernel as launched for phi-1: 32 heads of 64, 32 of them turned."""
    numbers = ["offset", "tokens", "q_heads", "k_heads", "half", "head_dim"]
    numbers += [f"{one}_{axis}" for one in ("q", "k", "qo", "ko") for axis in ("batch", "token", "head")]
    types = dict.fromkeys(("q", "k", "q_out", "k_out"), "*fp16") | {"cos": "*fp32", "sin": "*fp32"}
    types |= {"positions": "*i32", **dict.fromkeys(numbers, "i32")}
    config = config_for(_CONFIG, arch, 2048)
    warps = config.pop("num_warps")
    cases = []
    for label, given, inverse, copy in (
        ("", False, False, True),
        (", positions, inverse", True, True, True),
        (", in place", False, False, False),
    ):
        constants = {"GIVEN": given, "INVERSE": inverse, "COPY": copy, "HALF": 16, "REST": 32, **config}
        cases.append(Case(f"rotary{label}", rotary_kernel, types, constants, warps, multiples=numbers[2:]))
    return cases
