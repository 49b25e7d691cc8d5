"""What a measurement holds for: the machine and the versions of all that runs."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

import torch

from phi_fast.doctor import cpu_name

_SOURCES = Path(__file__).parents[1] / "kernels"


def machine(device: str, interpreted: bool) -> str:
    """Name what runs the kernels."""
    if interpreted:
        return f"Triton's interpreter on {cpu_name()}"
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()


@functools.cache
def versions() -> str:
    """List versions; phi_fast's with a digest of the kernels' sources, so that a changed kernel is measured again."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    found = [f"phi_fast {_version('phi_fast')} (kernels {digest.hexdigest()[:8]})", f"torch {torch.__version__}"]
    found.append(f"triton {_version('triton')}")
    if torch.version.cuda:
        found.append(f"CUDA {torch.version.cuda}")
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "from source" if name == "phi_fast" else "not installed"
