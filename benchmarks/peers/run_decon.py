"""Runs in decon's own environment: python run_decon.py CORPUS_FOLDER SUITE_FOLDER OUT [CLEAN]."""

from __future__ import annotations

import sys

import decon

training, suites, out = sys.argv[1:4]
clean = sys.argv[4] if len(sys.argv) > 4 else None
# Without answers: with them a leaked prompt alone does not count, and its recall is far lower.
decon.detect(
    decon.Config(
        training, suites, out, cleaned_output_dir=clean, purify=clean is not None, worker_threads=1, index_answers=False
    )
)
