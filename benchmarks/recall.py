"""Recall by disguise, by channel and beside the peers: every item hidden in real files in each of eleven ways.

    python benchmarks/recall.py --mbpp PATH/mbpp.jsonl
    python benchmarks/recall.py --mbpp PATH/mbpp.jsonl --n 13 --n 5      # other n-grams: results/recall-n5.md

For phi_fast a document counts as found when it is condemned for the very item hidden in it, for a peer when flagged.
What each channel could find at all is counted apart: by words an item whose words the disguise leaves in a part of 13
words or more, by syntax one whose solution the disguise leaves as code with a function or body of 13 nodes or more.
Common n-grams are learnt from the clean files alone. The peers read HumanEval's documents.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from corpus import add_arguments, python_files
from harness import ChildFailed, cache_dir, report, table
from peer_tools import PEERS, install_peers, prepare_suite

from phi_fast.decontaminate.run import decontaminate
from phi_fast.suites import Suite, load_suite
from phi_fast.trial import Host, Recall, by_any, condemned, findable, hide_all, only, recall_by_disguise

CHANNELS = ("ngram", "syntax")
TOGETHER = "together"


def write(path: Path, documents: Iterable[tuple[str, str]]) -> None:
    """Write documents as JSONL."""
    with open(path, "w", encoding="utf-8") as file:
        for name, text in documents:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")


def measure(
    suite: Suite, spec: str, files: list[tuple[str, str]], background: int, seed: int, n: list[int] | None
) -> tuple[Path, dict[str, list[Recall]], dict[str, list[str]], int]:
    """Hide a suite, scan once, and count by channel; gives the planted file, recall, ids by disguise, clean flagged."""
    folder, out = cache_dir() / f"recall-{suite.name}", cache_dir() / "scratch" / f"recall-{suite.name}"
    for old in (folder, out):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    hosts = [Host(name, text) for name, text in files if 2_000 <= len(text) <= 24_000]
    hidden = list(hide_all(suite, hosts, seed=seed))
    clean = random.Random(seed).sample(files, min(background, len(files)))
    write(folder / "clean.jsonl", clean)
    write(folder / "planted.jsonl", ((one.id, one.text) for one in hidden))
    options: dict[str, Any] = {"mode": "flag", "channels": CHANNELS, "n": n, "learn_from": ["clean.jsonl"]}
    run = decontaminate([str(folder)], [spec], str(out), **options)
    could = findable(hidden, run.parts())
    ways = {name: (only(run.policy, [name]), could[name]) for name in CHANNELS}
    ways[TOGETHER] = (run.policy, by_any(could, CHANNELS))
    recall = {way: recall_by_disguise(hidden, condemned(run, policy), able) for way, (policy, able) in ways.items()}
    ids: dict[str, list[str]] = {}
    for one in hidden:
        ids.setdefault(one.disguise, []).append(one.id)
    wrong = len({name for name, _ in clean} & set(run.verdicts().column("id").to_pylist()))
    return folder / "planted.jsonl", recall, ids, wrong


def shown(row: Recall) -> str:
    """Print `162 of 164 = 98.8%`."""
    return f"{row.found} of {row.testable} = {row.share:.1%}" if row.testable else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--mbpp", default=os.environ.get("PHI_FAST_MBPP"), help="MBPP's JSONL (or $PHI_FAST_MBPP)")
    parser.add_argument("--background", type=int, default=4000, help="clean files beside the hidden ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, action="append", help="words of an n-gram; repeat; the smallest decides")
    parser.add_argument("--peer", action="append", choices=PEERS, help="default: decon and corpus-assay")
    arguments = parser.parse_args()

    files = python_files(arguments.root or ["/"])[: arguments.files]
    specs = {"humaneval": "humaneval"} | ({"mbpp": f"mbpp={arguments.mbpp}"} if arguments.mbpp else {})
    sections: list[str] = []
    notes: list[str] = []
    data: dict[str, object] = {}
    for name, spec in specs.items():
        suite = load_suite(spec)
        planted, recall, ids, wrong = measure(suite, spec, files, arguments.background, arguments.seed, arguments.n)
        flagged: dict[str, frozenset[str]] = {}
        if name == "humaneval":
            peers, failed = install_peers(arguments.peer or ["decon", "corpus-assay"])
            prepared = prepare_suite(suite)
            for peer in peers:
                try:
                    flagged[f"{peer.name} {peer.version}"] = peer.scan(planted, prepared, None).flagged
                except ChildFailed as error:
                    failed[peer.name] = str(error)
            notes += [f"{peer} did not run: {reason}" for peer, reason in failed.items()]
        rows, told = [], {}
        for number, whole in enumerate(recall[TOGETHER]):
            here = ids[whole.disguise]
            found = {peer: sum(one in documents for one in here) for peer, documents in flagged.items()}
            total = whole.found + whole.untestable_found
            apart = {way: one[number] for way, one in recall.items()}
            of_all = (f"{total} of {whole.hidden}", *(f"{count} of {len(here)}" for count in found.values()))
            rows.append((whole.disguise, *(shown(one) for one in apart.values()), *of_all))
            told[whole.disguise] = {
                **{way: {"testable": one.testable, "found": one.found} for way, one in apart.items()},
                "hidden": whole.hidden, "found_of_all": total, "missed": whole.missed, "untestable": whole.untestable,
                "peers": found,
            }  # fmt: skip
        headings = ("disguise", "by words", "by syntax", TOGETHER, "of all", *(f"{peer}, of all" for peer in flagged))
        sections.append(f"## {name}\n\n{table(headings, rows)}")
        data[name] = told
        count = sum(map(len, ids.values()))
        notes.append(
            f"{name}: {count:,} documents with one hidden item; {wrong} of {arguments.background:,} clean flagged."
        )
        notes += _about(name, recall[TOGETHER])
    notes.append(
        f"Seed {arguments.seed}. By words, by syntax, together: of what the channel could find. Default policy."
    )
    report(
        f"recall-n{min(arguments.n)}" if arguments.n else "recall",
        "Recall by disguise",
        "\n\n".join(sections),
        {"suites": data},
        notes,
    )


def _about(name: str, recall: list[Recall]) -> list[str]:
    said: list[str] = []
    same: dict[tuple[str, ...], list[str]] = {}
    for row in recall:
        if row.missed and len(row.missed) <= 20:
            said.append(f"{name}, missed, {row.disguise}: {', '.join(row.missed)}.")
        if row.untestable:
            same.setdefault(row.untestable, []).append(row.disguise)
    for items, ones in same.items():
        named = f"{', '.join(items)}" if len(items) <= 40 else f"{len(items)} items, named in the JSON file beside this"
        said.append(f"{name}, untestable, {'; '.join(ones)}: {named}.")
    return said


if __name__ == "__main__":
    main()
