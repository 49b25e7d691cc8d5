"""One thread: the models here are so small that threads would only wait for each other. Kernels run interpreted.

Triton's interpreter must be asked for before Triton is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
    raise pytest.UsageError("triton was imported before tests/model/conftest.py could ask for its interpreter")
os.environ["TRITON_INTERPRET"] = "1"

import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the kernels' references, on the CPU."""
    monkeypatch.setenv("PHI_FAST_KERNELS", "reference")


@pytest.fixture(params=["reference", "triton"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the references, then the Triton kernels in their interpreter."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here")
    monkeypatch.setenv("PHI_FAST_KERNELS", request.param)
    return str(request.param)
