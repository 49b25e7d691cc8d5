"""From the journal to the tables: every match and every rejected row, in the order of source, unit and row."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from phi_fast.corpus import Source
from phi_fast.decontaminate.channels import CHANNELS, EMBEDDING, FORMS, NGRAM, SYNTAX
from phi_fast.decontaminate.journal import Journal
from phi_fast.decontaminate.outcome import FOUND, Bad, matched_ids, rejected
from phi_fast.decontaminate.record import EVIDENCE, REJECTED
from phi_fast.decontaminate.safely import replacing
from phi_fast.decontaminate.tables import GROUP, TableFile

if TYPE_CHECKING:
    from phi_fast.engines.ngram import PartInfo

EVIDENCE_SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("channel", pa.string()),
        ("suite", pa.string()), ("item", pa.string()), ("part", pa.string()), ("n", pa.int32()),
        ("doc_start", pa.int64()), ("doc_end", pa.int64()), ("item_start", pa.int64()), ("item_end", pa.int64()),
        ("run", pa.int64()), ("coverage", pa.float32()), ("score", pa.float32()), ("words", pa.int64()),
        ("form", pa.string()), ("nodes", pa.int32()), ("item_nodes", pa.int32()), ("tau", pa.float32()),
        ("alpha", pa.float32()), ("distance", pa.float32()),
    ]
)  # fmt: skip
# Columns that not every channel has a value for: null where the channel has none.
_OF_CHANNEL = {
    **dict.fromkeys(("n", "run", "coverage", "words"), (NGRAM,)),
    **dict.fromkeys(("form", "nodes", "item_nodes", "tau", "alpha"), (SYNTAX,)),
    "distance": (SYNTAX, EMBEDDING),
}
COUNTS = ("rows", "documents", "text_bytes", "matches", "matched_documents", "rejected")


def write_evidence(
    folder: Path, journal: Journal, sources: Sequence[Source], parts: Sequence[PartInfo]
) -> list[dict[str, int]]:
    """Write evidence.parquet and rejected.jsonl from a complete journal, in constant memory.

    Parameters
    ----------
    folder
        The run's folder.
    journal
        With every unit of every source.
    sources, parts
        What the numbers in the journal stand for.

    Returns
    -------
    list of dict
        Counts (:data:`COUNTS`) of each source.
    """
    counts = []
    with (
        TableFile(folder / EVIDENCE, EVIDENCE_SCHEMA) as evidence,
        replacing(folder / REJECTED) as rejected_path,
        rejected_path.open("wb") as lines,
    ):
        matches = _Matches(evidence, sources, parts)
        for number, source in enumerate(sources):
            sums = dict.fromkeys(COUNTS, 0)
            for unit in range(journal.lengths[number]):
                one, packed = journal.unit(number, unit, FOUND)
                base = sums["rows"]
                matches.add(number, base, *matched_ids(packed))
                for bad in rejected(packed):
                    lines.write(_rejected_line(source.name, base, bad))
                sums = {name: sums[name] + one[name] for name in COUNTS}
            counts.append(sums)
        matches.flush()
    return counts


class _Matches:
    """Gathers matches into row groups of about 65,536."""

    def __init__(self, table: TableFile, sources: Sequence[Source], parts: Sequence[PartInfo]) -> None:
        self._table = table
        self._files = pa.array([source.name for source in sources], pa.string())
        self._names = {
            name: pa.array([getattr(part, name) for part in parts], pa.string()) for name in ("suite", "item", "part")
        }
        self._matches: list[npt.NDArray[np.void]] = []
        self._document: list[npt.NDArray[np.int64]] = []  # of each match, its place in the three lists below
        self._ids: list[str] = []
        self._rows: list[int] = []
        self._file: list[int] = []
        self._count = 0

    def add(
        self, source: int, base: int, matches: npt.NDArray[np.void], documents: Sequence[tuple[int, str | None]]
    ) -> None:
        """Add a unit's matches; ``documents`` gives row and id of the documents that ``matches["doc"]`` counts."""
        if not len(matches):
            return
        file = self._files[source].as_py()
        self._matches.append(matches)
        self._document.append(matches["doc"].astype(np.int64) + len(self._ids))
        for row, identity in documents:
            self._rows.append(base + row)
            self._ids.append(identity if identity is not None else f"{file}:{base + row}")
            self._file.append(source)
        self._count += len(matches)
        if self._count >= GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered as a row group."""
        if not self._count:
            return
        matches, document = np.concatenate(self._matches), np.concatenate(self._document)
        part = pa.array(matches["part"])
        columns: dict[str, Any] = {
            "id": pa.array(self._ids, pa.string()).take(pa.array(document)),
            "file": self._files.take(pa.array(np.array(self._file)[document])),
            "row": np.array(self._rows)[document],
            "channel": pa.array(CHANNELS).take(pa.array(matches["channel"])),
        }
        columns |= {name: names.take(part) for name, names in self._names.items()}
        for field in EVIDENCE_SCHEMA:
            if field.name not in columns:
                columns[field.name] = _column(matches, field)
        self._table.write([pa.array(columns[field.name], field.type) for field in EVIDENCE_SCHEMA])
        for one in (self._matches, self._document, self._ids, self._rows, self._file):
            one.clear()
        self._count = 0


def _column(matches: npt.NDArray[np.void], field: pa.Field) -> pa.Array:
    values = np.ascontiguousarray(matches[field.name])
    null = None
    if field.name in _OF_CHANNEL:
        null = ~np.isin(matches["channel"], _OF_CHANNEL[field.name])
        if values.dtype.kind == "f":
            null |= np.isnan(values)
    if field.name == "form":
        return pa.array(FORMS).take(pa.array(values, mask=null))
    return pa.array(values.astype(field.type.to_pandas_dtype()), field.type, mask=null)


def _rejected_line(file: str, base: int, bad: Bad) -> bytes:
    record: dict[str, Any] = {"file": file, "row": base + bad.row, "reason": bad.reason}
    if bad.id is not None:
        record["id"] = bad.id
    if bad.offset >= 0:
        record |= {"offset": bad.offset, "length": bad.length}
    if bad.rows != 1:
        record["rows"] = bad.rows
    if bad.raw is not None:
        try:
            record["raw"] = bad.raw.decode()
        except UnicodeDecodeError:
            record["raw_base64"] = base64.b64encode(bad.raw).decode()
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
