"""Recipes: files of one `Settings` each, to be run by name or copied and edited.

>>> from phi_fast.train.recipes import read_recipe
>>> read_recipe("phi_1_base", ["micro=4", "fields.layers=12"]).batch
1024
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi_fast.errors import InputError
from phi_fast.train.settings import Settings

_FOLDER = Path(__file__).parent
_WORDS = {"none": None, "null": None, "true": True, "false": False}
_ATTRIBUTE = "SETTINGS"


def names() -> list[str]:
    """The recipes that are here."""
    return sorted(one.stem for one in _FOLDER.glob("*.py") if one.stem != "__init__")


def read_recipe(recipe: str, changes: Sequence[str] = ()) -> Settings:
    """The settings of a recipe.

    Parameters
    ----------
    recipe
        A name of `names`, or a Python file that makes a `Settings` called SETTINGS. The file is run.
    changes
        ``"field=value"``, and ``"fields.NAME=value"`` for a field of the model; values are numbers, true, false, none,
        lists in brackets, or else text.

    Raises
    ------
    InputError
        No such recipe, a file that fails or makes none, or a change that names no field or gives a wrong value.
    """
    return changed(_read(recipe), changes)


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """The settings with changes, as `read_recipe` takes them."""
    held: dict[str, Any] = {one.name: getattr(settings, one.name) for one in dataclasses.fields(settings)}
    held["fields"] = dict(settings.fields)
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f'--set "{change}": give FIELD=VALUE, as in micro=4')
        # "none" is a strategy, too
        value = text.strip() if isinstance(held.get(name), str) else _value(text.strip())
        if name.startswith("fields."):
            held["fields"][name.removeprefix("fields.")] = value
        elif name in held and name != "fields":
            held[name] = value
        else:
            close = difflib.get_close_matches(name, [*held], 1)
            meant = f'; is "{close[0]}" meant?' if close else f": there are {', '.join(held)}"
            if name == "fields":
                meant = ": give fields of the model one by one, as in fields.layers=12"
            raise InputError(f'--set "{change}": no setting "{name}"{meant}')
    return Settings.from_dict(held)


def _read(recipe: str) -> Settings:
    path = _FOLDER / f"{recipe}.py"
    if recipe not in names():
        path = Path(recipe).expanduser()
        if path.suffix != ".py" or not path.is_file():
            close = difflib.get_close_matches(recipe, names(), 1)
            meant = f'is "{close[0]}" meant? ' if close else ""
            raise InputError(f'no recipe "{recipe}": {meant}There are {", ".join(names())}, and Python files of yours')
    try:
        made = runpy.run_path(str(path)).get(_ATTRIBUTE)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a person's file may fail in any way
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Settings):
        raise InputError(f"{path}: makes no {_ATTRIBUTE} = Settings(...); copy one of {_FOLDER}")
    return made


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
