"""Stores: slices and documents as of one array, and shards refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi_fast.errors import InputError, RunError
from phi_fast.train.tokens import TokenStore, open_tokens
from tests.train.support import store

LENGTHS = [5, 1, 30, 2, 2, 17, 1, 1, 44, 9, 3, 12]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Documents of known lengths in shards of 20 tokens and more."""
    return store(tmp_path_factory.mktemp("tokens") / "t", LENGTHS, shard_tokens=20)


def test_what_it_says_of_itself(tokens: TokenStore) -> None:
    assert len(tokens) == sum(LENGTHS) and tokens.documents == len(LENGTHS)
    assert [shard["tokens"] for shard in tokens.state["shards"]] == [36, 21, 46, 24]
    assert tokens.end_of_text == 0 and tokens.vocabulary == 1000 and tokens.dtype == np.uint16
    tokens.verify()
    again = pickle.loads(pickle.dumps(tokens))
    assert np.array_equal(again[:], tokens[:])


@given(st.integers(-5, 140), st.integers(-5, 140))
def test_slices_and_documents_as_of_one_array(tokens: TokenStore, start: int, stop: int) -> None:
    whole = np.concatenate([np.fromfile(tokens.folder / one["file"], "<u2") for one in tokens.state["shards"]])
    assert np.array_equal(tokens[start:stop], whole[start:stop])
    low, high = max(0, start), min(stop, len(whole))
    starts = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    assert tokens.starts(start, stop).tolist() == [one for one in starts if low <= one < high]
    ends = np.cumsum(LENGTHS)
    touched = [n for n in range(len(LENGTHS)) if starts[n] < high and ends[n] > low and low < high]
    found = tokens.documents_in(start, stop)
    assert [(one.start, one.stop) for one in found] == [(starts[n], ends[n]) for n in touched]
    assert found == [tokens.document(n) for n in touched]


def test_where_documents_come_from(tokens: TokenStore) -> None:
    assert [(one.file, one.row) for one in tokens.documents_in(0, 9)] == [
        ("src/x.py", 0), ("src/y/z.py", 0), ("a.jsonl", 2)
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"document 12: .* holds 12, from 0"):
        tokens.document(12)
    with pytest.raises(TypeError, match="by slices"):
        tokens[3]  # type: ignore[index]
    with pytest.raises(ValueError, match="steps of 2"):
        tokens[0:9:2]


def damaged(tokens: TokenStore, folder: Path) -> Path:
    shutil.copytree(tokens.folder, folder)
    return folder


def test_damaged_shards_are_refused_by_name(tokens: TokenStore, tmp_path: Path) -> None:
    def cut(path: Path, size: int) -> None:
        path.write_bytes(path.read_bytes()[:size])

    def swap(folder: Path) -> None:
        one, other = folder / "documents-00000.bin", folder / "documents-00002.bin"
        data = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    cases: list[tuple[Any, str]] = [
        (lambda f: cut(f / "tokens-00001.bin", 0), "tokens-00001.bin: empty: 0 bytes, 42 by tokens.json"),
        (lambda f: cut(f / "tokens-00002.bin", 50), "tokens-00002.bin: truncated: 50 bytes, 92"),
        (lambda f: cut(f / "documents-00003.bin", 20), "documents-00003.bin: truncated: 20 bytes, 60"),
        (lambda f: (f / "tokens-00000.bin").unlink(), "tokens-00000.bin: No such file"),
        (lambda f: shutil.copy(f / "tokens-00001.bin", f / "tokens-00000.bin"), "tokens-00000.bin: truncated"),
        (lambda f: flip(f / "tokens-00003.bin"), "tokens-00003.bin: not the file that tokens.json speaks of"),
    ]
    for number, (harm, said) in enumerate(cases):
        folder = damaged(tokens, tmp_path / str(number))
        harm(folder)
        with pytest.raises(RunError, match=said):
            open_tokens(folder)
    equal = store(tmp_path / "equal", [20, 20, 20, 20], shard_tokens=20)
    assert len({shard["tokens"] for shard in equal.state["shards"]}) == 1
    one, other = equal.folder / "tokens-00001.bin", equal.folder / "tokens-00002.bin"
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    with pytest.raises(RunError, match=r"tokens-00001.bin: not the file that tokens.json speaks of: swapped"):
        open_tokens(equal.folder)


def test_damage_in_the_middle_is_found_by_verify(tmp_path: Path) -> None:
    large = store(tmp_path / "t", [200_000])
    path = large.folder / "tokens-00000.bin"
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"tokens-00000.bin: damaged: its SHA-256"):
        open_tokens(large.folder).verify()


def test_what_does_not_fit_is_refused(tokens: TokenStore, tmp_path: Path) -> None:
    tokens.check_vocabulary(1000)
    with pytest.raises(InputError, match="a vocabulary of 1,000 tokens for a model of 999 rows"):
        tokens.check_vocabulary(999)
    for key, said in (("vocabulary", "vocabulary 1,000 there, 5 here"), ("end_of_text", "end-of-text token 0 there")):
        with pytest.raises(InputError, match=said):
            tokens.check_tokenizer(tokens.identity | {key: 5}, "t.json")
    with pytest.raises(InputError, match=r"of another tokenizer than t.json: hash 000000000000 there, abc here"):
        tokens.check_tokenizer(tokens.identity | {"sha256": "abc"}, "t.json")
    with pytest.raises(InputError, match=r"holds no sound tokens.json"):
        open_tokens(tmp_path)
    folder = damaged(tokens, tmp_path / "t")
    state = json.loads((folder / "tokens.json").read_text())
    (folder / "tokens.json").write_text(json.dumps(state | {"finished": False}))
    with pytest.raises(InputError, match="not finished"):
        open_tokens(folder)
    (folder / "tokens.json").write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(InputError, match=r"no sound tokens.json"):
        open_tokens(folder)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 60))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_document_is_lost_or_split(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], shard_tokens: int
) -> None:
    made = store(tmp_path_factory.mktemp("t") / "t", lengths, shard_tokens=shard_tokens)
    assert [made.document(n).stop - made.document(n).start for n in range(made.documents)] == lengths
    made.verify()
    for shard in made.state["shards"][:-1]:
        assert shard["tokens"] >= shard_tokens
