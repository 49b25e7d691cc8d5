"""Tokenizers: trained alike every time, opened from anywhere, known by what they do; no text ends a document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi_fast.errors import InputError
from phi_fast.train.tokenizer import END_OF_TEXT, RUNS, Tokenizer, open_tokenizer, train_tokenizer
from tests.train.support import texts, write_lines

ROOT = Path(__file__).parents[2]


def test_training_gives_the_same_file_every_time(tmp_path: Path, trained: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", texts(300))
    code = (
        "import sys; from phi_fast.train.tokenizer import train_tokenizer as t; "
        "t(sys.argv[1], sys.argv[2], vocabulary=512, runs=True)"
    )
    for name, threads in (("one.json", "1"), ("two.json", "3")):
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, corpus, tmp_path / name], check=True, cwd=ROOT, env=env)
        assert (tmp_path / name).read_bytes() == trained.read_bytes()


def test_what_training_makes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    assert tokenizer.vocabulary == 512 and tokenizer.end_of_text == 0
    assert [tokenizer.encode([run])[0].tolist() for run in RUNS] == [[474 + n] for n in range(38)]
    assert tokenizer.decode(tokenizer.encode(["def f():\n        x"])[0]) == "def f():\n        x"
    told: list[int] = []
    corpus = write_lines(tmp_path / "c.jsonl", ["one two"] * 20)
    small = train_tokenizer(
        corpus, tmp_path / "t.json", vocabulary=5000, begin=told.append, progress=lambda size, count: told.append(count)
    )
    assert 257 < small.vocabulary < 300 and told == [corpus.stat().st_size, 20]
    with pytest.raises(InputError, match="bytes and special tokens alone are 295"):
        train_tokenizer(corpus, tmp_path / "t.json", vocabulary=290, runs=True)
    with pytest.raises(InputError, match="is a folder"):
        train_tokenizer(corpus, tmp_path, vocabulary=300)


@given(st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([text])[0]
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_of_text not in ids


@given(st.lists(st.sampled_from(["a", " ", END_OF_TEXT, "<|", "|>", "endoftext", "\n", "<|end"])).map("".join))
def test_the_end_of_text_written_out_ends_nothing(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([text])[0]
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == text


def test_an_end_of_text_that_is_not_marked_special_is_told_apart_too(tmp_path: Path, trained: Path) -> None:
    value = json.loads(trained.read_text())
    value["added_tokens"][0]["special"] = False
    (tmp_path / "t.json").write_text(json.dumps(value))
    opened = open_tokenizer(tmp_path / "t.json")
    assert opened.end_of_text == 0
    assert 0 not in opened.encode([f"a {END_OF_TEXT}"])[0]


def test_a_tokenizer_is_known_by_what_it_does(tmp_path: Path, trained: Path, tokenizer: Tokenizer) -> None:
    value = json.loads(trained.read_text())
    value["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "other.json").write_text(json.dumps(dict(reversed(value.items()))))
    assert open_tokenizer(tmp_path / "other.json").identity == tokenizer.identity
    assert len(open_tokenizer(tmp_path / "other.json").encode(["word " * 50])[0]) > 8
    value["model"]["merges"].pop()
    (tmp_path / "fewer.json").write_text(json.dumps(value))
    assert open_tokenizer(tmp_path / "fewer.json").sha256 != tokenizer.sha256


def test_files_and_folders(tmp_path: Path, trained: Path, tokenizer: Tokenizer) -> None:
    assert open_tokenizer(trained.parent).identity == tokenizer.identity
    assert open_tokenizer(trained.parent).name == trained.parent.name
    value = json.loads(trained.read_text().replace(END_OF_TEXT, "</s>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r'no token "<\|endoftext\|>" .* are \[.</s>.\]'):
        open_tokenizer(tmp_path)
    assert open_tokenizer(tmp_path, end_of_text="</s>").end_of_text == 0
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "</s>"}}')
    assert open_tokenizer(tmp_path).end_of_text == 0
    with pytest.raises(InputError, match="no such file or folder"):
        open_tokenizer(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(InputError, match=r"broken.json: no tokenizer.json that"):
        open_tokenizer(tmp_path / "broken.json")


def test_what_transformers_saves_is_opened(tmp_path: Path, trained: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    made = transformers.PreTrainedTokenizerFast(tokenizer_file=str(trained), eos_token=END_OF_TEXT)
    made.save_pretrained(tmp_path)
    opened = open_tokenizer(tmp_path)
    assert opened.encode(texts(20))[4].tolist() == tokenizer.encode(texts(20))[4].tolist()
    assert opened.end_of_text == 0


def test_a_hub_name_offline_says_what_to_do() -> None:
    code = "from phi_fast.train.tokenizer import open_tokenizer; open_tokenizer('nobody/no-such-tokenizer')"
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert "InputError: nobody/no-such-tokenizer: no file of that name here" in done.stderr
    assert "phi-fast tokenizer train" in done.stderr
