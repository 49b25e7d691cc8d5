"""The rule: twice eager's error in outputs, three times in gradients."""

from __future__ import annotations

import math

import pytest
import torch

from phi_fast.bench.judge import error_of, judge

TRUTH = torch.linspace(-2, 2, 101, dtype=torch.float64)


def off(by: float) -> torch.Tensor:
    """Give TRUTH in fp32 with one number off."""
    wrong = TRUTH.clone()
    wrong[50] += by
    return wrong.float()


def test_errors_are_largest_and_relative_rms() -> None:
    error = error_of(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert error.largest == 0.5
    assert error.rms == pytest.approx(math.sqrt(0.125) / math.sqrt(2.5))


@pytest.mark.parametrize(
    ("phase", "by", "verdict"),
    [("forward", 1.9, "PASS"), ("forward", 2.1, "FAIL"), ("backward", 2.9, "PASS"), ("backward", 3.1, "FAIL")],
)
def test_the_factor(phase: str, by: float, verdict: str) -> None:
    found = judge([off(by * 0.01)], [off(0.01)], [TRUTH], phase)
    assert found.verdict == verdict
    assert found.error.largest == pytest.approx(by * 0.01) and found.eager.largest == pytest.approx(0.01)
    assert ("allowed is" in found.reason) == (verdict == "FAIL")


def test_one_rounding_is_free() -> None:
    eps = torch.finfo(torch.float32).eps
    assert judge([off(30 * eps)], [TRUTH.float()], [TRUTH.float().double()], "forward").verdict == "PASS"
    assert judge([off(40 * eps)], [TRUTH.float()], [TRUTH.float().double()], "forward").verdict == "FAIL"


def test_the_worst_tensor_is_told() -> None:
    found = judge([off(0.001), off(0.05)], [off(0.01), off(0.01)], [TRUTH, TRUTH], "forward")
    assert found.verdict == "FAIL" and found.reason.startswith("output 1")
    assert found.error.largest == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (off(math.nan), "gradient 0 errs by nan"),
        (off(0)[1:], r"gradient 0 is \(\(100,\), 'float32'\) instead of"),
        (off(0).half(), r"gradient 0 is \(\(101,\), 'float16'\) instead of"),
        (None, "gradient 0 is missing"),
    ],
)
def test_what_is_no_number_of_the_right_kind_fails(result: torch.Tensor | None, reason: str) -> None:
    import re

    found = judge([result], [off(0.01)], [TRUTH], "backward")
    assert found.verdict == "FAIL" and re.match(reason, found.reason)


def test_nan_is_worse_than_any_number() -> None:
    found = judge([off(math.nan), off(0.05)], [off(0.01), off(0.01)], [TRUTH, TRUTH], "forward")
    assert found.verdict == "FAIL" and "output 0" in found.reason


def test_a_result_too_few_fails() -> None:
    assert judge([], [off(0)], [TRUTH], "forward").reason == "0 outputs instead of 1"
