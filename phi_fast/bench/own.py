"""A person's own file of ops and rivals."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from phi_fast.bench.ops import OPS
from phi_fast.errors import InputError


def load(path: Path) -> str:
    """Run a file whose decorators join `OPS`; give what went wrong, "" if nothing did.

    What the file registered before it failed is taken back: half a file is none.

    Raises
    ------
    InputError
        There is no such file.
    """
    if not path.is_file():
        raise InputError(f"--with: no file {path}")
    before = {name: dict(op.implementations) for name, op in OPS.items()}
    name = f"phi_fast_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        return f"{path}: not a Python file (.py)"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickles look
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        for added in set(OPS) - set(before):
            del OPS[added]
        for op, implementations in before.items():
            OPS[op].implementations = implementations
        return f"{_place(path, error)}: {type(error).__name__}: {error}"
    return ""


def _place(path: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)
