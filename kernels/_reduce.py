"""The second pass of bias and gain gradients: partial sums of row slices, added up column by column in fp32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from phi_fast.kernels._common import Case, Table, Tunable, arch_of, choices, config_for, jit, on_device, tl, triton

_CONFIG: Table = {80: [(1 << 62, {"ROWS": 16, "COLUMNS": 64, "num_warps": 4})]}


@jit
def column_sum_kernel(  # type: ignore[no-untyped-def]
    partial, out, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Add up one block of columns of `partial` (rows, columns) fp32; `out` (columns,) has any floating type."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        total += tl.load(partial + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
    tl.store(out + column, tl.sum(total, axis=0).to(out.dtype.element_ty), mask=inside)


def column_sum(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum `partial` (rows, columns) fp32, contiguous, over its rows; the sum is rounded once, to `dtype`."""
    rows, columns = partial.shape
    out = torch.empty(columns, dtype=dtype, device=partial.device)
    config = config_for(_CONFIG, arch_of(partial), columns)
    with on_device(partial):
        grid = (triton.cdiv(columns, config["COLUMNS"]),)
        column_sum_kernel[grid](partial, out, rows, columns, **config)
    return out


def slices(rows: int, block: int, device: torch.device, programs_a_slice: int = 1) -> int:
    """Give the number of slices to cut rows into: four programs a multiprocessor, no slice empty."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 5
    return max(1, min(-(-rows // block), 4 * processors // programs_a_slice))


def compile_cases(arch: int) -> list[Case]:
    """List the kernel as `column_sum` launches it."""
    types = {"partial": "*fp32", "out": "*fp16", "rows": "i32", "columns": "i32"}
    config = config_for(_CONFIG, arch, 2048)
    warps = config.pop("num_warps")
    return [Case("column sum", column_sum_kernel, types, config, num_warps=warps, multiples=("columns",))]


def tunables() -> list[Tunable]:
    """List what to measure: the sums behind a LayerNorm's parameter gradients, four slices a multiprocessor."""

    def launch(device: torch.device, dtype: torch.dtype, tokens: int) -> Callable[[], Tensor]:
        partial = torch.randn(slices(tokens, 1, device), 2048, device=device)
        return lambda: column_sum(partial, dtype)

    # Columns are few: narrow blocks of them keep all multiprocessors busy.
    candidates = choices(ROWS=(16, 32, 64, 128), COLUMNS=(8, 16, 32, 64), num_warps=(2, 4, 8))
    return [Tunable("column sum", _CONFIG, 2048, candidates, launch)]
