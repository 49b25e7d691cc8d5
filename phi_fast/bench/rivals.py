"""Who else computes our ops: PyTorch's own fused functions, flash-attn, Liger, Hugging Face."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.bench.attentions import ROTARY_DIM
from phi_fast.bench.ops import Function, compiled, rival
from phi_fast.kernels.attention import document_bounds
from phi_fast.kernels.attention_rotary import rotary_angles, rotate_reference

_FLASH = ("flash-attn:flash_attn",)
_LIGER = ("liger-kernel:liger_kernel",)


@rival("layer_norm", name="F.layer_norm")
def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


@rival("layer_norm", name="Liger", needs="cuda", packages=_LIGER)
def _liger_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction

    return LigerLayerNormFunction.apply(x, weight, bias, eps)


@rival("residual", name="F.dropout", exact=False)
def _dropout(x: Tensor, attention: Tensor, mlp: Tensor, p: float, seed: Tensor) -> Tensor:
    return x + F.dropout(attention, p, p > 0) + F.dropout(mlp, p, p > 0)


@rival("residual", name="F.dropout, compiled", needs="compile", exact=False, builds=True)
def _dropout_compiled() -> Function:
    return compiled(_dropout)


@rival("rotary", name="Hugging Face", packages=("transformers",))
def _hugging_face_rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    from transformers.models.phi.modeling_phi import apply_rotary_pos_emb

    half = cos.shape[-1]
    # Its tables repeat each angle and have the inputs' dtype, as PhiRotaryEmbedding makes them.
    wide = [torch.cat([one, one], -1).to(q.dtype)[None, :, None] for one in (cos, sin)]
    turned = apply_rotary_pos_emb(q[..., : 2 * half], k[..., : 2 * half], wide[0][:, :, 0], wide[1][:, :, 0], 2)
    first, second = (torch.cat([one, rest[..., 2 * half :]], -1) for one, rest in zip(turned, (q, k), strict=True))
    return first, second


def _backend(name: str) -> Function:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(getattr(SDPBackend, name)):
            mixed: Tensor = _sdpa(q, k, v)
        return mixed

    return attend


@rival("attention", name="SDPA")
def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    mixed: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(1, 2)


for _name, _called in (("FLASH", "flash"), ("CUDNN", "cuDNN"), ("EFFICIENT", "efficient")):
    rival("attention", name=f"SDPA, {_called}", needs="cuda")(_backend(f"{_name}_ATTENTION"))


@functools.cache
def _flex() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention, dynamic=False), torch.compile(create_block_mask, dynamic=False)


def _causal(batch: Any, head: Any, row: Any, column: Any) -> Any:
    return row >= column


@rival("attention", name="FlexAttention", needs="compile", builds=True)
def _flex_attention() -> Function:
    flex, block_mask = _flex()
    masks: dict[int, Any] = {}  # a mask is made once a batch shape, for all layers: its cost is no layer's

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[1]
        if length not in masks:
            masks[length] = block_mask(_causal, None, None, length, length, device=q.device)
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        mixed: Tensor = flex(q, k, v, block_mask=masks[length])
        return mixed.transpose(1, 2)

    return attend


@rival("attention", name="flash-attn", needs="cuda", packages=_FLASH)
def _flash_attn(q: Tensor, k: Tensor, v: Tensor) -> Any:
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v, causal=True)


def _turned(q: Tensor, k: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    angles = rotary_angles(document_bounds(cu_seqlens, q.shape[0]), ROTARY_DIM, 10000.0, torch.float32)
    return rotate_reference(q, *angles), rotate_reference(k, *angles)


def _documents(cu_seqlens: Tensor, tokens: int) -> Tensor:
    places = torch.arange(tokens, dtype=torch.int32, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens, places, right=True)


@rival("attention_packed", name="SDPA, mask")
def _sdpa_packed(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    document = _documents(cu_seqlens, q.shape[0])
    mask = (document[:, None] == document[None, :]).tril()
    q, k = _turned(q, k, cu_seqlens)
    q, k, v = (one.transpose(0, 1)[None] for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1)


@rival("attention_packed", name="FlexAttention", needs="compile", builds=True)
def _flex_packed() -> Function:
    flex, block_mask = _flex()
    turned = compiled(_turned)
    masks: list[Any] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
        if not masks:
            document = _documents(cu_seqlens, q.shape[0])

            def seen(batch: Any, head: Any, row: Any, column: Any) -> Any:
                return (row >= column) & (document[row] == document[column])

            masks.append(block_mask(seen, None, None, q.shape[0], q.shape[0], device=q.device))
        q, k = turned(q, k, cu_seqlens)
        q, k, v = (one.transpose(0, 1)[None] for one in (q, k, v))
        mixed: Tensor = flex(q, k, v, block_mask=masks[0])
        return mixed[0].transpose(0, 1)

    return attend


@rival("attention_packed", name="flash-attn", needs="cuda", packages=_FLASH, builds=True)
def _flash_packed() -> Function:
    longest: list[int] = []  # asked for once, as a training loop would; each question waits for the GPU

    def attend(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Any:
        from flash_attn import flash_attn_varlen_func

        if not longest:
            longest.append(int((cu_seqlens[1:] - cu_seqlens[:-1]).max()))
        q, k = _turned(q, k, cu_seqlens)
        return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, longest[0], longest[0], causal=True)

    return attend


def _no_linear_cross_entropy() -> str:
    return "" if hasattr(F, "linear_cross_entropy") else f"torch {torch.__version__} has none; 2.13 has"


@rival("cross_entropy", name="F.linear_cross_entropy", missing=_no_linear_cross_entropy)
def _linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    # Its loss comes in the inputs' dtype: a rounding that the others leave out.
    return F.linear_cross_entropy(hidden, weight, labels, linear_bias=bias).float()


@rival("cross_entropy", name="F.linear_cross_entropy, chunked", missing=_no_linear_cross_entropy)
def _chunked_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, labels, linear_bias=bias, options=options).float()


@rival("cross_entropy", name="Liger", needs="cuda", packages=_LIGER)
def _liger_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Any:
    from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss()(weight, hidden, labels, bias).float()
