"""Real documents: this Python's own library, with HumanEval items hidden in it, through every door."""

from __future__ import annotations

import random
import re

import pytest

from phi_fast.engines.ngram import NgramIndex
from phi_fast.suites import Suite, load_suite
from tests.engines.support import every_way, expected, found, levels, python_sources
from tests.oracles import ngram


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("humaneval")


@pytest.fixture(scope="module")
def texts(suite: Suite) -> list[str]:
    return [part.text for item in suite.items for part in item.parts]


def disguised(text: str, choose: random.Random) -> str:
    """A copy as leaks look: as it is, re-cased, re-spaced, commented, or with words replaced."""
    kind = choose.randrange(5)
    if kind == 1:
        return text.upper()
    if kind == 2:
        return re.sub(r"\s+", lambda _: choose.choice(["  ", "\n\n", "\t", "\u00a0"]), text)
    if kind == 3:
        return text.replace("\n", "\n# — ")
    if kind == 4:
        words = text.split(" ")
        every = choose.choice([8, 14])
        return " ".join("REPLACED" if at % every == every - 1 else word for at, word in enumerate(words))
    return text


@pytest.fixture(scope="module")
def documents(texts: list[str]) -> list[str]:
    """Library files, every second one with parts of items in its middle, at its start or at its end."""
    choose = random.Random(0)
    made = []
    for number, source in enumerate(python_sources(60)):
        source = source[: choose.choice([2_000, 20_000, 60_000])]
        if number % 2:
            hidden = "\n".join(disguised(text, choose) for text in choose.sample(texts, 3))
            at = choose.choice([0, len(source) // 2, len(source)])
            source = source[:at] + hidden + source[at:]
        made.append(source)
    return made


@pytest.mark.parametrize("n", [(13, 5), (8,)])
def test_every_door_gives_what_the_oracle_gives(
    suite: Suite, texts: list[str], documents: list[str], n: tuple[int, ...]
) -> None:
    index, oracle = NgramIndex.build([suite], n), ngram.Index(texts, n)
    wanted = expected(oracle, documents)
    assert len(wanted) >= 25
    for level in levels():
        for way, got in every_way(index, documents):
            assert got == wanted, (level, way)


def test_learning_from_real_files(suite: Suite, texts: list[str], documents: list[str]) -> None:
    index, oracle = NgramIndex.build(suite), ngram.Index(texts, (13, 4))
    learnt, counts = index.new_counts(), [0] * oracle.total_words
    index.scan_utf8(documents, counts=learnt, threads=2)
    for document in documents:
        oracle.count(document, counts)
    assert learnt.tolist() == counts
    common = index.learn_common(learnt, len(documents))
    assert common == oracle.learn_common(counts, len(documents))
    assert common > 0
    assert found(index.scan_utf8(documents)) == expected(oracle, documents)


def test_every_item_is_found_in_its_own_text(suite: Suite, texts: list[str]) -> None:
    index, oracle = NgramIndex.build(suite), ngram.Index(texts, (13, 4))
    for number, (part, text) in enumerate(zip(index.parts, texts, strict=True)):
        assert (part.words, part.weighable) == (len(oracle.parts[number].words), len(oracle.weighable[number]))
        own = [match for match in found(index.scan_utf8([text])).get(0, []) if match[1] == number]
        if part.testable:
            assert {match[0] for match in own} == {13, 4}
            assert max(match[8] for match in own) == 1.0


def test_the_pair_of_the_paper(suite: Suite) -> None:
    index = NgramIndex.build(suite)
    document = '''def frequency(lst):
    """Map each integer; the frequency of an integer is the number of times it appears in the list."""
    return {value: lst.count(value) for value in lst}
'''
    rows = index.scan([document]).to_pylist()
    thirteen = [row for row in rows if row["n"] == 13]
    assert [(row["item"], row["part"], row["run"], row["score"]) for row in thirteen] == [
        ("HumanEval/69", "question", 15, 3.0)
    ]
    assert all(row["coverage"] < 0.3 for row in rows)
