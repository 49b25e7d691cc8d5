"""Corpora as tokens: what `tokenizers` gives, in order, the same after every interruption, and nothing lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner

from phi_fast.cli import app
from phi_fast.errors import InputError, RunError
from phi_fast.train import shards
from phi_fast.train.tokenize import Told, tokenize_corpus
from phi_fast.train.tokenizer import Tokenizer, open_tokenizer
from phi_fast.train.tokens import open_tokens
from phi_fast.train.workers import Workers
from tests.train.support import contents, texts, write_lines

ROOT = Path(__file__).parents[2]


def plainly(tokenizer: Path, documents: list[str]) -> list[int]:
    """The definition: the package tokenizers called on each document, and the end-of-text token after it."""
    from tokenizers import Tokenizer as Theirs

    plain = Theirs.from_file(str(tokenizer))
    plain.encode_special_tokens = True
    return [one for text in documents for one in [*plain.encode(text, add_special_tokens=False).ids, 0]]


def write_corpus(folder: Path) -> tuple[list[str], list[str]]:
    """A corpus in every form, and its documents in order and whose they are."""
    folder.mkdir()
    pieces = [texts(60, seed) for seed in range(7)]
    write_lines(folder / "a.jsonl", pieces[0])
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": one}) + "\n" for one in pieces[1])
    lines = "".join(json.dumps({"text": one}) + "\n" for one in pieces[2])
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    pq.write_table(pa.table({"text": pieces[3]}), folder / "d.parquet", row_group_size=17)
    table = pa.table({"text": pa.array(pieces[4], pa.large_string())})
    with pa.OSFile(str(folder / "e.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    (folder / "tree/sub").mkdir(parents=True)
    for n, one in enumerate(pieces[5]):
        (folder / "tree" / ("sub" if n % 2 else "") / f"f{n:02}.py").write_bytes(one.encode())
    in_tree = [pieces[5][n] for n in (*range(0, 60, 2), *range(1, 60, 2))]
    names = ["a.jsonl"] * 60 + ["b.jsonl.gz"] * 60 + ["c.jsonl.zst"] * 60 + ["d.parquet"] * 60 + ["e.arrow"] * 60
    return [one for piece in (*pieces[:5], in_tree) for one in piece], names


def inputs_of(folder: Path) -> list[str]:
    files = ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "e.arrow", "tree")
    return [str(folder / name) for name in files]


def test_every_form_of_corpus_gives_what_tokenizers_gives(tmp_path: Path, trained: Path) -> None:
    documents, names = write_corpus(tmp_path / "c")
    outputs = []
    for workers in (1, 3):
        out = tmp_path / f"t{workers}"
        store = tokenize_corpus(
            inputs_of(tmp_path / "c"), out, trained, workers=workers, unit_bytes=3000, shard_tokens=5000
        )
        outputs.append(contents(out))
    assert outputs[0] == outputs[1]
    assert store[:].tolist() == plainly(trained, documents)
    assert store.documents == len(documents) == 360 and len(store.state["shards"]) > 5
    assert store.dtype == np.uint16 and len(store) == len(store[:])
    raw = b"".join(outputs[0][f"tokens-{n:05d}.bin"] for n in range(len(store.state["shards"])))
    assert np.frombuffer(raw, "<u2").tolist() == store[:].tolist()
    place = 0
    for number, text in enumerate(documents):
        one = store.document(number)
        assert one.start == place and store.tokenizer().decode(store[one.start : one.stop - 1]) == text
        if number < 300:
            assert (one.file, one.row) == (names[number], number % 60)
        else:
            assert (tmp_path / "c" / one.file).read_bytes().decode() == text
        place = one.stop
    for n, shard in enumerate(store.state["shards"][:-1]):  # none is split: a shard ends with the one that fills it
        ids = np.frombuffer(outputs[0][f"tokens-{n:05d}.bin"], "<u2")
        assert ids[-1] == 0 and np.flatnonzero(ids[:-1] == 0)[-1] + 1 < 5000 <= len(ids) == shard["tokens"]
    store.verify()
    assert str(tmp_path) not in outputs[0]["tokens.json"].decode() + outputs[0]["inputs.json"].decode()


KILLED = """
import os, signal, sys, threading
from phi_fast.train import tokenize
tokenize._RECORD_SECONDS = 0
tokenizer, output, seconds, *inputs = sys.argv[1:]
timer = threading.Timer(float(seconds), lambda: os.kill(os.getpid(), signal.SIGKILL))
tokenize.tokenize_corpus(
    inputs, output, tokenizer, workers=2, unit_bytes=4000, shard_tokens=20000,
    progress=lambda told: timer.start() if told.resumed and float(seconds) else None,
)
os._exit(0)
"""


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path, trained: Path) -> None:
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", texts(1200, ord(name)))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress((tmp_path / "b.jsonl").read_bytes()))

    def run(output: str, seconds: float) -> int:
        inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.zst"]
        return subprocess.run(
            [sys.executable, "-c", KILLED, trained, tmp_path / output, str(seconds), *inputs], check=False, cwd=ROOT
        ).returncode

    began = time.monotonic()
    assert run("whole", 0) == 0
    whole = time.monotonic() - began
    chance, places = random.Random(5), [0]
    for _ in range(5):
        if run("out", chance.uniform(0.2, 0.7) * whole) == 0:
            break
        state = shards.read_state(tmp_path / "out")
        assert state is not None and state["tokens"] >= places[-1]
        places.append(state["tokens"])
    assert run("out", 0) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(set(places)) > 1  # it was killed part-way, and more than nothing was kept


def test_ctrl_c_ends_it_at_once(tmp_path: Path, trained: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", ["x y z " * 200_000] * 40)
    command = [sys.executable, "-m", "phi_fast.cli", "tokenize", str(corpus), "--tokenizer", str(trained), "-o"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "out")], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/tokens.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 130
    assert "stopped" in said and "goes on from here" in said


def test_a_full_disk_and_then_room(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", texts(400))
    settings: Any = {"workers": 1, "unit_bytes": 5000, "shard_tokens": 4000}
    tokenize_corpus(corpus, tmp_path / "whole", trained, **settings)
    real, left = os.pwrite, [20_000]

    def pwrite(file: int, data: Any, offset: int) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, data[: left[0]], offset)
        left[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr("phi_fast.train.tokenize._RECORD_SECONDS", 0)
    with pytest.raises(RunError, match=r"No space left on device. Nothing is lost: make room, then"):
        tokenize_corpus(corpus, tmp_path / "out", trained, **settings)
    monkeypatch.setattr(os, "pwrite", real)
    with pytest.raises(InputError, match=r"not finished \([\d,]+ so far\): give the same"):
        open_tokens(tmp_path / "out")
    told: list[Told] = []
    tokenize_corpus(corpus, tmp_path / "out", trained, progress=told.append, **settings)
    assert told[0].resumed and told[0].tokens > 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_rows_that_are_no_documents(tmp_path: Path, trained: Path) -> None:
    good = [json.dumps({"text": f"one {n}"}) for n in range(40)]
    lines = [*good[:20], "not JSON", '{"text": 3}', "", '{"text": "\\ud800"}', *good[20:]]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    told: list[Told] = []
    store = tokenize_corpus(
        tmp_path / "c.jsonl", tmp_path / "out", trained, unit_bytes=100, workers=2, progress=told.append
    )
    assert store.documents == 40 == sum(one.documents for one in told)
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [one["row"] for one in rejected] == [20, 21, 23] and store.state["rejected"] == 3
    assert rejected[1]["reason"] == 'expected a string in "text", got int'
    assert [store.document(n).row for n in (19, 20)] == [19, 24]
    with pytest.raises(InputError, match=r"c.jsonl line 21: no JSON: .*--strict"):
        tokenize_corpus(tmp_path / "c.jsonl", tmp_path / "strict", trained, strict=True)
    with pytest.raises(InputError, match=r"rejected.jsonl: 3 rows are no documents. Without --strict"):
        tokenize_corpus(tmp_path / "c.jsonl", tmp_path / "out", trained, strict=True, unit_bytes=100)


def test_documents_too_long_to_encode_are_set_aside(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phi_fast.corpus import discover
    from phi_fast.corpus.source import Unit
    from phi_fast.train import tokenize

    monkeypatch.setattr(tokenize, "LONGEST", 10)
    (source,) = discover([str(write_lines(tmp_path / "c.jsonl", ["short", "x" * 11]))])
    job = tokenize._worker(([source], trained.read_text(), "t", 0, "<u2"))
    found = job((Unit(0, 0, 0, source.size, source.size, True), None))
    assert len(found.lengths) == 1 and found.bad == [(1, 1, "document of 11 characters: longer than 10")]


def test_what_differs_is_said(tmp_path: Path, trained: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", texts(20))
    out = tmp_path / "out"
    tokenize_corpus(corpus, out, trained, workers=1)
    before = contents(out)
    value = json.loads(trained.read_text())
    value["model"]["merges"].pop()
    (tmp_path / "other.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"holds other tokens:\n  tokenizer.sha256: there"):
        tokenize_corpus(corpus, out, tmp_path / "other.json")
    with pytest.raises(RunError, match=r"settings.shard_tokens: there 134217728, here 5"):
        tokenize_corpus(corpus, out, trained, shard_tokens=5)
    write_lines(corpus, texts(21))
    with pytest.raises(RunError, match=r"c.jsonl: has changed"):
        tokenize_corpus(corpus, out, trained)
    assert contents(out) == before
    (tmp_path / "else").mkdir()
    (tmp_path / "else/mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"else: holds mine.txt, so it is no folder of tokens"):
        tokenize_corpus(corpus, tmp_path / "else", trained)
    with pytest.raises(InputError, match="lies inside the corpus"):
        tokenize_corpus(tmp_path, tmp_path / "out2", trained)
    with pytest.raises(InputError, match="workers of 0"):
        tokenize_corpus(corpus, tmp_path / "out3", trained, workers=0)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    identity = {"sha256": "0", "vocabulary": 10, "end_of_text": 0}
    with (
        shards.Writer(tmp_path / "t", identity, {"shard_tokens": 5}, [], "{}"),
        pytest.raises(RunError, match="another process writes there"),
    ):
        shards.Writer(tmp_path / "t", identity, {"shard_tokens": 5}, [], "{}")


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers

    words = {f"w{n}": n for n in range(70_000)} | {"<|endoftext|>": 70_000}
    made = Theirs(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "t.json"))
    with pytest.raises(InputError, match=r'a text that holds "<\|endoftext\|>" would end there'):
        open_tokenizer(tmp_path / "t.json")
    made.add_special_tokens(["<|end|>"])
    made.save(str(tmp_path / "t.json"))
    corpus = write_lines(tmp_path / "c.jsonl", ["w1 w69999", "w66000"])
    store = tokenize_corpus(corpus, tmp_path / "out", tmp_path / "t.json", end_of_text="<|end|>", workers=1)
    assert store.dtype == np.uint32 and store[:].tolist() == [1, 69999, 70001, 66000, 70001]


def test_an_empty_corpus_of_bad_rows_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n' + '{"text": 1}\n' * 3)
    store = tokenize_corpus(tmp_path / "c.jsonl", tmp_path / "out", tokenizer, workers=1)
    assert store.documents == 1
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.py").write_bytes(b"\xff\xfe")
    store = tokenize_corpus(tmp_path / "d", tmp_path / "none", tokenizer, workers=1)
    assert len(store) == store.documents == 0 and store[:].tolist() == [] and store.state["rejected"] == 1


def test_files_damaged_in_part_give_what_can_be_read(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "c").mkdir()
    write_lines(tmp_path / "c/a.jsonl", ["one", "two"])
    (tmp_path / "c/b.parquet").write_bytes(b"no Parquet at all")
    packed = gzip.compress("".join(json.dumps({"text": f"three {n}"}) + "\n" for n in range(3000)).encode())
    (tmp_path / "c/c.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    write_lines(tmp_path / "c/d.jsonl", ["four"])
    store = tokenize_corpus(tmp_path / "c", tmp_path / "out", trained, workers=2)
    rejected = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert [one["file"] for one in rejected] == ["b.parquet", "c.jsonl.gz"]
    assert "not a readable Parquet file" in rejected[0]["reason"] and "truncated gzip" in rejected[1]["reason"]
    files = [store.document(n).file for n in range(store.documents)]
    assert files[:2] == ["a.jsonl"] * 2 and files[-1] == "d.jsonl" and len(set(files)) == 3
    assert [store.document(n).row for n in range(2, store.documents - 1)] == list(range(store.documents - 3))
    store.verify()


def test_workers_answer_in_order_and_say_when_they_are_lost() -> None:
    with Workers(3, "tests.train.support:failing", 100) as pool:
        assert list(pool.map((n, n) for n in range(4, 60))) == [(n, n + 100) for n in range(4, 60)]
        with pytest.raises(RuntimeError, match="KeyError: 'three'"):
            list(pool.map((n, n) for n in range(9)))
    with (
        Workers(2, "tests.train.support:dying", 1) as pool,
        pytest.raises(RunError, match=r"killed by signal 9 .*fewer --workers.*goes on from here"),
    ):
        list(pool.map((n, n) for n in range(9)))


def test_the_commands(tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", texts(100))
    runner = CliRunner()
    done = runner.invoke(app, ["tokenizer", "train", str(corpus), "--vocab", "400", "-o", str(tmp_path / "t.json")])
    assert done.exit_code == 0 and "400 tokens, sha256 " in done.output
    command = ["tokenize", str(corpus), "--tokenizer", str(tmp_path / "t.json"), "-o", str(tmp_path / "out"), "-w", "1"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0 and "tokens of 100 documents in 1 shard of uint16" in done.output
    assert "all there before" in runner.invoke(app, command).output
    done = runner.invoke(app, ["tokens", "show", str(tmp_path / "out"), "--document", "4", "--verify"])
    assert done.exit_code == 0 and "c.jsonl row 4" in done.output and "every checksum holds" in done.output
    assert texts(100)[4][:20] in done.output
    done = runner.invoke(app, ["tokens", "show", str(tmp_path)])
    assert done.exit_code == 2 and "holds no sound tokens.json" in done.output
    done = runner.invoke(app, ["tokenize", str(corpus), "--tokenizer", "none.json", "-o", str(tmp_path / "o")])
    assert done.exit_code == 2 and "none.json: no such file" in done.output
