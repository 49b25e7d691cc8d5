"""Checkpoints of a run: written beside the training, whole or not at all, told from damaged ones, read on any ranks.

``step-00001000/`` holds the parameters and moments as torch.distributed.checkpoint writes them, each rank its part;
state.json, all the rest of a run's state; and manifest.json, the size and SHA-256 of each file, written last. A folder
has this name only when all of it is on the disk. Open none from a stranger: one of its files is a pickle.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import threading
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
STATE, MANIFEST, SCORES = "state.json", "manifest.json", "scores.json"
_NAME = re.compile(r"step-(\d{8,})")
_CHUNK = 1 << 20

warnings.filterwarnings("ignore", message="torch.distributed is (disabled, )?unavailable or uninitialized")


def name_of(step: int) -> str:
    """Folder of the checkpoint of a step."""
    return f"step-{step:08d}"


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
        wanted = sum(_together(group, lambda: sum(_bytes(one) for one in tensors.values())))
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


def _bytes(tensor: Any) -> int:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local.numel() * local.element_size()


def share(tensors: Mapping[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """What a rank writes: its parts of those that are in parts, and of those that all have whole an equal share."""
    load, mine = [0] * world, {}
    for name, one in sorted(tensors.items(), key=lambda pair: -pair[1].numel()):
        if hasattr(one, "to_local"):
            mine[name] = one
            continue
        least = load.index(min(load))
        load[least] += _bytes(one) + 1
        if least == rank:
            mine[name] = one
    return mine


def _settle(temporary: Path, folder: Path, parts: list[dict[str, list[Any]]]) -> None:
    files = {name: said for part in parts for name, said in part.items()}
    (temporary / MANIFEST).write_text(json.dumps(files, indent=1, sort_keys=True) + "\n")
    _to_disk(temporary / MANIFEST)
    _to_disk(temporary)
    if folder.exists():  # a damaged one, which the run went back before
        shutil.rmtree(folder)
    temporary.rename(folder)
    _to_disk(folder.parent)


def _seal(path: Path) -> list[Any]:
    _to_disk(path)
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


def all_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), one) for one in folder.iterdir() if (match := _NAME.fullmatch(one.name))]
    return [one for _, one in sorted(found)]


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a folder; what is wrong with newer ones is said."""
    for one in reversed(all_of(folder)):
        problem = damage(one)
        if problem is None:
            return one
        say(f"{one}: damaged: {problem}. The one before it is looked at.")
    return None


def set_aside(folder: Path, newest: Path | None, say: Callable[[str], None]) -> None:
    """Rename the checkpoints newer than one, damaged or not, so that they are none any more; all where it is None."""
    there = all_of(folder)
    for one in there[there.index(newest) + 1 :] if newest in there else there if newest is None else []:
        aside = one.with_name(f"aside-{one.name}")
        shutil.rmtree(aside, ignore_errors=True)
        one.rename(aside)
        say(f"{one.name} is set aside as {aside}")


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


class Saver:
    """Writes checkpoints while the training goes on, one at a time, and keeps the newest and the best.

    Parameters
    ----------
    folder
        Of the checkpoints.
    keep_last
        How many of the newest are kept.
    group
        Of gloo, used for this alone, where there are several ranks.
    """

    def __init__(self, folder: Path, keep_last: int, group: Any = None) -> None:
        self.folder, self.keep_last, self.group = folder, keep_last, group
        self.failed: str | None = None
        self.written: Path | None = None
        self._copy: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Copy the state, which takes a moment, and write it in a thread; waits for the one before to be written."""
        self.wait()
        self.failed = None
        rank, world = (0, 1) if self.group is None else (dist.get_rank(self.group), dist.get_world_size(self.group))
        for name, tensor in share(tensors_of(model, optimiser), rank, world).items():
            if name in self._copy:
                self._copy[name].copy_(tensor)
            else:
                self._copy[name] = _host_copy(tensor)
        held = dict(state)  # its values are the caller's for good
        self._thread = threading.Thread(target=self._write, args=(held,), name="phi-fast-checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what is being written is on the disk, or has failed: see `failed`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, state: dict[str, Any]) -> None:
        path = self.folder / name_of(state["step"])
        try:
            write(path, self._copy, state, self.group)
        except BaseException as error:  # a thread that dies says nothing to the run
            self.failed = f"{path} was not written: {error}"
            return
        self.failed, self.written = None, path
        if self.group is None or dist.get_rank(self.group) == 0:
            prune(self.folder, self.keep_last)


def _host_copy(tensor: Any) -> Tensor:
    if tensor.device.type == "cuda" and not hasattr(tensor, "to_local"):
        with contextlib.suppress(RuntimeError):  # of a host that locks no more pages: the copy is only slower
            return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    copied: Tensor = tensor.to("cpu", copy=True)
    return copied


def best(folder: Path) -> Path | None:
    """The checkpoint with the highest score, where some have one; else with the lowest validation loss; or None."""
    there = all_of(folder)
    scores = read_scores(folder)
    scored = [(scores[one.name], one) for one in there if one.name in scores]
    if scored:
        return max(scored)[1]
    losses = []
    for one in there:
        try:
            loss = read_state(one).get("validation_loss")
        except InputError:
            continue
        if loss is not None:
            losses.append((loss, one))
    return min(losses)[1] if losses else None


def read_scores(folder: Path) -> dict[str, float]:
    """Scores that checkpoints were given, by name."""
    try:
        held = json.loads((folder / SCORES).read_text())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def set_score(checkpoint: Path, score: float) -> None:
    """Note a checkpoint's score, by which the best is kept."""
    path = checkpoint.parent / SCORES
    temporary = path.with_name(f".{SCORES}.part")
    temporary.write_text(json.dumps(read_scores(checkpoint.parent) | {checkpoint.name: score}, indent=1) + "\n")
    _to_disk(temporary)
    temporary.replace(path)


def prune(folder: Path, keep_last: int) -> None:
    """Remove all checkpoints but the newest and the best; a kill meanwhile leaves no half one under a whole's name."""
    kept = {*all_of(folder)[-keep_last:], best(folder)}
    for one in all_of(folder):
        if one not in kept:
            gone = one.with_name(f".{one.name}.gone")
            one.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed run left half written or half removed."""
    for one in folder.glob(".step-*"):
        shutil.rmtree(one, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
