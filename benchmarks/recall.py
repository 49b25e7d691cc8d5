"""Recall by disguise, beside the peers: every HumanEval item hidden in real files in each of eleven ways.

    python benchmarks/recall.py

For phi_fast a document counts as found when it is dropped for the very item hidden in it, for a peer when flagged.
An item is testable in a disguise when a part of it that the disguise keeps has 13 words or more.
"""

from __future__ import annotations

import argparse
import json
import random

from command_speed import run_ours
from corpus import Corpus, add_arguments, python_files
from harness import ChildFailed, cache_dir, report, table
from peer_tools import PEERS, install_peers, prepare_suite

from phi_fast.decontaminate import Run
from phi_fast.disguise import DISGUISES
from phi_fast.suites import load_suite
from phi_fast.trial import Hidden, Host, condemned, hide_all, parts_testable, recall_by_disguise


def make(files: list[tuple[str, str]], background: int, seed: int) -> tuple[Corpus, list[Hidden]]:
    """Write the hidden documents and some clean files, shuffled, as one JSONL file."""
    hosts = [Host(name, text) for name, text in files if 2_000 <= len(text) <= 24_000]
    hidden = list(hide_all(load_suite("humaneval"), hosts, seed=seed))
    rng = random.Random(seed)
    documents = [(one.id, one.text) for one in hidden] + rng.sample(files, min(background, len(files)))
    rng.shuffle(documents)
    path = cache_dir() / "recall.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for name, text in documents:
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
    return Corpus(path, len(documents), sum(len(text.encode()) for _, text in documents), len(hidden)), hidden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--background", type=int, default=4000, help="clean files beside the hidden ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", action="append", choices=PEERS, help="default: decon and corpus-assay")
    arguments = parser.parse_args()

    files = python_files(arguments.root or ["/"])[: arguments.files]
    corpus, hidden = make(files, arguments.background, arguments.seed)
    print(f"{corpus.documents:,} documents, {len(hidden):,} of them with a hidden item")
    run_ours(corpus.path, name="recall")
    run = Run.load(cache_dir() / "scratch" / "recall")
    ours = recall_by_disguise(hidden, condemned(run), parts_testable(run))
    peers, failed = install_peers(arguments.peer or ["decon", "corpus-assay"])
    suite = prepare_suite(load_suite("humaneval"))
    flagged: dict[str, frozenset[str]] = {}
    for peer in peers:
        try:
            flagged[f"{peer.name} {peer.version}"] = peer.scan(corpus.path, suite, None).flagged
        except ChildFailed as error:
            failed[peer.name] = str(error)

    rows, data = [], {}
    for row in ours:
        ids = [one.id for one in hidden if one.disguise == row.disguise]
        found = {name: sum(one in documents for one in ids) for name, documents in flagged.items()}
        total = row.found + row.untestable_found
        mark = "" if DISGUISES[row.disguise].findable else " *"
        share = f"{row.found} of {row.testable} = {row.share:.1%}{mark}"
        rows.append((row.disguise, share, f"{total} of {row.hidden}", *(f"{n} of {len(ids)}" for n in found.values())))
        data[row.disguise] = {
            "testable": row.testable, "found": row.found, "hidden": row.hidden, "found_of_all": total,
            "missed": row.missed, "untestable": row.untestable, "peers": found,
        }  # fmt: skip
    untestable: dict[tuple[str, ...], list[str]] = {}
    for row in ours:
        if row.untestable:
            untestable.setdefault(row.untestable, []).append(row.disguise)
    headings = ("disguise", "phi_fast, of testable", "phi_fast, of all", *(f"{name}, of all" for name in flagged))
    notes = [
        f"{corpus.documents:,} documents, {len(hidden):,} with one hidden item; seed {arguments.seed}.",
        "* no run of words is left that n-grams could find; a syntax channel is for these.",
        *(f"Missed, {row.disguise}: {', '.join(row.missed)}." for row in ours if row.missed and len(row.missed) <= 20),
        *(f"Untestable, {'; '.join(names)}: {', '.join(items)}." for items, names in untestable.items()),
        *(f"{name} did not run: {reason}" for name, reason in failed.items()),
    ]
    report("recall", "Recall by disguise", table(headings, rows), {"disguises": data}, notes)


if __name__ == "__main__":
    main()
