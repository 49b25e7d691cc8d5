"""The rule: what it takes, what it refuses, how it reads, whom it condemns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from phi_fast import _native
from phi_fast.decontaminate.evidence import EVIDENCE_SCHEMA
from phi_fast.decontaminate.policy import (
    FLOOR_TAU,
    LARGE_NODES,
    LEAST_NODES,
    PRESETS,
    Policy,
    changed,
    make_policy,
    read_allow,
)
from phi_fast.decontaminate.verdicts import DECIDING, Match, condemns, cut, reason
from phi_fast.engines.ngram import PartInfo
from phi_fast.errors import InputError


def part(item: str, name: str = "question", why_not: str | None = None, suite: str = "exam") -> PartInfo:
    return PartInfo(suite, item, name, "", 40, 36, {}, why_not)


PARTS = [
    part("a"), part("a", "solution"), part("a", "tests"), part("b"), part("b", "solution", "9 words, under 13"),
    part("a", suite="other"),
]  # fmt: skip


SCHEMA = pa.schema([EVIDENCE_SCHEMA.field(name) for name in DECIDING])
WORDS = {
    "channel": "ngram",
    "suite": "exam",
    "item": "a",
    "part": "question",
    "n": 4,
    "run": 5,
    "coverage": 0.9,
    "words": 30,
}
TREE = {
    "channel": "syntax",
    "suite": "exam",
    "item": "a",
    "part": "solution",
    "nodes": 40,
    "item_nodes": 40,
    "tau": 0.8,
    "alpha": 0.5,
}
NEAR = {"channel": "embedding", "suite": "exam", "item": "a", "part": "solution", "distance": 0.3}


def evidence(*rows: dict[str, Any]) -> pa.Table:
    usual = {"ngram": WORDS, "syntax": TREE, "embedding": NEAR}
    made = [{"channel": "ngram"} | usual[row.get("channel", "ngram")] | row for row in rows]
    return pa.Table.from_pylist(made, SCHEMA)


def judged(policy: Policy, *rows: dict[str, Any]) -> list[bool]:
    table = evidence(*rows)
    whole = condemns(policy, table, PARTS).tolist()
    assert whole == condemns(policy, table.to_batches()[0], PARTS).tolist()
    assert whole == [condemns(policy, evidence(row), PARTS).tolist()[0] for row in rows]
    return list(whole)


def test_coverage_is_reached_not_passed() -> None:
    rows = [{"coverage": value} for value in (0.6999, 0.7, 1.0)]
    assert judged(Policy(), *rows) == [False, True, True]


@pytest.mark.parametrize("threshold", [0.2, 0.3, 0.55, 0.7, 0.9])
def test_a_share_stored_in_32_bits_reaches_the_same_share(threshold: float) -> None:
    assert judged(Policy(coverage=threshold), {"coverage": float(np.float32(threshold))}) == [True]


def test_n_words_parts_and_testability() -> None:
    rows = [
        {"n": 13}, {"words": 7}, {"part": "tests"}, {"item": "b", "part": "solution"}, {"item": "b"}, {"suite": "other"}
    ]  # fmt: skip
    assert judged(Policy(), *rows) == [False, False, True, False, True, True]
    assert judged(Policy(parts=("question",)), *rows) == [False, False, False, False, True, True]
    assert judged(Policy(n=13), *rows) == [True, False, False, False, False, False]


def test_a_run_condemns_alone() -> None:
    policy = Policy(run=13)
    assert judged(policy, {"coverage": 0.3, "run": 13}, {"coverage": 0.3, "run": 12}) == [True, False]
    assert judged(Policy(coverage=None, run=20), {"run": 19}, {"run": 20, "coverage": 0.2}) == [False, True]


def test_weights_multiply_coverage_and_run() -> None:
    policy = Policy(run=20, weights={"solution": 0.5, "tests": 0, "question": 1.4})
    rows = [
        {"part": "solution", "coverage": 1.0, "run": 39}, {"part": "solution", "coverage": 1.0, "run": 40},
        {"part": "tests", "coverage": 1.0, "run": 100}, {"coverage": 0.5, "run": 14}, {"coverage": 0.51, "run": 14},
        {"coverage": 0.3, "run": 15},
    ]  # fmt: skip
    assert judged(policy, *rows) == [False, True, False, True, True, True]


@pytest.mark.parametrize("entry", ["exam", "a", "a question", "exam a", "exam a question", "exam question"])
def test_allowed_never_condemns(entry: str) -> None:
    assert judged(Policy(allow=(entry,)), {}, {"item": "b", "part": "question"})[0] is False
    assert judged(Policy(allow=("a question",)), {"part": "solution"}) == [True]


def test_allow_list_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "allow.txt"
    path.write_text("# ours\nHumanEval/53   solution # adds\n\nmbpp\n")
    assert read_allow([str(path), "MBPP/1 ", "mbpp"]) == ("HumanEval/53 solution", "MBPP/1", "mbpp")


def tree(**values: Any) -> dict[str, Any]:
    return {"channel": "syntax", **values}


def near(**values: Any) -> dict[str, Any]:
    return {"channel": "embedding", **values}


def test_functions_condemn_by_node_types_or_but_for_their_names() -> None:
    rows = [tree(tau=0.949), tree(tau=0.95), tree(alpha=0.849), tree(alpha=0.85), tree()]
    assert judged(Policy(), *rows) == [False, True, False, True, False]
    assert judged(Policy(alpha=None), *rows) == [False, True, False, False, False]
    assert judged(Policy(tau=None, alpha=0.9), *rows, tree(alpha=0.9)) == [False, False, False, False, False, True]
    assert judged(Policy(tau=0.8), *rows) == [True] * 5
    assert judged(Policy(tau=None, alpha=None), *rows, tree(tau=1.0, alpha=1.0)) == [False] * 6


@pytest.mark.parametrize("small", [{"nodes": 24}, {"item_nodes": 24}])
def test_small_functions_must_be_the_same_but_for_their_names(small: dict[str, Any]) -> None:
    rows = [tree(tau=1.0, alpha=0.99, **small), tree(tau=1.0, alpha=1.0, **small)]
    assert judged(Policy(), *rows) == [False, True]
    assert judged(Policy(alpha=None), *rows) == [False, False]  # node types alone say nothing of them
    assert judged(Policy(nodes=24), *rows) == [False, True]
    assert judged(Policy(nodes=25), *rows, tree(tau=1.0)) == [False, False, True]
    assert judged(Policy(nodes=41), tree(tau=1.0, alpha=1.0)) == [False]


def test_functions_are_judged_where_words_cannot() -> None:
    same = tree(tau=1.0, alpha=1.0)
    rows = [same | {"item": "b"}, {"item": "b", "part": "solution"}, same]
    assert judged(Policy(), *rows) == [True, False, True]
    assert judged(Policy(parts=("question",)), *rows) == [False, False, False]
    assert judged(Policy(allow=("b",)), *rows) == [False, False, True]
    assert judged(Policy(weights={"solution": 0}), *rows) == [False, False, False]


def test_embeddings_condemn_alone_or_with_syntax() -> None:
    rows = [near(), near(distance=0.31), tree(tau=1.0, distance=0.3), tree(tau=1.0, distance=0.31), tree(tau=1.0)]
    assert judged(Policy(distance=0.3), *rows) == [True, False, True, True, True]
    assert judged(Policy(), *rows) == [False, False, True, True, True]
    assert judged(Policy(distance=0.3, both=True), *rows) == [False, False, True, False, False]
    assert judged(make_policy("phi1-similar", distance=0.3)[1], *rows, {}) == [False, False, True, False, False, False]


def test_channels_of_a_policy() -> None:
    assert Policy().channels == ("ngram", "syntax")
    assert make_policy("gpt3")[1].channels == make_policy("tulu3")[1].channels == ("ngram",)
    assert make_policy("phi1-similar")[1].channels == ("syntax", "embedding")
    assert make_policy("phi1", tau=0.9)[1].channels == ("ngram", "syntax")


def test_nothing_to_judge() -> None:
    assert condemns(Policy(), evidence({})[:0], PARTS).tolist() == []


def test_presets_fix_n() -> None:
    assert make_policy("default")[0] == (13, 4)
    assert make_policy("gpt3") == ((13,), PRESETS["gpt3"][1])
    assert make_policy("tulu3", n=[8, 4])[1].n == 4
    assert make_policy("tulu3", n=[4, 8])[0] == (8, 4)
    assert make_policy("phi1")[1].parts == ("question",)


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name: str) -> None:
    policy = changed(PRESETS[name][1], {"weights": {"tests": 0.9}, "parts": ["tests", "question"]}, ["a", "b question"])
    assert Policy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy


def test_said_in_words() -> None:
    said = str(make_policy("gpt3", weights={"tests": 0.5}, allow=["mbpp"])[1])
    expected = (
        "is cut when", "13-grams", "shares 13 words or more in a row with an item's question",
        "200 characters on either side", "under 200 characters go too", "over 10 pieces", "tests 0.5",
        "Allowed, so never a reason: mbpp",
    )  # fmt: skip
    for words in expected:
        assert words in said
    assert "holds, in one place, at least 70% of the words of an item's question, solution or tests." in str(Policy())
    assert "of 25 syntax nodes or more, matches a solution's to 95% by node types or to 85%" in str(Policy())
    assert "smaller functions, of 13 nodes or more, must be the same but for their names" in str(Policy())
    assert "syntax nodes" not in said
    similar = str(make_policy("phi1-similar")[1])
    assert similar.startswith("A document is dropped when one of its functions")
    assert "95% by node types, where its embedding lies within 0.5 of the item's as well" in similar
    assert "when its embedding lies within 0.4 of an item's" in str(Policy(distance=0.4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coverage": 0.19}, "coverage 0.19: evidence holds"),
        ({"coverage": 1.1}, "give a number from 0.2 to 1"),
        ({"coverage": 0.5, "weights": {"tests": 3.0}}, r"with weight 3 of tests\).*give 0.6 or more"),
        ({"run": 12}, "give 13 or more"),
        ({"words": 7}, "words 7"),
        ({"coverage": None, "tau": None, "alpha": None}, "neither a coverage nor a run"),
        ({"tau": 0.79}, "tau 0.79: evidence holds match rates from 0.8"),
        ({"alpha": 1.01}, "alpha 1.01"),
        ({"nodes": 12}, "nodes 12: evidence holds functions of 13 nodes"),
        ({"distance": 0.9}, "evidence holds distances up to 0.8"),
        ({"both": True}, "both: needs a distance"),
        ({"both": True, "distance": 0.3, "tau": None, "alpha": None}, "both: needs a distance and a tau or alpha"),
        ({"mode": "remove"}, "give drop, cut or flag"),
        ({"parts": ("answer",)}, "give question, solution or tests"),
        ({"weights": {"tests": -1.0}}, "give 0 or more"),
        ({"window": -1}, "window -1"),
        ({"max_pieces": 0}, "max_pieces 0"),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Policy(**values)


def found(start: int, end: int, item: str = "exam/1", coverage: float = 1.0, run: int = 20) -> Match:
    return Match("ngram", "exam", item, "question", start, end, run, coverage, None, None, None)


def test_reason_names_the_worst_match() -> None:
    assert reason([found(0, 9)]) == "exam/1 question: coverage 1.00, run 20 words"
    several = [found(0, 9, "exam/2", 0.8), found(0, 9), found(0, 9, "exam/3", 0.9), found(5, 9, "exam/3")]
    assert reason(several) == "exam/1 question: coverage 1.00, run 20 words, and 2 more items"
    assert reason([found(0, 9, "17")]).startswith("exam 17 question:")


def test_reason_by_channel() -> None:
    function = Match("syntax", "exam", "exam/1", "solution", 0, 9, None, None, 0.97, 1.0, None)
    assert reason([found(0, 9, "exam/2", 0.8), function]) == (
        "exam/1 solution: match rate 0.97 by node types, 1.00 in alpha-normalised form, and 1 more item"
    )
    text = Match("embedding", "exam", "exam/1", "solution", 0, 9, None, None, None, None, 0.2)
    assert reason([text]) == "exam/1 solution: embedding at distance 0.20"


LINES = "".join(f"line {number} of the document\n" for number in range(10))  # 23 characters a line


def test_cut_moves_to_the_nearest_line() -> None:
    start, end = LINES.index("line 5"), LINES.index("line 6") - 1
    policy = Policy(mode="cut", window=0)
    assert cut(LINES, [found(start, end)], policy) == LINES.replace("line 5 of the document\n", "")
    assert cut(LINES, [found(start + 3, end - 3)], policy) == LINES.replace("line 5 of the document\n", "")
    # 14 characters back from the beginning of line 5 is nearer to the beginning of line 4, 9 nearer to that of line 5
    wide = cut(LINES, [found(start, end)], Policy(mode="cut", window=14))
    assert wide == "".join(line for line in LINES.splitlines(True) if line[5] not in "456")
    narrow = cut(LINES, [found(start, end)], Policy(mode="cut", window=9))
    assert narrow == LINES.replace("line 5 of the document\n", "")


def test_cut_never_leaves_any_of_the_match() -> None:
    for start in range(0, len(LINES) - 1, 7):
        for end in range(start + 1, len(LINES), 11):
            marked = LINES[:start] + "#" * (end - start) + LINES[end:]
            for window in (0, 10, 200):
                left = cut(marked, [found(start, end)], Policy(mode="cut", window=window))
                assert left is None or "#" not in left


def test_cut_of_one_long_line_goes_through_it() -> None:
    text = "x" * 5_000 + "MATCH" + "y" * 5_000
    left = cut(text, [found(5_000, 5_005)], Policy(mode="cut", window=200))
    assert left == "x" * 4_800 + "\n" + "y" * 4_800


def test_cuts_that_overlap_become_one() -> None:
    first, second = LINES.index("line 3"), LINES.index("line 5")
    left = cut(LINES, [found(second, second + 10), found(first, first + 10)], Policy(mode="cut", window=25))
    assert left == "".join(line for line in LINES.splitlines(True) if line[5] not in "23456")


def test_small_pieces_go_and_many_pieces_drop() -> None:
    matches = [found(LINES.index(f"line {n}"), LINES.index(f"line {n}") + 22) for n in (1, 3, 5)]
    policy = Policy(mode="cut", window=0, min_piece=24)
    assert cut(LINES, matches, policy) == "".join(LINES.splitlines(True)[6:])
    assert cut(LINES, matches, Policy(mode="cut", window=0, max_pieces=4)) is not None
    assert cut(LINES, matches, Policy(mode="cut", window=0, max_pieces=3)) is None
    assert cut(LINES, matches, Policy(mode="cut", window=0, min_piece=1_000)) is None
    assert cut("  \n" + LINES, [found(3, len(LINES))], Policy(mode="cut", window=0)) is None


def test_floors_are_those_of_what_records_the_evidence() -> None:
    assert (LARGE_NODES, LEAST_NODES) == (_native.MIN_NODES, _native.MIN_ALPHA_NODES)
    assert pytest.approx(_native.FLOOR_TAU, abs=1e-7) == FLOOR_TAU
