"""What a rule finds and what it wrongly flags in a corpus of one's own: a trial, and the rule that serves best.

This is a stage about a stage: it hides a suite's items in a sample of the corpus, has `phi_fast.decontaminate` scan
that once, through its public functions, and works on the evidence which that run leaves on disk::

    from phi_fast.calibrate import calibrate, decide_again

    found = calibrate("data/*.jsonl", "humaneval", "calibration", false_positives=0.001)
    found["policies"]["chosen"]["command"]
    decide_again("calibration", false_positives=0.0005)  # from the same evidence
"""

from __future__ import annotations

from phi_fast.calibrate.run import calibrate, decide_again

__all__ = ["calibrate", "decide_again"]
