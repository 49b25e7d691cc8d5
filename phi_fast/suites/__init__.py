"""Benchmarks as lists of items: HumanEval, MBPP, or any JSONL or Parquet file."""

from __future__ import annotations

from phi_fast.suites.describe import Known, SuiteSummary, known_suites, print_suite, print_suites, summarise
from phi_fast.suites.items import PART_NAMES, Item, Part, Rejected, Suite
from phi_fast.suites.load import load_suite, load_suites

__all__ = [
    "PART_NAMES",
    "Item",
    "Known",
    "Part",
    "Rejected",
    "Suite",
    "SuiteSummary",
    "known_suites",
    "load_suite",
    "load_suites",
    "print_suite",
    "print_suites",
    "summarise",
]
