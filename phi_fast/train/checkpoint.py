"""Checkpoints of a run: written beside the training, whole or not at all, told from damaged ones, read on any ranks.

``step-00001000/`` holds the parameters and moments as torch.distributed.checkpoint writes them, each rank its part;
state.json, all the rest of a run's state; and manifest.json, the size and SHA-256 of each file, written last. A folder
has this name only when all of it is on the disk. Open none from a stranger: one of its files is a pickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp_
from torch.distributed.checkpoint.api import CheckpointException

from phi_fast.errors import InputError, RunError
from phi_fast.model import Phi, PhiConfig
from phi_fast.train.optimiser import fill_state

dcp: Any = dcp_  # whose names and types mypy does not see

FORMAT = 1
STATE, MANIFEST = "state.json", "manifest.json"
_CHUNK = 1 << 20

warnings.filterwarnings("ignore", message="torch.distributed is (disabled, )?unavailable or uninitialized")


def tensors_of(model: nn.Module, optimiser: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """What a checkpoint holds, by name: ``model.NAME`` and ``optimiser.NAME.exp_avg`` and so on; no copies."""
    held = {f"model.{name}": one.detach() for name, one in model.named_parameters()}
    if optimiser is not None:
        fill_state(optimiser)
        for name, one in model.named_parameters():
            for key, value in optimiser.state.get(one, {}).items():
                if isinstance(value, Tensor):
                    held[f"optimiser.{name}.{key}"] = value
    return held


def write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], group: Any = None) -> None:
    """Write a checkpoint; on several ranks all call it, with a group of gloo, and all succeed or fail together.

    Tensors in parts on the ranks are given by each; of whole ones, which all ranks have, each may give some (`share`).

    Raises
    ------
    RunError
        It could not be written, on this rank or another; nothing of it is left.
    """
    rank = dist.get_rank(group) if group is not None else 0
    temporary = folder.with_name(f".{folder.name}.part")
    try:
        wanted = sum(_together(group, lambda: sum(local_bytes(one) for one in tensors.values())))
        _together(group, lambda: _begin(temporary, wanted) if rank == 0 else None)
        writer = _Writer(temporary)
        _together(group, lambda: dcp.save(dict(tensors), storage_writer=writer, process_group=group))
        said_too = json.dumps({"format": FORMAT, **state}, indent=1) + "\n"
        _together(group, lambda: (temporary / STATE).write_text(said_too) if rank == 0 else None)
        said = _together(group, lambda: {one.name: _seal(one) for one in _part(temporary, rank)})
        _together(group, lambda: _settle(temporary, folder, said) if rank == 0 else None)
    except RunError:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise


def _begin(temporary: Path, wanted: int) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    free = shutil.disk_usage(temporary).free
    if free < wanted:
        raise OSError(errno.ENOSPC, f"the disk has {free / 1e9:.2f} GB free, a checkpoint needs {wanted / 1e9:.2f}")


def _part(temporary: Path, rank: int) -> list[Path]:
    """The files a rank wrote."""
    names = [one for one in temporary.iterdir() if one.name.startswith(f"__{rank}_")]
    return names + [one for one in temporary.iterdir() if rank == 0 and not one.name.startswith("__")]


def local_bytes(tensor: Any) -> int:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.numel() * local.element_size()


def _settle(temporary: Path, folder: Path, parts: list[dict[str, list[Any]]]) -> None:
    files = {name: said for part in parts for name, said in part.items()}
    (temporary / MANIFEST).write_text(json.dumps(files, indent=1, sort_keys=True) + "\n")
    to_disk(temporary / MANIFEST)
    to_disk(temporary)
    if folder.exists():  # a damaged one, which the run went back before
        shutil.rmtree(folder)
    temporary.rename(folder)
    to_disk(folder.parent)


def _seal(path: Path) -> list[Any]:
    to_disk(path)
    return [path.stat().st_size, _sha256(path)]


def _together(group: Any, work: Callable[[], Any]) -> list[Any]:
    """Do something on each rank; returns what each gave. Where it failed on one it fails on all."""
    result, problem = None, None
    try:
        result = work()
    except (Exception, CheckpointException) as error:  # DCP's own is no Exception
        problem = _first_cause(error)
    if group is None:
        answers: list[Any] = [(result, problem)]
    else:
        answers = [None] * dist.get_world_size(group)
        dist.all_gather_object(answers, (result, problem), group=group)
    for number, (_, problem) in enumerate(answers):
        if problem:
            raise RunError(problem if len(answers) == 1 else f"rank {number}: {problem}")
    return [result for result, _ in answers]


def _first_cause(error: BaseException) -> str:
    """What went wrong first: what the disk said, and not what stumbled over it afterwards."""
    failures = getattr(error, "failures", None)  # rank -> (error, trace)
    if failures:
        rank, (inner, _) = min(failures.items(), key=lambda pair: int(pair[0]))
        return _first_cause(inner) if len(failures) == 1 else f"{_first_cause(inner)} (rank {rank}, and others)"
    one: BaseException | None = error
    while one is not None and not isinstance(one, OSError):
        one = one.__cause__ or one.__context__
    return str(one or error) or type(error).__name__


class _Writer(dcp.FileSystemWriter):  # type: ignore[misc]
    """Says what the disk said: what one rank tells another of an exception is without those before it."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        try:
            return super().write_data(plan, planner)
        except Exception as error:
            raise OSError(_first_cause(error)) from None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, by its manifest; None where it is whole. Reads all of it."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())
        if not isinstance(files, dict) or STATE not in files:
            return f"{MANIFEST} names no {STATE}"
        for name, (size, sha256) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes of {size:,}"
            if _sha256(path) != sha256:
                return f"{name} is not what was written (its SHA-256 differs)"
        read_state(checkpoint)
    except (OSError, ValueError, TypeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    except InputError as error:
        return str(error)
    return None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What state.json of a checkpoint says: step, settings, model, data and so on.

    Raises
    ------
    InputError
        There is none, or one of another format.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / STATE).read_text())
        version = state.get("format")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{checkpoint}: is no checkpoint: {STATE} cannot be read: {error}") from error
    if version != FORMAT:
        raise InputError(f"{checkpoint}: a checkpoint of format {version}; this version reads {FORMAT}")
    return state


def load(
    checkpoint: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None, group: Any = None
) -> dict[str, Any]:
    """Read parameters, and moments where an optimiser is given, into a model; on all ranks of a group.

    It does not matter on how many ranks, or in which strategy, it was written.

    Returns
    -------
    dict
        state.json

    Raises
    ------
    InputError
        The checkpoint lacks a tensor or has it in another shape.
    """
    state, wanted = read_state(checkpoint), tensors_of(model, optimiser)
    there = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    for name, tensor in wanted.items():
        if name not in there:
            raise InputError(f'{checkpoint}: has no tensor "{name}", which this model has: it is of another')
        if (size := tuple(there[name].size)) != tuple(tensor.shape):
            raise InputError(f'{checkpoint}: tensor "{name}" has shape {size}, this model\'s {tuple(tensor.shape)}')
    for name in there:
        if name.startswith("model.") and name not in wanted:
            raise InputError(f'{checkpoint}: has a tensor "{name}", which this model has not: it is of another')
    try:
        dcp.load(wanted, storage_reader=dcp.FileSystemReader(checkpoint), process_group=group)
    except CheckpointException as error:
        raise RunError(f"{checkpoint}: cannot be read: {_first_cause(error)}") from error
    return state


def read_model(checkpoint: str | os.PathLike[str]) -> Phi:
    """The model of a checkpoint, on the CPU in float32, without its run.

    Raises
    ------
    InputError
        No checkpoint, or a damaged one.
    """
    path = Path(checkpoint)
    state = read_state(path)
    if problem := damage(path):
        raise InputError(f"{path}: damaged: {problem}")
    with torch.device("meta"):
        model = Phi(PhiConfig(**state["model"]))
    model.to_empty(device="cpu")
    load(path, model)
    return model.eval()


def export(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write the model of a checkpoint as Hugging Face's safetensors and config.json.

    Parameters
    ----------
    checkpoint
        Of any step of a run; the run may go on meanwhile.
    folder
        See `Phi.save_pretrained`.
    dtype
        float32, bfloat16 or float16; None: float32, as trained.
    """
    model = read_model(checkpoint)
    if dtype is not None:
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype {dtype!r}: give float32, bfloat16 or float16")
        model.to(getattr(torch, dtype))
    model.save_pretrained(Path(folder))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
