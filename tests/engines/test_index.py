"""The index as a thing: saved, mapped, shared, damaged; and what its doors refuse."""

from __future__ import annotations

import multiprocessing
import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from phi_fast import _native
from phi_fast.engines.ngram import NgramIndex
from phi_fast.errors import InputError
from phi_fast.suites import Item, Part, Suite
from tests.engines.support import Found, expected, found, index_of, jsonl, suite_of
from tests.oracles import ngram

ITEMS = [
    "Check if in given list of numbers, are any two numbers closer to each other than given threshold.",
    "return the gréatest cömmon divisor of two \uff49ntegers a and b and nothing else than that one number",
    " ".join(f"w{k}" for k in range(40)),
]
DOCUMENTS = [" and ".join(ITEMS), ITEMS[1].upper(), "nothing at all", "x " + ITEMS[2][40:] + " y"]
HEADER_BYTES = 256


@pytest.fixture(scope="module")
def index() -> NgramIndex:
    return index_of(ITEMS)


@pytest.fixture(scope="module")
def wanted() -> Found:
    found_by_oracle = expected(ngram.Index(ITEMS), DOCUMENTS)
    assert sorted(found_by_oracle) == [0, 1, 3]
    return found_by_oracle


def scan(index: NgramIndex) -> Found:
    return found(index.scan_utf8(DOCUMENTS))


def aligned(content: bytes) -> memoryview:
    """A writable, 64-byte aligned copy."""
    room = np.zeros(len(content) + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room.data[start : start + len(content)]
    copy[:] = content
    return copy


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded(index: NgramIndex, wanted: Found, tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "index.phifast"
    index.save(path)
    index.save(path)  # over itself
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == bytes(index.buffer)
    loaded = NgramIndex.load(path, mmap=mmap)
    assert scan(loaded) == wanted
    assert (loaded.n, loaded.keys, loaded.sha256) == (index.n, index.keys, index.sha256)
    assert loaded.parts == index.parts
    assert loaded.suites == index.suites


def test_a_mapped_file_may_be_removed(index: NgramIndex, wanted: Found, tmp_path: Path) -> None:
    path = tmp_path / "index.phifast"
    index.save(path)
    loaded = NgramIndex.load(path)
    path.unlink()
    assert scan(loaded) == wanted


def test_a_buffer_is_used_without_a_copy(index: NgramIndex, wanted: Found) -> None:
    memory = aligned(bytes(index.buffer))
    shared = NgramIndex.from_buffer(memory)
    assert np.shares_memory(np.frombuffer(shared.buffer, np.uint8), np.frombuffer(memory, np.uint8))
    assert shared.buffer.readonly
    del memory
    assert scan(shared) == wanted


def test_the_buffer_outlives_its_index(index: NgramIndex) -> None:
    buffer = index_of(ITEMS).buffer
    index_of(ITEMS)
    assert bytes(buffer) == bytes(index.buffer)


def test_the_same_items_make_the_same_bytes(index: NgramIndex) -> None:
    assert index_of(ITEMS).sha256 == index.sha256
    assert index_of(ITEMS, (5, 13, 5)).sha256 == index.sha256
    assert index_of(ITEMS, (5,)).sha256 != index.sha256
    assert index_of(ITEMS[::-1]).sha256 != index.sha256


def scan_in_another_process(name: str, size: int) -> Found:
    memory = SharedMemory(name)
    try:
        assert memory.buf is not None
        index = NgramIndex.from_buffer(memory.buf[:size].toreadonly())
        result = scan(index)
        del index
        return result
    finally:
        memory.close()


def test_processes_share_one_buffer(index: NgramIndex, wanted: Found) -> None:
    size = len(index.buffer)
    memory = SharedMemory(create=True, size=size)
    try:
        assert memory.buf is not None
        memory.buf[:size] = index.buffer
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(scan_in_another_process, (memory.name, size)) == wanted
    finally:
        memory.close()
        memory.unlink()


def test_threads_share_one_index(index: NgramIndex, wanted: Found) -> None:
    counts = index.new_counts()
    index.scan_utf8(DOCUMENTS, counts=counts)
    together = index.new_counts()
    lines = jsonl(DOCUMENTS * 20, ensure_ascii=True)
    twenty = {len(DOCUMENTS) * k + row: matches for k in range(20) for row, matches in wanted.items()}

    def work(number: int) -> Found:
        if number % 2:
            return found(index.scan_jsonl(lines, "text", "id", together))
        return found(index.scan_utf8(DOCUMENTS * 20, counts=together))

    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(work, range(24)):
            assert got == twenty
    assert together.tolist() == [24 * 20 * count for count in counts.tolist()]


def test_any_changed_byte_is_noticed(index: NgramIndex) -> None:
    content = bytes(index.buffer)
    memory = aligned(content)
    places = [*range(HEADER_BYTES), *random.Random(0).sample(range(HEADER_BYTES, len(content)), 500), len(content) - 1]
    for place in places:
        for bit in (0, 3, 7):
            memory[place] ^= 1 << bit
            with pytest.raises(InputError, match="not a usable n-gram index"):
                NgramIndex.from_buffer(memory)
            memory[place] ^= 1 << bit
    NgramIndex.from_buffer(memory)


def test_an_unverified_buffer_cannot_crash(index: NgramIndex) -> None:
    """Without the checksum a damaged buffer may give wrong matches; it is refused or used, nothing else."""
    content = bytes(index.buffer)
    choose = random.Random(1)
    used = 0
    for _ in range(3000):
        memory = aligned(content)
        for _ in range(choose.randint(1, 4)):
            place = choose.randrange(HEADER_BYTES if choose.random() < 0.6 else len(content))
            memory[place] = choose.choice([0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)])
        try:
            damaged = NgramIndex.from_buffer(memory, verify=False)
        except InputError:
            continue
        scan(damaged)
        used += 1
    assert used > 100


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "too short"),
        (b"PHIFNGRM", "too short"),
        (b"{}" * 500, "magic"),
        (bytes(4096), "magic"),
    ],
)
def test_what_is_no_index_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        NgramIndex.from_buffer(aligned(content))
    path = tmp_path / "wrong.phifast"
    path.write_bytes(content)
    for mmap in (True, False):
        with pytest.raises(InputError, match=r"wrong\.phifast.*" + ("empty" if not content else reason)):
            NgramIndex.load(path, mmap=mmap)


def test_a_foreign_or_cut_index_is_refused(index: NgramIndex, tmp_path: Path) -> None:
    content = bytes(index.buffer)
    for size in (100, 300, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError, match=r"truncated|too short|damaged"):
            NgramIndex.from_buffer(aligned(content[:size]))
    with pytest.raises(InputError, match=r"truncated|damaged"):
        NgramIndex.from_buffer(aligned(content + bytes(64)))
    other_rules = content.replace(b"words-1/unicode-15.1.0", b"words-1/unicode-99.1.0", 1)
    with pytest.raises(InputError, match=r"unicode-99\.1\.0.*unicode-15\.1\.0.*build it again"):
        NgramIndex.from_buffer(aligned(other_rules))
    newer = bytearray(content)
    newer[8] += 1
    with pytest.raises(InputError, match="version 2, this is version 1"):
        NgramIndex.from_buffer(aligned(bytes(newer)))
    swapped = bytearray(content)
    swapped[12:16] = reversed(swapped[12:16])
    with pytest.raises(InputError, match="byte order"):
        NgramIndex.from_buffer(aligned(bytes(swapped)))
    with pytest.raises(InputError, match="aligned"):
        NgramIndex.from_buffer(aligned(bytes(4) + content)[4:])
    with pytest.raises(InputError, match=r"no-such\.phifast"):
        NgramIndex.load(tmp_path / "no-such.phifast")
    with pytest.raises(InputError, match="cannot read"):
        NgramIndex.load(tmp_path)


@pytest.mark.parametrize("n", [(), (0,), (-1,), (65,), (1, 2, 3, 4, 5, 6, 7, 8, 9)])
def test_impossible_n(n: Sequence[int]) -> None:
    with pytest.raises((InputError, TypeError)):
        index_of(ITEMS, n)


def test_suites_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="same name"):
        NgramIndex.build([suite_of(ITEMS), suite_of(ITEMS)])


def test_parts_are_numbered_as_they_come() -> None:
    items = (
        Item("one", (Part("question", ITEMS[0]), Part("solution", "return x"))),
        Item("two", (Part("tests", ITEMS[2]),)),
    )
    index = NgramIndex.build([Suite("first", items, "", "1"), Suite("second", items[:1], "", "2")])
    assert [(part.suite, part.item, part.part) for part in index.parts] == [
        ("first", "one", "question"),
        ("first", "one", "solution"),
        ("first", "two", "tests"),
        ("second", "one", "question"),
        ("second", "one", "solution"),
    ]
    assert [part.why_not is None for part in index.parts] == [True, False, True, True, False]
    assert "2 words" in str(index.parts[1].why_not)
    assert [(suite["name"], suite["sha256"]) for suite in index.suites] == [("first", "1"), ("second", "2")]


def test_common_grams_stay_set_aside(index: NgramIndex, tmp_path: Path) -> None:
    learner = index_of(ITEMS)
    counts = learner.new_counts()
    counts[3] = 3
    assert learner.learn_common(counts, 100) == 1
    learner.save(tmp_path / "learnt")
    loaded = NgramIndex.load(tmp_path / "learnt")
    assert loaded.sha256 == learner.sha256 != index.sha256
    assert loaded.parts == learner.parts
    assert loaded.parts[0].set_aside["common"] == 1
    assert loaded.keys == index.keys - 1
    with pytest.raises(Exception, match="someone else's buffer"):
        loaded.learn_common(counts, 100)
    assert learner.learn_common(learner.new_counts(), 100) == 0


def test_what_scans_refuse(index: NgramIndex) -> None:
    for wrong in (np.zeros(3, np.uint32), np.zeros(1000, np.uint32)):
        with pytest.raises(ValueError, match="counts"):
            index.scan_utf8(DOCUMENTS, counts=wrong)
    strided = np.zeros(2 * len(index.new_counts()), np.uint32)[::2]
    read_only = index.new_counts()
    read_only.flags.writeable = False
    wide: Any = index.new_counts().astype(np.int64)
    for counts in (strided, read_only, wide):
        with pytest.raises((TypeError, ValueError)):
            index.scan_utf8(DOCUMENTS, counts=counts)
    with pytest.raises(TypeError):
        index.scan_arrow(pa.array([1, 2]))
    with pytest.raises(InputError, match="row 1"):
        index.scan(["x", None])
    with pytest.raises(InputError, match=r"row 2.*surrogate"):
        index.scan(["x", "y", "\ud800"])
    with pytest.raises(InputError, match="list"):
        index.scan(ITEMS[0])


def test_rows_that_are_no_documents(index: NgramIndex, wanted: Found) -> None:
    documents = [None, DOCUMENTS[0], b"\xff", DOCUMENTS[1], "\ud800", b"ok \xed\xa0\x80"]
    for threads in (1, 2):
        result = index.scan_utf8(documents, threads=threads)
        assert (result.rows, result.documents) == (6, 2)
        assert [(row, offset, length) for row, offset, length, _ in result.rejected] == [
            (row, -1, -1) for row in (0, 2, 4, 5)
        ]
        assert "null" in result.rejected[0][3]
        assert "invalid UTF-8 at byte 0" in result.rejected[1][3]
        assert "surrogate" in result.rejected[2][3]
        assert "invalid UTF-8 at byte 3" in result.rejected[3][3]
        assert found(result) == {1: wanted[0], 3: wanted[1]}
    nulls = pa.array([None, DOCUMENTS[0], None])
    assert [row for row, *_ in index.scan_arrow(nulls).rejected] == [0, 2]


class MadeAsAsked(Sequence[str]):
    """A column that builds each text when it is asked for, as `datasets` does."""

    def __len__(self) -> int:
        return len(DOCUMENTS) * 50

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        if at >= len(self):
            raise IndexError
        return "".join([DOCUMENTS[at % len(DOCUMENTS)], " row ", str(at)])


def test_a_lazy_sequence(index: NgramIndex) -> None:
    lazy = MadeAsAsked()
    assert found(index.scan_utf8(lazy)) == found(index.scan_utf8(list(lazy)))
    assert index.scan(lazy, threads=2).equals(index.scan(list(lazy), threads=1))


def test_a_document_with_millions_of_seeds() -> None:
    """Nothing is left out where one n-gram of many parts stands in a document thousands of times."""
    idiom = "def check candidate assert result"
    items = [f"{idiom} " + " ".join(f"{name}{k}" for k in range(15)) for name in (f"item{i}_" for i in range(300))]
    many = index_of(items)
    far = " zzz" * 50 + " "
    result = many.scan_utf8([f"{idiom} x {idiom} y " * 7500 + far.join(["", items[0], items[150], items[299]])])
    assert sorted(set(result.matches["part"].tolist())) == [0, 150, 299]
    assert result.matches["coverage"].tolist() == [1.0] * 6


def test_available_constants() -> None:
    assert (_native.FLOOR_WORDS, _native.FLOOR_COVERAGE, _native.FLOOR_RUN) == (
        ngram.FEWEST_WORDS,
        ngram.LEAST_COVERAGE,
        ngram.LONG_RUN,
    )


def test_pickled_and_hashed(index: NgramIndex, wanted: Found) -> None:
    """What `datasets.map` does with a function that holds an index: hash it by its pickle, send it to a process."""
    data = pickle.dumps(index)
    assert pickle.dumps(index_of(ITEMS)) == data
    assert scan(pickle.loads(data)) == wanted


def test_what_was_learnt_last_holds() -> None:
    index = index_of(ITEMS)
    counts = index.new_counts()
    counts[: len(counts) // 2] = 100
    before = index.sha256
    assert index.learn_common(counts, 1000) > 0
    assert index.sha256 != before
    assert index.learn_common(index.new_counts(), 1000) == 0
    assert sum(part.set_aside["common"] for part in index.parts) == 0
    assert index.sha256 == before
