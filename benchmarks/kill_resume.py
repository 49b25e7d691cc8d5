"""Kill a decontamination at random moments, go on with the same command, and compare the output's bytes.

    python benchmarks/kill_resume.py --kills 20 --megabytes 200

Prints one line a kill (when, how far the run was) and at the end whether every file that does not hold times is, byte
for byte, what an uninterrupted run wrote. Exits with 1 where one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from phi_fast.suites import load_suite

NOT_COMPARED = {"journal.bin", "run.json"}  # units in the order in which threads ended; times


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the corpus")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", default="drop", choices=["drop", "cut"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phi-fast-kill-") as folder:
        return _measure(Path(folder), given)


def _measure(folder: Path, given: argparse.Namespace) -> int:
    corpus = folder / "corpus"
    write_corpus(corpus, given.megabytes * 1_000_000, given.seed)
    command = [
        sys.executable, "-m", "phi_fast.cli", "decontaminate", str(corpus), "--against", "humaneval", "--quiet",
        "--mode", given.mode, "--threads", str(given.threads), "--output",
    ]  # fmt: skip
    began = time.monotonic()
    subprocess.run([*command, str(folder / "whole")], check=True)
    seconds = time.monotonic() - began
    print(f"uninterrupted: {seconds:.2f} s for {given.megabytes} MB, {given.threads} threads")
    chance = random.Random(given.seed)
    run, kills = folder / "run", 0
    while kills < given.kills:
        process = subprocess.Popen([*command, str(run)], stderr=subprocess.DEVNULL)
        moment = chance.uniform(0, seconds)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            print(f"kill {kills:2d} after {moment:5.2f} s: {how_far(run)}")
        else:
            if process.returncode:
                print(f"failed with exit code {process.returncode}")
                return 1
            print(f"          ended after {moment:5.2f} s or before: {compared(folder / 'whole', run) or 'identical'}")
            subprocess.run(["rm", "-r", str(run)], check=True)
    subprocess.run([*command, str(run)], check=True)
    differing = compared(folder / "whole", run)
    print(f"{kills} kills, then to the end: {differing or 'every file identical'}")
    return 1 if differing else 0


def write_corpus(folder: Path, size: int, seed: int) -> None:
    """Write Python's library, over and over until it has the size, with HumanEval items hidden in it, as JSONL."""
    folder.mkdir(parents=True)
    items = load_suite("humaneval").items
    chance = random.Random(seed)
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    written = count = 0
    files = [(folder / f"part-{number}.jsonl").open("w") for number in range(4)]
    while written < size:
        path = paths[count % len(paths)]
        text = path.read_text("utf-8", errors="replace")
        if chance.random() < 0.02:
            text += "\n" + "".join(part.text for part in chance.choice(items).parts)
        line = json.dumps({"id": f"{count}:{path.name}", "text": text}) + "\n"
        files[count % 4].write(line if chance.random() > 0.001 else "not JSON\n")
        written += len(line)
        count += 1
    for file in files:
        file.close()


def how_far(run: Path) -> str:
    """Say in which state a killed run is."""
    try:
        state = json.loads((run / "run.json").read_bytes())["state"]
    except FileNotFoundError:
        return "not begun"
    journal = run / "journal.bin"
    size = journal.stat().st_size if journal.exists() else 0
    return f"{state}, journal {size:,} bytes, {len(list(run.iterdir()))} files"


def compared(whole: Path, run: Path) -> str:
    """Name the files in which two runs differ."""
    left, right = content(whole), content(run)
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    return f"DIFFERENT: {', '.join(names)}" if names else ""


def content(run: Path) -> dict[str, Any]:
    """Hash every file of a run, and take from run.json what does not hold times."""
    found: dict[str, Any] = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file() and path.name not in NOT_COMPARED
    }
    record = json.loads((run / "run.json").read_bytes())
    record.pop("timing")
    return found | {"run.json": record}


if __name__ == "__main__":
    sys.exit(main())
