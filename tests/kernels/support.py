"""How kernels are judged: against fp64, and by what the plain PyTorch reference makes of the same rounded inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float16]


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Draw fp64 numbers that depend on shape and seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def _run(
    function: Callable[..., Any], inputs: Sequence[Tensor], dtype: torch.dtype
) -> tuple[list[Tensor], list[Tensor]]:
    """Give outputs and gradients; the upstream gradient, too, is rounded to `dtype`."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    upstream = [normal(*one.shape, seed=100 + index).to(dtype).to(one.dtype) for index, one in enumerate(outputs)]
    return [one.detach() for one in outputs], list(torch.autograd.grad(outputs, leaves, upstream))


def within(actual: Tensor, plain: Tensor, exact: Tensor, factor: float, what: str) -> None:
    """Assert that `actual` errs at most `factor` times as much as `plain`.

    What is lost to the order of a sum is luck where few numbers are compared: one rounding of the largest number is
    free in halves, 16 in fp32.
    """
    assert actual.shape == plain.shape == exact.shape, what
    assert actual.dtype == plain.dtype, what
    error, allowed = ((one.double() - exact).abs().max().item() for one in (actual, plain))
    free = (16 if actual.dtype == torch.float32 else 1) * torch.finfo(actual.dtype).eps * exact.abs().max().item()
    assert error <= max(factor * allowed, free), f"{what}: {error:.3g}; the reference {allowed:.3g}, free {free:.3g}"


def judge(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    monkeypatch: Any,
) -> None:
    """Hold a Triton kernel to twice its reference's error, three times in gradients; fp64 is the truth.

    `function` and `reference` take the inputs, fp64 here and rounded to `dtype` before use, and give tensors.
    """
    rounded = [one.to(dtype) for one in inputs]
    monkeypatch.setenv("PHI_FAST_KERNELS", "triton")
    actual, slopes = _run(function, rounded, dtype)
    monkeypatch.setenv("PHI_FAST_KERNELS", "reference")
    plain, plain_slopes = _run(reference, rounded, dtype)
    exact, exact_slopes = _run(reference, [one.double() for one in rounded], dtype)
    for index, parts in enumerate(zip(actual, plain, exact, strict=True)):
        within(*parts, 2, f"output {index}")
    for index, parts in enumerate(zip(slopes, plain_slopes, exact_slopes, strict=True)):
        within(*parts, 3, f"gradient {index}")
