"""The timing table of `phi_fast.bench`, in order of worth, with the settings that were found best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from checks import DTYPES, device
from machine import clock

from phi_fast.bench import OPS
from phi_fast.bench.limits import Limits
from phi_fast.bench.measure import time

Value = dict[str, Any]
# What the thresholds need first: (op, what its case's sizes must hold).
FIRST: tuple[tuple[str, dict[str, float]], ...] = (
    ("block", {"tokens": 32768}),
    ("attention", {"length": 2048, "head_dim": 64}),
    ("layer_norm", {"rows": 32768, "width": 2048}),
    ("bias_gelu", {"rows": 32768}),
    ("residual", {"rows": 32768, "dropout": 0.0}),
    ("residual", {"rows": 32768, "dropout": 0.1}),
    ("rotary", {"tokens": 32768}),
    ("cross_entropy", {"rows": 32768}),
    ("attention_packed", {"documents": 32}),
    ("mlp", {"rows": 32768}),
    ("linear_bias_gelu", {"rows": 32768}),
    ("attention", {"length": 2048, "head_dim": 128}),
)


def plan(interpreted: bool) -> Value:
    """List (op, case, dtype, implementations) as arguments of `timed`, the most telling first.

    What goes through torch.compile is a task of its own, for it takes seconds before it can be timed.
    """
    if interpreted:
        shared = {"case": 0, "dtype": "fp32", "names": ["phi_fast", "eager"], "heavy": False, "interpreted": True}
        return {"tasks": [{"op": name, **shared} for name in ("layer_norm", "residual")]}
    first = [(name, index) for name, sizes in FIRST if name in OPS for index in _matching(name, sizes)]
    rest = [(name, index) for name, op in OPS.items() for index in range(len(op.cases)) if (name, index) not in first]
    both = [_arguments(name, index, "bf16", names) for name, index in first for names in _groups(name)]
    late = [one for one in both if one["heavy"] and one["op"] != "block"]
    tasks = [one for one in both if one not in late]
    tasks += [_arguments(name, index, "fp16", next(_groups(name))) for name, index in first[:4]] + late
    tasks += [_arguments(name, index, "bf16", next(_groups(name))) for name, index in rest]
    return {"tasks": tasks}


def _matching(name: str, sizes: dict[str, float]) -> list[int]:
    cases = enumerate(OPS[name].cases)
    return [index for index, case in cases if all(case.sizes.get(key, at) == at for key, at in sizes.items())]


def _groups(name: str) -> Iterator[list[str]]:
    given = OPS[name].implementations.values()
    yield [one.name for one in given if one.needs != "compile"]
    for one in given:
        if one.needs == "compile":
            yield [one.name]


def _arguments(name: str, index: int, dtype: str, names: Sequence[str]) -> dict[str, Any]:
    heavy = any(OPS[name].implementations[one].needs == "compile" for one in names)
    return {"op": name, "case": index, "dtype": dtype, "names": list(names), "heavy": heavy}


def timed(
    op: str,
    case: int,
    dtype: str,
    names: Sequence[str],
    limits: dict[str, Any] | None = None,
    heavy: bool = False,
    interpreted: bool = False,
    budget: float = 0.05,
) -> Value:
    """Time some implementations of one case: `phi_fast.bench.measure.time`'s rows."""
    here = OPS[op]
    cases = here.interpreted if interpreted else here.cases
    rows = time(
        here,
        cases[case],
        DTYPES[dtype],
        device().type,
        implementations=[here.implementations[one] for one in names],
        limits=Limits(**limits) if limits else None,
        clock=clock(),
        budget=budget,
    )
    return {"rows": [dataclasses.asdict(row) for row in rows]}
