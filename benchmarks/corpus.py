"""Make the corpus the benchmarks read: the Python source on this machine as JSONL, with HumanEval planted in it.

    python benchmarks/corpus.py                  # every file once
    python benchmarks/corpus.py --size 4GB       # repeated, with distinct ids
    python benchmarks/corpus.py --compress zst   # beside it, compressed

Files that occur more than once (by content, or by name below another Python's library) are taken once; files over
700 kB are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard
from harness import cache_dir

from phi_fast.disguise import disguise, hide
from phi_fast.suites import load_suite

_SKIP = {"__pycache__", ".git", "node_modules", "phi_fast", "phi-fast-bench"}
_SYSTEM = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp"}
_MAX_FILE = 700_000  # one peer fails on a whole corpus when a JSON line of it passes 1 MB
_LIBRARY = re.compile(r".*?/(?:lib|lib64)/(?:python|pypy)[\d.]*/(?:site-packages/|dist-packages/)?")
_SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True)
class Corpus:
    """A JSONL file and what is in it."""

    path: Path
    documents: int
    text_bytes: int
    planted: int


def size(text: str) -> int:
    """Read a size such as `500MB` or `4GB`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?b?)", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: give a size such as 500MB or 4GB")
    unit = match[2] if match[2] in _SIZES else match[2] + "b"
    return int(float(match[1]) * _SIZES[unit])


def python_files(roots: list[str]) -> list[tuple[str, str]]:
    """Read all Python source below `roots`: (name, text), sorted by name, each content and each library file once."""
    paths: list[str] = []
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = [n for n in sorted(folders) if n not in _SKIP and os.path.join(folder, n) not in _SYSTEM]
            paths += [os.path.join(folder, name) for name in files if name.endswith(".py")]
    own = str(Path(__file__).resolve().parents[1]) + os.sep
    names: dict[str, str] = {}
    # Reverse order: of several Pythons' copies of a library file the newest version's stands.
    for path in sorted(set(paths), key=_version_key, reverse=True):
        if not os.path.realpath(path).startswith(own):
            names.setdefault(_LIBRARY.sub("", path).lstrip("/"), path)
    seen: set[bytes] = set()
    found: list[tuple[str, str]] = []
    for name, path in sorted(names.items()):
        try:
            raw = Path(path).read_bytes()
            text = raw.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        digest = hashlib.sha1(raw, usedforsecurity=False).digest()
        if 0 < len(raw) <= _MAX_FILE and digest not in seen:
            seen.add(digest)
            found.append((name, text))
    return found


def _version_key(path: str) -> tuple[list[int], str]:
    match = re.search(r"/python(\d+(?:\.\d+)*)/", path)
    return [int(part) for part in match[1].split(".")] if match else [], path


def plant(files: list[tuple[str, str]], seed: int = 0) -> Iterator[tuple[str, str]]:
    """Plant each HumanEval item, verbatim, in a file of its own; the ids of these files end in the item's."""
    suite = load_suite("humaneval")
    rng = random.Random(seed)
    items = dict(zip(rng.sample(range(len(files)), min(len(suite.items), len(files))), suite.items, strict=False))
    for number, (name, text) in enumerate(files):
        item = items.get(number)
        leak = disguise(item, "verbatim") if item else None
        if item and leak:
            yield f"{name} + {item.id}", hide(text, leak, rng)
        else:
            yield name, text


def make_corpus(wanted: int | None = None, roots: list[str] | None = None, limit: int | None = None) -> Corpus:
    """Make the corpus or take it from the cache.

    Parameters
    ----------
    wanted
        Bytes of JSONL; the documents are repeated until there are so many, or cut off there. None: each once.
    roots
        Folders searched.
    limit
        Read only so many files: for trying a benchmark out.
    """
    chosen = roots or ["/"]
    key = hashlib.sha1(json.dumps([chosen, limit]).encode(), usedforsecurity=False).hexdigest()[:8]
    path = cache_dir() / f"corpus-{key}-{wanted or 'once'}.jsonl"
    about = path.with_suffix(".json")
    if not (path.exists() and about.exists()):
        base = list(plant(python_files(chosen)[:limit]))
        if not base:
            raise SystemExit(f"no Python source below {', '.join(chosen)}")
        documents = text_bytes = written = copies = planted = 0
        with open(path, "wb") as file:
            lines = [(json.dumps(name)[1:-1], json.dumps(text, ensure_ascii=False).encode()) for name, text in base]
            sizes = [len(text.encode()) for _, text in base]
            while written < (wanted or 1):
                for (name, text), length in zip(lines, sizes, strict=True):
                    suffix = b"" if not copies else b"#%d" % copies
                    written += file.write(b'{"id": "' + name.encode() + suffix + b'", "text": ' + text + b"}\n")
                    documents += 1
                    text_bytes += length
                    planted += " + HumanEval/" in name
                    if wanted and written >= wanted:
                        break
                copies += 1
        about.write_text(json.dumps({"documents": documents, "text_bytes": text_bytes, "planted": planted}))
    return Corpus(path, **json.loads(about.read_text()))


def compressed(corpus: Corpus, codec: str) -> Path:
    """Give the corpus compressed as `gz` (level 6) or `zst` (level 3), made once."""
    path = corpus.path.with_name(corpus.path.name + "." + codec)
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        if codec == "zst":
            with open(corpus.path, "rb") as source, open(partial, "wb") as target:
                zstandard.ZstdCompressor(level=3).copy_stream(source, target)
        else:
            with open(partial, "wb") as target:
                subprocess.run(["gzip", "-6", "-c", corpus.path], stdout=target, check=True)
        partial.rename(path)
    return path


def warm(path: Path) -> None:
    """Read a file once, so that it stands in the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def add_arguments(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the options by which every benchmark chooses its corpus."""
    parser.add_argument("--size", type=size, default=size(default) if default else None, help="such as 500MB or 4GB")
    parser.add_argument("--root", action="append", help="folder searched for Python source (default: /)")
    parser.add_argument("--files", type=int, help="read only so many files: for trying out")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--compress", choices=("gz", "zst"), action="append", default=[])
    arguments = parser.parse_args()
    made = make_corpus(arguments.size, arguments.root, arguments.files)
    print(f"{made.path}: {made.documents:,} documents, {made.text_bytes / 1e6:,.1f} MB of text, {made.planted} planted")
    for name in arguments.compress:
        print(compressed(made, name))
