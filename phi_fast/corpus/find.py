"""From what the user named to the list of sources: files, globs, folders, URLs; `datasets` folders and trees."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fsspec.utils import glob_translate

from phi_fast.corpus.files import (
    absolute,
    filesystem,
    is_remote,
    open_raw,
    size_and_stamp,
    source_errors,
    tree_entry,
    tree_stamp,
)
from phi_fast.corpus.sniff import holds_documents, stored_as, with_columns
from phi_fast.corpus.source import Compression, Format, Source
from phi_fast.corpus.streams import SUFFIXES
from phi_fast.errors import InputError

TREE_PATTERN = "**/*.py"
LINES_ENDINGS = (".jsonl", ".ndjson", ".json")
TABLE_ENDINGS: dict[str, Format] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
ENDINGS = ".jsonl .ndjson .json (also .gz .zst .bz2 .xz), .parquet, .arrow, .feather, .py"
SIDE_FILES = ("state.json", "dataset_info.json")
MANY_TO_ONE = 10


class _Found(NamedTuple):
    """A source before it is opened: `names` are given for a tree only, `guess` marks a .json met in a folder."""

    path: str
    root: str
    format: Format
    names: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    guess: bool = False


def discover(
    paths: Sequence[str],
    *,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Source]:
    """Find the corpus.

    Parameters
    ----------
    paths
        Files, globs (``**`` too), folders and fsspec URLs of them.
    text, id
        Columns of the text and the id; found where not given (text, content, code; id).
    pattern
        Folders are trees of the files that match it (``"**/*.rs"``). Without, a folder is what corpus files it
        holds, or a tree of ``**/*.py`` where it holds none.
    note
        Is told, in a sentence each, what was left out.

    Returns
    -------
    list of Source
        In order of their names, which are unique.

    Raises
    ------
    InputError
        Nothing found, an ending that is not known, no text column (it says which there are), nothing readable.
    """
    say = note or (lambda _: None)
    found: dict[str, _Found] = {}
    trees: dict[str, list[_Found]] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for entry in _expand(absolute(str(path)), pattern, say):
            if entry.format == "tree":
                trees.setdefault(entry.path, []).append(entry)
            else:
                found.setdefault(entry.path, entry)
    for path, entries in trees.items():
        names = sorted({name for entry in entries for name in entry.names})
        found[f"{path}/"] = entries[0]._replace(names=tuple(names))
    if not found:
        raise InputError("no corpus: name at least one file, folder, glob or URL")
    entries = list(found.values())
    with ThreadPoolExecutor(max_workers=8 if any(is_remote(entry.path) for entry in entries) else 1) as pool:
        sources = list(pool.map(lambda entry, name: _source(entry, name, text, id), entries, _names(entries)))
    skipped = [entry.path for entry, source in zip(entries, sources, strict=True) if source is None]
    if skipped:
        say(f"{len(skipped):,} .json files hold no lines with a text and were left out, such as {skipped[0]}")
    kept_sources = sorted((source for source in sources if source is not None), key=lambda source: source.name)
    if not kept_sources:
        raise InputError(f"no corpus files found in {', '.join(map(str, paths))}: looked for {ENDINGS}")
    faults = [source for source in kept_sources if source.fault is not None]
    if len(faults) == len(kept_sources):
        raise InputError(f"{faults[0].path}: {faults[0].fault}")
    return kept_sources


def _expand(path: str, pattern: str | None, say: Callable[[str], None]) -> Iterator[_Found]:
    kind = _kind(path)
    if kind == "folder":
        yield from _folder(path, pattern, say)
    elif kind == "file":
        entry = _file(path, os.path.dirname(path))
        if entry is None:
            raise InputError(f"{path}: cannot tell what it is by its ending; known are {ENDINGS}")
        yield entry
    elif not any(sign in path for sign in "*?["):
        raise InputError(f"{path}: no such file or folder")
    else:
        yield from _glob(path, pattern, say)


def _glob(path: str, pattern: str | None, say: Callable[[str], None]) -> Iterator[_Found]:
    if is_remote(path):
        fs, inner = filesystem(path)
        with source_errors(_nameless(path)):
            matches = sorted(fs.unstrip_protocol(match) for match in fs.glob(inner))
    else:
        matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise InputError(f"{path}: no file matches")
    root = os.path.dirname(re.split(r"[*?\[]", path, maxsplit=1)[0])
    known, unknown = 0, []
    for match in matches:
        kind = _kind(match)
        if kind == "folder":
            if "**" not in path:
                known += 1
                yield from _folder(match, pattern, say)
            continue
        entry = _file(match, root)
        if entry is None:
            unknown.append(match)
        else:
            known += 1
            yield entry
    if not known:
        raise InputError(f"{path}: none of the {len(unknown):,} files that match has a known ending: {ENDINGS}")
    if unknown:
        say(f"{len(unknown):,} files match {path} but have no known ending and were left out, such as {unknown[0]}")


def _kind(path: str) -> str | None:
    if is_remote(path):
        fs, inner = filesystem(path)
        with source_errors(_nameless(path)):
            return "file" if fs.isfile(inner) else "folder" if fs.isdir(inner) else None
    return "file" if os.path.isfile(path) else "folder" if os.path.isdir(path) else None


def _nameless(path: str) -> Source:
    return Source(path, "", "jsonl", None, "", None, 0, "")


def _file(path: str, root: str) -> _Found | None:
    if path.endswith(".py"):
        root = root or os.path.dirname(path)
        return _Found(root, os.path.dirname(root), "tree", (path[len(root) :].lstrip("/"),))
    kind = format_of(path)
    return None if kind is None else _Found(path, root, kind[0])


def format_of(path: str) -> tuple[Format, Compression | None] | None:
    """Format and compression by the file's ending, or None."""
    name = os.path.basename(path).lower()
    for ending, table in TABLE_ENDINGS.items():
        if name.endswith(ending):
            return table, None
    stem, suffix = os.path.splitext(name)
    compression = SUFFIXES.get(suffix)
    return ("jsonl", compression) if (stem if compression else name).endswith(LINES_ENDINGS) else None


def _walk(folder: str, say: Callable[[str], None]) -> list[str]:
    """All files below a folder, as sorted POSIX paths relative to it; hidden ones are left out."""
    names = []
    if is_remote(folder):
        fs, inner = filesystem(folder)
        inner = inner.rstrip("/")
        with source_errors(_nameless(folder)):
            names = [path[len(inner) :].lstrip("/") for path in fs.find(inner)]
    else:
        links = 0
        for base, folders, files in os.walk(folder):
            links += sum(os.path.islink(os.path.join(base, name)) for name in folders if name[0] != ".")
            relative = os.path.relpath(base, folder)
            names += [name if relative == "." else f"{relative}/{name}" for name in files]
            folders[:] = [name for name in folders if name[0] != "."]
        if links:
            say(f"{links:,} linked folders below {folder} were left out: name them to include them")
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _folder(folder: str, pattern: str | None, say: Callable[[str], None]) -> Iterator[_Found]:
    if not folder.endswith("://"):
        folder = folder.rstrip("/")
    names = _walk(folder, say)
    if pattern is None:
        corpus = list(_corpus_files(folder, names))
        sure = sum(not entry.guess for entry in corpus)
        if not sure and corpus:  # .json files alone: open them to tell
            sure = sum(_source(entry, entry.path, None, None, guessing=True) is not None for entry in corpus)
        scripts = sum(name.endswith(".py") for name in names)
        if sure and scripts > MANY_TO_ONE * sure:
            raise InputError(
                f"{folder} holds {scripts:,} .py files and {sure:,} corpus files: name the corpus files (a glob will "
                f"do), or take the source files as the corpus with --pattern '{TREE_PATTERN}'"
            )
        if sure:
            yield from corpus
            return
    match = re.compile(glob_translate(_anywhere(pattern or TREE_PATTERN)))
    files, unnameable = [], 0
    for name in names:
        if match.match(name):
            if _is_utf8(name):
                files.append(name)
            else:
                unnameable += 1
    if unnameable:
        say(f"{unnameable:,} files below {folder} have names that are not UTF-8 and were left out")
    if not files:
        what = f"files matching {pattern}" if pattern else f"corpus files ({ENDINGS})"
        raise InputError(f"{folder}: no {what} in this folder")
    yield _Found(folder, os.path.dirname(folder), "tree", tuple(files))


def _anywhere(pattern: str) -> str:
    return pattern if "/" in pattern else f"**/{pattern}"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _corpus_files(folder: str, names: list[str]) -> Iterator[_Found]:
    """Corpus files of a folder; of a `datasets` folder those its state names, with its JSON files beside them."""
    present = set(names)
    shards: dict[str, tuple[str, ...]] = {}
    hidden: set[str] = set()
    for name in names:
        if os.path.basename(name) != "state.json":
            continue
        data_files = _data_files(f"{folder}/{name}")
        if data_files is None:
            continue
        base = os.path.dirname(name)
        prefix = f"{base}/" if base else ""
        parent = f"{os.path.dirname(base)}/" if os.path.dirname(base) else ""
        sides = [prefix + side for side in SIDE_FILES]
        if base:
            sides.append(f"{parent}dataset_dict.json")
        companions = tuple(side for side in sides if side in present)
        hidden.update(companions, (other for other in names if other.startswith(prefix) and other.endswith(".arrow")))
        for shard in data_files:
            if prefix + shard not in present:
                raise InputError(f"{folder}/{name} names {shard}, which is missing")
            shards[prefix + shard] = companions
    for name in names:
        kind = format_of(name)
        if kind is not None and (name in shards or name not in hidden):
            guess = kind[0] == "jsonl" and ".json" in name and not re.search(r"\.(jsonl|ndjson)", name)
            yield _Found(f"{folder}/{name}", folder, kind[0], (), shards.get(name, ()), guess)


def _data_files(state: str) -> list[str] | None:
    """The shards a `datasets` state.json names, or None if it is some other file of that name."""
    with source_errors(_nameless(state)), open_raw(state) as file:
        try:
            value = json.loads(bytes(file.read()))
        except ValueError:
            return None
    if not isinstance(value, dict) or not isinstance(value.get("_data_files"), list):
        return None
    if value.get("_indices_data_files"):
        raise InputError(f"{state}: rows are picked through an index: save it again after `flatten_indices()`")
    return [str(entry["filename"]) for entry in value["_data_files"]]


def _source(entry: _Found, name: str, text: str | None, identity: str | None, guessing: bool = False) -> Source | None:
    if entry.format == "tree":
        files = []
        for file in entry.names:
            with source_errors(_nameless(f"{entry.path}/{file}")):
                files.append((file, *tree_entry(f"{entry.path}/{file}")))
        sizes = tuple(size for _, size, _ in files)
        return Source(entry.path, name, "tree", None, "", None, sum(sizes), tree_stamp(files), None, entry.names, sizes)
    if not _is_utf8(entry.path):
        raise InputError(f"{os.fsencode(entry.path)!r}: the file's name is not UTF-8: rename it")
    with source_errors(_nameless(entry.path)):
        size, stamp = size_and_stamp(entry.path)
        known = format_of(entry.path)
        by_name = known[1] if known else None
        compression = stored_as(entry.path, by_name) if entry.format == "jsonl" else None
        companions = tuple(_beside(f"{entry.root}/{side}", entry.path, name) for side in entry.companions)
        source = Source(entry.path, name, entry.format, compression, "", None, size, stamp, companions=companions)
        if entry.guess and not holds_documents(source, text):
            return None
        return source if guessing else with_columns(source, text, identity)


def _beside(companion: str, path: str, name: str) -> tuple[str, str]:
    """A companion's path, and its name, which lies to the source's name as their paths lie to each other."""
    relative = os.path.relpath(companion, os.path.dirname(path))
    return companion, os.path.normpath(os.path.join(os.path.dirname(name), relative)).removeprefix("../")


def _names(entries: list[_Found]) -> list[str]:
    """Names relative to what the user named; where these clash, relative to the folder common to all."""
    names = [_relative(entry.path, entry.root) for entry in entries]
    if _clash(names, entries):
        split = [entry.path.replace("://", "/").strip("/").split("/") for entry in entries]
        common = 0
        while all(len(parts) > common + 1 and parts[common] == split[0][common] for parts in split):
            common += 1
        names = ["/".join(parts[common:]) for parts in split]
        if again := _clash(names, entries):
            raise InputError(f"{again} lies in a source tree that is part of the corpus too: name one of the two")
    return names


def _relative(path: str, root: str) -> str:
    return path[len(root) :].strip("/") or "root"


def _clash(names: list[str], entries: list[_Found]) -> str | None:
    """A name that is there twice, or lies inside a tree of the same corpus."""
    counts = Counter(names)
    trees = {name for name, entry in zip(names, entries, strict=True) if entry.format == "tree"}
    for name in names:
        parts = name.split("/")
        if counts[name] > 1 or any("/".join(parts[:i]) in trees for i in range(1, len(parts))):
            return name
    return None
