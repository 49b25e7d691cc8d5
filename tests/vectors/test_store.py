"""Stores: written in order, gone on with after an interruption to the same bytes, refused where something differs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from typer.testing import CliRunner, Result

from phi_fast.cli import app
from phi_fast.errors import InputError, RunError
from phi_fast.vectors import Embedder, embed_to, knn, open_vectors
from phi_fast.vectors.corpus import Told, embed_corpus
from tests.vectors import tiny

ROOT = Path(__file__).parents[2]
TEXTS = [f"def f{n}(x):\n    return x + {n * n}\n" for n in range(500)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("bert", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder(folder, device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stopping_after(texts: list[str], count: int) -> Iterator[str]:
    yield from texts[:count]
    raise KeyboardInterrupt


def test_vectors_of_texts(tmp_path: Path, embedder: Embedder) -> None:
    store = embed_to(tmp_path / "v", TEXTS, embedder, ids=[f"t{n}" for n in range(500)], block=64)
    assert store.finished and len(store) == 500
    assert store.model == embedder.id and store.settings["embedder"]["pooling"] == "mean"
    assert store.ids == [f"t{n}" for n in range(500)]
    assert isinstance(store.vectors, np.memmap)
    np.testing.assert_allclose(store.vectors, embedder.embed(TEXTS), atol=1e-5)
    np.testing.assert_array_equal(np.load(tmp_path / "v/vectors.npy", mmap_mode="r"), store.vectors)
    _, places = knn(embedder.embed(TEXTS[40:45]), store.vectors, 1)
    assert places[:, 0].tolist() == [40, 41, 42, 43, 44]
    assert str(tmp_path) not in (tmp_path / "v/store.json").read_text()


@pytest.mark.parametrize("stored_as", ["float32", "float16"])
def test_interrupted_and_gone_on_with_it_is_the_same(tmp_path: Path, embedder: Embedder, stored_as: Any) -> None:
    embed_to(tmp_path / "whole", TEXTS, embedder, block=50, stored_as=stored_as)
    for stop in (170, 30, 400):
        with pytest.raises(KeyboardInterrupt):
            embed_to(tmp_path / "v", stopping_after(TEXTS, stop), embedder, block=50, stored_as=stored_as)
    store = open_vectors(tmp_path / "v")
    assert not store.finished and len(store) == 400 == len(store.ids)
    with (tmp_path / "v/vectors.npy").open("ab") as file:  # what a kill leaves half done
        file.write(b"torn" * 1000)
    with (tmp_path / "v/rows.arrow").open("ab") as file:
        file.write(b"torn")
    done: list[int] = []
    store = embed_to(tmp_path / "v", iter(TEXTS), embedder, block=50, stored_as=stored_as, progress=done.append)
    assert store.finished and store.vectors.dtype == stored_as and done[-1] == 500
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")
    embed_to(tmp_path / "v", TEXTS, embedder, block=50, stored_as=stored_as)  # finished: the same again
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")


def test_a_kill_loses_a_block_at_most(tmp_path: Path, folder: Path) -> None:
    code = f"""
    import sys, time
    from phi_fast.vectors import Embedder, embed_to
    from tests.vectors.test_store import TEXTS
    embedder = Embedder({str(folder)!r}, device="cpu")
    slowly = embedder.embed
    embedder.embed = lambda texts: (time.sleep(0.05), slowly(texts))[1]
    embed_to(sys.argv[1], TEXTS, embedder, block=10)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "v")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment)
    while process.poll() is None:
        time.sleep(0.02)
        if (tmp_path / "v/store.json").exists() and json.loads((tmp_path / "v/store.json").read_text())["rows"] >= 100:
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    rows = len(open_vectors(tmp_path / "v"))
    assert 100 <= rows < 500
    subprocess.run(command, env=environment, check=True)
    embed_to(tmp_path / "whole", TEXTS, Embedder(folder, device="cpu"), block=10)
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")


def test_refusals(tmp_path: Path, folder: Path, embedder: Embedder) -> None:
    embed_to(tmp_path / "v", TEXTS[:100], embedder, block=50)
    before = contents(tmp_path / "v")
    with pytest.raises(RunError, match=r"embedder\.pooling: there \"mean\", here \"cls\""):
        embed_to(tmp_path / "v", TEXTS[:100], Embedder(folder, pooling="cls", device="cpu"), block=50)
    with pytest.raises(RunError, match=r"stored_as: there \"float32\""):
        embed_to(tmp_path / "v", TEXTS[:100], embedder, block=50, stored_as="float16")
    with pytest.raises(RunError, match="other texts"):
        embed_to(tmp_path / "v", ["other", *TEXTS[1:100]], embedder, block=50)
    with pytest.raises(RunError, match="fewer texts"):
        embed_to(tmp_path / "v", TEXTS[:120], embedder, block=50)
    with pytest.raises(RunError, match="more texts than these 50"):
        embed_to(tmp_path / "v", TEXTS[:50], embedder, block=50)
    assert contents(tmp_path / "v") == before
    with pytest.raises(InputError, match="ids"):
        embed_to(tmp_path / "w", TEXTS[:10], embedder, ids=["a"])
    with pytest.raises(InputError, match="more ids"):
        embed_to(tmp_path / "x", TEXTS[:1], embedder, ids=["a", "b"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("mine")
    with pytest.raises(InputError, match="no store"):
        embed_to(tmp_path / "mine", TEXTS, embedder)
    with pytest.raises(InputError, match=r"store\.json"):
        open_vectors(tmp_path / "mine")
    with (tmp_path / "v/vectors.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(RunError, match="shorter"):
        open_vectors(tmp_path / "v")


def test_killed_before_the_first_record(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "v").mkdir()
    for name in ("vectors.npy", "rows.arrow", ".store.json.part"):
        (tmp_path / "v" / name).write_bytes(b"torn")
    assert len(embed_to(tmp_path / "v", TEXTS[:20], embedder)) == 20


def test_two_at_a_time_are_refused(tmp_path: Path, embedder: Embedder) -> None:
    def texts() -> Iterator[str]:
        yield TEXTS[0]
        with pytest.raises(RunError, match="another process writes there"):
            embed_to(tmp_path / "v", TEXTS, embedder)

    assert len(embed_to(tmp_path / "v", texts(), embedder)) == 1


def test_nothing_to_embed(tmp_path: Path, embedder: Embedder) -> None:
    store = embed_to(tmp_path / "v", [], embedder)
    assert store.finished and store.vectors.shape == (0, 32) and store.ids == []


LONG = "".join(TEXTS[:40])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """JSONL plain and compressed with bad rows, Parquet with a null, and a long document in each."""
    where = tmp_path / "corpus"
    where.mkdir()
    lines = [json.dumps({"id": f"a{n}", "text": text}) for n, text in enumerate([*TEXTS[:60], LONG, ""])]
    bad = ["", "no json", '{"text": 3}', '{"id": 1}', '{"text": "\\ud800"}', "[1]", '{"text": null}']
    (where / "a.jsonl").write_text("\n".join([*lines[:20], *bad, *lines[20:]]) + "\n")
    rest = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[60:90])
    (where / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(rest.encode()))
    pq.write_table(pa.table({"text": [*TEXTS[90:100], None, LONG], "id": list(range(12))}), where / "c.parquet")
    return where


def test_every_document_of_a_corpus(tmp_path: Path, corpus: Path, embedder: Embedder) -> None:
    told: list[Told] = []
    store = embed_corpus(str(corpus), tmp_path / "v", embedder, unit_bytes=600, progress=told.append)
    rows = store.rows.to_pylist()
    texts = {("a.jsonl", row + 7 * (row >= 20)): text for row, text in enumerate([*TEXTS[:60], LONG, ""])}
    texts |= {("b.jsonl.zst", row): text for row, text in enumerate(TEXTS[60:90])}
    texts |= {("c.parquet", row): text for row, text in enumerate([*TEXTS[90:100], None, LONG]) if text is not None}
    seen: dict[tuple[str, int], int] = {}
    for one in rows:
        key = one["file"], one["row"]
        assert one["start"] == seen.get(key, 0)
        seen[key] = one["end"]
    assert seen == {key: len(text) for key, text in texts.items()}
    assert len(rows) > len(texts) + 10  # windows
    pieces = [texts[one["file"], one["row"]][one["start"] : one["end"]] for one in rows]
    np.testing.assert_allclose(store.vectors, embedder.embed(pieces), atol=1e-5)
    named = {(one["file"], one["row"]): one["id"] for one in rows}
    assert named["a.jsonl", 3] == "a3" and named["a.jsonl", 27] == "a20"
    assert named["b.jsonl.zst", 4] == "b.jsonl.zst:4" and named["c.parquet", 11] == "11"
    rejected = [json.loads(line) for line in (tmp_path / "v/rejected.jsonl").read_text().splitlines()]
    assert [(one["file"], one["row"]) for one in rejected] == [
        *(("a.jsonl", n) for n in range(21, 27)),
        ("c.parquet", 10),
    ]
    assert 'expected a string in "text", got int' in rejected[1]["reason"]
    assert sum(one.documents for one in told) == len(texts) and sum(one.rejected for one in told) == 7
    assert sum(one.vectors for one in told) == len(rows)


def test_a_corpus_is_gone_on_with(tmp_path: Path, corpus: Path, embedder: Embedder) -> None:
    embed_corpus(str(corpus), tmp_path / "whole", embedder, unit_bytes=600)
    for steps in (1, 2, 0, 2, 3):

        def stop(told: Told, left: list[int] = [steps]) -> None:  # noqa: B006
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            embed_corpus(str(corpus), tmp_path / "v", embedder, unit_bytes=600, progress=stop)
    assert 0 < len(open_vectors(tmp_path / "v")) < len(open_vectors(tmp_path / "whole"))
    embed_corpus(str(corpus), tmp_path / "v", embedder, unit_bytes=600)
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")
    (corpus / "a.jsonl").write_text('{"text": "other"}\n')
    with pytest.raises(RunError, match="inputs"):
        embed_corpus(str(corpus), tmp_path / "v", embedder, unit_bytes=600)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["embed", *(str(one) for one in arguments)], env={"COLUMNS": "160"})


def test_command(tmp_path: Path, corpus: Path, folder: Path) -> None:
    done = call(corpus, "--output", tmp_path / "v", "--model", folder, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "from 103 documents, by bert@" in done.output and "7 rows are no documents" in done.output
    assert call(corpus, "--output", tmp_path / "v", "--model", folder, "--device", "cpu", "-q").output == ""
    other = call(corpus, "--output", tmp_path / "v", "--model", folder, "--device", "cpu", "--pooling", "last")
    assert other.exit_code == 1 and "embedder.pooling" in other.output
    strict = call(corpus, "--output", tmp_path / "s", "--model", folder, "--device", "cpu", "--strict")
    assert strict.exit_code == 2 and "a.jsonl line 22: no JSON" in strict.output
    inside = call(corpus, "--output", corpus / "v", "--model", folder, "--device", "cpu")
    assert inside.exit_code == 2 and "inside the corpus" in inside.output
    absent = call(corpus, "--output", tmp_path / "n", "--model", tmp_path / "nothing")
    assert absent.exit_code == 2 and "no such folder" in absent.output


def test_importing_the_room_loads_none_of_the_heavy() -> None:
    heavy = {"torch", "transformers", "numba", "sklearn"}
    code = f"import sys, phi_fast.vectors as v; dir(v); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
