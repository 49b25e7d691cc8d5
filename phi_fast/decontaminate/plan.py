"""What a run is: its corpus, its suites, its rule, and how two runs differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.corpus import UNIT_BYTES, Source, discover
from phi_fast.decontaminate.channels import MOST_ITEMS_BY_DEFAULT, chosen_channels
from phi_fast.decontaminate.embedding import UNIT_BYTES as EMBEDDING_UNIT_BYTES
from phi_fast.decontaminate.embedding import described, open_embedder, without_name
from phi_fast.decontaminate.policy import Policy
from phi_fast.errors import InputError
from phi_fast.suites import Item, Part, Suite, load_suite, load_suites

if TYPE_CHECKING:
    from phi_fast.vectors import Embedder

Against = str | os.PathLike[str] | Suite
FIELDS = ("question", "solution", "tests", "id")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides a run's output bytes. Made by :func:`make_plan`."""

    corpus: tuple[str, ...]
    against: tuple[str, ...]
    fields: Mapping[str, str | None]
    text: str | None
    id: str | None
    pattern: str | None
    n: tuple[int, ...]
    policy: Policy
    channels: tuple[str, ...]
    embedding: Mapping[str, Any] | None  # the embedding model and its settings, where that channel is on
    unit_bytes: int
    suites: tuple[Suite, ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]  # what was left out of the corpus, in sentences
    embedder: Embedder | None = None  # loaded, where the embedding channel is on
    learn_from: tuple[str, ...] = ()  # names of the sources that common n-grams are learnt from; all where none

    def settings(self) -> dict[str, Any]:
        """Give the settings as they stand in run.json."""
        return {
            "corpus": list(self.corpus), "against": list(self.against), "fields": dict(self.fields), "text": self.text,
            "id": self.id, "pattern": self.pattern, "n": list(self.n), "channels": list(self.channels),
            "embedding": None if self.embedding is None else dict(self.embedding), "unit_bytes": self.unit_bytes,
            "policy": self.policy.as_dict(), "learn_from": list(self.learn_from),
        }  # fmt: skip

    def inputs(self) -> list[dict[str, Any]]:
        """Give the sources as they stand in run.json, without what was found in them."""
        names = ("name", "path", "format", "compression", "text", "id", "size", "stamp")
        return [{name: getattr(source, name) for name in names} for source in self.sources]

    def described_suites(self) -> list[dict[str, Any]]:
        """Give the suites as they stand in run.json, without what the index says of them."""
        return [
            {
                "name": suite.name, "source": suite.source, "sha256": suite.sha256, "items": len(suite.items),
                "rejected": len(suite.rejected),
            }
            for suite in self.suites
        ]  # fmt: skip


def make_plan(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    against: Against | Sequence[Against],
    n: tuple[int, ...],
    policy: Policy,
    *,
    fields: Mapping[str, str | None] | None = None,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    channels: Sequence[str] | None = None,
    embedding_model: str = "minilm",
    embedding_device: str | None = None,
    unit_bytes: int | None = None,
    learn_from: Sequence[str] = (),
) -> Plan:
    """Find the corpus and load the suites.

    Raises
    ------
    InputError
        A path, a suite or a field is not there.
    """
    paths = [corpus] if isinstance(corpus, str | os.PathLike) else list(corpus)
    given = [against] if isinstance(against, str | os.PathLike | Suite) else list(against)
    specs = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in given]
    if not paths:
        raise InputError("no corpus: name files, folders or globs")
    if not specs:
        raise InputError("nothing to decontaminate against: give --against humaneval, or --against NAME=PATH")
    chosen = {name: (fields or {}).get(name) for name in FIELDS}
    absolute = tuple(_absolute(os.fspath(path)) for path in paths)
    suites = load_suites(specs, **chosen)
    notes: list[str] = []
    sources = discover(absolute, text=text, id=id, pattern=pattern, note=notes.append)
    unknown = sorted(set(learn_from) - {source.name for source in sources})
    if unknown:
        raise InputError(f"learn_from {', '.join(unknown)}: no such file in the corpus")
    chosen_ways = _channels(channels, policy, sum(len(suite.items) for suite in suites), notes)
    embedder, usual_unit = None, UNIT_BYTES
    if "embedding" in chosen_ways:
        embedder, usual_unit = open_embedder(embedding_model, embedding_device), EMBEDDING_UNIT_BYTES
    return Plan(
        corpus=absolute,
        against=tuple(_spec(spec) for spec in specs),
        fields=chosen,
        text=text,
        id=id,
        pattern=pattern,
        n=n,
        policy=policy,
        channels=chosen_ways,
        embedding=None if embedder is None else described(embedding_model, embedder),
        # The variable is for tests that need many units of little data.
        unit_bytes=unit_bytes or int(os.environ.get("PHI_FAST_UNIT_BYTES") or usual_unit),
        suites=suites,
        sources=tuple(sources),
        notes=tuple(notes),
        embedder=embedder,
        learn_from=tuple(learn_from),
    )


def _channels(given: Sequence[str] | None, policy: Policy, items: int, notes: list[str]) -> tuple[str, ...]:
    chosen = chosen_channels(given, policy.channels)
    if not given and "syntax" in chosen and items > MOST_ITEMS_BY_DEFAULT:
        chosen = tuple(name for name in chosen if name != "syntax")
        notes.append(
            f"{items:,} items are more than the {MOST_ITEMS_BY_DEFAULT:,} that the syntax channel compares by default: "
            "it is off. Give --channels ngram,syntax to have it on."
        )
    missing = [name for name in policy.channels if name not in chosen]
    if given and policy.both and missing:
        raise InputError(f"the policy needs the channel {' and '.join(missing)}: add it to --channels")
    if not set(policy.channels) & set(chosen):
        raise InputError(
            f"channels {', '.join(chosen)}: the policy has no threshold for any of these, so nothing could be found; "
            "give --coverage, --alpha, --tau or --distance"
        )
    if "embedding" in chosen and "embedding" not in policy.channels:
        notes.append(
            "The embedding channel only records distances: the policy has no threshold for them. Give --distance, here "
            "or to phi-fast decide, for verdicts by it."
        )
    return chosen


def plan_again(record: Mapping[str, Any], in_index: Sequence[Any]) -> Plan:
    """Make the plan of a run again from its run.json.

    Parameters
    ----------
    record
        The content of run.json.
    in_index
        ``NgramIndex.parts`` of the run, from which suites that were given as Python objects are restored.
    """
    settings = record["settings"]
    suites = [
        _restored(described, in_index) if spec.startswith(_GIVEN) else load_suite(spec, **settings["fields"])
        for spec, described in zip(settings["against"], record["suites"], strict=True)
    ]
    return make_plan(
        settings["corpus"],
        suites,
        tuple(settings["n"]),
        Policy.from_dict(settings["policy"]),
        fields=settings["fields"],
        text=settings["text"],
        id=settings["id"],
        pattern=settings["pattern"],
        channels=settings["channels"],
        embedding_model=settings["embedding"]["given"] if settings["embedding"] else "minilm",
        unit_bytes=settings["unit_bytes"],
        learn_from=settings.get("learn_from", ()),
    )


def settings_sha256(record: Mapping[str, Any]) -> str:
    """Hash what decides the output bytes: the content of corpus and suites, not how they were named."""
    return hashlib.sha256(json.dumps(_deciding(record), sort_keys=True).encode()).hexdigest()


def plan_record(plan: Plan, version: str) -> dict[str, Any]:
    """Give what run.json says of a plan before anything is done."""
    return {
        "phi_fast": version, "settings": plan.settings(), "inputs": plan.inputs(), "suites": plan.described_suites()
    }  # fmt: skip


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say how the run in a folder (its run.json) differs from a plan's record, a line each."""
    old, new = _deciding(there), _deciding(now)
    plain = ("phi_fast", "n", "channels", "embedding", "unit_bytes", "learn_from")
    said = [_differs(name, old[name], new[name]) for name in plain if old[name] != new[name]]
    for name in new["policy"]:
        if old["policy"].get(name) != new["policy"][name]:
            said.append(_differs(name, old["policy"].get(name), new["policy"][name]))
    for what in ("suites", "inputs"):
        said += _changed(what.removesuffix("s"), old[what], new[what])
    return said


def _deciding(record: Mapping[str, Any]) -> dict[str, Any]:
    settings = record["settings"]
    return {
        "phi_fast": record["phi_fast"],
        "n": settings["n"],
        "channels": settings["channels"],
        "embedding": without_name(settings["embedding"]),
        "unit_bytes": settings["unit_bytes"],
        "learn_from": settings.get("learn_from", []),
        "policy": settings["policy"],
        "suites": {one["name"]: {"content (sha256)": one["sha256"]} for one in record["suites"]},
        "inputs": {
            one["name"]: {name: one[name] for name in ("format", "compression", "text", "id", "size", "stamp")}
            for one in record["inputs"]
        },
    }


def _changed(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    gone, added = [name for name in old if name not in new], [name for name in new if name not in old]
    said = []
    if gone:
        said.append(f"{what} {_few(gone)}: there, not now")
    if added:
        said.append(f"{what} {_few(added)}: now, not there")
    for name in new:
        if name in old and old[name] != new[name]:
            pairs = ((key, old[name][key], new[name][key]) for key in new[name])
            details = [_differs(key, left, right) for key, left, right in pairs if left != right]
            said.append(f"{what} {name} has changed since: {'; '.join(details)}")
    return said[:10]


def _differs(name: str, old: Any, new: Any) -> str:
    return f"{name}: {_value(old)} there, {_value(new)} now"


def _value(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    said = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return said if len(said) <= 60 else f"{said[:57]}..."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))


_GIVEN = "given in Python: "


def _spec(spec: str | Suite) -> str:
    """Write a suite so that it can be loaded again from any folder."""
    if isinstance(spec, Suite):
        return _GIVEN + spec.name
    if spec == "humaneval":
        return spec
    if Path(spec).expanduser().exists():
        return _absolute(spec)
    name, equals, path = spec.partition("=")
    return f"{name}={_absolute(path)}" if equals else spec


def _restored(described: Mapping[str, Any], in_index: Sequence[Any]) -> Suite:
    items: dict[str, list[Part]] = {}
    for part in in_index:
        if part.suite == described["name"]:
            items.setdefault(part.item, []).append(Part(part.part, part.text))
    restored = tuple(Item(name, tuple(parts)) for name, parts in items.items())
    return Suite(described["name"], restored, described["source"], described["sha256"])
