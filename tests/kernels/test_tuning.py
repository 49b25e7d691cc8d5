"""Launch settings: put in place of a table's and taken back, and every setting that may be chosen computes the same."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from phi_fast.errors import InputError
from phi_fast.kernels import layer_norm as layer_norms
from phi_fast.kernels._common import Table, Tunable, choices, config_for, overridden

MODULES = ("_reduce", "layer_norm", "residual", "rotary", "mlp", "cross_entropy", "attention_tuning")
TUNABLES: list[Tunable] = [
    tunable for module in MODULES for tunable in importlib.import_module(f"phi_fast.kernels.{module}").tunables()
]
TABLE: Table = {
    80: [(64, {"BLOCK": 1, "num_warps": 1}), (128, {"BLOCK": 2, "num_warps": 2})],
    90: [(64, {"BLOCK": 3, "num_warps": 3})],
}
TRIED = {"BLOCK": 9, "num_warps": 9}


def blocks() -> list[int]:
    return [
        config_for(TABLE, arch, size)["BLOCK"] for arch, size in ((80, 64), (80, 65), (80, 999), (90, 1), (100, 99))
    ]


def test_overridden_settings_replace_rows_and_are_taken_back() -> None:
    before = blocks()
    assert before == [1, 2, 2, 3, 3]
    with overridden(TABLE, TRIED):
        assert blocks() == [9] * 5
        with overridden(TABLE, {"BLOCK": 7, "num_warps": 1}, size=100):
            assert blocks() == [9, 7, 7, 7, 7]  # 90's only row holds every size
        assert blocks() == [9] * 5
    assert blocks() == before


def test_overridden_settings_do_not_leak_from_an_error() -> None:
    with pytest.raises(ZeroDivisionError), overridden(TABLE, TRIED):
        raise ZeroDivisionError
    with pytest.raises(InputError, match="config: expected settings for BLOCK, num_warps, got BLOCK"):
        overridden(TABLE, {"BLOCK": 9}).__enter__()
    assert blocks() == [1, 2, 2, 3, 3]


def test_overridden_settings_hold_in_other_threads_and_end_in_any_order() -> None:
    """A GPU's backward runs in a thread of its own; two tuners that end crosswise leave each other's settings alone."""
    first, second = overridden(TABLE, TRIED), overridden(TABLE, {"BLOCK": 8, "num_warps": 1})
    seen: list[int] = []
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    thread = threading.Thread(target=lambda: seen.extend(blocks()))
    thread.start()
    thread.join()
    second.__exit__(None, None, None)
    assert seen == [8] * 5 and blocks() == [1, 2, 2, 3, 3]


def test_what_config_for_gives_may_be_changed() -> None:
    with overridden(TABLE, TRIED):
        config_for(TABLE, 80, 1).pop("BLOCK")
        assert config_for(TABLE, 80, 1) == TRIED


def test_a_backward_uses_the_settings_too(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Mapping[str, int]] = []
    monkeypatch.setattr(layer_norms, "config_for", lambda *given: used.append(config_for(*given)) or used[-1])
    x = torch.randn(3, 16, requires_grad=True)
    with overridden(layer_norms._BACKWARD, {"num_warps": 32}):
        layer_norms.layer_norm(x, torch.ones(16), torch.zeros(16)).sum().backward()  # type: ignore[no-untyped-call]
    assert [one["num_warps"] for one in used] == [1, 32]


@pytest.mark.parametrize("tunable", TUNABLES, ids=lambda one: f"{one.name} {one.title}")
def test_every_candidate_computes_the_same(interpreter: None, tunable: Tunable) -> None:
    """Warps and stages mean nothing to the interpreter: one candidate for each shape of blocks."""
    settings = [
        {**config_for(tunable.table, 90, tunable.size), **dict(shape)}
        for shape in {
            tuple((key, value) for key, value in one.items() if "num" not in key) for one in tunable.candidates
        }
    ]
    expected = outputs(tunable)
    for config in settings:
        with overridden(tunable.table, config, tunable.size):
            found = outputs(tunable)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def outputs(tunable: Tunable) -> list[Tensor]:
    """Launch once on inputs drawn anew, for some launches overwrite theirs."""
    torch.manual_seed(0)
    found = tunable.launch(torch.device("cpu"), torch.float32, 37)()
    return [found] if isinstance(found, Tensor) else list(found)


def test_the_settings_in_force_are_complete() -> None:
    for tunable in TUNABLES:
        for arch in (80, 90, 100):
            row = config_for(tunable.table, arch, tunable.size)
            assert all(set(one) == set(row) for one in tunable.candidates), tunable.name
    assert choices(A=(1, 2), B=(3,)) == [{"A": 1, "B": 3}, {"A": 2, "B": 3}]


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
    section = page.split("## Launch settings")[1]
    exec(section.split("```python\n")[1].split("```")[0], {})
