"""What `phi-fast doctor` says of this machine, and of machines made up for the test."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path

import pytest
from rich.console import Console

import phi_fast
from phi_fast import _native, doctor
from phi_fast.doctor import Extra, extras, machine, run_doctor

METADATA = """Metadata-Version: 2.1
Name: some-thing
Version: 3.0
Provides-Extra: here
Provides-Extra: gone
Provides-Extra: test
Requires-Dist: numpy
Requires-Dist: NumPy>=1; extra == 'here'
Requires-Dist: not-for-us; platform_system == 'Nowhere' and extra == 'here'
Requires-Dist: no-such-package>=2; extra == 'gone'
Requires-Dist: rich>=9999; extra == 'gone'
Requires-Dist: pytest; extra == 'test'
"""


def printed() -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=200)
    well = run_doctor(console)
    assert isinstance(console.file, io.StringIO)
    return well, console.file.getvalue()


@pytest.fixture
def some_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "some_thing-3.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)
    return "some-thing"


def test_this_machine() -> None:
    here = machine()
    assert here.simd == _native.simd()
    assert here.simd in here.simd_available
    assert "scalar" in here.simd_available
    assert 1 <= here.cores <= (os.cpu_count() or 1)
    assert here.memory and here.memory_free and 0 < here.memory_free <= here.memory


def test_the_build_in_use_is_what_the_environment_forces() -> None:
    before = _native.simd()
    try:
        _native.use_simd("scalar")
        assert machine().simd == "scalar"
        assert "scalar in use" in printed()[1]
    finally:
        _native.use_simd(before)


def test_extras_by_what_is_installed_too_old_absent_or_for_another_system(some_thing: str) -> None:
    import numpy
    import rich  # noqa: F401 - rich has no __version__; its metadata has

    groups = {group.name: group for group in extras(some_thing)}
    assert list(groups) == ["test", "gone", "here"]  # those with a use of their own first
    assert groups["here"] == Extra("here", {"NumPy": numpy.__version__}, ())
    assert groups["gone"].installed == {}
    assert groups["gone"].missing[0] == "no-such-package"
    assert groups["gone"].missing[1].startswith("rich (has ")
    assert extras("no-such-distribution") == []


def test_one_command_for_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = [Extra("train", {}, ("torch",)), Extra("llm", {"pydantic": "2"}, ("httpx",)), Extra("test", {}, ())]
    monkeypatch.setattr(doctor, "extras", lambda: lacking)
    well, text = printed()
    assert well
    assert "  pip install 'phi-fast[train,llm]'\n" in text
    assert text.count("pip install") == 1
    monkeypatch.setattr(doctor, "extras", lambda: lacking[2:])
    assert "pip install" not in printed()[1]


def test_a_build_that_does_not_load_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(phi_fast, "_native")
    monkeypatch.setitem(sys.modules, "phi_fast._native", None)
    well, text = printed()
    assert not well
    assert "does not load" in text
    assert "pip install ." in text


def test_gpus_are_listed_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "NVIDIA H200, 143771 MiB" in printed()[1]
    tool.write_text("#!/bin/sh\necho 'driver/library version mismatch' >&2\nexit 18\n")
    assert machine().gpus == ()
    assert "none" in printed()[1]


def test_torch_is_described_where_it_is_and_a_broken_one_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    fake = types.ModuleType("torch")
    fake.__version__ = "9.9.9"  # type: ignore[attr-defined]
    fake.version = types.SimpleNamespace(cuda="12.9")  # type: ignore[attr-defined]
    fake.cuda = types.SimpleNamespace(is_available=lambda: True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert "9.9.9 · CUDA 12.9 usable" in printed()[1]
    del fake.cuda  # type: ignore[attr-defined]
    well, text = printed()
    assert well
    assert "installed, but does not load: AttributeError" in text
