"""A phi to a folder and back: config.json and safetensors as Hugging Face's `PhiForCausalLM` writes them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from phi_fast.errors import InputError
from phi_fast.model.hugging_face import from_hugging_face, to_hugging_face
from phi_fast.model.phi import Phi

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_OBSOLETE = re.compile(r"(model\.layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq|model\.rotary_emb\.inv_freq")
"""Computed from the config; early versions of transformers stored it."""


def read(place: str | Path, *, dtype: torch.dtype | str | None, device: torch.device | str) -> Phi:
    """See `Phi.from_pretrained`."""
    wanted = _dtype(dtype)
    folder = _folder(place)
    config = from_hugging_face(_json(folder / CONFIG), str(folder / CONFIG))
    with torch.device("meta"):
        model = Phi(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    files = _files(folder)
    tensors: dict[str, Tensor] = {}
    for file, names in files.items():
        with _opened(file) as held:
            stored = set(held.keys())
            for name in sorted(stored if names is None else names):
                if name not in stored:
                    raise InputError(f'{file}: lacks tensor "{name}", which {INDEX} says it holds')
                if _OBSOLETE.fullmatch(name):
                    continue
                if name not in shapes:
                    raise InputError(f'{file}: tensor "{name}" is none of a phi of {config.layers} layers')
                if tuple(held.get_slice(name).get_shape()) != tuple(shapes[name]):
                    raise InputError(
                        f'{file}: tensor "{name}" has shape {tuple(held.get_slice(name).get_shape())}, but {CONFIG} '
                        f"makes it {tuple(shapes[name])}"
                    )
                tensor = held.get_tensor(name)
                if not tensor.is_floating_point():
                    raise InputError(f'{file}: tensor "{name}" is of {tensor.dtype}: give floating point')
                # A copy, for what is read may be a map of the file, which another program may change.
                tensors[name] = tensor.to(device, wanted or tensor.dtype, copy=True)
    if missing := [name for name in shapes if name not in tensors]:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f'{folder}: the weights lack tensor "{missing[0]}"{more}')
    types = {tensor.dtype for tensor in tensors.values()}
    if len(types) > 1:
        named = ", ".join(sorted(str(one).removeprefix("torch.") for one in types))
        raise InputError(f"{folder}: the weights are of several types ({named}): choose one with dtype=")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def write(model: Phi, folder: Path, max_shard_bytes: int) -> None:
    """See `Phi.save_pretrained`."""
    if max_shard_bytes < 1:
        raise InputError(f"max_shard_bytes {max_shard_bytes}: give 1 or more")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    types = {tensor.dtype for tensor in state.values()}
    if len(types) > 1:
        raise InputError("the model's parameters are of several types: make them one with model.to(dtype)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, which keeps its folders from other users.
    beside = folder if folder.is_dir() else folder.parent
    temporary = beside / f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        names = _write_weights(state, temporary, max_shard_bytes)
        held = to_hugging_face(model.config, str(types.pop()).removeprefix("torch."))
        _write_json(temporary / CONFIG, held)
        for name in names:  # safetensors makes files that only their owner reads
            shutil.copymode(temporary / CONFIG, temporary / name)
        _settle(temporary, folder, [*names, CONFIG])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_weights(state: dict[str, Tensor], folder: Path, max_shard_bytes: int) -> list[str]:
    """Write the tensors; returns the files' names in the order in which they should come to stand."""
    shards: list[list[str]] = [[]]
    room = max_shard_bytes
    for name, tensor in state.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [WEIGHTS]
    for file, names in zip(files, shards, strict=True):
        save_file({name: state[name].cpu().contiguous() for name in names}, folder / file, metadata={"format": "pt"})
        _to_disk(folder / file)
    if len(shards) == 1:
        return files
    total = {
        "total_parameters": sum(tensor.numel() for tensor in state.values()),
        "total_size": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
    }
    places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    _write_json(folder / INDEX, {"metadata": total, "weight_map": dict(sorted(places.items()))})
    return [*files, INDEX]


def _settle(temporary: Path, folder: Path, names: list[str]) -> None:
    """Bring finished files to their place, and remove what an older checkpoint left of other names."""
    if not folder.is_dir():
        temporary.rename(folder)
    else:
        # Shards of two checkpoints may have the same names: without an index a half-replaced set is no checkpoint.
        (folder / INDEX).unlink(missing_ok=True)
        for name in names:
            os.replace(temporary / name, folder / name)
        old = [one for one in folder.iterdir() if one.name == WEIGHTS or _SHARD.fullmatch(one.name)]
        for one in old:
            if one.name not in names:
                one.unlink()
    _to_disk(folder)
    _to_disk(folder.parent)


def _write_json(path: Path, held: dict[str, Any]) -> None:
    path.write_text(json.dumps(held, indent=2, sort_keys=True) + "\n")
    _to_disk(path)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _dtype(given: torch.dtype | str | None) -> torch.dtype | None:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
    if given is None or given in known.values():
        return given if isinstance(given, torch.dtype) else None
    if isinstance(given, str) and given in known:
        return known[given]
    raise InputError(f"dtype {given!r}: give {', '.join(known)}, or None for the file's own")


def _folder(place: str | Path) -> Path:
    """The folder of a checkpoint; a name on the hub is fetched, or found where it was fetched before."""
    path = Path(place)
    if path.is_dir():
        return path
    if isinstance(place, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", place) or place.startswith("."):
        raise InputError(f'"{place}": no such folder, and no name on the hub (owner/name)')
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(place, allow_patterns=[CONFIG, "*.safetensors", INDEX]))
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().split("\n")[0][:200]
        raise InputError(f'"{place}": no such folder, and the hub gives no such model: {first}') from error


def _files(folder: Path) -> dict[Path, list[str] | None]:
    """The files of weights and which tensors to take from each; None is all."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    if not (folder / INDEX).is_file():
        other = (
            " (weights in pickles, *.bin, are not read: save them as safetensors)" if any(folder.glob("*.bin")) else ""
        )
        raise InputError(f"{folder}: holds neither {WEIGHTS} nor {INDEX}{other}")
    index = _json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        raise InputError(f"{folder / INDEX}: has no weight_map")
    files: dict[Path, list[str] | None] = {}
    for name, file in places.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(
                f'{folder / INDEX}: tensor "{name}" is said to be in {file!r}, which is no file of the folder'
            )
        taken = files.setdefault(folder / file, [])
        assert taken is not None
        taken.append(name)
    return files


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    if not file.is_file():
        raise InputError(f"{file}: is not there")
    try:
        with safe_open(file, "pt") as held:
            yield held
    except SafetensorError as error:
        raise InputError(f"{file}: is no whole safetensors file: {error}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: is not there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
