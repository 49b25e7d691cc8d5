"""The learning rate of a step."""

from __future__ import annotations

from phi_fast.errors import InputError


def learning_rate(step: int, *, peak: float, warmup_steps: int, schedule_steps: int, final: float = 0.0) -> float:
    """Linear warm-up, then linear fall, as in phi-1 (arXiv 2306.11644, section 2.3).

    The first step has peak / warmup_steps, so that none is lost at a rate of 0; step `warmup_steps` has the peak, and
    after it each is smaller by the same amount, so that step `schedule_steps`, one after the last, would have `final`.

    Parameters
    ----------
    step
        Counted from 0: how many were made before.
    peak, final
        The largest rate, and the one at the schedule's end; later steps have that too.
    warmup_steps, schedule_steps
        Where the rise ends, and the fall.

    Raises
    ------
    InputError
        A step below 0, or a schedule that ends before its warm-up does.
    """
    if step < 0:
        raise InputError(f"step {step}: steps are counted from 0")
    if not 0 <= warmup_steps < schedule_steps:
        raise InputError(f"warmup_steps {warmup_steps}: give 0 or more, fewer than schedule_steps, {schedule_steps}")
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    left = max(0, schedule_steps - step) / (schedule_steps - warmup_steps)
    return final + (peak - final) * left
