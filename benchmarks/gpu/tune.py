"""Launch settings chosen by measuring: every candidate of every `tunables()`, the best against the table's.

    python benchmarks/gpu/tune.py                       # compiles all candidates for sm_90, without a GPU; lists spills
    python benchmarks/gpu/tune.py --names "column sum"  # some of them

`run.py` calls the functions here, on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from checks import DTYPES, device
from machine import clock

from phi_fast.kernels._common import Tunable, arch_of, config_for, overridden

# In order of worth, should time run out.
MODULES = ("attention_tuning", "layer_norm", "_reduce", "mlp", "cross_entropy", "rotary", "residual")
HOMES = (*MODULES, "attention_forward", "attention_backward")  # where tables stand
BEHIND = 1.3  # times the best, after a few runs, that puts a candidate out
GAIN = 0.98  # of the table's own time: less is not worth a change
Settings = Sequence[tuple[str, Mapping[str, int]]]
Value = dict[str, Any]


def kernel_file(name: str) -> Any:
    """Import a file of phi_fast.kernels."""
    return importlib.import_module(f"phi_fast.kernels.{name}")


def tunables() -> dict[str, tuple[str, Tunable]]:
    """Give all of them by title, each with its file."""
    found = [(module, one) for module in MODULES for one in kernel_file(module).tunables()]
    found.sort(key=lambda pair: "128" in pair[1].title)  # a head dimension that phi has not
    return {", ".join(filter(None, (one.name, one.title))): (module, one) for module, one in found}


def plan() -> Value:
    """List titles with their candidates, in order of worth."""
    return {
        "tunables": [[title, [dict(one) for one in tunable.candidates]] for title, (_, tunable) in tunables().items()]
    }


@contextlib.contextmanager
def applied(settings: Settings) -> Iterator[None]:
    """Launch with settings by tunables' titles; where two name one row, the first."""
    with contextlib.ExitStack() as stack:
        for title, config in reversed(settings):
            tunable = tunables()[title][1]
            stack.enter_context(overridden(tunable.table, config, tunable.size))
        yield


def under(settings: Settings, function: str, arguments: Mapping[str, Any]) -> Value:
    """Call ``"module:function"`` under settings: a task."""
    module, name = function.split(":")
    with applied(settings):
        value: Value = getattr(importlib.import_module(module), name)(**arguments)
    return value


def launches(title: str, candidates: Sequence[Mapping[str, int]], dtype: str, tokens: int) -> Value:
    """Launch candidates once, which compiles them; give those that could not be."""
    _, tunable = tunables()[title]
    launch = tunable.launch(device(), DTYPES[dtype], tokens)
    failed = []
    for config in candidates:
        try:
            with overridden(tunable.table, config, tunable.size):
                launch()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        except Exception as error:  # too much shared memory, most often
            _alive()
            failed.append([dict(config), f"{type(error).__name__}: {error}"[:300]])
    return {"title": title, "launched": len(candidates) - len(failed), "failed": failed}


def _alive() -> None:
    """Raise if this process's GPU context has failed, for then nothing after it would be what it seems."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def race(title: str, candidates: Sequence[Mapping[str, int]], dtype: str, tokens: int) -> Value:
    """Time candidates beside the table's own settings: a few runs each, then many of those not far behind, in turn.

    Returns
    -------
    dict
        title, file, table (its name), arch, size; current and best settings with their milliseconds, the milliseconds
        of all that were timed, and row: the line to put into the table.
    """
    _, tunable = tunables()[title]
    here, watch = device(), clock()
    launch = tunable.launch(here, DTYPES[dtype], tokens)
    current = config_for(tunable.table, arch_of(torch.empty(0, device=here)), tunable.size)
    others = [dict(one) for one in candidates if one != current]

    def milliseconds(config: Mapping[str, int], budget: float) -> float:
        with overridden(tunable.table, config, tunable.size):
            return statistics.median(watch.times(lambda _: launch(), budget=budget))

    quick: list[tuple[float, dict[str, int]]] = []
    failed = []
    for config in [current, *others]:
        try:
            quick.append((milliseconds(config, 0.0), config))
        except Exception as error:
            if config == current:
                raise
            _alive()
            failed.append([config, f"{type(error).__name__}: {error}"[:300]])
    least = min(taken for taken, _ in quick)
    close = sorted((one for one in quick if one[0] <= BEHIND * least), key=lambda one: one[0])[:6]
    running = [current, *(config for _, config in close if config != current)]
    rounds = [[milliseconds(config, 0.03) for config in running] for _ in range(3)]
    final = [min(column) for column in zip(*rounds, strict=True)]
    best = min(range(len(final)), key=final.__getitem__)
    if final[best] > GAIN * final[0]:
        best = 0
    arch = arch_of(torch.empty(0, device=here))
    rows = tunable.table[max([one for one in tunable.table if one <= arch], default=min(tunable.table))]
    largest = next((size for size, _ in rows if tunable.size <= size), rows[-1][0])
    table = next(
        f"{home}.{name}" for home in HOMES for name, value in vars(kernel_file(home)).items() if value is tunable.table
    )
    return {
        "title": title,
        "file": f"kernels/{table.split('.')[0]}.py",
        "table": table.split(".")[1],
        "size": tunable.size,
        "current": current,
        "current_ms": final[0],
        "best": running[best],
        "best_ms": final[best],
        "arch": arch,
        "row": f"({'1 << 62' if largest == 1 << 62 else largest}, {_shown(running[best])}),",
        "timed": [[taken, config] for taken, config in sorted(quick, key=lambda one: one[0])],
        "failed": failed,
    }


def _shown(config: Mapping[str, int]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in config.items()) + "}"


def compiled_candidates(title: str, arch: int = 90, most: int | None = None) -> list[dict[str, Any]]:
    """Compile candidates without a GPU; each gives a record of `compile_table.compiled` with its settings."""
    from compile_table import compiled

    module, tunable = tunables()[title]
    records = []
    for config in tunable.candidates[:most]:
        with overridden(tunable.table, config, tunable.size):
            every = kernel_file(module).compile_cases(arch)
        cases = [one for one in every if one.name.startswith(tunable.name) and one.name.endswith(tunable.title)]
        if not cases:
            raise ValueError(f"{title}: compile_cases lists no such kernel")
        records.append({**compiled(cases[0], arch), "settings": dict(config)})
    return records


def main() -> None:
    """Compile what may be chosen, and list what spills or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--names", nargs="+", help="titles, or their beginnings")
    parser.add_argument("--most", type=int, help="candidates of each")
    parser.add_argument("--arch", type=int, default=90)
    chosen = parser.parse_args()
    spilled = False
    for title in tunables():
        if chosen.names and not title.startswith(tuple(chosen.names)):
            continue
        for one in compiled_candidates(title, chosen.arch, chosen.most):
            spilled |= one["spills"] > 0
            size = f"{one['registers']} registers, {one['spills']} bytes spilled, {one['shared']:,} shared"
            print(f"{title}: {_shown(one['settings'])}: {size}", flush=True)
    raise SystemExit(1 if spilled else 0)


if __name__ == "__main__":
    main()
