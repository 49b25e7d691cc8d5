"""What this device can do at most, measured: bytes copied a second, and matrix products a second."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping

import torch

from phi_fast.bench.clock import clock_for
from phi_fast.bench.ops import DTYPES, Work


@dataclasses.dataclass(frozen=True)
class Limits:
    """The rates everything is held against.

    Attributes
    ----------
    copy_gbs
        10⁹ bytes a second, read and written ones counted, of a long copy.
    matmul_tflops
        10¹² operations a second of a large product, by dtype ("fp16", ...).
    """

    copy_gbs: float
    matmul_tflops: Mapping[str, float]

    def milliseconds(self, work: Work, dtype: str) -> float:
        """Give the least time of `work`: the longer of what its products take and what its bytes take."""
        return max(work.flops / (self.matmul_tflops[dtype] * 1e9), work.bytes / (self.copy_gbs * 1e6))

    def by_flops(self, work: Work, dtype: str) -> bool:
        """Say whether products, not bytes, set the limit."""
        return work.flops / (self.matmul_tflops[dtype] * 1e9) > work.bytes / (self.copy_gbs * 1e6)

    def __str__(self) -> str:
        """Say both rates in one line."""
        products = ", ".join(f"{name} {rate:,.1f}" for name, rate in self.matmul_tflops.items())
        return f"copy {self.copy_gbs:,.0f} GB/s; matrix products {products} TFLOP/s"


@functools.cache
def measure(device: str = "cuda") -> Limits:
    """Measure the limits of a device, once a process: about a second on a GPU.

    float32 products are taken as PyTorch is set to take them: without tf32 unless it was allowed.
    """
    on_gpu = torch.device(device).type == "cuda"
    clock = clock_for(device)
    elements = 1 << (30 if on_gpu else 25)  # beyond every cache
    source = torch.empty(elements, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    copy = statistics.median(clock.times(lambda _: target.copy_(source)))
    rates = {}
    for name, dtype in DTYPES.items():
        size = (8192 if dtype != torch.float32 else 4096) if on_gpu else 256
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        taken = statistics.median(clock.times(lambda _, a=left, b=right: a @ b))  # type: ignore[misc]
        rates[name] = 2 * size**3 / taken / 1e9
    return Limits(2 * elements / copy / 1e6, rates)
