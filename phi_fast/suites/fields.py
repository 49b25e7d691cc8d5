"""Which fields of a row are an item's id and parts, and how their values become texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phi_fast.errors import InputError
from phi_fast.suites.rows import Row

GUESSES: dict[str, tuple[str, ...]] = {
    "question": (
        "question", "prompt", "complete_prompt", "problem", "problem_statement", "question_content", "text",
        "instruction", "instruct_prompt", "description", "task", "query", "input", "content",
    ),
    "solution": (
        "canonical_solution", "solution", "code", "reference_code", "reference_solution", "gold", "answer",
        "solutions", "completion", "response", "output", "target",
    ),
    "tests": (
        "test", "tests", "test_list", "test_cases", "unit_tests", "private_test_cases", "test_code",
        "input_output",
    ),
    "id": (
        "task_id", "id", "item_id", "problem_id", "question_id", "uid", "_id", "name", "slug", "key", "idx",
        "index",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of each part, in order; their texts are joined by newlines. ``id`` None numbers the rows."""

    question: tuple[str, ...]
    solution: tuple[str, ...]
    tests: tuple[str, ...]
    id: str | None


class BadValueError(ValueError):
    """A value that cannot become a text; the message says which field and what it holds."""


def choose_fields(rows: Sequence[Row], where: str, named: dict[str, str | None]) -> Fields:
    """Take the fields the caller named and guess the others.

    A name may list several fields with commas (``test_list,challenge_test_list``).

    Raises
    ------
    InputError
        A named field is in no row, or nothing could be guessed; the message lists the fields there are.
    """
    seen: dict[str, None] = {}
    for _, row in rows:
        seen.update(dict.fromkeys(row))
    parts = {part: _fields_of(part, named.get(part), seen, where) for part in ("question", "solution", "tests")}
    if not any(parts.values()):
        raise InputError(
            f"{where}: found no field for question, solution or tests. It has {listed(seen)}: "
            "name them, as in --question FIELD --solution FIELD --tests FIELD"
        )
    taken = {field for fields in parts.values() for field in fields}
    id_field = _id_field(rows, where, named.get("id"), seen, taken)
    return Fields(parts["question"], parts["solution"], parts["tests"], id_field)


def _fields_of(part: str, named: str | None, seen: dict[str, None], where: str) -> tuple[str, ...]:
    if named is not None:
        fields = (named,) if named in seen else tuple(field.strip() for field in named.split(","))
        for field in fields:
            if field not in seen:
                raise InputError(f'{where}: no field "{field}" (given for {part}). It has {listed(seen)}')
        return fields
    return next(((guess,) for guess in GUESSES[part] if guess in seen), ())


def _id_field(rows: Sequence[Row], where: str, named: str | None, seen: dict[str, None], taken: set[str]) -> str | None:
    if named is not None:
        if named not in seen:
            raise InputError(f'{where}: no field "{named}" (given for id). It has {listed(seen)}')
        return named
    for guess in GUESSES["id"]:
        if guess in seen and guess not in taken:
            values = [row.get(guess) for _, row in rows]
            if all(_is_id(value) for value in values) and len({str(value) for value in values}) == len(values):
                return guess
    return None


def _is_id(value: object) -> bool:
    return (isinstance(value, str) and value != "") or (isinstance(value, int) and not isinstance(value, bool))


def id_of(row: dict[str, Any], field: str, prefix: str) -> str:
    """The item's id: a string as it is, a number as ``prefix/number``."""
    value = row.get(field)
    if not _is_id(value):
        raise BadValueError(f'"{field}" is {kind(value)}, expected an id (a string or an integer)')
    return _whole(field, value) if isinstance(value, str) else f"{prefix}/{value}"


def text_of(row: dict[str, Any], fields: Sequence[str]) -> str:
    """The text of a part: its fields' strings, numbers and lists of them, joined by newlines; null is no text."""
    lines = [line for field in fields for line in _lines(field, row.get(field))]
    return "\n".join(lines)


def _lines(field: str, value: object) -> list[str]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [_whole(field, value)]
    if isinstance(value, bool | int | float):
        return [str(value)]
    if isinstance(value, list):
        return [line for one in value for line in _lines(field, one)]
    raise BadValueError(f'"{field}" holds {kind(value)}, expected a string or a list of strings')


def _whole(field: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValueError(f'lone surrogate in "{field}" at character {error.start}') from None
    return text


def kind(value: object) -> str:
    """A JSON value's kind, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def listed(fields: dict[str, None]) -> str:
    """Field names for an error message."""
    return "the fields " + ", ".join(f'"{field}"' for field in fields) if fields else "no fields"
