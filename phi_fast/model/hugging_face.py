"""A phi's config.json as transformers write it: version 4 with flat rotary settings, version 5 nested."""

from __future__ import annotations

import math
from typing import Any

from phi_fast.errors import InputError
from phi_fast.model.config import PhiConfig

_FIELDS = {
    "vocab_size": "rows",
    "num_hidden_layers": "layers",
    "hidden_size": "hidden",
    "intermediate_size": "mlp",
    "num_attention_heads": "heads",
    "layer_norm_eps": "layer_norm_eps",
    "attention_dropout": "attention_dropout",
    "resid_pdrop": "residual_dropout",
    "embd_pdrop": "embedding_dropout",
    "max_position_embeddings": "max_positions",
    "initializer_range": "init_std",
}
_OURS = "tokenizer_vocab_size"
"""Our own key, for `vocab_size`, which transformers' config lacks; they keep it and do not use it."""
_DEFAULT_THETA, _DEFAULT_FACTOR = 10_000.0, 0.5  # of transformers' PhiConfig, where the file says nothing


def to_hugging_face(config: PhiConfig, dtype: str) -> dict[str, Any]:
    """What config.json holds; rotary settings stand in it twice, flat for transformers 4 and nested for 5."""
    factor = _factor(config)
    settings = {theirs: getattr(config, ours) for theirs, ours in _FIELDS.items()}
    return {
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi",
        **settings,
        "num_key_value_heads": config.heads,
        "hidden_act": "gelu_new",
        "qk_layernorm": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": config.end_of_text,
        "eos_token_id": config.end_of_text,
        "pad_token_id": None,
        "partial_rotary_factor": factor,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": config.rope_theta, "partial_rotary_factor": factor,
        },
        "torch_dtype": dtype,
        _OURS: config.vocab_size,
    }  # fmt: skip


def from_hugging_face(held: Any, where: str) -> PhiConfig:
    """The config that config.json describes.

    Parameters
    ----------
    held
        The file's JSON value. A field it lacks has transformers' default, which is phi-1's, or none.
    where
        Named in errors.

    Raises
    ------
    InputError
        It is not a phi's, or asks for what a `Phi` does not do; the message names the field and says why.
    """
    if not isinstance(held, dict):
        raise InputError(f"{where}: holds no JSON object")
    _refuse_others(held, where)
    theta, factor = _rotary(held, where)
    values: dict[str, Any] = {ours: held[theirs] for theirs, ours in _FIELDS.items() if held.get(theirs) is not None}
    heads, hidden = values.get("heads", PhiConfig.heads), values.get("hidden", PhiConfig.hidden)
    if type(heads) is not int or type(hidden) is not int or heads < 1 or hidden % heads:
        raise InputError(f"{where}: num_attention_heads {heads!r} does not divide hidden_size {hidden!r}")
    for field, wanted, why in (
        ("num_key_value_heads", heads, "each of a phi's heads has keys and values of its own"),
        ("head_dim", hidden // heads, "a phi's heads share the hidden size out among them"),
    ):
        if held.get(field) not in (None, wanted):
            raise InputError(f"{where}: {field} {held[field]!r}, but {why}: {wanted} here")
    end = held.get("eos_token_id")
    if isinstance(end, list):
        if len(end) > 1:
            raise InputError(f"{where}: eos_token_id {end!r}: leave one, the token that ends a document")
        end = end[0] if end else None
    values.setdefault("rows", PhiConfig.rows)
    values["vocab_size"] = held.get(_OURS) or values["rows"]
    try:
        rotary_dim = int(hidden // heads * factor)
        return PhiConfig(**values, rope_theta=theta, rotary_dim=rotary_dim, end_of_text=end)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_others(held: dict[str, Any], where: str) -> None:
    if held.get("model_type") != "phi":
        raise InputError(f'{where}: model_type {held.get("model_type")!r}: a phi\'s is "phi"')
    if held.get("hidden_act", "gelu_new") != "gelu_new":
        raise InputError(f'{where}: hidden_act {held["hidden_act"]!r}: a phi\'s is "gelu_new", GELU in its tanh form')
    if held.get("qk_layernorm"):
        raise InputError(f"{where}: qk_layernorm {held['qk_layernorm']!r}: a phi normalises neither queries nor keys")
    if held.get("tie_word_embeddings"):
        raise InputError(f"{where}: tie_word_embeddings true: a phi's head has weights of its own")
    if held.get("quantization_config"):
        raise InputError(
            f"{where}: quantization_config: the weights are quantized; give the checkpoint as it was before"
        )


def _rotary(held: dict[str, Any], where: str) -> tuple[float, float]:
    """Base of the frequencies and share of rotated dimensions, from either place; both, if there, must agree."""
    nested = held.get("rope_parameters")
    if nested is not None and not isinstance(nested, dict):
        raise InputError(f"{where}: rope_parameters {nested!r}: give an object")
    for name, scaling in (("rope_parameters", nested), ("rope_scaling", held.get("rope_scaling"))):
        if not scaling:
            continue
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else scaling
        # Version 4's rope_scaling is null unless positions are stretched; version 5 states the type always.
        if kind not in ("default", None) or (name == "rope_scaling" and kind is None):
            raise InputError(f'{where}: {name} of type {kind!r}: a phi\'s positions are not scaled ("default")')
    found = []
    for name, default in (("rope_theta", _DEFAULT_THETA), ("partial_rotary_factor", _DEFAULT_FACTOR)):
        flat, inner = held.get(name), (nested or {}).get(name)
        if flat is not None and inner is not None and flat != inner:
            raise InputError(f"{where}: {name} is {flat!r}, but {inner!r} in rope_parameters: make them agree")
        value = inner if inner is not None else flat if flat is not None else default
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise InputError(f"{where}: {name} {value!r}: give a number above 0")
        found.append(float(value))
    return found[0], found[1]


def _factor(config: PhiConfig) -> float:
    """The share that transformers turn back into rotary_dim by int(head_dim * share), which rounds down."""
    factor = config.rotary_dim / config.head_dim
    while int(config.head_dim * factor) < config.rotary_dim:
        factor = math.nextafter(factor, math.inf)
    return factor
