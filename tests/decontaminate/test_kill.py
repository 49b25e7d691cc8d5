"""kill -9 at random moments, and Ctrl-C: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.decontaminate.corpora import documents, exam_file, jsonl, output_bytes

UNIT_BYTES = "6000"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 800 units: JSONL plain and packed, and a table."""
    folder = tmp_path_factory.mktemp("kill") / "corpus"
    for number in range(4):
        jsonl(folder / f"part-{number}.jsonl", documents(600, seed=f"{number}-"))
    packed = b"".join(json.dumps(row).encode() + b"\n" for row in documents(600, seed="packed-"))
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress(packed + b"broken\n", mtime=0))
    pq.write_table(pa.Table.from_pylist(documents(600, seed="table-")), folder / "t.parquet", row_group_size=50)
    exam_file(folder.parent / "exam.jsonl")
    return folder


def command(corpus: Path, output: Path, threads: int = 2) -> list[str]:
    return [
        sys.executable, "-m", "phi_fast.cli", "decontaminate", str(corpus),
        "--against", f"exam={corpus.parent / 'exam.jsonl'}",
        "--output", str(output), "--threads", str(threads), "--mode", "cut", "-q",
    ]  # fmt: skip


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PHI_FAST_UNIT_BYTES": UNIT_BYTES}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def whole(corpus: Path) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    output = corpus.parent / "whole"
    process = start(command(corpus, output))
    assert process.wait(120) == 0, process.stderr.read().decode() if process.stderr else ""
    return output_bytes(output)


def state(output: Path) -> str:
    try:
        return str(json.loads((output / "run.json").read_bytes())["state"])
    except FileNotFoundError:
        return "absent"


@pytest.mark.parametrize("seed", range(2))
def test_killed_and_gone_on_with(seed: int, corpus: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Kill it in the scan twice, while it writes, and wherever a clock says; then let it end."""
    chance = random.Random(seed)
    output = tmp_path / "run"
    journal_bytes = (corpus.parent / "whole/journal.bin").stat().st_size

    def reaches(share: float) -> Callable[[], bool]:
        journal = output / "journal.bin"
        return lambda: journal.exists() and journal.stat().st_size > share * journal_bytes

    moments: list[Callable[[], bool]] = [
        reaches(chance.uniform(0, 0.5)),
        reaches(chance.uniform(0.5, 1)),
        lambda: (output / chance.choice(["evidence.parquet", "verdicts.parquet", ".verdicts.parquet.part"])).exists(),
        lambda: (output / "clean").exists(),
        lambda: (output / "report.md").exists(),
    ]
    seen = set()
    for moment in moments:
        process = start(command(corpus, output, threads=chance.randint(1, 5)))
        while process.poll() is None and not moment():
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.add(state(output))
    assert "scanning" in seen
    process = start(command(corpus, output))
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint.decode()
    assert state(output) == "finished"
    assert output_bytes(output) == whole


def test_interrupt_stops_within_a_second_and_says_how_to_go_on(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "my run"
    arguments = command(corpus, output)
    process = start(arguments)
    while not ((output / "journal.bin").exists() and (output / "journal.bin").stat().st_size > 5_000):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    before = time.monotonic()
    _, complaint = process.communicate(timeout=30)
    assert time.monotonic() - before < 1
    assert process.returncode == 130
    assert state(output) == "scanning"
    said = complaint.decode().splitlines()
    assert said[0] == "stopped: Nothing is lost. The same command goes on from here:"
    assert f"--output '{output}' --threads 2 --mode cut -q" in said[1]
    assert start(arguments).wait(120) == 0
    assert output_bytes(output) == whole
