"""The page's examples run as they stand there, one after the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi_fast.train import tokenize_corpus
from tests.train.support import texts, write_lines

PAGE = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text()


def test_the_python_of_the_page(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    tokenize_corpus(write_lines(tmp_path / "c.jsonl", texts(300)), tmp_path / "tokens", trained, workers=1)
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert names["number"] == 7 and names["batch"].ids.shape == (2, 64)  # type: ignore[attr-defined]
    shown = str(names["held"])
    assert re.fullmatch(r"c.jsonl row \d+ \(part \d, row \d, tokens \d+-\d+; token [\d,]+ of tokens\)", shown)


def test_the_commands_of_the_page(tmp_path: Path) -> None:
    write_lines(tmp_path / "c.jsonl", texts(60))
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()[1:]:
        command = (
            line.split("#")[0].replace("data/*.jsonl.zst", "c.jsonl").replace("--vocab 8192", "--vocab 400").split()
        )
        program = shutil.which("phi-fast", path=str(Path(sys.executable).parent))
        start = [program] if program else [sys.executable, "-m", "phi_fast.cli"]
        subprocess.run([*start, *command[1:]], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert (tmp_path / "tokens/tokens.json").exists()
