"""Small corpora with items hidden in known documents, and the suite they come from."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from phi_fast.suites import Item, Part, Suite

ITEMS = 6
EVERY = 10  # documents 3, 13, 23, ... hold item 0, 1, 2, ...


def words(seed: str, count: int) -> str:
    """Words that no other seed gives, in lines of eight."""
    chance = random.Random(seed)
    found = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(4, 9))) for _ in range(count)]
    return "\n".join(" ".join(found[at : at + 8]) for at in range(0, count, 8)) + "\n"


def item_text(number: int, part: str) -> str:
    return words(f"item {number} {part}", 40)


def exam(items: int = ITEMS) -> Suite:
    """A suite "exam" of items exam/0, exam/1, ... with a question and a solution of 40 words each."""
    made = tuple(
        Item(f"exam/{number}", tuple(Part(name, item_text(number, name)) for name in ("question", "solution")))
        for number in range(items)
    )
    return Suite("exam", made, "made for a test", hashlib.sha256(str(items).encode()).hexdigest())


def exam_file(path: Path, items: int = ITEMS) -> Path:
    """The same suite as JSONL."""
    rows = (
        {"id": f"exam/{number}", "prompt": item_text(number, "question"), "solution": item_text(number, "solution")}
        for number in range(items)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def documents(count: int, *, seed: str = "", leaking: bool = True, size: int = 120) -> list[dict[str, Any]]:
    """Documents with ids; document 3 holds exam/0, 13 holds exam/1, and so on."""
    made = []
    for number in range(count):
        text = words(f"document {seed} {number}", size)
        if leaking and number % EVERY == 3:
            leak = item_text(number // EVERY % ITEMS, "question" if number // EVERY % 2 else "solution")
            text = words(f"before {seed} {number}", 80) + leak + text
        made.append({"id": f"{seed}doc-{number}", "text": text, "stars": number})
    return made


def leaking(count: int) -> list[int]:
    """Numbers of the documents that hold an item."""
    return [number for number in range(count) if number % EVERY == 3]


def jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


OUTPUTS = (
    "evidence.parquet",
    "verdicts.parquet",
    "excerpts.parquet",
    "removed.jsonl",
    "rejected.jsonl",
    "index.phifast",
    "report.md",
    "report.html",
)


def output_bytes(run: Path, ignore: Sequence[str] = ()) -> dict[str, bytes]:
    """Everything a run wrote whose bytes must not depend on threads, time or interruptions."""
    found = {name: (run / name).read_bytes() for name in OUTPUTS if name not in ignore}
    for path in sorted((run / "clean").rglob("*")) if (run / "clean").is_dir() else []:
        if path.is_file():
            found[str(path.relative_to(run))] = path.read_bytes()
    record = json.loads((run / "run.json").read_bytes())
    del record["timing"]
    found["run.json"] = json.dumps(record).encode()
    return found
