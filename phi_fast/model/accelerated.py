"""transformers' phi with the kernels under it: the classes `accelerate` gives to a model's modules.

Each is named as the class it stands for, so that a saved config, FSDP's wrapping by name and a pickle find what they
look for. A call that the kernels do not serve is transformers' own, by the parent class.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.phi import modeling_phi

from phi_fast.kernels._common import HALVES_AND_FLOAT
from phi_fast.kernels.layer_norm import MAX_WIDTH
from phi_fast.model import fused
from phi_fast.model.operations import IGNORED, Places
from phi_fast.model.padding import batch_bounds


class Batch:
    """What all layers need to know of a batch, made once a forward pass.

    A plain class on purpose: FSDP casts the tensors of every tuple and dataclass it hands to a layer to its half
    precision, and rotary tables must stay float32.
    """

    __slots__ = ("places",)

    def __init__(self, places: Places) -> None:
        self.places = places

    def on(self, device: torch.device) -> Places:
        """The places, for a layer that a device map may have put on another GPU."""
        given = self.places
        assert given.cos is not None and given.sin is not None and given.bounds is not None
        if given.bounds.device == device:
            return given
        cos, sin, bounds = (one.to(device) for one in (given.cos, given.sin, given.bounds))
        positions = given.positions.to(device)
        return Places(positions, given.rotary_dim, given.rope_theta, cos=cos, sin=sin, bounds=bounds)


def forced() -> bool:
    """Say whether the environment chooses the implementation of the kernels, so that the CPU is served too."""
    return os.environ.get("PHI_FAST_KERNELS", "") != ""


def raw(module: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Say whether a module is no more than its weight and bias, which may then be taken without calling it.

    It is more where LoRA, quantisation or a parametrisation changed its class, a hook waits for its call (DeepSpeed
    gathers parameters so, accelerate moves them), its forward was replaced, or its weight is a tensor of another kind.
    """
    return (
        type(module) is kind
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not module._backward_hooks
        and not module._backward_pre_hooks
        and "forward" not in module.__dict__
        and type(module.weight) in (nn.Parameter, Tensor)
        and type(module.bias) in (nn.Parameter, Tensor)
    )


def normalise(norm: Any, x: Tensor) -> Tensor:
    """LayerNorm by the kernel, or by the module where it is more than that."""
    if raw(norm, nn.LayerNorm) and x.shape[-1] <= MAX_WIDTH:
        return fused.layer_norm(x, norm.weight, norm.bias, norm.eps)
    y: Tensor = norm(x)
    return y


class PhiDecoderLayer(modeling_phi.PhiDecoderLayer):  # type: ignore[misc]
    """A block: by one fused operation, or by its modules with kernels between them where they are more than weights."""

    def forward(self, hidden_states: Tensor, *args: Any, batch: Batch | None = None, **kwargs: Any) -> Any:
        if batch is None:
            return super().forward(hidden_states, *args, **kwargs)
        places, cache = batch.on(hidden_states.device), kwargs.get("past_key_values")
        if cache is None and self.is_fused(hidden_states):
            return self._fused(hidden_states, places)
        return self._by_modules(hidden_states, places, cache)

    def linears(self) -> tuple[Any, ...]:
        """The six projections, in the order of the fused operation."""
        attention, mlp = self.self_attn, self.mlp
        return attention.q_proj, attention.k_proj, attention.v_proj, attention.dense, mlp.fc1, mlp.fc2

    def is_fused(self, x: Tensor | None = None) -> bool:
        """Say whether the fused operation serves this layer as it is now, for x where given."""
        linears = self.linears()
        if not all(raw(one) for one in linears) or not raw(self.input_layernorm, nn.LayerNorm):
            return False
        dtypes = {part.dtype for one in linears for part in (one.weight, one.bias)}
        return x is None or (len(dtypes) == 1 and (fused.product_dtype(x) != x.dtype or x.dtype in dtypes))

    def _rates(self) -> tuple[float, float]:
        residual = self.resid_dropout
        return (self.self_attn.attention_dropout if self.training else 0.0), (residual.p if residual.training else 0.0)

    def _fused(self, x: Tensor, places: Places) -> Tensor:
        norm = self.input_layernorm
        weights = [part for module in (norm, *self.linears()) for part in (module.weight, module.bias)]
        heads = x.shape[-1] // self.self_attn.head_dim
        return fused.block(x.contiguous(), weights, places, heads, norm.eps, *self._rates())

    def _by_modules(self, x: Tensor, places: Places, cache: Any) -> Tensor:
        q_proj, k_proj, v_proj, dense, fc1, fc2 = self.linears()
        on_attention, on_residual = self._rates()
        dtype = fused.product_dtype(x)
        normed = normalise(self.input_layernorm, x).to(dtype)
        heads = (*x.shape[:-1], -1, self.self_attn.head_dim)
        q, k, v = (one(normed).to(dtype).view(heads) for one in (q_proj, k_proj, v_proj))
        q, k = fused.rotate(q, k, places)
        if cache is not None:
            cache.update(k.transpose(1, 2), v.transpose(1, 2), self.self_attn.layer_idx)
        attended = dense(fused.attend(q, k, v, places, on_attention).flatten(-2))
        transformed = fc2(F.gelu(fc1(normed), approximate="tanh"))
        return fused.residual(x.contiguous(), attended, transformed, on_residual)


class PhiModel(modeling_phi.PhiModel):  # type: ignore[misc]
    """Everything but the head. No mask of attention is built: the kernels take where documents begin and end."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        given = input_ids if inputs_embeds is None else inputs_embeds
        own = (input_ids is None) == (inputs_embeds is None) or past_key_values is not None
        own = own or self._is_their_own(given, attention_mask, use_cache, kwargs)
        if own:
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs,
            )  # fmt: skip
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        assert inputs_embeds is not None
        cache = None
        if (self.config.use_cache if use_cache is None else use_cache) and not self.training:
            cache = DynamicCache(config=self.config)
        batch = self._batch(inputs_embeds, attention_mask, position_ids, cache is None, kwargs)
        hidden: Tensor = self.embed_dropout(inputs_embeds)
        wanted = kwargs.get("output_hidden_states")
        wanted = self.config.output_hidden_states if wanted is None else wanted
        seen: tuple[Tensor, ...] = ()
        for layer in self.layers[: self.config.num_hidden_layers]:
            if wanted:
                seen += (hidden,)
            hidden = layer(hidden, batch=batch, past_key_values=cache)
        hidden = normalise(self.final_layernorm, hidden)
        output = BaseModelOutputWithPast(
            last_hidden_state=hidden, past_key_values=cache, hidden_states=(*seen, hidden) if wanted else None
        )
        return output if kwargs.get("return_dict", True) else output.to_tuple()

    def _is_their_own(self, given: Any, mask: Any, use_cache: bool | None, kwargs: dict[str, Any]) -> bool:
        """Say whether the call is one that transformers serves: no kernel does what it asks for."""
        config, weight = self.config, self.embed_tokens.weight
        if weight.dtype not in HALVES_AND_FLOAT or not (given.is_cuda or forced()) or given.shape[:2].numel() == 0:
            return True
        if self.training and use_cache:
            return True
        if kwargs.get("output_attentions") or getattr(config, "output_attentions", False):
            warnings.warn("attention weights are asked for: this call runs without phi_fast's kernels", stacklevel=3)
            return True
        if mask is not None and (not isinstance(mask, Tensor) or mask.shape != given.shape[:2]):
            warnings.warn(
                "attention_mask is not (rows, tokens): this call runs without phi_fast's kernels", stacklevel=3
            )
            return True
        causal = kwargs.get("is_causal")
        if not (getattr(config, "is_causal", True) if causal is None else causal):
            return True
        return not isinstance(kwargs.get("output_hidden_states"), bool | None)  # a choice of some layers

    def _batch(
        self, x: Tensor, mask: Tensor | None, position_ids: Tensor | None, packed: bool, kwargs: dict[str, Any]
    ) -> Batch:
        """What the layers take of a batch; its positions part documents only where no cache is filled (`packed`)."""
        rows, length = x.shape[:2]
        parting = position_ids if packed else None
        bounds = batch_bounds(rows, length, x.device, mask, parting, kwargs.get("cu_seq_lens_q"))
        if position_ids is None:
            position_ids = torch.arange(length, device=x.device)[None]
        # In float32, whatever the model's type; and by the module, which knows every scaling of positions.
        cos, sin = self.rotary_emb(x.new_zeros((), dtype=torch.float32), position_ids)
        half = cos.shape[-1] // 2
        cos, sin = (one[..., :half].reshape(-1, half).float().contiguous() for one in (cos, sin))
        place = torch.arange(rows * length, dtype=torch.int32, device=x.device).view(rows, length)
        if cos.shape[0] == length:
            place = place % length
        return Batch(Places(place, 2 * half, 0.0, cos=cos, sin=sin, bounds=bounds))


class PhiForCausalLM(modeling_phi.PhiForCausalLM):  # type: ignore[misc]
    """With the head: in training, labels give a loss whose logits never stand in memory, and no logits."""

    phi_fast_keeps_logits = False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        if labels is not None and use_cache is None:
            use_cache = False
        trunk = {
            "input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids,
            "past_key_values": past_key_values, "inputs_embeds": inputs_embeds, "use_cache": use_cache,
        }  # fmt: skip
        all_tokens = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if labels is None or not all_tokens or not self._has_fused_loss():
            return super().forward(**trunk, labels=labels, logits_to_keep=logits_to_keep, **kwargs)
        as_dict = kwargs.pop("return_dict", None)
        outputs = self.model(**trunk, **kwargs)
        output = CausalLMOutputWithPast(
            loss=self._loss(outputs.last_hidden_state, labels, **kwargs),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output if (self.config.return_dict if as_dict is None else as_dict) else output.to_tuple()

    def _has_fused_loss(self) -> bool:
        head = self.lm_head
        return (
            self.training
            and not self.phi_fast_keeps_logits
            and self.loss_function is ForCausalLMLoss
            and raw(head)
            and head.weight.dtype in HALVES_AND_FLOAT
            and (head.weight.is_cuda or forced())
        )

    def _loss(
        self,
        hidden: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | float | None = None,
        ignore_index: int = IGNORED,
        shift_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """transformers' ForCausalLMLoss: label t + 1 for token t; the sum divided by the items of the whole step."""
        if shift_labels is None:
            shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        targets = shift_labels.to(hidden.device).reshape(hidden.shape[:-1]).contiguous()
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(hidden.device)
        head = self.lm_head
        return fused.head_loss(hidden, head.weight, head.bias, targets, ignore_index, num_items_in_batch)


TWINS: dict[type, type] = {
    modeling_phi.PhiForCausalLM: PhiForCausalLM,
    modeling_phi.PhiModel: PhiModel,
    modeling_phi.PhiDecoderLayer: PhiDecoderLayer,
}
"""transformers' classes, and ours for each."""


def _record_outputs() -> None:
    """Enter our classes where transformers looks up, by a class's name, which outputs can be asked for."""
    for name in ("output_capturing", "generic"):  # newer and older versions
        with contextlib.suppress(ImportError):
            registry = getattr(importlib.import_module(f"transformers.utils.{name}"), "_CAN_RECORD_REGISTRY", None)
            if isinstance(registry, dict):
                for theirs, ours in TWINS.items():
                    # dict's own, for a newer registry takes a model in place of its class's name.
                    dict.__setitem__(registry, str(ours), getattr(theirs, "_can_record_outputs", None) or {})


_record_outputs()
