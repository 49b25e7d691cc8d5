"""JSONL: which lines are documents, and what is said of the rest, against json.loads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phi_fast import _native
from tests.engines.support import index_of, levels
from tests.oracles import jsonl
from tests.oracles.words import words

INDEX = index_of(["def add(x, y): return x + y and nothing else matters in this world of words"])

scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cn"]), max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
well_formed = st.builds(
    lambda fields, text, spaced, ascii_only: json.dumps(
        {**fields, "text": text},
        ensure_ascii=ascii_only,
        separators=(", ", ": ") if spaced else (",", ":"),
    ).encode("utf-8", "surrogatepass"),
    st.dictionaries(st.text(max_size=5) | st.just("id"), values, max_size=3),
    st.text(st.characters(exclude_categories=["Cn"]), max_size=200) | scalars,
    st.booleans(),
    st.booleans(),
)
tokens = st.sampled_from(
    [
        *(
            '{"text": "',
            '"text"',
            '"te\\u0078t"',
            '"id"',
            '"x"',
            '""',
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            '"',
            "\\",
            "\\\\",
            '\\"',
        ),
        *(
            "\\n",
            "\\u0041",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\ude00",
            "\\uD83D\\n",
            "\\u12",
            "\\u00g0",
            "\\x",
            "\\/",
        ),
        *("0", "-0", "01", "1.", "1.5", ".5", "1e5", "1E+5", "1e", "-", "-1", "+1", "1" * 5000, "0x1", "1_0"),
        *("null", "true", "false", "NaN", "Infinity", "-Infinity", "-NaN", "nul", "True", "None"),
        *(
            " ",
            "\t",
            "\r",
            "\x0b",
            "\x00",
            "\x1f",
            "\x7f",
            "\ufeff",
            "é",
            "😀",
            "\u2028",
            "a word",
            "x" * 70,
            "/* */",
            "'",
        ),
    ]
).map(str.encode)
raw_bytes = st.sampled_from([b"\xff", b"\xc3", b"\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\n"])
soup = st.lists(tokens | raw_bytes, max_size=14).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A well-formed line with a few bytes taken out, put in or changed."""
    line = bytearray(draw(well_formed))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            del line[at : at + draw(st.integers(1, 3))]
        else:
            line[at : at + kind - 1] = draw(tokens | raw_bytes | soup)
    return bytes(line)


framed = soup.map(lambda inside: b'{"text": "' + inside + b'"}') | soup.map(
    lambda value: b'{"text": "x", "v": ' + value + b"}"
)
lines = st.one_of(well_formed, mutated(), soup, framed, st.sampled_from([b"", b" \t\r", b"\x0c", b"{}"]))
blocks = st.lists(lines, max_size=5).map(b"\n".join) | st.lists(lines.map(lambda line: line + b"\r\n")).map(b"".join)


def agree(block: bytes, key: str = "text") -> None:
    read = jsonl.lines(block, key)
    texts = [line.text for line in read if line.text is not None]
    refused = [(line.row, line.offset, line.length) for line in read if line.text is None]
    for level in levels():
        result = INDEX.scan_jsonl(block, key, "id")
        assert [entry[:3] for entry in result.rejected] == refused, (level, [entry[3] for entry in result.rejected])
        assert result.rows == jsonl.rows(block), level
        assert result.documents == len(texts), level
        assert result.text_bytes == sum(len(text.encode()) for text in texts), level
        assert result.words == sum(len(words(text)) for text in texts), level
        assert all(reason for *_, reason in result.rejected), level


@given(blocks)
@example(b"")
@example(b"\n")
@example(b'\n\n{"text": "x"}\n \n')
@example(b'{"text": "x"}\n{"text": "y"}')
def test_generated_blocks(block: bytes) -> None:
    agree(block)


@given(framed | mutated())
def test_generated_lines(line: bytes) -> None:
    agree(line)


@given(well_formed, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5))
def test_any_key(line: bytes, key: str) -> None:
    agree(line, key)
    agree(json.dumps({key: "a text", "other": key}).encode(), key)


def test_every_escape_and_byte_in_a_text() -> None:
    alone = [bytes([first]) for first in range(256)]
    escaped = [b"\\" + byte for byte in alone] + [b"\\u00" + byte + b"0" for byte in alone]
    for inside in alone + escaped:
        agree(b'{"text": "' + inside + b'"}')
        agree(b'{"text": "a' + b"x" * 62 + inside + b'", "id": 1}')
        agree(b'{"other": "' + inside + b'", "text": "x"}')


def test_strings_that_end_at_a_block_edge() -> None:
    for before in range(131):
        for end in (
            b"",
            b"\\",
            b'\\"',
            b"\\\\",
            b"\\n",
            b"\xc3\xa9",
            b"\xc3",
            b"\\u0041",
            b"\\ud83d\\ude00",
            b"\\ud83d",
        ):
            agree(b'{"text": "' + b"x" * before + end + b'"}')
            agree(b'{"text": "' + b"\\" * before + end + b'"}')


@pytest.mark.parametrize("deep", [1, 10, 511, 512, 513, 2000, 100_000])
def test_nesting(deep: int) -> None:
    for start, inside, end in (("[", "1", "]"), ("[", "", "]"), ('{"a":', "{}", "}"), ('[{"text":', '"y"', "}]")):
        levels_each = len(start.replace('"a":', "").replace('"text":', ""))
        times = (deep - 1) // levels_each
        agree(f'{{"v": {start * times}{inside}{end * times}, "text": "x"}}'.encode())
        agree(f'{{"v": {start * times}{inside}, "text": "x"}}'.encode())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "x"', "malformed JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"txet": "x"}', 'no field "text"'),
        (b'{"text": null}', '"text" is null, expected a string'),
        (b'{"text": 1}', '"text" is a number, expected a string'),
        (b'{"text": "\xff"}', "invalid UTF-8 at byte 10 of the line"),
        (b'{"text": "\\ud800"}', "lone surrogate"),
        (b"[" * 600 + b"]" * 600, "512"),
    ],
)
def test_reasons(line: bytes, reason: str) -> None:
    for _ in levels():
        ((row, offset, length, said),) = INDEX.scan_jsonl(b"\n" + line + b"\n", "text", None).rejected
        assert (row, offset, length) == (1, 1, len(line))
        assert reason in said


@given(well_formed | framed)
def test_json_field(line: bytes) -> None:
    """The raw value of a key, when the line is one that json.loads takes."""
    try:
        decoded = json.loads(line.decode())
    except ValueError:
        return
    if not isinstance(decoded, dict) or b"\n" in line:
        return
    for key in [*decoded, "not there at all"]:
        try:
            key.encode()
        except UnicodeEncodeError:
            continue
        span = _native.json_field(line, key)
        if key in decoded:
            assert span is not None
            assert repr(json.loads(line[slice(*span)])) == repr(decoded[key])
        else:
            assert span is None


def test_documents_of_matches_name_their_line_and_id() -> None:
    text = INDEX.parts[0].text
    rows = [
        {"id": "a", "text": text},
        {"text": text},
        {"text": "nothing", "id": 3},
        {"text": text, "id": {"k": [1, "é"]}},
    ]
    for ensure_ascii in (False, True):
        encoded = [json.dumps(row, ensure_ascii=ensure_ascii).encode() for row in rows]
        block = b"\n".join([b" ", *encoded, b"no JSON", encoded[0] + b"  \r"])
        docs = INDEX.scan_jsonl(block, "text", "id").docs
        assert docs["row"].tolist() == [1, 2, 4, 6]
        spans = zip(docs["offset"].tolist(), docs["length"].tolist(), strict=True)
        assert [block[start : start + length] for start, length in spans] == [
            encoded[0],
            encoded[1],
            encoded[3],
            encoded[0] + b"  \r",
        ]
        ids = [block[start:end] for start, end in zip(docs["id_start"].tolist(), docs["id_end"].tolist(), strict=True)]
        assert [json.loads(value) if value else None for value in ids] == ["a", None, {"k": [1, "é"]}, "a"]
        assert INDEX.scan_jsonl(block, "text", None).docs["id_start"].tolist() == [-1] * 4
