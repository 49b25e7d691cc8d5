"""Milliseconds: CUDA events on a GPU, perf_counter elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

_WARM_UP = 3
_FEWEST, _MOST = 7, 100
_HEAD_START = 4_000_000  # cycles, about two milliseconds
Run = Callable[[Any], object]
Setup = Callable[[], Any]


class Clock(Protocol):
    """Times ``run(setup())``, the run alone."""

    def times(self, run: Run, setup: Setup = ..., budget: float = ...) -> list[float]:
        """Give the milliseconds of each repetition; as many as `budget` seconds hold, 7 to 100."""
        ...


def _nothing() -> None:
    return None


def _repetitions(first: float, budget: float) -> int:
    return max(_FEWEST, min(_MOST, int(budget * 1e3 / max(first, 1e-3))))


class WallClock:
    """perf_counter: for the CPU."""

    def times(self, run: Run, setup: Setup = _nothing, budget: float = 0.2) -> list[float]:
        """Give the milliseconds of each repetition."""

        def once() -> float:
            given = setup()
            began = time.perf_counter()
            run(given)
            return (time.perf_counter() - began) * 1e3

        once()
        return [once() for _ in range(_repetitions(once(), budget))]


class CudaClock:
    """CUDA events: the time on the GPU alone, with its second-level cache flushed before each repetition.

    A short wait is put on the stream first, so that Python has enqueued the run before the GPU comes to it: the cost of
    launching is not what a kernel is compared by.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 << 20
        self._flush = torch.empty(2 * cache, dtype=torch.uint8, device=device)

    def times(self, run: Run, setup: Setup = _nothing, budget: float = 0.2) -> list[float]:
        """Give the milliseconds of each repetition."""
        with torch.cuda.device(self._device):
            for _ in range(_WARM_UP):
                run(setup())
            first = self._read([self._once(run, setup)])[0]
            return self._read([self._once(run, setup) for _ in range(_repetitions(first, budget))])

    def _once(self, run: Run, setup: Setup) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        given = setup()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with contextlib.suppress(AttributeError):  # a private function, which may go
            torch.cuda._sleep(_HEAD_START)  # type: ignore[no-untyped-call]
        self._flush.zero_()
        begin.record()
        run(given)
        end.record()
        return begin, end

    def _read(self, events: list[tuple[torch.cuda.Event, torch.cuda.Event]]) -> list[float]:
        torch.cuda.synchronize(self._device)
        return [begin.elapsed_time(end) for begin, end in events]


def clock_for(device: torch.device | str) -> Clock:
    """Give the clock of a device."""
    device = torch.device(device)
    return CudaClock(device) if device.type == "cuda" else WallClock()
