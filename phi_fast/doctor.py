"""What this machine can do for phi_fast, and the one command for what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_DISTRIBUTION = "phi-fast"
# What an extra is for, in the order shown; extras not named here are shown after these.
_FOR = {
    "train": "models and training",
    "llm": "LLM endpoints",
    "embed": "embeddings",
    "cluster": "Ray",
    "test": "this project's own tests",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the scan runs on. Memory is in bytes; None where the system does not say."""

    cpu: str
    cores: int
    simd: str
    simd_available: tuple[str, ...]
    memory: int | None
    memory_free: int | None
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """One optional group of packages: what is installed of it, and what is not."""

    name: str
    installed: Mapping[str, str]
    missing: tuple[str, ...]


def machine() -> Machine:
    """Look at this machine. The CPU count and the memory are those this process may use."""
    from phi_fast import _native

    total, free = _memory()
    return Machine(
        cpu=cpu_name(),
        cores=_cores(),
        simd=_native.simd(),
        simd_available=tuple(_native.SIMD_AVAILABLE),
        memory=total,
        memory_free=free,
        gpus=_gpus(),
    )


def extras(distribution: str = _DISTRIBUTION) -> list[Extra]:
    """List the distribution's extras, each with its packages' versions and what is missing or too old."""
    try:
        declared = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found: dict[str, tuple[dict[str, str], list[str]]] = {}
    for line in declared:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        for name in _extra_names(distribution):
            if not requirement.marker.evaluate({"extra": name}):
                continue
            installed, missing = found.setdefault(name, ({}, []))
            version = _installed_version(requirement.name)
            if version is not None and _satisfies(requirement, version):
                installed[requirement.name] = version
            else:
                missing.append(requirement.name if version is None else f"{requirement.name} (has {version})")
    order = list(_FOR)
    names = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [Extra(name, found[name][0], tuple(found[name][1])) for name in names]


def run_doctor(console: Console | None = None) -> bool:
    """Print what this machine can do. Returns whether all that the scan needs is there."""
    console = console or Console()
    version = _installed_version(_DISTRIBUTION)
    console.print(
        f"[bold]phi_fast[/] {version or '(not installed: running from its folder)'} · "
        f"Python {platform.python_version()} · {platform.system()} {platform.machine()}"
    )
    try:
        here = machine()
    except ImportError as error:
        console.print(f"[red]The compiled engine does not load[/]: {escape(str(error))}")
        console.print("Install the project anew, in its folder: [bold]pip install .[/]")
        return False
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("SIMD", _simd_line(here))
    table.add_row("cores", f"{here.cores} usable · {escape(here.cpu)}")
    if here.memory is not None:
        free = f", {here.memory_free / 1e9:.1f} GB free" if here.memory_free is not None else ""
        table.add_row("memory", f"{here.memory / 1e9:.1f} GB{free}")
    table.add_row("GPU", ", ".join(map(escape, here.gpus)) or "none (nothing in this version needs one)")
    torch = _torch_line()
    if torch:
        table.add_row("PyTorch", torch)
    console.print(table)
    groups = extras()
    if groups:
        console.print()
        _print_extras(console, groups)
    return True


def _simd_line(here: Machine) -> str:
    others = [name for name in here.simd_available if name != here.simd]
    line = f"[bold]{here.simd}[/]"
    if others:
        line += f" in use · also here: {', '.join(others)} (PHI_FAST_NATIVE={others[0]} forces one)"
    forced = os.environ.get("PHI_FAST_NATIVE")
    if forced:
        line += f" · forced by PHI_FAST_NATIVE={escape(forced)}"
    return line


def _print_extras(console: Console, groups: list[Extra]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("extra", "for", "installed", "missing"):
        table.add_column(heading, overflow="fold")
    for group in groups:
        table.add_row(
            group.name,
            _FOR.get(group.name, ""),
            ", ".join(f"{name} {version}" for name, version in group.installed.items()) or "-",
            ", ".join(group.missing) or "[green]nothing[/]",
        )
    console.print(table)
    lacking = [group.name for group in groups if group.missing]
    if lacking:
        console.print("\nFor all that is missing (decontamination needs none of it):")
        console.print(f"  pip install '{_DISTRIBUTION}[{','.join(lacking)}]'", markup=False, highlight=False)


def _extra_names(distribution: str) -> list[str]:
    return importlib.metadata.metadata(distribution).get_all("Provides-Extra") or []


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(canonicalize_name(name))
    except importlib.metadata.PackageNotFoundError:
        return None


def _satisfies(requirement: Requirement, version: str) -> bool:
    try:
        return requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def cpu_name() -> str:
    """Name the processor, as the system does."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        name = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
        if name:
            return name
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores this process may run on: its CPU affinity, further cut by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return cores


def _memory() -> tuple[int | None, int | None]:
    total = free = None
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        total = int(fields["MemTotal"].split()[0]) * 1024
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None, None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit < total:
            total, free = limit, min(free or limit, limit - used)
    except (OSError, ValueError):
        pass
    return total, free


def _gpus() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    lines = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]).splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _torch_line() -> str:
    """Describe PyTorch where it is installed; it is imported only then, for it takes seconds."""
    if importlib.util.find_spec("torch") is None:
        return ""
    try:
        import torch

        reach = f"CUDA {torch.version.cuda} usable" if torch.cuda.is_available() else "no GPU usable"
        return f"{torch.__version__} · {reach}"
    except Exception as error:  # a broken install says so in many ways, and the rest of the report is still wanted
        return f"installed, but does not load: {escape(f'{type(error).__name__}: {error}')}"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
