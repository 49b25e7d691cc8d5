"""The n-gram oracle itself, on examples small enough to be done by hand."""

from __future__ import annotations

from tests.oracles.ngram import Index, Part, Run, tile
from tests.oracles.words import words

ITEM = "Check if in given list of numbers, are any two numbers closer to each other than given threshold."  # 18 words


def test_a_whole_copy() -> None:
    (match,) = Index([ITEM], (5,)).matches("# " + ITEM.upper() + " #")
    assert (match.n, match.part, match.run, match.words, match.coverage, match.score) == (5, 0, 18, 18, 1.0, 14)
    assert (match.doc_start, match.doc_end, match.item_start, match.item_end) == (
        2,
        2 + len(ITEM) - 1,
        0,
        len(ITEM) - 1,
    )


def test_each_n_is_reported() -> None:
    matches = Index([ITEM], (5, 13)).matches(ITEM)
    assert [(match.n, match.score) for match in matches] == [(13, 6), (5, 14)]


def test_the_floor() -> None:
    item = " ".join(f"w{k}" for k in range(100))
    text = words(item)

    def found(first: int, count: int) -> list[int]:
        cut = item[text[first].start : text[first + count - 1].end]
        return [match.words for match in Index([item], (5,)).matches("other " + cut + " words")]

    assert found(30, 12) == []  # under 20 % and under 13 words in a row
    assert found(30, 13) == [13]
    assert found(0, 20) == [20]
    assert Index([" ".join(f"w{k}" for k in range(8))], (5,)).matches("w0 w1 w2 w3 w4 w5 w6") == []  # 7 words


def test_grams_without_weight() -> None:
    part = Part(words("1 2 3 4 5 6 a b c a b c a d"), 5, 0)
    assert part.flags[0] == {"no_letters"}
    assert part.flags[1] == {"no_letters"}
    assert part.flags[2] == set()  # 3 4 5 6 a
    assert part.flags[6] == {"few_distinct"}  # a b c a b
    assert part.flags[9] == set()  # b c a d would be 4 words; a b c a d has four distinct ones
    assert part.weighable() == {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}


def test_three_words_need_not_be_four_distinct_ones() -> None:
    assert Part(words("a b a b c"), 3, 0).flags == [{"few_distinct"}, {"few_distinct"}, set()]
    assert Part(words("a b c"), 3, 0).flags == [set()]
    assert Part(words("a b"), 3, 0).flags == []


def test_an_edited_copy_is_one_match() -> None:
    item = " ".join(f"w{k}" for k in range(40))
    edited = " ".join("other" if k % 10 == 9 else f"w{k}" for k in range(40))
    (match,) = Index([item], (5,)).matches(edited)
    assert (match.words, match.run, match.score) == (36, 9, 4 * 5)
    assert edited[match.doc_start : match.doc_end].split()[-1] == "w38"


def test_two_copies_are_two_matches() -> None:
    item = " ".join(f"w{k}" for k in range(20))
    text = item + " between " + item
    found = Index([item], (5,)).matches(text)
    assert [text[match.doc_start : match.doc_end] for match in found] == [item, item]
    assert [match.coverage for match in found] == [1.0, 1.0]


def test_scattered_idioms_are_no_match() -> None:
    item = " ".join(f"w{k}" for k in range(60))
    idiom = "w10 w11 w12 w13 w14 w15 w16 w17"
    far = " ".join(f"x{k}" for k in range(150))
    other = "w40 w41 w42 w43 w44 w45 w46 w47"
    assert Index([item], (5,)).matches(f"{idiom} {far} {other}") == []
    assert len(Index([item], (5,)).matches(f"{idiom} {other}")) == 1


def test_words_are_paired_one_to_one() -> None:
    assert tile([Run(0, 0, 5), Run(3, 3, 2), Run(5, 0, 5), Run(5, 5, 4)]) == (set(range(9)), set(range(9)))


def test_the_pair_of_the_paper() -> None:
    """HumanEval/69 and another exercise share 15 words in a row: three 13-grams, and no leak."""
    question = '''def search(lst):
    """
    You are given a non-empty list of positive integers. Return the greatest integer that is greater than
    zero, and has a frequency greater than or equal to the value of the integer itself.
    The frequency of an integer is the number of times it appears in the list.
    If no such a value exist, return -1.
    Examples:
        search([4, 1, 2, 2, 3, 1]) == 2
        search([1, 2, 2, 3, 3, 3, 4, 4, 4]) == 3
        search([5, 5, 4, 4, 4]) == -1
    """
'''
    document = '''def frequency(lst):
    """Map each integer; the frequency of an integer is the number of times it appears in the list."""
    return {value: lst.count(value) for value in lst}
'''
    thirteen, five = Index([question], (13, 5)).matches(document)
    assert (thirteen.run, thirteen.score, thirteen.words) == (15, 3, 15)
    shared = "the frequency of an integer is the number of times it appears in the list"
    assert document[thirteen.doc_start : thirteen.doc_end] == shared
    assert question[thirteen.item_start : thirteen.item_end].lower() == shared
    assert five.coverage < 0.25


def test_learning_common_grams() -> None:
    idiom = "for i in range len numbers"
    item = f"{idiom} " + " ".join(f"w{k}" for k in range(20))
    index = Index([item], (5,))
    counts = [0] * index.total_words
    for number in range(5):
        index.count(f"{idiom} x{number} {idiom}", counts)
    index.count(item, counts)  # a copy of the part says nothing of its idioms
    assert counts == [5, 5] + [0] * 24
    assert index.learn_common(counts, 6) == 2
    assert index.parts[0].flags[0] == {"common"}
    assert 0 not in index.weighable[0]
    assert index.matches(f"{idiom} and more") == []
