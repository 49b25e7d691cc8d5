"""The n-gram index: build it from suites, save it, share it, scan documents with it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phi_fast import _native
from phi_fast.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from phi_fast.engines.trees import TreeIndex
    from phi_fast.suites import Suite

# Shorter parts are idioms: what is flagged below this is `for i in range n`.
MIN_PART_WORDS = 13
# A s-gram is common when more of the sample's documents hold it than this share, and more than a handful.
COMMON_SHARE = 0.001
COMMON_AT_LEAST = 2

NO_LETTERS, FEW_DISTINCT, COMMON, NO_GRAM = 1, 2, 4, 0x80


@dataclass(frozen=True, slots=True)
class PartInfo:
    """One part of an item in the index; its position in `NgramIndex.parts` is the `part` number of matches.

    Attributes
    ----------
    words : int
        Words of the part.
    weighable : int
        Words covered by at least one n-gram that carries weight: what coverage is a share of.
    set_aside : dict[str, int]
        N-grams (of the smallest n) without weight, by reason: "no_letters", "few_distinct", "common".
    why_not : str or None
        Why word n-grams cannot test the part; None where they can.
    nodes : int
        Syntax nodes of the largest tree that the syntax channel compares; 0 where it has none or is off.
    """

    suite: str
    item: str
    part: str
    text: str
    words: int
    weighable: int
    set_aside: dict[str, int]
    why_not: str | None
    nodes: int = 0

    @property
    def testable(self) -> bool:
        """Whether a match of this part by words can be told from coincidence."""
        return self.why_not is None

    @property
    def findable(self) -> bool:
        """Whether any channel can find this part."""
        return self.why_not is None or self.nodes > 0


class NgramIndex:
    """Hashed n-gram index of benchmark items over one relocatable buffer.

    Build it once, then scan as many documents as you like from as many threads as you like; every match is verified
    against the words themselves. The exact definition is in docs/ngram-matching.md.

    Examples
    --------
    >>> from phi_fast import NgramIndex, load_suite
    >>> index = NgramIndex.build([load_suite("humaneval")])
    >>> table = index.scan(["def add(x, y): return x + y"])
    >>> table.num_rows
    0
    """

    def __init__(self, native: _native.NgramIndex) -> None:
        self._native = native
        self._parts: list[PartInfo] | None = None

    @classmethod
    def build(cls, suites: Sequence[Suite] | Suite, n: Sequence[int] = (13, 4)) -> NgramIndex:
        """Index the items of one or several suites.

        Parameters
        ----------
        suites
            What `phi_fast.load_suite` returns; names must differ.
        n
            Lengths of n-grams in words, 1 to 64; the smallest is what coverage is made of.

        Raises
        ------
        InputError
            No n-grams at all, two suites of one name, or n out of range.
        """
        from phi_fast.suites import Suite

        chosen = [suites] if isinstance(suites, Suite) else list(suites)
        names = [suite.name for suite in chosen]
        if len(set(names)) != len(names):
            raise InputError(f"two suites have the same name: {', '.join(names)}; name them with NAME=PATH")
        about = []
        texts: list[bytes] = []
        for suite in chosen:
            items = []
            for item in suite.items:
                items.append([item.id, [part.name for part in item.parts]])
                texts.extend(part.text.encode("utf-8", "surrogatepass") for part in item.parts)
            about.append({"name": suite.name, "sha256": suite.sha256, "source": suite.source, "items": items})
        offsets = np.zeros(len(texts) + 1, np.uint64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        meta = json.dumps({"suites": about}, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            native = _native.NgramIndex.build(b"".join(texts), offsets, [int(k) for k in n], meta)
        except ValueError as error:
            raise InputError(f"cannot build the n-gram index: {error}") from None
        return cls(native)

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = True, verify: bool | None = None) -> NgramIndex:
        """Read an index that `save` wrote.

        Parameters
        ----------
        mmap
            Map the file, so that processes share one copy; otherwise read it into memory.
        verify
            Check the checksum; by default for files under 256 MiB, since it touches every page.
        """
        file = Path(path)
        try:
            size = file.stat().st_size
            if size == 0:
                raise InputError(f"{path}: the file is empty, not an n-gram index")
            data: Any = np.memmap(file, np.uint8, "r") if mmap else np.fromfile(file, np.uint8)
        except OSError as error:
            raise InputError(f"{path}: cannot read the n-gram index: {error.strerror or error}") from error
        try:
            return cls.from_buffer(data, verify=size < (256 << 20) if verify is None else verify)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    @classmethod
    def from_buffer(cls, buffer: Buffer, verify: bool = True) -> NgramIndex:
        """Use an index in someone else's memory (shared memory, a Ray object) without copying it; 8-byte aligned."""
        try:
            return cls(_native.NgramIndex.from_buffer(buffer, verify))
        except ValueError as error:
            raise InputError(f"not a usable n-gram index: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the buffer to a file, atomically."""
        target = Path(path)
        temporary = target.with_name(target.name + ".partial")
        with open(temporary, "wb") as file:
            file.write(self.buffer)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, so that `datasets.map` can hash and send an index; share a large one by `load`."""
        return _unpickle, (bytes(self.buffer),)

    @property
    def buffer(self) -> memoryview:
        """The whole index as read-only bytes; valid as long as it is referenced."""
        return memoryview(self._native)

    @property
    def n(self) -> tuple[int, ...]:
        """Lengths of n-grams, descending."""
        return tuple(self._native.n)

    @property
    def keys(self) -> int:
        """Distinct n-grams (of the smallest n) that carry weight."""
        return self._native.keys

    @property
    def sha256(self) -> str:
        """Hash of the buffer."""
        return hashlib.sha256(self.buffer).hexdigest()

    @property
    def suites(self) -> list[Mapping[str, Any]]:
        """Name, source and sha256 of every suite, with its items' ids and part names."""
        return list(json.loads(self._native.meta)["suites"])

    @property
    def parts(self) -> list[PartInfo]:
        """Every part of every item, in the order of the numbers in matches."""
        if self._parts is None:
            self._parts = list(self._describe())
        return self._parts

    def _describe(self) -> list[PartInfo]:
        native = self._native
        words, weighable, flags = native.part_words, native.weighable, native.flags
        first = np.concatenate([[0], np.cumsum(words)]).astype(np.int64)
        parts: list[PartInfo] = []
        for suite in self.suites:
            for item, names in suite["items"]:
                for name in names:
                    number = len(parts)
                    own = flags[first[number] : first[number + 1]]
                    grams = own[own != NO_GRAM]
                    aside = {
                        "no_letters": int(((grams & NO_LETTERS) != 0).sum()),
                        "few_distinct": int(((grams & (NO_LETTERS | FEW_DISTINCT)) == FEW_DISTINCT).sum()),
                        "common": int((grams == COMMON).sum()),
                    }
                    parts.append(
                        PartInfo(
                            suite=suite["name"],
                            item=item,
                            part=name,
                            text=native.part_text(number).decode("utf-8", "replace"),
                            words=int(words[number]),
                            weighable=int(weighable[number]),
                            set_aside=aside,
                            why_not=self._why_untestable(int(words[number]), int(weighable[number])),
                        )
                    )
        return parts

    def _why_untestable(self, words: int, weighable: int) -> str | None:
        if words < MIN_PART_WORDS:
            return f"{words} words, under {MIN_PART_WORDS}"
        if weighable < _native.FLOOR_WORDS:
            return f"{weighable} of {words} words left after n-grams without weight, under {_native.FLOOR_WORDS}"
        return None

    def new_counts(self) -> NDArray[np.uint32]:
        """Zeroed counters for `scan_*(counts=...)`: one for every word of the index."""
        return np.zeros(self._native.words, np.uint32)

    def learn_common(self, counts: NDArray[np.uint32], documents: int) -> int:
        """Set aside the n-grams that a sample of the corpus holds too often to tell anything; returns how many.

        Parameters
        ----------
        counts
            Shape (words of the index,), uint32, as the scans of the sample left it: in how many documents each n-gram
            stood without its part being there.
        documents
            Documents in the sample.
        """
        cutoff = max(COMMON_AT_LEAST, documents * COMMON_SHARE)
        common = (counts > cutoff).astype(np.uint8)
        if common.any() or (self._native.flags & COMMON).any():
            # Also where an earlier sample had some and this one has none: what was learnt last holds.
            self._native.set_common(common)
            self._parts = None
        return int(common.sum())

    def scan_jsonl(
        self,
        lines: Buffer,
        text_key: str = "text",
        id_key: str | None = None,
        counts: NDArray[np.uint32] | None = None,
        trees: TreeIndex | None = None,
        every: bool = False,
    ) -> _native.ScanResult:
        """Scan a block of whole JSON lines, the GIL released; the last line may lack its newline.

        Parameters
        ----------
        lines, text_key, id_key
            The block, and the keys of text and id.
        counts
            See `learn_common`.
        trees
            Compare functions with these as well, in the same pass: ``tree_matches`` of the result.
        every
            List documents that match nothing in the result's ``docs``, too.
        """
        return self._native.scan_jsonl(lines, text_key, id_key, counts, trees.native if trees else None, every)

    def scan_arrow(
        self,
        array: pa.Array,
        counts: NDArray[np.uint32] | None = None,
        threads: int = 1,
        trees: TreeIndex | None = None,
        every: bool = False,
    ) -> _native.ScanResult:
        """Scan an Arrow array of string or large_string (or the binary types) without copying it."""
        return self._native.scan_arrow(array, threads, counts, trees.native if trees else None, every)

    def scan_utf8(
        self,
        documents: Sequence[bytes | str | None],
        counts: NDArray[np.uint32] | None = None,
        threads: int = 1,
        trees: TreeIndex | None = None,
        every: bool = False,
    ) -> _native.ScanResult:
        """Scan documents given as UTF-8 bytes or as str; None counts as a rejected row."""
        return self._native.scan_utf8(documents, threads, counts, trees.native if trees else None, every)

    def scan(self, texts: Sequence[str] | pa.Array | pa.ChunkedArray, threads: int | None = None) -> pa.Table:
        """Scan texts and return their matches as a table.

        Parameters
        ----------
        texts
            A list of str, or an Arrow array of strings (zero copy). Usable inside `datasets.map(batched=True)`.
        threads
            Threads to use; by default all processors.

        Returns
        -------
        pyarrow.Table
            Columns `row, channel, suite, item, part, n, doc_start, doc_end, item_start, item_end, run, coverage, score,
            words`; spans are half-open ranges of characters. Sorted by row, then n descending, then part.

        Raises
        ------
        InputError
            A text is null or not valid Unicode; the message names the row. Or `texts` is one text, not a list.
        """
        import pyarrow as pa

        if isinstance(texts, str | bytes):
            raise InputError("scan takes a list of texts, this is one text: put it in a list")
        count = threads or os.cpu_count() or 1
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        if isinstance(texts, pa.Array):
            if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
                texts = texts.cast(pa.large_string())
            result = self._native.scan_arrow(texts, count, None)
        else:
            result = self._native.scan_utf8(texts, count, None)
        if result.rejected:
            row, _, _, reason = result.rejected[0]
            raise InputError(f"row {row}: {reason} ({len(result.rejected)} such rows)")
        return self.match_table(result.matches, result.docs["row"].astype(np.int64))

    def match_table(self, matches: NDArray[Any], rows: NDArray[np.int64]) -> pa.Table:
        """Matches of a `ScanResult` as a table, with `rows[match["doc"]]` as their row."""
        import pyarrow as pa

        parts = self.parts
        numbers = matches["part"].astype(np.int32)

        def named(attribute: str) -> pa.Array:
            values, codes = np.unique([getattr(p, attribute) for p in parts] or [""], return_inverse=True)
            dictionary = pa.array(values.tolist(), pa.string())
            codes = codes.astype(np.int32)
            return pa.DictionaryArray.from_arrays(codes[numbers] if len(numbers) else numbers, dictionary).cast(
                pa.string()
            )

        columns: dict[str, Any] = {
            "row": rows[matches["doc"]] if len(matches) else np.zeros(0, np.int64),
            "channel": pa.array(["ngram"] * len(matches), pa.string()),
            "suite": named("suite"),
            "item": named("item"),
            "part": named("part"),
        }
        for name in ("n", "doc_start", "doc_end", "item_start", "item_end", "run"):
            columns[name] = matches[name].astype(np.int64)
        columns["coverage"] = matches["coverage"].astype(np.float32)
        columns["score"] = matches["score"].astype(np.float32)
        columns["words"] = matches["words"].astype(np.int64)
        return pa.table(columns)


def _unpickle(data: bytes) -> NgramIndex:
    # Into memory of NumPy's, which is aligned as the index wants it; pickled bytes need not be.
    aligned: Any = np.frombuffer(data, np.uint8).copy()
    return NgramIndex.from_buffer(aligned)
