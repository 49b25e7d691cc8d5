"""The GPU's clock and its memory, with a GPU that is made up: which calls are made, in which order."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from phi_fast.bench import measure
from phi_fast.bench.clock import CudaClock, WallClock, clock_for


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for torch.cuda, write down what is called, and let every run take 4 ms."""
    made: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            made.append("event")

        def elapsed_time(self, end: Event) -> float:
            assert made[-1] == "synchronize"  # read before, it would raise
            return 4.0

    def said(name: str, value: Any = None) -> Any:
        return lambda *_: (made.append(name), value)[1]

    for name, value in {
        "Event": Event,
        "_sleep": said("sleep"),
        "synchronize": said("synchronize"),
        "device": lambda _: contextlib.nullcontext(),
        "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=1024),
        "memory_allocated": said("memory", 1_000_000),
        "reset_peak_memory_stats": said("reset"),
        "max_memory_allocated": said("peak", 3_500_000),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value, raising=False)
    return made


def test_each_run_stands_alone_between_its_events(calls: list[str]) -> None:
    clock = CudaClock(torch.device("cpu"))
    assert clock._flush.numel() == 2048
    taken = clock.times(lambda given: calls.append(f"run {given}"), lambda: calls.append("setup"), budget=0.04)
    assert taken == [4.0] * 10  # as many as the budget holds
    once = ["setup", "sleep", "event", "run None", "event"]
    assert calls[:6] == ["setup", "run None"] * 3  # warm-up
    assert calls[6:] == [*once, "synchronize", *once * 10, "synchronize"]


def test_it_does_without_the_private_sleep(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cuda, "_sleep")
    assert len(CudaClock(torch.device("cpu")).times(lambda _: None, budget=10.0)) == 100
    assert "sleep" not in calls


def test_memory_is_what_a_run_adds(calls: list[str]) -> None:
    assert measure._peak("cuda", lambda _: calls.append("run"), lambda: None) == 2.5
    assert calls == ["synchronize", "memory", "reset", "run", "synchronize", "peak"]
    assert measure._peak("cpu", lambda _: None, lambda: None) is None


def test_which_clock() -> None:
    assert isinstance(clock_for("cpu"), WallClock)
