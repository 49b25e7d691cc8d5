"""Right or wrong, on this machine's GPU: every op, forward and gradients, judged by the project's rule.

A kernel may err at most twice as much as its plain PyTorch twin at the same precision, three times in gradients, both
against fp64 (`phi_fast.bench.judge`). New memory is filled with nan meanwhile, so that what a kernel leaves unwritten
is seen; and everything runs twice, for the same input must give the same bits.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from phi_fast.bench.judge import judge

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
Row = dict[str, Any]
Value = dict[str, Any]


def device() -> torch.device:
    """Give the GPU, or the CPU in a rehearsal."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Draw fp64 numbers that depend on shape and seed alone."""
    generator = torch.Generator(device()).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=device()) * scale


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Fill what torch.empty gives with nan."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def results(
    function: Callable[..., Any], inputs: Sequence[Tensor], upstream: Sequence[Tensor] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Give outputs, and gradients of all inputs; drawn upstream gradients where none are given."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    found = function(*leaves)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    if upstream is None:
        upstream = [normal(*one.shape, seed=100 + index) for index, one in enumerate(outputs)]
    given = [slope.to(one.dtype) for slope, one in zip(upstream, outputs, strict=True)]
    return [one.detach() for one in outputs], list(torch.autograd.grad(outputs, leaves, given))


def judged(
    what: str, function: Callable[..., Any], reference: Callable[..., Any], inputs: Sequence[Tensor], dtype: str
) -> list[Row]:
    """Judge one op at one size: inputs are fp64 here, and rounded before use; the upstream gradient too."""
    precision = DTYPES[dtype]
    rounded = [one.to(precision) for one in inputs]
    plain, plain_slopes = results(reference, rounded, None)
    upstream = [normal(*one.shape, seed=100 + index).to(one.dtype) for index, one in enumerate(plain)]
    exact, exact_slopes = results(reference, [one.double() for one in rounded], upstream)
    with poisoned():
        found, slopes = results(function, rounded, upstream)
        again, slopes_again = results(function, rounded, upstream)
    same = all(
        torch.equal(one, other)
        for one, other in zip([*found, *slopes], [*again, *slopes_again], strict=True)
        if bool(one.isfinite().all())
    )
    rows: list[Row] = []
    for phase, ours, eager, truth in (
        ("forward", found, plain, exact),
        ("backward", slopes, plain_slopes, exact_slopes),
    ):
        verdict = judge(ours, eager, truth, phase)
        good = verdict.verdict == "PASS" and same
        rows.append(
            {
                "what": what,
                "dtype": dtype,
                "pass": phase,
                "verdict": "PASS" if good else "FAIL",
                "error": verdict.error.rms,
                "eager": verdict.eager.rms,
                "largest": verdict.error.largest,
                "eager_largest": verdict.eager.largest,
                "reason": verdict.reason if same else f"{verdict.reason} two runs differ".strip(),
            }
        )
    return rows


def equal(what: str, good: bool, reason: str = "") -> Row:
    """Make a row of something that holds or does not."""
    return {"what": what, "verdict": "PASS" if good else "FAIL", "reason": "" if good else reason or "differs"}


def plan(big: bool) -> Value:
    """List what `op` can check: [op, number, title], the longest to compile first."""
    from ops_to_check import CASES

    return {"cases": [[name, number, one[0]] for name, of in CASES.items() for number, one in enumerate(of(big, ""))]}


def op(name: str, number: int, dtype: str, big: bool) -> Value:
    """Check one op of `ops_to_check.CASES` at one of its sizes, a GPU's if `big`."""
    from ops_to_check import CASES

    what, function, reference, inputs = next(itertools.islice(CASES[name](big, dtype), number, None))
    return {"rows": judged(what, function, reference, inputs, dtype)}


def masks(big: bool) -> Value:
    """Hold both dropouts' masks to their twins in PyTorch, bit for bit, by inputs that make every decision visible."""
    from phi_fast.kernels.attention import attention, kept_probabilities
    from phi_fast.kernels.residual import masks as residual_masks
    from phi_fast.kernels.residual import residual

    seed = torch.tensor([0x1234_5678_9ABC, 5], device=device())
    rows = []
    shape = torch.Size((4096, 2048) if big else (5, 77))
    one, zero = torch.ones(shape, device=device()), torch.zeros(shape, device=device())
    for branch, keep in enumerate(residual_masks(shape, seed, 0.1)):
        branches = (one, zero) if branch == 0 else (zero, one)
        found = residual(zero, *branches, 0.1, seed) != 0
        rows.append(equal(f"mask of residual, branch {branch}", torch.equal(found, keep)))
    heads, length, width = (3, 2048, 64) if big else (2, 40, 16)
    place = torch.arange(length, device=device())
    kept = kept_probabilities(seed, heads, place, place, 6554)  # 0.1 in steps of 1 / 65,536
    flat = torch.zeros(length, heads, width, device=device(), dtype=torch.float16)
    good = True
    for first in range(0, length, width):  # all probabilities alike; each value shows one column of them
        value = torch.zeros_like(flat)
        columns = place[first : first + width]
        value[columns, :, torch.arange(len(columns), device=device())] = 1
        seen = attention(flat, flat, value, dropout=0.1, seed=seed)[..., : len(columns)] != 0
        causal = columns[None, :] <= place[:, None]
        good &= torch.equal(seen.transpose(0, 1), kept[:, :, columns] & causal)
    rows.append(equal("mask of attention", good))
    return {"rows": rows}


def compiled(big: bool) -> Value:
    """Hold ops under torch.compile, in one graph, to the same ops called directly."""
    from phi_fast.kernels.layer_norm import layer_norm
    from phi_fast.kernels.mlp import bias_gelu
    from phi_fast.kernels.residual import residual

    def chain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = layer_norm(x, weight, bias)
        return residual(x, bias_gelu(y, bias), y * 2)

    inputs = [one.float() for one in (normal(512 if big else 5, 256), normal(256, seed=1), normal(256, seed=2))]
    backend = "inductor" if big else "aot_eager"
    fast = torch.compile(chain, fullgraph=True, backend=backend)
    found, expected = results(fast, inputs, None), results(chain, inputs, None)
    good = all(
        torch.allclose(one, other, atol=1e-4, rtol=1e-4)
        for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True)
    )
    return {"rows": [equal(f"torch.compile, {backend}, fullgraph", good)]}


def refused(what: str) -> Value:
    """Give an op a value it must refuse; on a GPU that is an assertion on the stream, which ends this process's GPU."""
    from phi_fast.errors import InputError
    from phi_fast.kernels.attention import document_bounds
    from phi_fast.kernels.cross_entropy import linear_cross_entropy
    from phi_fast.kernels.rotary import rotary, rotary_tables

    here = device()
    x = torch.randn(8, 2, 16, device=here)
    try:
        if what == "label":
            labels = torch.tensor([0, 1, 99, 3, 4, 5, 6, 7], device=here)
            linear_cross_entropy(x.flatten(1), torch.randn(9, 32, device=here), None, labels)
        elif what == "cu_seqlens":
            document_bounds(torch.tensor([0, 5, 4, 8], dtype=torch.int32, device=here), 8)
        else:
            positions = torch.full((8,), 40, dtype=torch.int32, device=here)
            rotary(x, x, *rotary_tables(16, 8, device=here), positions=positions)
        if here.type == "cuda":
            torch.cuda.synchronize()
    except InputError as error:
        return {"rows": [equal(f"refused: {what}", here.type == "cpu", f"at once, on a GPU: {error}")]}
    except RuntimeError as error:
        asserted = "assert" in str(error)
        return {"rows": [equal(f"refused: {what}", asserted, str(error).splitlines()[0])], "ends": True}
    return {"rows": [equal(f"refused: {what}", False, "it was taken")]}


def planted(kind: str) -> Value:
    """Fail on purpose, for a rehearsal: a kernel that is wrong, one that raises, one that kills its process."""
    if kind == "raises":
        raise RuntimeError("planted")
    if kind == "dies":
        os.abort()
    return {"rows": judged("planted", lambda x: x * 1.01, lambda x: x * 1.0, [normal(64)], "fp32")}
