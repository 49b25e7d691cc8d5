"""Recipes: the paper's numbers, changes on the command line, and files of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phi_fast.errors import InputError
from phi_fast.train.recipes import names, read_recipe


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "phi_1_base",
            {"batch": 1024, "length": 2048, "lr": 1e-3, "warmup_steps": 750, "schedule_steps": 36_000, "steps": 24_000,
             "weight_decay": 0.1},
        ),
        (
            "phi_1",
            {"batch": 256, "length": 2048, "lr": 1e-4, "warmup_steps": 50, "schedule_steps": 6000, "steps": 6000,
             "weight_decay": 0.01, "save_every": 1000},
        ),
        ("phi_1_small", {"batch": 1024, "lr": 1e-3, "steps": 24_000}),
    ],
)  # fmt: skip
def test_recipes_hold_the_papers_numbers(name: str, wanted: dict[str, object]) -> None:
    settings = read_recipe(name)
    assert {key: getattr(settings, key) for key in wanted} == wanted
    config = settings.config()
    assert (config.attention_dropout, config.residual_dropout) == (0.1, 0.1)
    sizes = {"phi_1_small": (20, 1024, 4096, 16)}.get(name, (24, 2048, 8192, 32))
    assert (config.layers, config.hidden, config.mlp, config.heads, config.head_dim) == (*sizes, 64)


def test_every_recipe_says_how_to_run_it_and_cites_the_paper_or_says_it_is_ours() -> None:
    assert names() == ["phi_1", "phi_1_base", "phi_1_small", "tiny", "tiny_exercises"]
    for name in names():
        text = Path(sys.modules["phi_fast.train.recipes"].__file__ or "").with_name(f"{name}.py").read_text()
        assert "phi-fast " in text and ("2306.11644" in text or "All of it is ours" in text), name
        assert len(text.splitlines()) < 50, name


def test_changes_are_numbers_words_lists_and_fields_of_the_model() -> None:
    changes = ["micro=4", "lr=3e-4", "clip=none", "weights=[0.7, 0.3]", "checkpointing=true", "fields.layers=12"]
    got = read_recipe("phi_1_base", [*changes, "strategy=fsdp"])
    assert (got.micro, got.lr, got.clip, got.weights, got.checkpointing) == (4, 3e-4, None, (0.7, 0.3), True)
    assert (got.strategy, got.config().layers) == ("fsdp", 12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("micro", "give FIELD=VALUE"),
        ("micr=4", 'is "micro" meant'),
        ("fields=4", "as in fields.layers=12"),
        ("fields.layer=4", 'no field "layer"'),
        ("micro=3", "no multiple of micro"),
        ("precision=int8", "precision 'int8'"),
    ],
)
def test_a_wrong_change_is_refused_by_name(change: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_recipe("phi_1_base", [change])


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from phi_fast.train.settings import Settings\nSETTINGS = Settings(model='tiny', batch=8)\n")
    assert read_recipe(str(path), ["micro=2"]).batch == 8
    for text, said in (("x = 1", "makes no SETTINGS"), ("1 / 0", "ZeroDivisionError"), ("(", "SyntaxError")):
        path.write_text(text)
        with pytest.raises(InputError, match=f"mine.py: .*{said}"):
            read_recipe(str(path))
    with pytest.raises(InputError, match='no recipe "phi1_base": is "phi_1_base" meant'):
        read_recipe("phi1_base")


def test_recipes_and_plans_need_no_torch() -> None:
    code = (
        "import sys; from phi_fast.train.recipes import read_recipe; from phi_fast.train.plan import plan; "
        "from phi_fast.train.gpus import find_gpu; plan(read_recipe('phi_1'), find_gpu('h200'), 8); "
        "print({'torch', 'transformers', 'phi_fast._native'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
