"""Write the Python library's own source as JSONL: a corpus that every machine has.

python examples/library.py library.jsonl --megabytes 20
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from phi_fast.trial import library_files


def main() -> None:
    """Write one line a file."""
    parser = argparse.ArgumentParser(description="Write the Python library's own source as JSONL.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--megabytes", type=float, default=20)
    given = parser.parse_args()
    files = library_files(int(given.megabytes * 1e6))
    given.output.write_text("".join(json.dumps({"id": one.name, "text": one.text}) + "\n" for one in files))


if __name__ == "__main__":
    main()
