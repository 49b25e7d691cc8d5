"""Kernels are tested on the CPU, in Triton's interpreter, which must be asked for before Triton is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise pytest.UsageError("triton was imported before tests/kernels/conftest.py could ask for its interpreter")
os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("torch", reason="the kernels need PyTorch")


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the Triton kernels, interpreted, instead of the references."""
    pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", "triton")
    yield
