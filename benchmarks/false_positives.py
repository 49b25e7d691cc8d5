"""Every document the default policy condemns in all Python source on this machine, HumanEval and MBPP together.

    python benchmarks/false_positives.py --mbpp PATH/mbpp.jsonl

Nothing is planted, so what is condemned is a false positive or a real copy. Each is listed with its passage beside the
item's, and with the judgement in judgements.json (key: "DOCUMENT | ITEM") once a person has written it there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from corpus import add_arguments, python_files
from harness import cache_dir, report

from phi_fast.decontaminate.run import decontaminate

JUDGEMENTS = Path(__file__).parent / "judgements.json"
_LINES = 14


def quoted(text: str) -> str:
    """Give a passage as a Markdown code block, cut to a readable length."""
    lines = text.strip("\n").splitlines()
    more = [f"… {len(lines) - _LINES} more lines"] if len(lines) > _LINES else []
    return "````\n" + "\n".join([*lines[:_LINES], *more]) + "\n````"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--mbpp", default=os.environ.get("PHI_FAST_MBPP"), help="MBPP's JSONL (or $PHI_FAST_MBPP)")
    arguments = parser.parse_args()

    files = dict(python_files(arguments.root or ["/"])[: arguments.files])
    corpus, out = cache_dir() / "clean-source.jsonl", cache_dir() / "scratch" / "false-positives"
    with open(corpus, "w", encoding="utf-8") as file:
        for name, text in files.items():
            file.write(json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    suites = ["humaneval", *([f"mbpp={arguments.mbpp}"] if arguments.mbpp else [])]
    run = decontaminate([str(corpus)], suites, str(out))

    judgements: dict[str, str] = json.loads(JUDGEMENTS.read_text()) if JUDGEMENTS.exists() else {}
    parts = {(part.suite, part.item, part.part): part.text for part in run.index().parts}
    matches: dict[str, list[dict[str, Any]]] = {}
    for row in run.evidence().to_pylist():
        if row["n"] == run.policy.n:
            matches.setdefault(row["id"], []).append(row)
    listed, sections = [], []
    for number, verdict in enumerate(run.verdicts().to_pylist(), 1):
        document = verdict["id"]
        best = max(matches[document], key=lambda row: (row["coverage"], row["run"]))
        said = judgements.get(f"{document} | {best['item']}", "not judged yet")
        passage = files[document][best["doc_start"] : best["doc_end"]]
        item = parts[best["suite"], best["item"], best["part"]][best["item_start"] : best["item_end"]]
        sections.append(
            f"### {number}. {document}\n\n{verdict['reason']}. **Judgement: {said}**\n\n"
            f"Document:\n\n{quoted(passage)}\n\n{best['item']}, {best['part']}:\n\n{quoted(item)}\n"
        )
        listed.append(
            {"document": document, "item": best["item"], "part": best["part"], "coverage": best["coverage"],
             "run": best["run"], "reason": verdict["reason"], "judgement": said}
        )  # fmt: skip
    each = f"1 in {len(files) // len(listed):,}" if listed else "none"
    text_bytes = sum(len(text.encode()) for text in files.values())
    body = (
        f"**{len(listed)} of {len(files):,} documents condemned ({each})**, {text_bytes / 1e6:,.0f} MB of text, "
        f"against {', '.join(suite.partition('=')[0] for suite in suites)} by the default policy: {run.policy}\n\n"
        + "\n".join(sections)
    )
    notes = ["Each content and each library file once; nothing planted."]
    if not arguments.mbpp:
        notes.append("MBPP was not given, so this is HumanEval alone.")
    report("false_positives", "False positives", body, {"documents": len(files), "condemned": listed}, notes)


if __name__ == "__main__":
    main()
