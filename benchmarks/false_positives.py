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

from corpus import add_arguments, python_files
from harness import cache_dir, report

from phi_fast.decontaminate.record import EVIDENCE
from phi_fast.decontaminate.run import decontaminate
from phi_fast.decontaminate.verdicts import condemned, reason

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
    listed, sections = [], []
    for number, found in enumerate(condemned(run.path / EVIDENCE, run.policy, run.index().parts), 1):
        document, why = found.id, reason(found.matches)
        best = max(found.matches, key=lambda match: match.strength)
        said = judgements.get(f"{document} | {best.item}", "not judged yet")
        passage = files[document][best.doc_start : best.doc_end]
        sections.append(
            f"### {number}. {document}\n\n{why}. **Judgement: {said}**\n\n"
            f"Document:\n\n{quoted(passage)}\n\n{best.item}, {best.part}:\n\n"
            f"{quoted(parts[best.suite, best.item, best.part])}\n"
        )
        listed.append(
            {"document": document, "item": best.item, "part": best.part, "channel": best.channel,
             "coverage": best.coverage, "run": best.run, "tau": best.tau, "alpha": best.alpha, "reason": why,
             "judgement": said}
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
