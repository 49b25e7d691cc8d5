"""A calibration from end to end, held against the verdicts of decontaminate itself."""

from __future__ import annotations

import io
import json
import random
import shlex
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import phi_fast.calibrate.run
from phi_fast.calibrate import calibrate, decide_again
from phi_fast.calibrate.plant import planted_in
from phi_fast.calibrate.tally import Tally, tally
from phi_fast.calibrate.telling import markdown, print_calibration, share
from phi_fast.cli import app
from phi_fast.decontaminate import Policy, Run
from phi_fast.decontaminate.verdicts import condemned
from phi_fast.disguise import DISGUISES
from phi_fast.errors import InputError
from phi_fast.suites import Item, Part, Suite, load_suite
from phi_fast.trial import by_any, findable, library_files, recall_by_disguise

WHOLE = load_suite("humaneval")
SUITE = Suite("some", WHOLE.items[:14], "HumanEval", "14 of them")


def library(path: Path, size: int = 4_000_000) -> Path:
    files = library_files(size)
    lines = [json.dumps({"id": one.name, "text": one.text}) + "\n" for one in files]
    leak = "".join(part.text for part in SUITE.items[0].parts[:2])
    lines.append(json.dumps({"id": "a real copy", "text": f"import this\n\n\n{leak}"}) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("library") / "library.jsonl")


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("done") / "trial"
    return calibrate(corpus, SUITE, folder, false_positives=0.02), folder


def counted(folder: Path) -> Tally:
    clean = sum(1 for _ in (folder / "corpus/clean.jsonl").open())
    return tally(Run.load(folder / "run"), planted_in(folder), clean)


def test_everything_is_hidden_once_and_the_sample_is_the_corpus(
    done: tuple[dict[str, Any], Path], corpus: Path
) -> None:
    record, folder = done
    assert record["clean"] == sum(1 for _ in corpus.open())
    assert record["planted"] == len(DISGUISES) * len(SUITE.items)
    assert (folder / "corpus/clean.jsonl").read_text().count("\n") == record["clean"]
    planted = [json.loads(line) for line in (folder / "corpus/planted.jsonl").open()]
    hidden = planted_in(folder)
    assert [row["id"] for row in planted] == [one.id for one in hidden]
    assert all(one.leak.rstrip("\n") in row["text"] for row, one in zip(planted, hidden, strict=True))
    assert {(one.disguise, one.item) for one in hidden} == {(name, one.id) for name in DISGUISES for one in SUITE.items}


def test_recall_is_what_the_verdicts_say(done: tuple[dict[str, Any], Path]) -> None:
    record, folder = done
    run = Run.load(folder / "run")
    hidden = planted_in(folder)
    found = {
        one.id: {(match.suite, match.item) for match in one.matches}
        for one in condemned(run.path / "evidence.parquet", run.policy, run.index().parts)
        if one.file == "planted.jsonl"
    }
    could = findable(hidden, run.parts())
    rows = {row.disguise: row for row in recall_by_disguise(hidden, found, by_any(could, ("ngram", "syntax")))}
    default = {row["disguise"]: row for row in record["policies"]["default"]["rows"]}
    assert list(default) == list(DISGUISES)
    for name, row in rows.items():
        assert default[name]["together"] == [row.found, row.testable], name
        assert default[name]["missed"] == list(row.missed)
        assert default[name]["hidden"] == row.hidden
    assert default["renamed, no docstring"]["ngram"] == [0, 0]
    assert default["renamed, no docstring"]["syntax"][1] >= 10
    assert default["commented out"]["syntax"] == [0, 0]
    assert default["verbatim"]["ngram"] == [14, 14]
    mean = np.mean([row.found / row.testable for row in rows.values()])
    assert record["policies"]["default"]["recall"] == pytest.approx(mean)


def policies() -> list[Policy]:
    rng = random.Random(5)
    made = [Policy(mode="flag"), Policy(mode="flag", coverage=None), Policy(mode="flag", tau=None, alpha=None)]
    for _ in range(25):
        made.append(
            Policy(
                mode="flag",
                coverage=rng.choice([None, 0.2, 0.35, 0.5, 0.7, 1.0]),
                tau=rng.choice([0.8, 0.9, 1.0]),
                alpha=rng.choice([None, 0.8, 0.9, 1.0]),
                nodes=rng.choice([13, 15, 20, 25]),
                distance=rng.choice([None, 0.3, 0.5]),
            )
        )
    return made


def same_as_verdicts(folder: Path) -> None:
    counts = counted(folder)
    run = Run.load(folder / "run")
    for policy in policies():
        clean, planted = set(), set()
        for one in condemned(run.path / "evidence.parquet", policy, run.index().parts):
            if one.file == "clean.jsonl":
                clean.add(one.row)
            elif any((match.suite, match.item) == ("some", counts.hidden[one.row].item) for match in one.matches):
                planted.add(one.row)
        assert set(np.flatnonzero(counts.flagged(policy, policy.channels)).tolist()) == clean
        assert set(np.flatnonzero(counts.found(policy, policy.channels)).tolist()) == planted


def test_the_tally_agrees_with_the_verdicts_whatever_the_policy(done: tuple[dict[str, Any], Path]) -> None:
    same_as_verdicts(done[1])


def test_embedding_rows_count_too(done: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(done[1], folder)
    path = folder / "run/evidence.parquet"
    table = pq.read_table(path)
    rng = random.Random(3)
    rows = []
    for file, count in (("clean.jsonl", 30), ("planted.jsonl", 60)):
        for row in rng.sample(range(done[0]["clean"] if file == "clean.jsonl" else done[0]["planted"]), count):
            item = rng.choice(SUITE.items).id if file == "clean.jsonl" else planted_in(folder)[row].item
            rows.append(
                dict.fromkeys(table.schema.names)
                | {"id": "x", "file": file, "row": row, "channel": "embedding", "suite": "some", "item": item,
                   "part": "solution", "doc_start": 0, "doc_end": 9, "item_start": 0, "item_end": 9, "score": 0.9,
                   "distance": rng.choice([0.1, 0.3, 0.4, 0.6])}
            )  # fmt: skip
    added = pa.Table.from_pylist(rows, table.schema)
    assert (added["distance"].null_count, table["distance"].null_count) == (0, table.num_rows)
    whole = pa.concat_tables([table, added]).sort_by([("file", "ascending"), ("row", "ascending")])
    pq.write_table(whole, path)
    record = json.loads((folder / "run/run.json").read_text())
    record["settings"]["channels"] = ["ngram", "syntax", "embedding"]
    (folder / "run/run.json").write_text(json.dumps(record))
    same_as_verdicts(folder)
    found = decide_again(folder, 0.02)
    assert found["channels"] == ["ngram", "syntax", "embedding"]
    assert found["policies"]["default"]["channels"] == ["ngram", "syntax"]
    assert all(row["embedding"][1] == 14 for row in found["policies"]["chosen"]["rows"])
    assert len({tuple(one[:5]) for one in found["grid"]}) == len(found["grid"]) > 6000


def test_the_chosen_rule_is_the_best_of_the_grid_and_a_real_copy_is_shown(done: tuple[dict[str, Any], Path]) -> None:
    record, _ = done
    assert record["meets"] is True
    most = int(0.02 * record["clean"])
    assert record["policies"]["chosen"]["recall"] == max(one[5] for one in record["grid"] if one[6] <= most)
    assert record["policies"]["chosen"]["false_positives"]["together"] <= most
    wrong = {one["id"]: one for one in record["worst"]}
    assert wrong["a real copy"]["item"] == "HumanEval/0"
    assert "has_close_elements" in wrong["a real copy"]["passage"]
    assert 1 <= len(wrong) == min(10, record["policies"]["chosen"]["false_positives"]["together"])


def test_the_printed_command_is_the_rule(done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path) -> None:
    record, _ = done
    chosen = record["policies"]["chosen"]
    suite = tmp_path / "some.jsonl"
    rows = ({"id": one.id} | {part.name: part.text for part in one.parts} for one in SUITE.items)
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = shlex.split(chosen["command"])
    assert words[:3] == ["phi-fast", "decontaminate", str(corpus)]
    words[words.index("--against") + 1] = f"some={suite}"
    words[words.index("RUN")] = str(tmp_path / "run")
    result = CliRunner().invoke(app, [*words[1:], "--quiet"])
    assert result.exit_code == 0, result.output
    run = Run.load(tmp_path / "run")
    assert {name: getattr(run.policy, name) for name in chosen["thresholds"]} == chosen["thresholds"]
    assert run.removed == chosen["false_positives"]["together"]  # the sample is the whole corpus here


def test_deciding_again_scans_nothing(done: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    first, folder = done
    shutil.copytree(folder, tmp_path / "trial")
    (tmp_path / "trial/corpus/planted.jsonl").unlink()
    before = (tmp_path / "trial/run/evidence.parquet").stat().st_mtime_ns
    result = CliRunner().invoke(app, ["calibrate", str(tmp_path / "trial"), "--false-positives", "0"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "trial/run/evidence.parquet").stat().st_mtime_ns == before
    record = json.loads((tmp_path / "trial/calibration.json").read_text())
    assert (record["wanted"], record["grid"]) == (0.0, first["grid"])
    assert record["meets"] is False  # the real copy is flagged by every rule
    assert "No rule flags at most 0 % of the clean documents" in " ".join(result.output.split())
    assert "a real copy" in result.output


def test_the_same_again_whatever_the_threads(done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path) -> None:
    record, folder = done
    again = calibrate(corpus, SUITE, tmp_path / "trial", false_positives=0.02, threads=1)
    assert again == record
    for name in ("calibration.md", "recall.svg", "tradeoff.svg", "run/evidence.parquet", "corpus/planted.jsonl"):
        assert (tmp_path / "trial" / name).read_bytes() == (folder / name).read_bytes(), name


def test_an_interrupted_trial_goes_on(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Suite("some", SUITE.items[:2], "HumanEval", "2 of them")

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(phi_fast.calibrate.run, "decontaminate", stopped)
        with pytest.raises(KeyboardInterrupt):
            calibrate(corpus, small, tmp_path / "trial")
    with pytest.raises(InputError, match="holds no run"):
        decide_again(tmp_path / "trial")
    before = (tmp_path / "trial/corpus/planted.jsonl").stat().st_mtime_ns
    assert calibrate(corpus, small, tmp_path / "trial")["planted"] == 22
    assert (tmp_path / "trial/corpus/planted.jsonl").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"a trial of other settings \(seed\)"):
        calibrate(corpus, small, tmp_path / "trial", seed=1)
    assert calibrate(corpus, small, tmp_path / "trial", seed=1, overwrite=True)["seed"] == 1


def prose(count: int = 3) -> Suite:
    items = tuple(
        Item(f"own/{number}", (Part("question", " ".join(f"word{number}x{one} is asked" for one in range(20))),))
        for number in range(count)
    )
    return Suite("own", items, "made", "prose")


def test_a_small_corpus_and_a_suite_without_python_are_said(tmp_path: Path) -> None:
    corpus = tmp_path / "a.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": n, "text": f"no code at all, number {n}\n" * 30}) + "\n" for n in range(20))
    )
    record = calibrate(corpus, prose(), tmp_path / "trial")
    assert record["clean"] == 20
    notes = " ".join(record["notes"])
    assert "The clean sample has 20 documents" in notes
    assert "own: no item can wear solution only" in notes
    assert {row["disguise"] for row in record["policies"]["chosen"]["rows"]} >= {"prompt only", "commented out"}
    assert all(row["syntax"] == [0, 0] for row in record["policies"]["chosen"]["rows"])
    assert record["policies"]["chosen"]["false_positives"]["together"] == 0
    assert "| 0 of 20 (0 to 16.113 %) |" in markdown(record)
    assert "None of 20 documents." in markdown(record)


def test_refused(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(InputError, match="false positives 2: give a share"):
        calibrate(corpus, SUITE, tmp_path / "trial", false_positives=2)
    with pytest.raises(InputError, match="documents 0"):
        calibrate(corpus, SUITE, tmp_path / "trial", documents=0)
    with pytest.raises(InputError, match="nothing to calibrate against"):
        calibrate(corpus, [], tmp_path / "trial")
    with pytest.raises(InputError, match="holds no trial"):
        decide_again(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something that is not a trial's"):
        calibrate(corpus, SUITE, tmp_path)
    (tmp_path / "blank.jsonl").write_text('{"id": 1, "text": "  "}\n')
    with pytest.raises(InputError, match="no document with text"):
        calibrate(tmp_path / "blank.jsonl", SUITE, tmp_path / "trial")
    with pytest.raises(InputError, match="lies inside the corpus"):
        calibrate(corpus.parent, SUITE, corpus.parent / "trial")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["blank.jsonl", "mine.txt"]
    result = CliRunner().invoke(app, ["calibrate", str(corpus), "--against", "humaneval"])
    assert (result.exit_code, "give --output FOLDER" in result.output) == (2, True)


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_printed_fits_and_says_counts_and_intervals(done: tuple[dict[str, Any], Path], width: int) -> None:
    record, folder = done
    console = Console(file=io.StringIO(), width=width)
    print_calibration(record, folder, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    lines = printed.splitlines()
    row = next(line for line in lines if line.startswith("renamed, no docstring")).split("docstring")[1].split()
    found, of = record["policies"]["chosen"]["rows"][6]["together"]
    assert row[0] == "-"
    assert row[2] == f"{found}/{of}"
    assert "…" not in "".join(lines[: lines.index("") + 17])
    assert record["policies"]["chosen"]["command"] in printed


def test_pictures_are_whole(done: tuple[dict[str, Any], Path]) -> None:
    for name in ("recall.svg", "tradeoff.svg"):
        root = ET.parse(done[1] / name).getroot()
        assert root.tag.endswith("svg")
        assert len(list(root.iter())) > 200
    report = (done[1] / "calibration.md").read_text()
    assert "![Recall by disguise](recall.svg)" in report
    assert record_command(done[0]) in report


def record_command(record: dict[str, Any]) -> str:
    return str(record["policies"]["chosen"]["command"])


def test_shares_are_said_with_counts_and_intervals() -> None:
    assert share(127, 130) == "127 of 130, 97.7 % (93.4 to 99.2)"
    assert share(0, 18_000) == "0 of 18,000 (0 to 0.021 %)"
    assert share(18_001, 18_002) == "18,001 of 18,002, over 99.9 % (100.0 to 100.0)"
    assert share(3, 20_000) == "3 of 20,000, 0.015 % (0.005 to 0.044)"
    assert share(5, 5) == "5 of 5, 100.0 % (56.6 to 100.0)"
    assert share(0, 0) == "none testable"
