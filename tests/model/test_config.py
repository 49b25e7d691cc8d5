"""Presets, counts and validation of PhiConfig."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.model import Phi, PhiConfig
from phi_fast.model.hugging_face import from_hugging_face, to_hugging_face

WHOLE = ["vocab_size", "rows", "layers", "hidden", "mlp", "heads", "rotary_dim", "max_positions"]
RATES = ["attention_dropout", "residual_dropout", "embedding_dropout"]
POSITIVE = ["rope_theta", "layer_norm_eps", "init_std"]


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(PhiConfig.phi_1(), 1_418_270_720), (PhiConfig.phi_1_small(), 356_794_368), (PhiConfig.tiny(), 13_554_688)],
)
def test_parameters(config: PhiConfig, parameters: int) -> None:
    with torch.device("meta"):
        model = Phi(config)
    assert sum(value.numel() for value in model.parameters()) == config.parameters == parameters


def test_presets_are_the_papers() -> None:
    large, less = PhiConfig.phi_1(), PhiConfig.phi_1_small()
    assert (large.layers, large.hidden, large.mlp, large.heads, large.head_dim) == (24, 2048, 8192, 32, 64)
    assert (less.layers, less.hidden, less.mlp, less.heads, less.head_dim) == (20, 1024, 4096, 16, 64)
    for one in (large, less):
        assert (one.rotary_dim, one.max_positions, one.vocab_size, one.rows) == (32, 2048, 50_295, 51_200)
        assert (one.attention_dropout, one.residual_dropout, one.layer_norm_eps) == (0.1, 0.1, 1e-5)
    assert PhiConfig.phi_1(residual_dropout=0.0) == dataclasses.replace(large, residual_dropout=0.0)
    with pytest.raises(InputError, match='no field "depth"'):
        PhiConfig.tiny(depth=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        large.layers = 1  # type: ignore[misc]


def test_flops_are_those_of_the_products_that_run() -> None:
    """Counted by torch on a small model, its full square of attention; torch counts no additions."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = PhiConfig.tiny(rows=128, vocab_size=128, end_of_text=None)
    model = Phi(config)
    ids = torch.randint(0, 128, (2, 32))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids, ids).loss.backward()
    added = sum(value.numel() for value in model.parameters() if value.dim() == 1)
    assert counter.get_total_flops() == 64 * (config.flops_per_token(32, causal=False) - 6 * added)

    large = PhiConfig.phi_1()
    assert f"{large.flops_per_token() / 1e9:.2f} {large.flops_per_token(causal=False) / 1e9:.2f}" == "8.48 9.09"
    assert large.flops_per_token(1) == large.flops_per_token(1, causal=False)
    with pytest.raises(InputError, match="length 0"):
        large.flops_per_token(0)


@given(st.sampled_from(WHOLE), st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.none(), st.text()))
def test_sizes_are_whole_numbers_above_0(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{field} "):
        PhiConfig(**{field: value})


@given(
    st.sampled_from(RATES + POSITIVE),
    st.one_of(
        st.floats(max_value=0, exclude_max=True),
        st.sampled_from([math.nan, math.inf]),
        st.booleans(),
        st.none(),
        st.text(),
    ),
)
def test_rates_and_scales(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{field} "):
        PhiConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attention_dropout", 1.0, "attention_dropout 1.0: give a rate"),
        ("rope_theta", 0, "rope_theta 0.0: give a number above 0"),
        ("rows", 50_000, "rows 50,000: fewer than vocab_size, 50,295"),
        ("heads", 24, "heads 24: hidden 2,048 is no multiple of it"),
        ("rotary_dim", 31, "rotary_dim 31: give an even number up to head_dim, 64"),
        ("rotary_dim", 66, "rotary_dim 66: give an even number up to head_dim, 64"),
        ("end_of_text", 51_200, "end_of_text 51200: give a token from 0 to 51,199, or None"),
        ("end_of_text", -1, "end_of_text -1"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PhiConfig(**{field: value})


@st.composite
def configs(draw: st.DrawFn) -> PhiConfig:
    heads, head_dim = draw(st.integers(1, 64)), draw(st.integers(2, 300))
    vocab_size = draw(st.integers(1, 60_000))
    rows = vocab_size + draw(st.integers(0, 1000))
    return PhiConfig(
        vocab_size=vocab_size,
        rows=rows,
        layers=draw(st.integers(1, 100)),
        hidden=heads * head_dim,
        mlp=draw(st.integers(1, 20_000)),
        heads=heads,
        rotary_dim=2 * draw(st.integers(1, head_dim // 2)),
        rope_theta=draw(st.floats(1, 1e7)),
        layer_norm_eps=draw(st.floats(1e-12, 1e-2)),
        attention_dropout=draw(st.floats(0, 0.99)),
        max_positions=draw(st.integers(1, 1 << 20)),
        end_of_text=draw(st.one_of(st.none(), st.integers(0, rows - 1))),
    )


@given(configs())
@example(PhiConfig(hidden=44, heads=1, rotary_dim=30))  # int(44 * (30 / 44)) is 29
def test_every_config_comes_back_from_hugging_faces_form(config: PhiConfig) -> None:
    held = to_hugging_face(config, "float32")
    assert from_hugging_face(held, "config.json") == config
    nested, flat = dict(held), dict(held)
    for name in ("rope_theta", "partial_rotary_factor", "rope_scaling"):
        del nested[name]
    del flat["rope_parameters"]
    assert from_hugging_face(nested, "config.json") == from_hugging_face(flat, "config.json") == config


def test_the_config_needs_no_torch() -> None:
    code = "import sys; from phi_fast.model import PhiConfig; PhiConfig.phi_1(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_torch_the_model_says_what_to_install() -> None:
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else real(name, *rest)\n"
        "from phi_fast.model import Phi"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install 'phi-fast[train]'" in done.stderr


def test_the_pages_table_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text()
    for name in ("phi_1", "phi_1_small", "tiny"):
        config = getattr(PhiConfig, name)()
        (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", page, re.MULTILINE)
        sizes, parameters, flops = (cell.strip() for cell in row.replace("\N{MULTIPLICATION SIGN}", "x").split("|"))
        assert sizes == f"{config.layers}, {config.hidden}, {config.mlp}, {config.heads} x {config.head_dim}"
        assert int(parameters.replace(",", "")) == config.parameters
        for stated, causal in zip(flops.split(" / "), (True, False), strict=True):
            decimals = len(stated.partition(".")[2])
            assert stated == f"{config.flops_per_token(causal=causal) / 1e9:.{decimals}f}"
