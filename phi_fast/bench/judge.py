"""How wrong a result is: against fp64, beside what eager PyTorch makes of the same rounded inputs.

The rule: a kernel may err at most twice as much as PyTorch at the same precision, three times in gradients; largest
errors are compared. What is lost to the order of a sum is luck where few numbers are compared: one rounding of the
largest number is free in halves, 16 in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

FACTORS = {"forward": 2.0, "backward": 3.0}


class Error(NamedTuple):
    """Largest error, and root mean square error relative to the truth's own root mean square."""

    largest: float
    rms: float


class Judgement(NamedTuple):
    """The errors of the tensor that fares worst by the rule, and PASS or FAIL over all of them."""

    error: Error
    eager: Error
    verdict: str
    reason: str


def error_of(result: Tensor, truth: Tensor) -> Error:
    """Measure `result` against `truth` (fp64) of the same shape."""
    difference = result.double() - truth
    size = truth.square().mean().sqrt().item()
    rms = difference.square().mean().sqrt().item()
    return Error(difference.abs().max().item(), rms / size if size else rms)


def judge(
    results: Sequence[Tensor | None], eager: Sequence[Tensor | None], truth: Sequence[Tensor | None], phase: str
) -> Judgement:
    """Apply the rule of `phase`, "forward" or "backward", to all its tensors.

    A tensor that is missing, of another shape or dtype than eager's, or not finite, fails.
    """
    what = "output" if phase == "forward" else "gradient"
    nothing = Error(math.nan, math.nan)
    if len(results) != len(truth):
        return Judgement(nothing, nothing, "FAIL", f"{len(results)} {what}s instead of {len(truth)}")
    worst, least = Judgement(Error(0.0, 0.0), Error(0.0, 0.0), "PASS", ""), -1.0
    for number, (one, plain, exact) in enumerate(zip(results, eager, truth, strict=True)):
        if exact is None or plain is None:
            continue
        if one is None:
            return Judgement(nothing, nothing, "FAIL", f"{what} {number} is missing")
        if one.shape != exact.shape or one.dtype != plain.dtype:
            have, want = ((tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in (one, plain))
            return Judgement(nothing, nothing, "FAIL", f"{what} {number} is {have} instead of {want}")
        error, allowed = error_of(one, exact), error_of(plain, exact)
        epsilon = torch.finfo(one.dtype).eps
        free = (16 if one.dtype == torch.float32 else 1) * epsilon * exact.abs().max().item()
        limit = max(FACTORS[phase] * allowed.largest, free)
        good = error.largest <= limit  # nan is not
        ratio = error.largest / limit if limit else (0.0 if good else math.inf)
        if math.isnan(ratio):
            ratio = math.inf
        if ratio > least:
            said = "" if good else f"{what} {number} errs by {error.largest:.3g}; allowed is {limit:.3g}"
            worst, least = Judgement(error, allowed, "PASS" if good else "FAIL", said), ratio
    return worst
