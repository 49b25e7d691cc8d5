"""The peers, each installed from PyPI into a virtual environment of its own and run as its documentation says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import Child, ChildFailed, cache_dir, run_child

from phi_fast.suites.items import Suite

_SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Scan:
    """A peer's run over a corpus: what it cost, and the ids of the documents it flagged."""

    child: Child
    flagged: frozenset[str]


@dataclass(frozen=True)
class Peer:
    """A peer that is installed here."""

    name: str
    version: str
    note: str
    scan: Callable[[Path, Path, set[int] | None], Scan]
    """Scan a JSONL corpus (id, text) with a suite prepared by `prepare_suite`, on the given cores."""


def python_312() -> Path | None:
    """Find a Python 3.12, which two of the peers need."""
    on_path = shutil.which("python3.12")
    if on_path and subprocess.run([on_path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
        return Path(on_path)
    found = sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python"))
    return found[-1] if found else None


def prepare_suite(suite: Suite) -> Path:
    """Write a suite in the forms the peers read; the folder is made anew each time."""
    folder = cache_dir() / f"suite-{suite.name}-{suite.sha256[:8]}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "decon").mkdir(parents=True)
    with open(folder / "suite.jsonl", "w") as plain, open(folder / "decon" / f"{suite.name}.jsonl", "w") as decon:
        for number, item in enumerate(suite.items):
            parts = {part.name: part.text for part in item.parts}
            pair = {"question": parts.get("question", ""), "answer": parts.get("solution", "")}
            plain.write(json.dumps(pair) + "\n")
            extra = {"eval_key": suite.name, "eval_instance_index": number, "split": "test", "doc_id": number + 1}
            more = {"is_correct": True, "passage": "", "fingerprint": item.id}
            decon.write(json.dumps(pair | extra | more) + "\n")
    data_files = f"{{test: {folder / 'suite.jsonl'}}}"
    (folder / "corpus-assay.yaml").write_text(
        f"benchmarks:\n  - name: {suite.name}\n    dataset: json\n    data_files: {data_files}\n    splits: [test]\n"
        "    fields: [question, answer]\nngram: 13\nmin_hits: 3\nmin_coverage: 0.001\n"  # as its README gives them
    )
    return folder


def install_peers(wanted: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """Install the peers asked for. Returns those that work here, and why the others do not."""
    installed: list[Peer] = []
    failed: dict[str, str] = {}
    for name in wanted:
        packages, distribution, note, scan = _KNOWN[name]
        try:
            home = _environment(distribution, packages)
            version = subprocess.run(
                [home / "bin/python", "-c", f"from importlib.metadata import version as v; print(v({distribution!r}))"],
                capture_output=True, text=True, check=True,
            ).stdout.strip()  # fmt: skip
        except (ChildFailed, OSError, subprocess.SubprocessError) as error:
            failed[name] = str(error)
            print(f"{name}: cannot be installed here: {error}")
            continue
        installed.append(Peer(name, version, note, lambda c, s, on, scan=scan, home=home: scan(home, c, s, on)))  # type: ignore[misc]
    return installed, failed


def _environment(distribution: str, packages: list[str]) -> Path:
    home = cache_dir() / "peers" / distribution
    if (home / "installed").exists():
        return home
    python = python_312()
    if python is None:
        raise ChildFailed("there is no Python 3.12 here")
    shutil.rmtree(home, ignore_errors=True)
    run_child([python, "-m", "venv", home])
    run_child([home / "bin/pip", "install", "-q", "--disable-pip-version-check", *packages], timeout=900)
    (home / "installed").touch()
    return home


def _scratch(name: str) -> Path:
    folder = cache_dir() / "scratch" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _alone(corpus: Path, name: str) -> Path:
    """Give a folder that holds the corpus alone: two of the peers read folders."""
    folder = _scratch(f"{name}-in")
    (folder / "corpus.jsonl").hardlink_to(corpus)
    return folder


def _ids(corpus: Path) -> list[str]:
    with open(corpus, encoding="utf-8") as file:
        return [json.loads(line)["id"] for line in file]


def _decon(home: Path, corpus: Path, suite: Path, on: set[int] | None, clean: bool = False) -> Scan:
    out = _scratch("decon-out")
    command = [home / "bin/python", _SCRIPTS / "run_decon.py", _alone(corpus, "decon"), suite / "decon", out / "report"]
    child = run_child([*command, *([out / "clean"] if clean else [])], on=on)
    flagged: set[int] = set()
    for report in (out / "report").glob("*.jsonl"):
        flagged |= {json.loads(line)["training_line"] for line in report.read_text().splitlines()}
    ids = _ids(corpus)
    return Scan(child, frozenset(ids[line] for line in flagged))


def _decon_clean(home: Path, corpus: Path, suite: Path, on: set[int] | None) -> Scan:
    return _decon(home, corpus, suite, on, clean=True)


def _corpus_assay(home: Path, corpus: Path, suite: Path, on: set[int] | None) -> Scan:
    out = _scratch("corpus-assay-out")
    tool, config, index = home / "bin/corpus-assay", suite / "corpus-assay.yaml", suite / "index.native"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "datasets")}
    if not index.exists():
        run_child([tool, "build-index", "--config", config, "--out-index", index, "--allow-unpinned"], env=offline)
    options = ["--id-key", "id", "--workers", "1", "--max-return-records", "1000000"]
    files: list[str | Path] = ["--config", config, "--index", index, "--input", corpus, "--out-dir", out / "run"]
    child = run_child([tool, "scan", *files, *options], on=on, env=offline)
    if json.loads((out / "run" / "_FINAL_SUMMARY.json").read_text())["failed_files"]:
        raise ChildFailed(f"corpus-assay could not read the corpus and ended with 0: …{child.output[-400:]}")
    flagged: set[str] = set()
    for report in (out / "run" / "contaminated_docs").glob("*.ndjson"):
        flagged |= {re.sub(r"-part-\d+$", "", json.loads(line)["doc_id"]) for line in report.read_text().splitlines()}
    return Scan(child, frozenset(flagged))


def _datatrove(home: Path, corpus: Path, suite: Path, on: set[int] | None) -> Scan:
    out = _scratch("datatrove-out")
    script: list[str | Path] = [home / "bin/python", _SCRIPTS / "run_datatrove.py"]
    if not (suite / "datatrove").exists():
        run_child([*script, "index", suite / "suite.jsonl", suite / "datatrove"])
    child = run_child([*script, "filter", _alone(corpus, "datatrove"), suite / "datatrove", out], on=on)
    removed = (out / "removed").glob("*.jsonl")
    return Scan(child, frozenset(json.loads(line)["id"] for file in removed for line in file.open(encoding="utf-8")))


_KNOWN: dict[str, tuple[list[str], str, str, Callable[[Path, Path, Path, set[int] | None], Scan]]] = {
    "decon": (
        ["decontaminate"],
        "decontaminate",
        "default settings but for answers, which are not indexed (its recall is better so); reports only",
        _decon,
    ),
    "decon, cleaning": (["decontaminate"], "decontaminate", "the same; writes the clean corpus", _decon_clean),
    "corpus-assay": (["corpus-assay"], "corpus-assay", "its README's settings; index built beforehand", _corpus_assay),
    "datatrove": (
        ["datatrove[processing]", "spacy", "orjson"],
        "datatrove",
        "n = 12, question, answer and overlap; index built beforehand; writes the clean corpus",
        _datatrove,
    ),
}
PEERS = tuple(_KNOWN)
