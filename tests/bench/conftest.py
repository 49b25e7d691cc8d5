"""Kernels run in Triton's interpreter here, as in tests/kernels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise pytest.UsageError("triton was imported before tests/bench/conftest.py could ask for its interpreter")
os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("torch", reason="the kernels need PyTorch")


@pytest.fixture(autouse=True)
def same_ops() -> Iterator[None]:
    """Leave the catalogue as it was."""
    from phi_fast.bench.catalogue import OPS

    before = {name: dict(op.implementations) for name, op in OPS.items()}
    yield
    for name in set(OPS) - set(before):
        del OPS[name]
    for name, implementations in before.items():
        OPS[name].implementations = implementations
