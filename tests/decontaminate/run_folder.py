"""Makes run folders in the real file formats, with matches whose place is known, to hold the reports against."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi_fast.decontaminate.channels import CHANNELS, FORMS
from phi_fast.decontaminate.evidence import EVIDENCE_SCHEMA
from phi_fast.decontaminate.policy import Policy
from phi_fast.decontaminate.record import FORMAT
from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import Item, Part, Suite, load_suite

FILLER = "import os\n\n\ndef helper(path):\n    '''Naïve 😀 helper, nothing to see.'''\n    return os.stat(path)\n\n\n"
TRAP = "</script><script>alert('leak')</script><!-- & \x00 \u2028 "
HELD = Policy(n=5)


@dataclass(frozen=True)
class Planted:
    """One document with one planted part: what the report must show of it."""

    id: str
    suite: str
    item: str
    part: str
    passage: str  # of the document
    item_passage: str
    coverage: float
    run: int
    verdict: str
    rows: int  # of evidence


def own_suite() -> Suite:
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon"
    items = (
        Item(
            "own/long",
            (Part("question", f"Opening 😀 line.\n{words}\n{words.upper()} end"), Part("solution", "return 1")),
        ),
        Item("own/markup", (Part("question", f"{TRAP}\n{words[::-1]}"), Part("tests", "assert 1 == 1"))),
        Item("own/short", (Part("question", "Too short to test"),)),
    )
    return Suite("own", items, "own.jsonl", "0" * 64)


def make_run(
    folder: Path,
    matches: int,
    *,
    policy: Policy = HELD,
    seed: int = 0,
    excerpts: bool = True,
    channels: tuple[str, ...] = CHANNELS,
) -> list[Planted]:
    """Write a finished run of `matches` rows of evidence; every third document's match is found at n = 13 too.

    Every other solution is found by syntax as well, as a function and as a body; every seventh document by embedding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suites = [load_suite("humaneval"), own_suite()]
    NgramIndex.build(suites).save(folder / "index.phifast")
    parts = [
        (suite.name, item.id, part)
        for suite in suites
        for item in suite.items
        for part in item.parts
        if len(re.findall(r"\w+", part.text)) >= 13
    ]
    rng = random.Random(seed)
    planted: list[Planted] = []
    evidence: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    while len(evidence) < matches:
        row = len(planted)
        suite, item, part = parts[row % len(parts)]
        kept = rng.choice((1.0, 1.0, 0.875, 0.6, 0.35))
        passage, run, start, end = _edited(part.text, kept, rng)
        before, after = FILLER * rng.randrange(1, 4), FILLER * rng.randrange(1, 4)
        identity = f"doc-{row:05d} 😀 {TRAP}" if row % 50 == 49 else f"repo-{row % 97}/module_{row:05d}.py"
        verdict = policy.mode if kept >= 0.7 else "keep"
        at = {"file": f"part-{row // 2000}.jsonl", "row": row % 2000}
        spans = {
            "doc_start": len(before), "doc_end": len(before) + len(passage), "item_start": start, "item_end": end,
        }  # fmt: skip
        about = {"id": identity, **at, "suite": suite, "item": item, "part": part.name, **spans}
        found = [
            about
            | {"channel": "ngram", "n": n, "run": run, "coverage": kept, "score": max(1, run - n + 1), "words": 20}
            for n in ((13, 5) if row % 3 == 2 and run >= 13 else (5,))
        ]
        if suite == "humaneval" and part.name == "solution" and row % 2 and kept >= 0.6:
            trees = {"nodes": 40, "item_nodes": 42, "tau": (1 + kept) / 2, "alpha": kept, "score": kept}
            near = 0.25 if row % 7 == 6 else None
            found += [about | trees | {"channel": "syntax", "form": one, "distance": near} for one in FORMS]
        if row % 7 == 6:
            found.append(about | {"channel": "embedding", "distance": 0.25, "score": 1 - 0.25**2 / 2})
        found = [one for one in found if one["channel"] in channels][: matches - len(evidence)]
        evidence += found
        planted.append(
            Planted(identity, suite, item, part.name, passage, part.text[start:end], kept, run, verdict, len(found))
        )
        if verdict != "keep":
            reason = f"{item} {part.name}: coverage {kept:.2f}, run {run} words"
            verdicts.append({"id": identity, **at, "verdict": verdict, "reason": reason})
        texts.append({**at, "start": 0, "text": before + passage + after})
    _table(folder / "evidence.parquet", evidence, EVIDENCE_SCHEMA)
    _table(folder / "verdicts.parquet", verdicts, VERDICTS)
    _table(folder / "excerpts.parquet", texts if excerpts else [], EXCERPTS)
    bad = [
        {"file": "part-0.jsonl", "row": 9000 + n, "reason": f"malformed JSON: expected ',' at byte {n}", "raw": '{"'}
        for n in range(7)
    ]
    bad += [{"file": "part-0.jsonl", "row": 9900, "reason": '"text" is null, expected a string', "raw": "x" * 200_000}]
    (folder / "rejected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
    record = _record(suites, policy, planted, len(evidence), len(bad), channels)
    (folder / "run.json").write_text(json.dumps(record, indent=2))
    return planted


def _edited(text: str, kept: float, rng: random.Random) -> tuple[str, int, int, int]:
    """The text from its first word to its last, a share of its words replaced; the longest run left."""
    found = list(re.finditer(r"\w+", text))
    start, end = found[0].start(), found[-1].end()
    every = None if kept == 1 else max(2, round(1 / (1 - kept)))
    pieces, done, run, longest = [], start, 0, 0
    for number, word in enumerate(found):
        last = number == len(found) - 1
        if every and number % every == every - 1 and not last:
            pieces += [text[done : word.start()], rng.choice(("quokka", "zebra😀", "ibex"))]
            done, run = word.end(), 0
        else:
            run += 1
            longest = max(longest, run)
    return "".join([*pieces, text[done:end]]), longest, start, end


_S, _I = pa.string(), pa.int64()
VERDICTS = pa.schema([("id", _S), ("file", _S), ("row", _I), ("verdict", _S), ("reason", _S)])
EXCERPTS = pa.schema([("file", _S), ("row", _I), ("start", _I), ("text", _S)])


def _table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=1000)


def _record(
    suites: list[Suite], policy: Policy, planted: list[Planted], matches: int, bad: int, channels: tuple[str, ...]
) -> dict[str, Any]:
    documents = 17_897 if len(planted) < 10_000 else 2_000_000
    verdicts = {verdict: sum(one.verdict == verdict for one in planted) for verdict in ("drop", "cut", "flag")}
    counts = {
        "files": 5, "bytes": 291_000_000, "rows": documents + bad, "documents": documents, "text_bytes": 277_000_000,
        "matches": matches, "matched_documents": len(planted), "rejected": bad, **verdicts,
        "keep": documents - sum(verdicts.values()),
    }  # fmt: skip
    return {
        "format": FORMAT,
        "phi_fast": "0.1.0",
        "state": "finished",
        "settings_sha256": "5e77" * 16,
        "settings": {
            "corpus": ["/data/code"],
            "against": ["humaneval", "own=own.jsonl"],
            "fields": {"question": None, "solution": None, "tests": None, "id": None},
            "text": None,
            "id": None,
            "n": [13, 5],
            "channels": list(channels),
            "unit_bytes": 8 << 20,
            "policy": policy.as_dict(),
        },
        "policy_words": policy.describe(),
        "clean_policy": policy.as_dict(),
        "suites": [
            {"name": s.name, "source": s.source, "sha256": s.sha256, "items": len(s.items), "rejected": 0,
             "parts": 0, "testable_parts": 0, "unreachable_items": []} for s in suites
        ],
        "inputs": [
            {"name": f"part-{n}.jsonl", "path": f"/data/code/part-{n}.jsonl", "format": "jsonl", "compression": None,
             "text": "text", "id": "id", "size": 1, "stamp": "1", "rows": 1, "documents": 1, "text_bytes": 1,
             "matches": 1, "rejected": 0, "removed": 0} for n in range(5)
        ],
        "counts": counts,
        "sample_documents": 2000,
        "hashes": {"index": "1" * 64, "evidence": "2" * 64, "verdicts": "3" * 64},
        "versions": {"python": "3.11.2", "numpy": "2.0.0", "pyarrow": "20.0.0"},
        "timing": {"started": "2026-01-02T03:04:05+00:00", "seconds": 0.9, "scan_seconds": 0.3, "write_seconds": 0.4,
                   "threads": 2, "simd": "avx512", "resumed": False, "scanned_text_bytes": 277_000_000,
                   "mb_per_second": 923.4},
    }  # fmt: skip
