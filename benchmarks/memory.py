"""Peak memory of the whole command against the corpus' size.

python benchmarks/memory.py --sizes 250MB 1GB 4GB --threads 2
"""

from __future__ import annotations

import argparse

from command_speed import run_ours
from corpus import add_arguments, make_corpus, size
from harness import MB, cache_dir, report, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--sizes", type=size, nargs="+", default=[size("250MB"), size("1GB"), size("4GB")])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    data = []
    for wanted in arguments.sizes:
        corpus = make_corpus(wanted, arguments.root, arguments.files)
        for threads in arguments.threads:
            child, dropped = run_ours(corpus.path, threads, "memory")
            index = (cache_dir() / "scratch" / "memory" / "index.phifast").stat().st_size
            print(f"{wanted / MB:,.0f} MB, {threads} thread(s): {child.peak_memory / MB:,.0f} MB", flush=True)
            peak, text = child.peak_memory / MB, corpus.text_bytes / MB
            rows.append(
                (
                    f"{text:,.0f}",
                    threads,
                    f"{corpus.documents:,}",
                    f"{len(dropped):,}",
                    f"{index / MB:.1f}",
                    f"{peak:,.0f}",
                )
            )
            data.append({"text_mb": text, "threads": threads, "index_mb": index / MB, "peak_mb": peak})
    headings = ("text, MB", "threads", "documents", "dropped", "index, MB", "peak memory, MB")
    notes = ["Largest resident size of the process: Python, its libraries, the index, buffers."]
    report("memory", "Memory", table(headings, rows), {"cases": data}, notes)


if __name__ == "__main__":
    main()
