"""Tokens on disk as one array: slices across shards, the documents in them, and shards that are refused by name."""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from phi_fast.errors import InputError, RunError
from phi_fast.train.shards import (
    DOCUMENT,
    INPUTS,
    STATE,
    TOKENIZER,
    documents_file,
    ends_of,
    read_state,
    sha256_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phi_fast.train.tokenizer import Tokenizer


class Document(NamedTuple):
    """A document of a store: tokens ``start`` to ``stop`` (end-of-text included), from a row of a file of the corpus.

    ``file`` is the file of a source tree itself, with row 0.
    """

    start: int
    stop: int
    file: str
    row: int


class TokenStore:
    """Tokens read from a folder, memory-mapped; see `open_tokens`.

    Attributes
    ----------
    folder : Path
    state : dict
        What tokens.json says.
    dtype : np.dtype
        uint16 or uint32.
    documents : int
        How many there are.
    identity : dict
        Of the tokenizer: ``sha256``, ``vocabulary``, ``end_of_text``.
    end_of_text, vocabulary : int
        The token that closes each document; the highest id the tokenizer has, plus one.
    """

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder, self.state = folder, state
        self.dtype = np.dtype(state["dtype"]).newbyteorder("<")
        self.documents: int = state["documents"]
        self.identity: dict[str, Any] = state["tokenizer"]
        self.end_of_text: int = self.identity["end_of_text"]
        self.vocabulary: int = self.identity["vocabulary"]
        self._first: list[int] = [0, *accumulate(shard["tokens"] for shard in state["shards"])]
        self._first_document: list[int] = [0, *accumulate(shard["documents"] for shard in state["shards"])]
        self._shards = [_mapped(self._checked(n, 0), self.dtype) for n in range(len(state["shards"]))]
        self._documents = [_mapped(self._checked(n, 1), DOCUMENT) for n in range(len(state["shards"]))]

    def __len__(self) -> int:
        return self._first[-1]

    def __getitem__(self, place: slice) -> NDArray[Any]:
        """The tokens of a slice, of `dtype`: a view where they lie in one shard, else a copy."""
        if not isinstance(place, slice):
            raise TypeError("tokens are taken by slices, as in store[100:200]")
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError(f"a slice in steps of {step}: tokens are taken in steps of 1")
        if stop <= start:
            return np.empty(0, self.dtype)
        first, last = bisect_right(self._first, start) - 1, bisect_left(self._first, stop) - 1
        parts = [
            self._shards[n][max(0, start - self._first[n]) : stop - self._first[n]] for n in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_tokens, (self.folder,)

    def starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Places of the documents that start in ``[start, stop)``, int64, in order."""
        start, stop = max(0, start), min(stop, len(self))
        found = [np.empty(0, np.int64)]
        for n in range(max(0, bisect_right(self._first, start) - 1), bisect_left(self._first, stop)):
            if n < len(self._shards):
                places, base = self._documents[n]["start"], self._first[n]
                low, high = bisect_left(places, start - base), bisect_left(places, stop - base)
                found.append(places[low:high].astype(np.int64) + base)
        return np.concatenate(found)

    def document(self, number: int) -> Document:
        """The document of a number, from 0."""
        if not 0 <= number < self.documents:
            raise InputError(f"document {number:,}: {self.folder} holds {self.documents:,}, from 0")
        n = bisect_right(self._first_document, number) - 1
        return self._document(n, number - self._first_document[n])

    def documents_in(self, start: int, stop: int) -> list[Document]:
        """The documents of which a token lies in ``[start, stop)``, whole."""
        found, place = [], max(0, start)
        while place < min(stop, len(self)):
            n = bisect_right(self._first, place) - 1
            inside = bisect_right(self._documents[n]["start"], place - self._first[n]) - 1
            found.append(self._document(n, inside))
            place = found[-1].stop
        return found

    def _document(self, n: int, inside: int) -> Document:
        entries = self._documents[n]
        entry, base = entries[inside], self._first[n]
        stop = base + int(entries[inside + 1]["start"]) if inside + 1 < len(entries) else self._first[n + 1]
        said, row = self.inputs[int(entry["source"])], int(entry["row"])
        start = base + int(entry["start"])
        if said["format"] == "tree":
            return Document(start, stop, f"{said['name']}/{said['files'][row]}", 0)
        return Document(start, stop, said["name"], row)

    @cached_property
    def inputs(self) -> list[dict[str, Any]]:
        """The files the tokens are of: name, format, text, size, stamp, and the files of a tree."""
        try:
            value: list[dict[str, Any]] = json.loads((self.folder / INPUTS).read_bytes())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.folder / INPUTS}: damaged or missing: {error}") from error
        return value

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens, from the copy beside them."""
        from phi_fast.train.tokenizer import from_json

        try:
            text = (self.folder / TOKENIZER).read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.folder / TOKENIZER}: {error.strerror}") from error
        found = from_json(text, self.folder.name, self.end_of_text)
        self.check_tokenizer(found.identity, str(self.folder / TOKENIZER))
        return found

    def check_tokenizer(self, identity: dict[str, Any], name: str) -> None:
        """Refuse a tokenizer other than the one that made the tokens.

        Raises
        ------
        InputError
            It says what differs.
        """
        for key, said in (("end_of_text", "end-of-text token"), ("vocabulary", "vocabulary"), ("sha256", "hash")):
            if identity[key] != self.identity[key]:
                there, here = (
                    f"{one[key]:,}" if key != "sha256" else one[key][:12] for one in (self.identity, identity)
                )
                raise InputError(
                    f"{self.folder}: its tokens are of another tokenizer than {name}: {said} {there} there, {here} here"
                )

    def check_vocabulary(self, rows: int) -> None:
        """Refuse a model with fewer embedding rows than the tokenizer has tokens.

        Raises
        ------
        InputError
            The vocabulary is larger.
        """
        if self.vocabulary > rows:
            raise InputError(
                f"{self.folder}: a vocabulary of {self.vocabulary:,} tokens for a model of {rows:,} rows: give a model "
                f"of {self.vocabulary:,} rows or more, or tokens of a smaller vocabulary"
            )

    def verify(self, progress: Callable[[int], None] | None = None) -> None:
        """Read every byte: checksums, ids within the vocabulary, documents that follow on each other.

        Raises
        ------
        RunError
            A shard is damaged; the message names it.
        """
        for n, shard in enumerate(self.state["shards"]):
            for which, key in ((0, "sha256"), (1, "documents_sha256")):
                path = self.folder / (shard["file"] if not which else documents_file(n))
                if sha256_of(path).hexdigest() != shard[key]:
                    raise RunError(f"{path}: damaged: its SHA-256 is not what {STATE} says. {_AGAIN}")
            tokens, entries = self._shards[n], self._documents[n]
            if int(tokens.max()) >= self.vocabulary:
                raise RunError(
                    f"{self.folder / shard['file']}: holds the id {int(tokens.max()):,}, over the vocabulary"
                )
            ends = np.flatnonzero(tokens == self.end_of_text) + 1
            if not np.array_equal(ends[:-1], entries["start"][1:].astype(np.int64)) or int(ends[-1]) != len(tokens):
                raise RunError(f"{self.folder / documents_file(n)}: documents do not start where the ones before end")
            if progress:
                progress(tokens.nbytes)

    def _checked(self, n: int, which: int) -> Path:
        shard = self.state["shards"][n]
        path = self.folder / (documents_file(n) if which else shard["file"])
        wanted = shard["documents"] * DOCUMENT.itemsize if which else shard["tokens"] * self.dtype.itemsize
        try:
            size = path.stat().st_size
            if size != wanted:
                what = "empty" if not size else "truncated" if size < wanted else "too long"
                raise RunError(f"{path}: {what}: {size:,} bytes, {wanted:,} by {STATE}. {_AGAIN}")
            if ends_of(path) != shard["ends"].split("-")[which]:
                raise RunError(
                    f"{path}: not the file that {STATE} speaks of: swapped with another, or damaged. {_AGAIN}"
                )
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}. {_AGAIN}") from error
        return path


_AGAIN = "Bring the file back, or remove the folder and tokenize again."


def open_tokens(folder: str | os.PathLike[str]) -> TokenStore:
    """Open what `tokenize_corpus` or ``phi-fast tokenize`` wrote.

    The size of each shard and a hash of its ends are checked, so that one that is empty, cut short or swapped with
    another is refused at once; `TokenStore.verify` reads everything.

    Raises
    ------
    InputError
        The folder holds no tokens, or tokens that are not finished.
    RunError
        A shard is missing or damaged; the message names it.
    """
    path = Path(folder).expanduser()
    state = read_state(path)
    if state is None:
        raise InputError(f"{path}: holds no sound {STATE}, so it is no folder of tokens")
    if not state["finished"]:
        raise InputError(
            f"{path}: its tokens are not finished ({state['tokens']:,} so far): give the same `phi-fast tokenize` "
            "command again; it goes on from there"
        )
    return TokenStore(path, state)


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.memmap(path, dtype, "r")
