"""`accelerate` and `restore`: the kernels under an existing Hugging Face phi, in place, and away again.

    report = phi_fast.accelerate(model)
    print(report)

Modules change their class and nothing else: parameters, their names, the state dict, the config and hooks stay as they
are. See docs/accelerate.md for what then runs where.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import transformers
from packaging.version import Version
from torch import nn

from phi_fast.errors import InputError
from phi_fast.kernels import _common

OLDEST = "4.56"
"""Of transformers; the layers of older versions return something else."""
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")
_UNWRAPPED = "accelerate first, then wrap, shard or subclass"
_HOW = "After a Trainer: accelerator.unwrap_model(model, keep_fp32_wrapper=False); for a device_map: load without it"


class Report(NamedTuple):
    """What `accelerate` did.

    Attributes
    ----------
    fused
        Layers that run as one fused operation.
    by_modules
        Layers whose projections are called as modules, with kernels between them.
    fused_loss
        Whether training computes the loss without the logits in memory.
    notes
        What was left as it was, and why.
    """

    fused: int
    by_modules: int
    fused_loss: bool
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.fused} layers fused"] if self.fused or not self.by_modules else []
        if self.by_modules:
            parts.append(f"{self.by_modules} layers with kernels between their modules")
        parts.append("loss without logits in training" if self.fused_loss else "loss as it was")
        return "phi_fast: " + ", ".join(parts) + "".join(f"\n- {note}" for note in self.notes)


def accelerate(model: nn.Module, *, keep_logits: bool = False) -> Report:
    """Put the kernels under a `PhiForCausalLM` of transformers, in place. Once more changes nothing but `keep_logits`.

    Parameters
    ----------
    model
        The model, or one that holds it, such as a PEFT model; on a GPU. With ``PHI_FAST_KERNELS=reference`` the CPU
        serves too, and with ``triton`` where ``TRITON_INTERPRET=1`` is set.
    keep_logits
        Return logits beside the loss in training too; then the loss is transformers' own.

    Returns
    -------
    Report
        What was swapped; `print` it.

    Raises
    ------
    InputError
        The model is not one the kernels compute; the message says what is wrong and what to do. Nothing was changed.
    """
    found = _find(model)
    from phi_fast.model import accelerated

    _check_machine(found)
    _check_model(found)
    twins = {**accelerated.TWINS, **{ours: ours for ours in accelerated.TWINS.values()}}
    swaps = [(module, twins[type(module)]) for module in _swappable(found, tuple(twins))]
    for module, kind in swaps:
        if type(module) is not kind and not _has_class_forward(module):
            raise InputError(f"model: the forward of a {kind.__name__} was replaced or wrapped: {_UNWRAPPED}. {_HOW}")
    for module, kind in swaps:
        if type(module) is not kind:
            module.__dict__.pop("forward", None)
        module.__class__ = kind
    found.phi_fast_keeps_logits = keep_logits
    return _report(found, keep_logits)


def restore(model: nn.Module) -> None:
    """Undo `accelerate`: every module has transformers' class again. Of a model that was not accelerated, nothing.

    The mixed precision that Trainer or accelerate's `prepare` wrapped around the forward since then goes with it, as
    with ``accelerator.unwrap_model(model, keep_fp32_wrapper=False)``.

    Raises
    ------
    InputError
        The model was subclassed or sharded, or its forward replaced, after it was accelerated.
    """
    found = _find(model)
    from phi_fast.model import accelerated

    theirs = {ours: kind for kind, ours in accelerated.TWINS.items()}
    swaps = [one for one in _swappable(found, (*theirs, *theirs.values())) if type(one) in theirs]
    for module in swaps:
        if not _has_class_forward(module, within=True):
            raise InputError(
                f"model: the forward of a {type(module).__name__} was replaced after accelerate: undo that"
            )
    for module in swaps:
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)
        module.__class__ = theirs[type(module)]
    found.__dict__.pop("phi_fast_keeps_logits", None)


def _find(model: nn.Module) -> Any:
    """The one PhiForCausalLM in a model."""
    if Version(transformers.__version__) < Version(OLDEST):
        raise InputError(f"transformers {transformers.__version__}: accelerate needs {OLDEST} or newer; pip install -U")
    if not isinstance(model, nn.Module):
        raise InputError(f"model: expected transformers' PhiForCausalLM, got {type(model).__name__}")
    from phi_fast.model.phi import Phi

    if isinstance(model, Phi):
        raise InputError("model: is phi_fast's own Phi: give it the kernels with model.ops = phi_fast.model.FUSED")
    found = [one for one in model.modules() if isinstance(one, transformers.PhiForCausalLM)]
    if len(found) != 1:
        held = f", which holds {len(found)} of them" if found else ""
        raise InputError(f"model: expected transformers' PhiForCausalLM, got {type(model).__name__}{held}")
    return found[0]


def _swappable(model: Any, known: tuple[type, ...]) -> list[Any]:
    """The modules whose classes are exchanged; each must be of a known class itself, not of one derived from it."""
    modules = [model, model.model, *model.model.layers]
    for module in modules:
        if type(module) not in known:
            kind = type(module)
            raise InputError(f"model: holds a {kind.__module__}.{kind.__name__}, not transformers' own: {_UNWRAPPED}")
    return modules


def _has_class_forward(module: nn.Module, within: bool = False) -> bool:
    """Say whether a module's forward is its class's, be it bound to the module as an attribute.

    transformers 4 leaves it so when it captured outputs; accelerate's `unwrap_model`, without its decorators. Trainer
    and accelerate's `prepare` leave a wrapper of mixed precision, which is looked into only if `within`: another
    class's forward would not be reached through it.
    """
    if "forward" not in module.__dict__:
        return True
    known = _layers_of(type(module).forward)
    given = _layers_of(module.__dict__["forward"])
    return any(one in known for one in (given if within else given[:1]))


def _layers_of(function: Any) -> list[Any]:
    """A function and, one after the other, those it wraps."""
    layers = []
    while function is not None:
        function = getattr(function, "__func__", function)
        layers.append(function)
        function = getattr(function, "__wrapped__", None)
    return layers


def _check_machine(model: Any) -> None:
    chosen = os.environ.get("PHI_FAST_KERNELS", "")
    weight = model.model.embed_tokens.weight
    if chosen:
        _common.dispatch(weight)  # refuses a choice there is not, or that cannot run here
    if chosen == "reference":
        return
    for name, value in model.named_parameters():
        if not value.is_cuda and not (chosen == "triton" and _common.interpreted()):
            raise InputError(
                f"model: {name} is on {value.device}, and kernels run on a GPU: call model.to('cuda') first. To try "
                "them without one, set PHI_FAST_KERNELS=reference"
            )
    if _common.triton is None:
        raise InputError("Triton, which the kernels are written in, is not installed: pip install triton")
    if weight.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(weight.device) < (8, 0):
        name = torch.cuda.get_device_name(weight.device)
        raise InputError(f"model: is on a {name}; the kernels are for compute capability 8.0 (Ampere) and newer")


def _check_model(model: Any) -> None:
    config = model.config
    heads, hidden = config.num_attention_heads, config.hidden_size
    attentions = [layer.self_attn for layer in model.model.layers]
    head_dim = attentions[0].head_dim if attentions else hidden // heads
    for field, good, why in (
        ("qk_layernorm=True", not config.qk_layernorm, "no kernel normalises queries and keys"),
        (
            f"num_key_value_heads={config.num_key_value_heads}",
            config.num_key_value_heads in (None, heads),
            f"kernels need one for each of the {heads} attention heads",
        ),
        (f"hidden_act={config.hidden_act!r}", config.hidden_act in _ACTIVATIONS, f"kernels compute {_ACTIVATIONS[0]}"),
        (
            f"hidden_size={hidden} with {heads} heads",
            head_dim % 16 == 0 and 16 <= head_dim <= 128 and head_dim * heads == hidden,
            f"the head dimension is {head_dim}; kernels have multiples of 16 from 16 to 128",
        ),
        (
            f"partial_rotary_factor with head dimension {head_dim}",
            all(one.rotary_ndims % 2 == 0 and one.rotary_ndims >= 2 for one in attentions),
            "the number of rotated dimensions must be even, and 2 at least",
        ),
    ):
        if not good:
            raise InputError(f"model: config has {field}: {why}. It runs as it is, without accelerate")
    for name, value in model.named_parameters():
        if value.is_floating_point() and value.dtype not in _common.HALVES_AND_FLOAT:
            raise InputError(f"model: {name} is of {value.dtype}; kernels take float16, bfloat16 and float32: model.to")


def _report(model: Any, keep_logits: bool) -> Report:
    from phi_fast.model.accelerated import raw

    layers = list(model.model.layers)
    fused = sum(layer.is_fused() for layer in layers)
    notes = []
    if fused < len(layers):
        held = [one for layer in layers for one in layer.linears() if not raw(one)]
        why = " and ".join(sorted({_what(one) for one in held})) or "beside LayerNorms with hooks"
        notes.append(f"{len(layers) - fused} layers call their projections as modules: {why}")
    if keep_logits:
        notes.append("the loss is transformers' own, for logits are kept")
    elif not raw(model.lm_head):
        notes.append(f"the loss is transformers' own: the head is {_what(model.lm_head)}")
    return Report(fused, len(layers) - fused, not keep_logits and raw(model.lm_head), tuple(notes))


def _what(module: nn.Module) -> str:
    kind = type(module)
    return "nn.Linear with hooks" if kind is nn.Linear else f"{kind.__module__}.{kind.__qualname__}"
