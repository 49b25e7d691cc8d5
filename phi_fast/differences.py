"""Settings that a folder was begun with, against those of now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Say where two settings differ: a line a field, with what was there and what is here.

    Parameters
    ----------
    there, here
        JSON values; of dicts their fields are compared, named ``outer.inner``.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        was, now = (json.dumps(one)[:100] for one in (there, here))
        yield f"{name}: there {was}, here {now}"
