"""The examples of docs/train.md run as they stand, but for their numbers of steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.train.support import store  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "train.md"


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "tokens", [120] * 40, vocabulary=50_295)
    first, export, own = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    smaller = {"schedule_steps=2000": "schedule_steps=2", "warmup_steps=100": "warmup_steps=1", "batch=32": "batch=8"}
    smaller |= {"step-00002000": "step-00000002", "steps(0, 100)": "steps(0, 2)"}
    for code in (first, export, own):
        for name, value in smaller.items():
            code = code.replace(name, value)
        exec(compile(code, str(PAGE), "exec"), {})
    assert (tmp_path / "exported" / "model.safetensors").stat().st_size > 50e6
    lines = capsys.readouterr().out.splitlines()
    assert [one.split()[0] for one in lines] == ["0", "1"]
    assert all(10 < float(one.split()[1]) < 12 for one in lines)  # ln 51,200 is 10.84
