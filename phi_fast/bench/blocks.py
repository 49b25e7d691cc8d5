"""phi's parallel block whole: LayerNorm, attention and MLP beside each other, residual sum; phi-1's sizes.

Operations of a token forward: 2 · (4 · hidden² + 2 · hidden · mlp) of the products with weights, and causal attention
counted as causal. Backward twice the former and 2.5 times the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from phi_fast.bench.ops import OURS, Case, Draw, Function, Sizes, Work, compiled, op, rival
from phi_fast.kernels import block as blocks
from phi_fast.kernels.attention import attention
from phi_fast.kernels.layer_norm import layer_norm
from phi_fast.kernels.mlp import mlp
from phi_fast.kernels.residual import residual
from phi_fast.kernels.rotary import rotary, rotary_tables

_EPS = 1e-5
_PHI_1 = {"length": 2048, "hidden": 2048, "heads": 32, "mlp": 8192}
_NAMES = {  # of a Hugging Face layer's parameters, in the order of BlockWeights
    "input_layernorm": "norm", "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v",
    "self_attn.dense": "dense", "mlp.fc1": "fc1", "mlp.fc2": "fc2",
}  # fmt: skip


def _inputs(sizes: Sizes, draw: Draw) -> Sequence[Any]:
    tokens, length, hidden, heads, inner = (int(sizes[name]) for name in ("tokens", "length", "hidden", "heads", "mlp"))
    cos, sin = rotary_tables(length, hidden // heads // 2, device=draw.device)
    weights = [draw.normal(hidden, mean=1), draw.normal(hidden)]
    for out, width in [(hidden, hidden)] * 4 + [(inner, hidden), (hidden, inner)]:
        weights += [draw.normal(out, width, scale=width**-0.5), draw.normal(out, scale=0.1)]
    return draw.normal(tokens // length, length, hidden), cos, sin, heads, *weights


def block_work(sizes: Sizes, size: int) -> dict[str, Work]:
    """x and weights in, the result out; then its gradient, x and weights in, and all gradients out."""
    tokens, length, hidden, inner = (sizes[name] for name in ("tokens", "length", "hidden", "mlp"))
    matrices = 4 * hidden**2 + 2 * hidden * inner
    weights = matrices + 7 * hidden + inner  # LayerNorm's two, and six biases
    products, attended = 2 * tokens * matrices, 2 * tokens * length * hidden
    x, tables = tokens * hidden, 4 * length * (hidden // sizes["heads"] // 2)  # of fp32
    return {
        "forward": Work(products + attended, (2 * x + weights) * size + tables),
        "backward": Work(2 * products + 2.5 * attended, (3 * x + 2 * weights) * size + tables),
    }


_CASES = [
    Case({"tokens": tokens, **_PHI_1}, {"tokens": 1024, **_PHI_1, "length": 512}) for tokens in (4096, 16384, 32768)
]


@op(
    "block", inputs=_inputs, cases=_CASES, small=_CASES[1:2], work=block_work,
    interpreted=[{"tokens": 96, "length": 48, "hidden": 128, "heads": 2, "mlp": 256}],
    compiles=False,  # its attention goes through documents one by one: Hugging Face's layer is compiled instead
)  # fmt: skip
def _block(x: Tensor, cos: Tensor, sin: Tensor, heads: int, *weights: Tensor) -> Tensor:
    """One parallel block of phi: LayerNorm, attention and MLP side by side, residual sum."""
    return blocks.reference(x, blocks.BlockWeights(*weights), cos, sin, heads=heads, eps=_EPS)


@rival("block", name=OURS)
def _ours(x: Tensor, cos: Tensor, sin: Tensor, heads: int, *weights: Tensor) -> Tensor:
    return blocks.block(x, blocks.BlockWeights(*weights), cos, sin, heads=heads, eps=_EPS)


@rival("block", name="phi_fast, op by op")
def _op_by_op(x: Tensor, cos: Tensor, sin: Tensor, heads: int, *weights: Tensor) -> Tensor:
    w = blocks.BlockWeights(*weights)
    y = layer_norm(x, w.norm_weight, w.norm_bias, _EPS)
    q, k, v = (
        F.linear(y, weight, bias).view(*x.shape[:2], heads, -1)
        for weight, bias in ((w.q_weight, w.q_bias), (w.k_weight, w.k_bias), (w.v_weight, w.v_bias))
    )
    mixed = attention(*rotary(q, k, cos, sin), v).flatten(-2)
    branch = mlp(y, w.fc1_weight, w.fc1_bias, w.fc2_weight, w.fc2_bias)
    return residual(x, F.linear(mixed, w.dense_weight, w.dense_bias), branch)


def _hugging_face_layer() -> Function:
    """Give Hugging Face's layer as a function of the same arguments, its attention SDPA."""
    from transformers import PhiConfig
    from transformers.models.phi.modeling_phi import PhiDecoderLayer

    layers: list[Any] = []

    def run(x: Tensor, cos: Tensor, sin: Tensor, heads: int, *weights: Tensor) -> Tensor:
        w = blocks.BlockWeights(*weights)
        if not layers:
            hidden, inner = x.shape[-1], w.fc1_bias.shape[0]
            config = PhiConfig(
                hidden_size=hidden, intermediate_size=inner, num_attention_heads=heads, layer_norm_eps=_EPS
            )
            config._attn_implementation = "sdpa"
            with torch.device("meta"):
                layers.append(PhiDecoderLayer(config, 0))
        named = {
            f"{theirs}.{kind}": getattr(w, f"{ours}_{kind}")
            for theirs, ours in _NAMES.items()
            for kind in ("weight", "bias")
        }
        tables = tuple(torch.cat([one, one], -1).to(x.dtype)[None] for one in (cos, sin))
        places = torch.arange(x.shape[1], device=x.device)[None]
        given = {"position_ids": places, "position_embeddings": tables}
        result = torch.func.functional_call(layers[0], named, (x,), given)
        out: Tensor = result[0] if isinstance(result, tuple) else result  # a tuple before transformers 5
        return out

    return run


@rival("block", name="Hugging Face, SDPA", packages=("transformers",), builds=True)
def _hugging_face() -> Function:
    return _hugging_face_layer()


@rival("block", name="Hugging Face, compiled", needs="compile", packages=("transformers",), builds=True)
def _hugging_face_compiled() -> Function:
    return compiled(_hugging_face_layer())
