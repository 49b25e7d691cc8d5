"""Similar and non-similar items, and the pruned corpora, held against pairs worked out by `ast`."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import phi_fast.decontaminate.nearest as nearest
import phi_fast.decontaminate.write as writing
from phi_fast.cli import app
from phi_fast.decontaminate import Run, decontaminate
from phi_fast.decontaminate.policy import LARGE_NODES
from phi_fast.decontaminate.similar import TAUS, Similar, similar
from phi_fast.disguise import disguise
from phi_fast.errors import InputError, RunError
from phi_fast.suites import load_suite
from tests.decontaminate.planted import Document, documents, exam, exam_file, reaches, rows, text_of, trees
from tests.oracles.similar import item_tree, largest

BROKEN = b'{"id": "broken", "text": \n'


def jsonl(folder: Path) -> Path:
    """Three files, one packed, one with a line that is no document."""
    folder.mkdir()
    made = [json.dumps(row, ensure_ascii=bool(number % 2)).encode() + b"\n" for number, row in enumerate(rows())]
    (folder / "a.jsonl").write_bytes(b"".join(made[:60]) + BROKEN + b"\n" + b"".join(made[60:90]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(made[90:130]), mtime=0))
    (folder / "sub").mkdir()
    (folder / "sub/c.jsonl").write_bytes(b"".join(made[130:])[:-1])  # without the last newline
    return folder


def parquet(folder: Path) -> Path:
    folder.mkdir()
    for name, some in (("a.parquet", rows()[:100]), ("b.parquet", rows()[100:])):
        table = pa.Table.from_pylist(some).replace_schema_metadata({"made": "for a test"})
        pq.write_table(table, folder / name, row_group_size=17, compression="gzip")
    return folder


Making = Callable[[Path], Path]


@pytest.fixture(scope="module", params=[jsonl, parquet], ids=["jsonl", "parquet"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("similar")
    corpus = request.param(folder / "corpus")
    suite = exam_file(folder / "exam.jsonl")
    return decontaminate(corpus, f"exam={suite}", folder / "run", unit_bytes=20_000, threads=2)


@pytest.fixture(scope="module")
def found(run: Run) -> Similar:
    return similar(run, write=True)


def pruned(tau: float) -> list[Document]:
    return [one for one in documents() if reaches(one.best, tau)]


def alike(tau: float) -> list[str]:
    return [
        item.id
        for item in exam().items
        if any(reaches(one.rates.get(item.id, Fraction(0)), tau) for one in documents())
    ]


def untestable() -> list[str]:
    known = trees()
    return [item.id for item in exam().items if item.id not in known or largest(known[item.id]) < LARGE_NODES]


def test_the_corpus_has_pairs_in_every_band_and_on_every_bound() -> None:
    counts = [len(pruned(tau)) for tau in (1.0, *TAUS)]
    assert all(later - earlier >= 5 for earlier, later in pairwise([0, *counts]))
    assert {Fraction(str(tau)) for tau in TAUS} <= {one.best for one in documents()}
    assert len({len(alike(tau)) for tau in TAUS}) == len(TAUS)
    assert len(documents()) - counts[-1] >= 60
    assert untestable()[-2:] == ["exam/small", "exam/prose"]


def test_counts_and_items_at_every_tau(found: Similar) -> None:
    assert [one.tau for one in found.at] == list(TAUS)
    for one in found.at:
        assert one.documents == len(pruned(one.tau))
        assert one.share == pytest.approx(len(pruned(one.tau)) / len(documents()))
        (split,) = one.suites
        assert list(split.similar) == alike(one.tau)
        assert list(split.untestable) == untestable()
        assert [*split.similar, *split.non_similar, *split.untestable] == sorted(
            (item.id for item in exam().items),
            key=lambda name: (name not in split.similar, name in split.untestable),
        )
        assert split.items == len(exam().items)


def test_every_rate_of_the_curve(found: Similar) -> None:
    rates = sorted({*(float(np.float32(one.best)) for one in documents() if one.best), *map(np.float32, (*TAUS, 1.0))})
    of_items = [max(one.rates.get(item.id, Fraction(0)) for one in documents()) for item in exam().items]
    rates = sorted({*rates, *(float(np.float32(rate)) for rate in of_items if rate)})
    assert [point.tau for point in found.curve] == pytest.approx(rates)
    for point in found.curve:
        assert point.documents == sum(np.float32(one.best) >= np.float32(point.tau) for one in documents())
        assert point.similar == (sum(np.float32(rate) >= np.float32(point.tau) for rate in of_items),)


def test_items_name_their_nearest_function(found: Similar) -> None:
    texts = {one.id: one for one in documents()}
    for one in found.items:
        best = max(document.rates.get(one.item, Fraction(0)) for document in documents())
        assert (one.tau or 0) == pytest.approx(float(best))
        if one.tau is None:
            assert one.document is one.file is one.row is None
            continue
        assert one.document is not None and one.doc_start is not None
        assert texts[one.document].rates[one.item] == best
        assert texts[one.document].text[one.doc_start : one.doc_end].strip()
    table = pq.read_table(found.path / "items.parquet").to_pylist()
    assert [row["item"] for row in table] == [item.id for item in exam().items]
    for tau in TAUS:
        assert [row["item"] for row in table if row[f"similar_{tau:g}"]] == alike(tau)
    assert [row["item"] for row in table if not row["testable"]] == untestable()


def test_files_say_the_same(found: Similar) -> None:
    record = json.loads((found.path / "similar.json").read_bytes())
    for one, said in zip(found.at, record["taus"], strict=True):
        (split,) = said["suites"]
        assert (said["tau"], said["pruned"]) == (one.tau, len(pruned(one.tau)))
        assert split["similar_items"] == alike(one.tau)
        assert split["similar"] + split["non_similar"] + split["untestable"] == split["items"] == len(exam().items)
    with (found.path / "pruned.csv").open() as file:
        steps = list(csv.DictReader(file))
    asked = {row["tau"]: (int(row["documents"]), int(row["similar"])) for row in steps if row["asked"] == "1"}
    assert asked == {f"{tau:g}": (len(pruned(tau)), len(alike(tau))) for tau in TAUS}
    assert len(steps) == len(found.curve)
    assert (found.path / "similar.png").read_bytes().startswith(b"\x89PNG")
    drawing = (found.path / "similar.svg").read_text()
    for tau in TAUS:
        assert f"τ {tau:g}: {len(pruned(tau))}" in drawing


@pytest.mark.parametrize("tau", TAUS)
def test_pruned_corpora_hold_exactly_the_rest(tau: float, run: Run, found: Similar) -> None:
    gone = {one.id for one in pruned(tau)}
    corpus, made = Path(run.record["settings"]["corpus"][0]), found.path / f"tau-{tau:g}"
    names = sorted(path.relative_to(corpus) for path in corpus.rglob("*") if path.is_file())
    assert sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file()) == names
    for name in names:
        if name.suffix == ".parquet":
            old, new = pq.ParquetFile(corpus / name), pq.ParquetFile(made / name)
            whole = old.read()
            assert new.read().equals(whole.filter(pa.array([one not in gone for one in whole["id"].to_pylist()])))
            assert new.schema_arrow.metadata == old.schema_arrow.metadata
            assert new.metadata.row_group(0).column(0).compression == "GZIP"
            continue
        unpack = gzip.decompress if name.suffix == ".gz" else bytes
        lines = unpack((corpus / name).read_bytes()).splitlines(keepends=True)
        kept = [line for line in lines if line != BROKEN and (line == b"\n" or json.loads(line)["id"] not in gone)]
        assert unpack((made / name).read_bytes()) == b"".join(kept)
    about = found.corpora[made.name]
    assert about["tau"] == tau and about["unwritable_rows"] == 0
    assert json.loads((found.path / "similar.json").read_bytes())["corpora"][made.name] == about


def test_other_rates_fewer_nodes_another_folder(run: Run, tmp_path: Path) -> None:
    found = similar(run.path, taus=(0.8125, 1, 0.8125), min_nodes=60, output=tmp_path / "out")
    assert [one.tau for one in found.at] == [1, 0.8125]
    large = {name for name, tree in trees().items() if largest(tree) >= 60}
    assert set(found.at[0].suites[0].untestable) == {item.id for item in exam().items} - large
    assert 0 < found.at[1].documents < len(pruned(0.8125))
    assert set(found.at[1].suites[0].similar) <= large
    assert not (tmp_path / "out/tau-1").exists()
    similar(run.path, output=tmp_path / "out")  # made by it, so made anew
    assert json.loads((tmp_path / "out/similar.json").read_bytes())["min_nodes"] == 25


def test_documents_whose_rows_fall_into_several_batches(
    run: Run, found: Similar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_BATCH", 3)
    again = similar(run, output=tmp_path / "out")
    assert (again.at, again.items, again.curve) == (found.at, found.items, found.curve)


def test_the_same_bytes_whatever_the_threads(run: Run, found: Similar, tmp_path: Path) -> None:
    similar(run, write=True, threads=1, output=tmp_path / "out")
    assert contents(tmp_path / "out") == contents(found.path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_interrupted_writing_goes_on(
    run: Run, found: Similar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the second corpus is written: the same call goes on with that one."""
    sources = len(run.record["inputs"])
    written: list[Path] = []
    real = writing.write_clean

    def stopping(source: Any, out: Path, removals: Any, **more: Any) -> Any:
        if len(written) == sources + 1:
            raise KeyboardInterrupt
        written.append(out)
        return real(source, out, removals, **more)

    monkeypatch.setattr(writing, "write_clean", stopping)
    with pytest.raises(KeyboardInterrupt):
        similar(run, write=True, threads=1, output=tmp_path / "out")
    record = json.loads((tmp_path / "out/similar.json").read_bytes())
    assert list(record["corpora"]) == ["tau-0.95"]
    whole = {path for path in written if "tau-0.95" in path.parts}
    assert len(whole) == sources
    written.clear()
    monkeypatch.setattr(writing, "write_clean", lambda source, out, *rest, **more: (
        written.append(out) or real(source, out, *rest, **more)))  # fmt: skip
    similar(run, write=True, threads=1, output=tmp_path / "out")
    assert written and not whole & set(written)
    assert contents(tmp_path / "out") == contents(found.path)


def test_a_corpus_that_is_being_written_anew_is_not_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    similar(run, taus=[0.8], write=True, output=out)
    whole = contents(out / "tau-0.8")
    unwritten = similar(run, taus=[0.9], min_nodes=40, output=out)
    assert list(unwritten.corpora) == ["tau-0.8"]
    assert unwritten.corpora["tau-0.8"]["min_nodes"] == 25
    assert contents(out / "tau-0.8") == whole

    def stopped(*_: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing, "write_clean", stopped)
        similar(run, taus=[0.8], min_nodes=40, write=True, output=out)
    assert json.loads((out / "similar.json").read_bytes())["corpora"] == {}
    assert not contents(out / "tau-0.8")  # nothing of the other settings is left in it
    written = similar(run, taus=[0.8], min_nodes=40, write=True, output=out)
    assert written.corpora["tau-0.8"]["min_nodes"] == 40
    assert contents(out / "tau-0.8") != whole


def with_distances(run: Run, folder: Path, distances: dict[str, float]) -> Run:
    """A copy of a run with an embedding channel that found these documents, by id, and every item in them."""
    folder.mkdir()
    for name in ("index.phifast", "journal.bin", "rejected.jsonl"):
        (folder / name).write_bytes((run.path / name).read_bytes())
    table = run.evidence()
    values = [
        distances.get(row["id"]) if row["channel"] == "syntax" else None
        for row in table.select(["id", "channel"]).to_pylist()
    ]
    place = table.schema.get_field_index("distance")
    table = table.set_column(place, table.schema.field(place), pa.array(values, pa.float32()))
    first = table.slice(0, 1).to_pylist()[0]
    embedded = first | dict.fromkeys(("n", "run", "coverage", "words", "form", "nodes", "item_nodes", "tau", "alpha"))
    embedded |= {"channel": "embedding", "distance": 0.0, "score": 1.0}
    table = pa.concat_tables([table, pa.Table.from_pylist([embedded], schema=table.schema)])
    pq.write_table(table, folder / "evidence.parquet")
    record = json.loads((run.path / "run.json").read_bytes())
    record["settings"]["channels"] = ["ngram", "syntax", "embedding"]
    (folder / "run.json").write_text(json.dumps(record))
    return Run.load(folder)


def test_a_fixed_distance_as_phi_1_has_it(run: Run, tmp_path: Path) -> None:
    near = [one for number, one in enumerate(pruned(0.8)) if number % 2]
    distances = {one.id: 0.2 if one in near else 0.6 for one in documents() if not one.id.startswith("exact")}
    embedded = with_distances(run, tmp_path / "embedded", distances)
    found = similar(embedded, distance=0.2)
    for one in found.at:
        expected = [document for document in near if reaches(document.best, one.tau) and document.id in distances]
        assert one.documents == len(expected)
        (split,) = one.suites
        items = {item for document in expected for item, rate in document.rates.items() if reaches(rate, one.tau)}
        assert set(split.similar) == items
        assert split.items == len(exam().items)
    assert [one.documents for one in similar(embedded).at] == [len(pruned(tau)) for tau in TAUS]
    far = similar(embedded, distance=0.8)
    assert far.at[-1].documents == sum(one.id in distances for one in pruned(0.8))
    with pytest.raises(InputError, match=r"distance 0.9: evidence holds distances up to 0.8; give 0 to that"):
        similar(embedded, distance=0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taus": (0.9, 0.7)}, r"tau 0\.7: evidence holds match rates from 0\.8 on, so less cannot be told"),
        ({"taus": (float("nan"),)}, r"tau nan: "),
        ({"taus": (1.01,)}, r"tau 1\.01: "),
        ({"taus": ()}, r"no tau: give one or more from 0\.8 to 1"),
        ({"min_nodes": 12}, r"min_nodes 12: of smaller trees .* give 25 or more"),
        ({"threads": 0}, r"threads 0: give 1 or more"),
        (
            {"distance": 0.3},
            r"distance 0\.3: .* was scanned with the channels ngram, syntax, and this needs embedding. Scan again: "
            r"phi-fast decontaminate --channels ngram,syntax,embedding\.",
        ),
    ],
    ids=str,
)
def test_refuses_what_the_evidence_does_not_hold(
    options: dict[str, Any], message: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        similar(run, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_refuses_folders_that_are_not_its_own(run: Run, tmp_path: Path) -> None:
    corpus = Path(run.record["settings"]["corpus"][0])
    with pytest.raises(InputError, match="lies inside the corpus"):
        similar(run, output=corpus / "out")
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.tex and no sound similar\.json"):
        similar(run, output=tmp_path)
    with pytest.raises(InputError, match="is a file; give --output a folder"):
        similar(run, output=tmp_path / "thesis.tex")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_run_without_the_syntax_channel(tmp_path: Path) -> None:
    run = decontaminate(jsonl(tmp_path / "corpus"), exam(), tmp_path / "run", channels=["ngram"])
    again = r"and this needs syntax. Scan again: phi-fast decontaminate --channels ngram,syntax\."
    with pytest.raises(InputError, match=f"was scanned with the channels ngram, {again}"):
        similar(run)
    record = run.record | {"state": "deciding"}
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="the run is not finished; give its command again first"):
        similar(run.path)


def test_a_corpus_that_changed_is_not_pruned(tmp_path: Path) -> None:
    run = decontaminate(jsonl(tmp_path / "corpus"), exam(), tmp_path / "run", mode="flag")
    whole = similar(run, taus=[0.9], write=True)  # a run that only flags has no clean/, and can be pruned all the same
    assert (whole.path / "tau-0.9/a.jsonl").exists()
    before = contents(whole.path)
    with (tmp_path / "corpus/a.jsonl").open("ab") as file:
        file.write(b'{"id": "new", "text": "x = 1"}\n')
    changed = (
        r"the corpus is not what was scanned, so the pruned corpora cannot be written:\n  input a.jsonl has changed"
    )
    with pytest.raises(RunError, match=changed):
        similar(run, write=True)
    assert contents(whole.path) == before
    assert similar(run).at[-1].documents == len(pruned(0.8))  # the evidence stands


def test_a_tree_of_source_files_and_another_run_in_the_folder(tmp_path: Path) -> None:
    corpus = tmp_path / "project"
    for number, one in enumerate(documents()):
        path = corpus / f"pkg{number % 3}/m{number:03}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.text)
    names = {one.id: f"pkg{number % 3}/m{number:03}.py" for number, one in enumerate(documents())}
    run = decontaminate(corpus, exam(), tmp_path / "run")
    found = similar(run, taus=[0.85], write=True)
    kept = {name for identity, name in names.items() if identity not in {one.id for one in pruned(0.85)}}
    made = found.path / "tau-0.85/project"
    assert {str(path.relative_to(made)) for path in made.rglob("*.py")} == kept
    assert all((made / name).read_bytes() == (corpus / name).read_bytes() for name in kept)
    decontaminate(corpus, exam(), tmp_path / "run", coverage=0.9, overwrite=True)
    assert not found.path.exists()  # of the run that was there before


def check_sizes(sizes: list[tuple[int, int]], items: int) -> None:
    """What holds of phi-1's Table 3: the two subsets are all items, and fewer are similar at a higher τ."""
    assert all(one + other == items for one, other in sizes)
    assert sizes == sorted(sizes)


def test_subsets_of_humaneval_add_up_as_in_the_paper(tmp_path: Path) -> None:
    check_sizes([(71, 93), (93, 71), (106, 58), (116, 48)], 164)  # at 0.95, 0.9, 0.85, 0.8, as published
    suite = load_suite("humaneval")
    texts = [disguise(item, "renamed, no docstring") for item in suite.items[::3]]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    lines += [json.dumps({"text": one.text}) + "\n" for one in documents()]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    run = decontaminate(tmp_path / "a.jsonl", "humaneval", tmp_path / "run")
    found = similar(run)
    known = {item.id: item_tree(text_of(item, "question"), text_of(item, "solution")) for item in suite.items}
    small = {name for name, tree in known.items() if largest(tree) < LARGE_NODES}
    copied = {item.id for item in suite.items[::3]} - small
    splits = [one.suites[0] for one in found.at]
    check_sizes([(len(one.similar), len(one.non_similar) + len(one.untestable)) for one in splits], 164)
    for split in splits:
        assert set(split.untestable) == small
        assert copied <= set(split.similar)
        together = [*split.similar, *split.non_similar, *split.untestable]
        assert sorted(together) == sorted(item.id for item in suite.items)
    for stricter, looser in pairwise(splits):
        assert set(stricter.similar) <= set(looser.similar)


def call(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [str(one) for one in arguments])


def test_the_command(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("similar", run.path, "--tau", 0.8, "--tau", 0.95, "--write", "--output", out, "--threads", 1)
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.stdout.splitlines() if line.startswith("0.")]
    items, never = len(exam().items), len(untestable())
    for cells, tau in zip(table, (0.95, 0.8), strict=True):
        assert cells[:2] == [f"{tau:g}", str(len(pruned(tau)))]
        assert cells[-5:] == ["exam", *map(str, (items, len(alike(tau)), items - len(alike(tau)) - never, never))]
    assert f"Untestable of exam, no function of 25 nodes: {', '.join(untestable())}" in result.stdout
    assert f"{out / 'tau-0.95'}/" in result.stdout and "writing tau-0.8" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "items.parquet", "pruned.csv", "similar.json", "similar.png", "similar.svg", "tau-0.8", "tau-0.95",
    ]  # fmt: skip
    quiet = call("similar", run.path, "-o", out, "--min-nodes", 40, "--tau", 0.8, "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert (
        "tau-0.8/ still follows other settings: add --write"
        in call("similar", run.path, "-o", out, "--min-nodes", 40, "--tau", 0.8).output
    )


def test_the_command_refuses(run: Run, tmp_path: Path) -> None:
    low = call("similar", run.path, "--tau", 0.5, "-o", tmp_path / "out")
    assert low.exit_code == 2
    assert low.stderr.startswith("error: tau 0.5: evidence holds match rates from 0.8 on")
    assert call("similar", run.path, "--distance", 0.2, "-o", tmp_path / "out").exit_code == 2
    nothing = call("similar", tmp_path)
    assert nothing.exit_code == 2
    assert nothing.stderr == f"error: {tmp_path}: holds no run (no run.json)\n"


def test_a_corpus_in_which_nothing_is_similar(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x = 1"}\n' * 3)
    run = decontaminate(tmp_path / "a.jsonl", exam(), tmp_path / "run")
    found = similar(run, write=True)
    assert [(one.documents, one.share, len(one.suites[0].similar)) for one in found.at] == [(0, 0.0, 0)] * 4
    assert (found.path / "tau-0.8/a.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert all(one.tau is None for one in found.items)
