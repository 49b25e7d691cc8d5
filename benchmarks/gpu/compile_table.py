"""Compile every kernel for Ampere, Hopper and Blackwell, without a GPU, and list registers, spills and shared memory.

    python benchmarks/gpu/compile_table.py            # writes results/kernels_compiled.md and .json
    python benchmarks/gpu/compile_table.py --json -   # prints the records, writes nothing

It needs triton 3.3, and must not run under TRITON_INTERPRET=1, which leaves nothing to compile: tests call it as a
child process.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from phi_fast.kernels._common import Case, interpreted, triton

ARCHS = (80, 90, 100)
MODULES = ("_reduce", "layer_norm", "residual", "rotary", "mlp", "cross_entropy", "attention", "block")
RESULTS = Path(__file__).parents[1] / "results"
_DOTS = {80: r"mma\.sync", 90: r"wgmma", 100: r"tcgen05\.mma"}


def compiled(case: Case, arch: int) -> dict[str, Any]:
    """Compile one kernel for one architecture and read what ptxas made of it.

    Returns
    -------
    dict
        kernel, arch, warps, stages, registers (a thread), spills (bytes of stack and local memory a thread), shared
        (bytes a block), dot (whether it multiplies matrices) and tensor_cores (the instruction its PTX holds, or "").
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    unknown = [name for name in names if name not in case.types and name not in case.constants]
    if unknown:
        raise ValueError(f"{case.name}: neither type nor constant for {', '.join(unknown)}")
    signature = {name: case.types.get(name, "constexpr") for name in names}
    aligned = [name for name in names if name in case.multiples or case.types.get(name, "").startswith("*")]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    constants = {(names.index(name),): value for name, value in case.constants.items()}
    source = ASTSource(case.kernel, signature, constants, attributes)
    options = {"num_warps": case.num_warps, "num_stages": case.num_stages}
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    usage = _resource_usage(binary.asm["cubin"])
    ptx = binary.asm["ptx"]
    found = re.search(_DOTS[arch], ptx)
    return {
        "kernel": case.name,
        "arch": arch,
        "warps": case.num_warps,
        "stages": case.num_stages,
        "registers": usage["REG"],
        "spills": usage["STACK"] + usage["LOCAL"],
        "shared": int(binary.metadata.shared),
        "dot": "tt.dot" in binary.asm["ttir"],
        "tensor_cores": found.group(0) if found else "",
    }


def _resource_usage(cubin: bytes) -> dict[str, int]:
    """Ask cuobjdump, which Triton's wheel carries, for what the cubin says of itself."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", text)}
    if not {"REG", "STACK", "LOCAL"} <= found.keys():
        raise RuntimeError(f"cuobjdump did not list registers, stack and local memory: {text.strip()}")
    return found


def cases(module: str, arch: int) -> list[Case]:
    """Give the kernels of one file with their settings for one architecture; none where the file is not there."""
    name = f"phi_fast.kernels.{module}"
    if importlib.util.find_spec(name) is None:
        return []
    return list(importlib.import_module(name).compile_cases(arch))


def records(modules: tuple[str, ...] = MODULES, archs: tuple[int, ...] = ARCHS) -> list[dict[str, Any]]:
    """Compile everything."""
    return [compiled(case, arch) for module in modules for arch in archs for case in cases(module, arch)]


def page(rows: list[dict[str, Any]]) -> str:
    """Lay the records out, one kernel a line, the architectures side by side."""
    lines = [
        "# The kernels, compiled",
        "",
        "Registers a thread / bytes spilled a thread / shared memory a block, as ptxas gives them; the instruction is",
        "the one that multiplies matrices. Compiled without a GPU: this says that nothing spills and which units are",
        "used, not how fast anything is.",
        "",
        "| kernel | warps, stages | " + " | ".join(f"sm_{arch}" for arch in ARCHS) + " |",
        "| --- |" + " ---: |" * (len(ARCHS) + 1),
    ]
    for name in dict.fromkeys(row["kernel"] for row in rows):
        cells, settings = [], []
        for arch in ARCHS:
            row = next((one for one in rows if one["kernel"] == name and one["arch"] == arch), None)
            if row is None:
                cells.append("-")
                continue
            settings.append(f"{row['warps']}, {row['stages']}")
            cells.append(
                f"{row['registers']} / {row['spills']} / {row['shared']:,}"
                + (f" {row['tensor_cores']}" if row["tensor_cores"] else "")
            )
        lines.append(f"| {name} | {'; '.join(dict.fromkeys(settings))} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"- Compiled with: triton {version('triton')}, torch {version('torch')}",
        "- By: `python benchmarks/gpu/compile_table.py`",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Compile and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", choices=["-"], help="print the records as JSON and write no files")
    parser.add_argument("--modules", nargs="+", default=list(MODULES), help="kernel files, without .py")
    parser.add_argument("--archs", nargs="+", type=int, default=list(ARCHS), choices=ARCHS)
    chosen = parser.parse_args()
    if triton is None or Version(triton.__version__) < Version("3.3"):
        raise SystemExit(f"triton 3.3 or newer is needed; found {triton and triton.__version__}")
    if interpreted():
        raise SystemExit("TRITON_INTERPRET=1 leaves nothing to compile: unset it")
    rows = records(tuple(chosen.modules), tuple(chosen.archs))
    if chosen.json:
        json.dump(rows, sys.stdout, indent=1)
        return
    text = page(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "kernels_compiled.md").write_text(text)
    (RESULTS / "kernels_compiled.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
