"""The embedding channel with a real model: what is near, where it stands, and the same from every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.decontaminate.decide import redecide
from phi_fast.decontaminate.embedding import EmbeddingChannel, without_docstrings
from phi_fast.decontaminate.policy import FLOOR_DISTANCE
from phi_fast.decontaminate.run import decontaminate
from phi_fast.disguise import disguise
from phi_fast.errors import InputError
from phi_fast.suites import Suite, load_suite
from tests.decontaminate.corpora import jsonl, lines, output_bytes, words

embedder_module = pytest.importorskip("phi_fast.vectors.models")

HUMANEVAL = load_suite("humaneval")
FEW = Suite("few", HUMANEVAL.items[:12], HUMANEVAL.source, "1" * 64)
ALL = ["ngram,syntax,embedding"]


@pytest.fixture(scope="module")
def embedder() -> Any:
    return embedder_module.Embedder("minilm")


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"id": f"noise-{n}", "text": words(f"noise {n}", 60)} for n in range(6)]
    for number, item in enumerate(FEW.items[:4]):
        question = next(part.text for part in item.parts if part.name == "question")
        made.append({"id": f"copy-{number}", "text": str(disguise(item, "verbatim"))})
        made.append(
            {"id": f"rest-{number}", "text": words(f"é{number}", 400) + "\n\n" + question + "    pass\n\nx = 1\n"}
        )
    return made


def rows(run: Any, channel: str) -> list[dict[str, Any]]:
    return [row for row in run.evidence().to_pylist() if row["channel"] == channel]


def test_finds_what_is_near_and_says_where(documents: list[dict[str, Any]], embedder: Any, tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents)
    run = decontaminate(corpus, FEW, tmp_path / "run", channels=ALL, distance=0.5, unit_bytes=3_000)
    near = rows(run, "embedding")
    text = {one["id"]: one["text"] for one in documents}
    found = {(row["id"], row["item"]) for row in near if row["distance"] <= 0.3}
    assert found >= {(f"copy-{n}", FEW.items[n].id) for n in range(4)}
    assert all(row["distance"] <= FLOOR_DISTANCE and row["part"] == "solution" for row in near)
    assert len({(row["id"], row["item"]) for row in near}) == len(near)
    items = {item.id: "".join(part.text for part in item.parts[:2]) for item in FEW.items}
    for row in near:
        piece = text[row["id"]][row["doc_start"] : row["doc_end"]]
        own = items[row["item"]]
        vectors = embedder.embed([piece, own, without_docstrings(own) or own]).astype(np.float64)
        expected = min(np.linalg.norm(vectors[0] - one) for one in vectors[1:])
        assert row["distance"] == pytest.approx(expected, abs=2e-4)
        assert row["score"] == pytest.approx(1 - row["distance"] ** 2 / 2, abs=1e-6)
    verdicts = {one["id"] for one in run.verdicts().to_pylist()}
    assert verdicts >= {row["id"] for row in near if row["distance"] <= 0.5}
    assert not any(one.startswith("noise") for one in verdicts)
    told = {(row["id"], row["item"]): row["distance"] for row in near}
    assert rows(run, "syntax")
    assert all(row["distance"] == told.get((row["id"], row["item"])) for row in rows(run, "syntax"))
    assert run.record["settings"]["embedding"]["given"] == "minilm"


def test_every_format_gives_the_same(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(documents), tmp_path / "a.parquet", row_group_size=5)
    jsonl(tmp_path / "a.jsonl", documents)
    (tmp_path / "tree").mkdir()
    for one in documents:
        (tmp_path / "tree" / f"{one['id']}.py").write_bytes(one["text"].encode())
    found = []
    for corpus in ("a.jsonl", "a.parquet", "tree"):
        run = decontaminate(tmp_path / corpus, FEW, tmp_path / f"run-{corpus}", channels=["embedding"], distance=0.4)
        assert {row["channel"] for row in run.evidence().to_pylist()} == {"embedding"}
        names = {row["id"].removeprefix("tree/").removesuffix(".py"): row for row in run.verdicts().to_pylist()}
        near = {
            (row["id"].removeprefix("tree/").removesuffix(".py"), row["item"], row["doc_start"], row["doc_end"]):
            round(row["distance"], 3)
            for row in rows(run, "embedding")
            if row["distance"] < 0.7
        }  # fmt: skip
        found.append((set(names), set(near)))
    assert found[0] == found[1] == found[2]
    assert found[0][0] >= {f"copy-{n}" for n in range(4)}


def test_decide_again_and_the_papers_rule(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents)
    run = decontaminate(corpus, FEW, tmp_path / "run", channels=ALL)
    assert run.policy.distance is None
    assert any("only records distances" in note for note in run.record["notes"])
    plain = {one["id"] for one in run.verdicts().to_pylist()}
    near = {row["id"] for row in rows(run, "embedding") if row["distance"] <= 0.45}
    alone = redecide(run, distance=0.45)
    assert {one["id"] for one in alone.verdicts().to_pylist()} == plain | near
    both = redecide(run, preset="phi1-similar", distance=0.45, tau=0.9)
    alike = {
        row["id"]
        for row in rows(run, "syntax")
        if row["tau"] >= 0.9
        and row["distance"] is not None
        and row["distance"] <= 0.45
        and min(row["nodes"], row["item_nodes"]) >= 25
    }
    assert alike
    assert {one["id"] for one in both.verdicts().to_pylist()} == alike


def test_the_same_bytes_again_and_other_settings_refused(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", documents)
    settings: dict[str, Any] = {"channels": ["embedding"], "distance": 0.4, "unit_bytes": 2_000}
    one = decontaminate(corpus, FEW, tmp_path / "one", threads=1, **settings)
    two = decontaminate(corpus, FEW, tmp_path / "two", threads=2, **settings)
    assert output_bytes(one.path) == output_bytes(two.path)
    with pytest.raises(InputError, match="channels: embedding there, ngram, syntax now"):
        decontaminate(corpus, FEW, tmp_path / "one", unit_bytes=2_000)


def test_rows_that_are_no_documents_stay_rejected(documents: list[dict[str, Any]], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", documents)
    path.write_bytes(b'{"text": 3}\n\n' + path.read_bytes() + b"not json\n" + json.dumps({"text": ""}).encode() + b"\n")
    run = decontaminate(path, FEW, tmp_path / "run", channels=["embedding"], distance=0.4)
    assert [one["row"] for one in lines(run.path / "rejected.jsonl")] == [0, len(documents) + 2]
    assert run.counts["documents"] == len(documents) + 1
    assert {one["row"] for one in run.verdicts().to_pylist()} >= {2 + 6, 2 + 8}


def test_pieces_cover_a_document(embedder: Any) -> None:
    from phi_fast.engines.ngram import NgramIndex

    channel = EmbeddingChannel(NgramIndex.build([FEW]).parts, embedder)
    code = "\n\n".join(str(disguise(item, "verbatim")) for item in FEW.items)
    for text in (code, words("ü", 900), code[200:-100], "class A:\n" + "    x = 1\n" * 400, "x = 1", ""):
        spans = channel.pieces(text)
        assert all(len(text[start:end].strip()) >= 40 for start, end in spans)
        assert all(embedder.windows(text[start:end]) == [(0, end - start)] for start, end in spans)
        held = set().union(*(range(start, end) for start, end in spans)) if spans else set()
        missing = "".join("\0" if at in held else one for at, one in enumerate(text))
        assert all(len(rest.strip()) < 40 for rest in missing.split("\0"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ["embedding"]}, "the policy has no threshold for any of these"),
        ({"channels": ["sound"]}, 'channel "sound": give ngram, syntax or embedding'),
        ({"channels": ALL, "distance": 0.3, "embedding_model": "./no-such-folder"}, "no-such-folder"),
        ({"preset": "phi1-similar", "channels": ["syntax"]}, "needs the channel embedding: add it to --channels"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    corpus = jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(InputError, match=message):
        decontaminate(corpus, FEW, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_deciding_needs_the_channel(tmp_path: Path) -> None:
    run = decontaminate(jsonl(tmp_path / "a.jsonl", [{"text": "x"}]), FEW, tmp_path / "run", channels=["ngram"])
    assert run.record["settings"]["channels"] == ["ngram"]
    with pytest.raises(InputError, match="scanned with the channels ngram, and this rule needs"):
        redecide(run, tau=0.9)
    assert redecide(run, coverage=0.5).policy.coverage == 0.5
