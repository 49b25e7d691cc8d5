"""Times, rates and errors of an op, with a right, a wrong and a raising rival."""

from __future__ import annotations

import pytest
import torch

from phi_fast.bench import measure
from phi_fast.bench.clock import WallClock
from phi_fast.bench.limits import Limits
from phi_fast.bench.ops import EAGER, OURS, Case, Work, rival
from phi_fast.bench.rows import FAILED, MEASURED, MISSING, Row
from phi_fast.errors import InputError
from tests.bench.support import FakeClock, make_op

LIMITS = Limits(100.0, {"fp16": 1.0, "bf16": 1.0, "fp32": 1.0})
FP32 = torch.float32


def by(rows: list[Row], implementation: str, phase: str) -> Row:
    (row,) = [row for row in rows if (row.implementation, row.phase) == (implementation, phase)]
    return row


def test_check_judges_right_wrong_and_raising() -> None:
    one = make_op()

    @rival("softmax", name="right")
    def right(x: torch.Tensor) -> torch.Tensor:
        return x.exp() / x.exp().sum(-1, keepdim=True)

    @rival("softmax", name="wrong")
    def wrong(x: torch.Tensor) -> torch.Tensor:
        return x.softmax(-1) * 1.001

    @rival("softmax")
    def raising(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel\nand more")

    rows = measure.check(one, one.cases[0], FP32, "cpu")
    assert {row.phase for row in rows} == {"forward", "backward"}
    assert by(rows, OURS, "forward").verdict == by(rows, "right", "backward").verdict == "PASS"
    bad = by(rows, "wrong", "forward")
    assert bad.verdict == "FAIL" and bad.status == MEASURED and "output 0 errs by" in bad.reason
    assert bad.rms_error == pytest.approx(0.001, rel=0.1) and bad.eager_rms_error and bad.eager_rms_error < 1e-6
    broken = by(rows, "raising", "forward")
    assert broken.status == FAILED and broken.verdict == "" and broken.max_error is None
    assert broken.reason.startswith("test_measure.py:") and broken.reason.endswith("RuntimeError: no such kernel")


def test_a_detached_result_fails_with_a_reason() -> None:
    one = make_op()
    rival("softmax", name="detached")(lambda x: x.detach().softmax(-1))
    rows = measure.check(one, one.cases[0], FP32, "cpu")
    assert by(rows, "detached", "forward").status == FAILED
    assert "does not require grad" in by(rows, "detached", "backward").reason


def test_what_writes_into_its_inputs_spoils_nobody_elses() -> None:
    one = make_op()

    @rival("softmax", name="in place")
    def in_place(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x.zero_()
        return x.softmax(-1)

    rival("softmax", name="after")(lambda x: x.softmax(-1))
    rows = measure.check(one, one.cases[0], FP32, "cpu")
    assert by(rows, "in place", "forward").verdict == "FAIL"
    assert by(rows, "after", "forward").verdict == by(rows, "after", "backward").verdict == "PASS"


def test_errors_are_measured_at_the_smaller_sizes() -> None:
    case = Case({"rows": 10**9, "width": 8}, {"rows": 2, "width": 8})
    one = make_op(cases=[case])
    row = by(measure.check(one, case, FP32, "cpu"), OURS, "forward")
    assert row.case == "rows 1,000,000,000, width 8" and row.checked == "rows 2, width 8" and row.verdict == "PASS"


def test_where_the_truth_cannot_be_had_nothing_is_judged() -> None:
    one = make_op()
    one.eager = lambda x: torch.zeros(-1)
    rows = measure.check(one, one.cases[0], FP32, "cpu")
    assert all(row.status == MEASURED and not row.verdict and "error not measured" in row.reason for row in rows)


def test_time_gives_median_quantiles_rates_and_share() -> None:
    one, clock = make_op(), FakeClock()
    rows = measure.time(one, one.cases[0], FP32, "cpu", limits=LIMITS, clock=clock)
    row = by(rows, OURS, "forward")
    assert (row.median_ms, row.low_ms, row.high_ms) == (6, 3, 9)
    moved = 2 * 4 * 8 * 4  # x in and y out
    assert row.gbs == pytest.approx(moved / 6e-3 / 1e9) and row.tflops is None
    assert row.share == pytest.approx(moved / 100e9 / 6e-3)
    assert by(rows, EAGER, "both").gbs == pytest.approx(5 / 2 * row.gbs)  # type: ignore[operator]
    assert clock.calls == ["alone", "after a forward", "alone"] * 2  # backward alone follows a forward of its own
    assert row.peak_mb is None  # the CPU does not say


def test_an_op_without_work_is_counted_by_its_tensors() -> None:
    one = make_op(work=None)
    rows = measure.time(one, one.cases[0], FP32, "cpu", clock=FakeClock())
    forward, backward = by(rows, OURS, "forward"), by(rows, OURS, "backward")
    assert forward.gbs == pytest.approx(2 * 128 / 6e-3 / 1e9) and forward.share is None
    assert backward.gbs == pytest.approx(3 * 128 / 6e-3 / 1e9)


def test_a_pass_that_the_op_has_not_is_left_out_and_work_may_be_known_in_part() -> None:
    one = make_op(passes=("forward", "both"), work=lambda sizes, size: {"forward": Work(1e9, 0)})
    rows = measure.time(one, one.cases[0], FP32, "cpu", passes=["forward", "backward", "both"], clock=FakeClock())
    assert [row.phase for row in rows] == ["forward", "both"] * 2
    assert rows[0].tflops == pytest.approx(1e9 / 6e-3 / 1e12) and rows[0].gbs is None
    assert rows[1].gbs == pytest.approx(5 * 128 / 6e-3 / 1e9) and rows[1].tflops is None


def test_failures_and_what_is_missing_have_rows() -> None:
    one = make_op()
    rival("softmax", name="gone", packages=["surely-not:surely_not_there"])(lambda x: x)
    rival("softmax", name="old", missing=lambda: "torch has none")(lambda x: x)

    @rival("softmax", name="half")
    def half(x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise NotImplementedError("no backward")
        return x.softmax(-1)

    rows = measure.time(one, one.cases[0], FP32, "cpu", clock=FakeClock())
    assert (
        by(rows, "gone", "both").status == MISSING and by(rows, "gone", "both").reason == "surely-not is not installed"
    )
    assert by(rows, "old", "forward").reason == "torch has none"
    assert by(rows, "half", "forward").status == MEASURED
    assert by(rows, "half", "backward").status == FAILED and "no backward" in by(rows, "half", "backward").reason


def test_the_wall_clock_repeats_and_leaves_the_setup_out() -> None:
    import time

    taken = WallClock().times(lambda _: None, lambda: time.sleep(0.002), budget=0.01)
    assert len(taken) == 100 and sorted(taken)[50] < 2  # milliseconds
    assert len(WallClock().times(lambda _: time.sleep(0.01), budget=0.0)) == 7


def test_compiled_implementations_are_named_to_run_on_a_cpu() -> None:
    one = make_op()
    assert [way.name for way in one.chosen(None, cpu=True)] == [OURS, EAGER]
    assert [way.name for way in one.chosen(None, cpu=False)] == [OURS, EAGER, "torch.compile"]
    assert [way.name for way in one.chosen(["torch.compile"], cpu=True)] == [OURS, EAGER, "torch.compile"]


def test_bad_registrations_are_named() -> None:
    make_op()
    for words, decorate in (
        ('op: "softmax" is taken', make_op),
        ('no op "sofmax"; known are', lambda: rival("sofmax")),
        ('"phi_fast" already', lambda: rival("softmax", name=OURS)(lambda x: x)),
        ('needs: expected "", "cuda" or "compile"', lambda: rival("softmax", needs="tpu")),
    ):
        with pytest.raises(InputError, match=words):
            decorate()
