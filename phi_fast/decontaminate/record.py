"""A run and its folder: which file holds what, and the shape of run.json.

``run.json``, keys in this order::

    {
      "format": 2,                         version of this shape
      "phi_fast": "0.1.0",                 version that made the run
      "state": "finished",                 or "scanning", "writing", "deciding" (killed there: the same command goes on)
      "settings_sha256": "…",              of everything that decides the output bytes; see settings.py
      "settings": {
        "corpus": ["/data/code"],          as given, local paths absolute
        "against": ["humaneval", "mbpp=/data/mbpp.jsonl"],
        "fields": {"question": null, "solution": null, "tests": null, "id": null},
        "text": null, "id": null,          asked for; what was found stands in "inputs"
        "n": [13, 4], "channels": ["ngram", "syntax"], "embedding": null, "unit_bytes": 8388608,
        "pattern": null,                   which files of a source tree are documents
        "learn_from": [],                  names of the files that common n-grams were learnt from; all where none
        "policy": {…}                      Policy.as_dict(); changed by `phi-fast decide`
      },
      "policy_words": ["A document is dropped when …", …],      Policy.describe()
      "clean_policy": {…} or null,         the policy that clean/ and removed.jsonl follow; null: there is no clean/
      "suites": [{"name", "source", "sha256", "items", "rejected",
                  "parts", "testable_parts", "unreachable_items": ["HumanEval/2", …]}],
      "inputs": [{"name", "path", "format", "compression", "text", "id", "size", "stamp",
                  "rows", "documents", "text_bytes", "matches", "rejected", "removed"}],
      "notes": ["…"],                      what a person should know of the input, in sentences
      "counts": {"files", "bytes", "rows", "documents", "text_bytes", "matches", "matched_documents",
                 "rejected", "drop", "cut", "flag", "keep"},
      "sample_documents": 2000,            documents that common n-grams were learnt from
      "hashes": {"index", "evidence", "verdicts"},               sha256
      "versions": {"python", "numpy", "pyarrow"},
      "timing": {"started": "2026-11-23T20:12:00+00:00", "seconds", "scan_seconds", "write_seconds", "threads",
                 "simd", "resumed": false, "scanned_text_bytes", "mb_per_second"}
    }

Everything outside ``timing`` is the same for the same input and settings. ``counts["documents"]`` are the documents
scanned (``rows`` less blank lines and ``rejected``); ``bytes`` is the input's size as stored. ``mb_per_second`` is text
scanned by the last command, in 10**6 bytes a second of scanning.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi_fast.decontaminate.policy import Policy
from phi_fast.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from phi_fast.engines.ngram import NgramIndex, PartInfo

FORMAT = 2

CLEAN = "clean"  # the corpus without what was removed: same names, same formats
REMOVED = "removed.jsonl"  # id, file, row, verdict, reason, text (the original) of each document dropped or cut
REJECTED = "rejected.jsonl"  # file, row, reason, raw or raw_base64 of each row that is no document
EVIDENCE = "evidence.parquet"  # every match
VERDICTS = "verdicts.parquet"  # id, file, row, verdict, reason; documents kept have no row
EXCERPTS = "excerpts.parquet"  # file, row, start, text around the 10,000 highest-scoring matches, for the report
INDEX = "index.phifast"  # NgramIndex with the items' texts and what was learnt
RUN_JSON = "run.json"
REPORT_MD = "report.md"
REPORT_HTML = "report.html"
JOURNAL = "journal.bin"  # finished units and the matched documents: resume needs it, and decide, which needs no corpus
WORK = "work"  # gone once the run is finished
SIMILAR = "similar"  # what phi-fast similar makes of the evidence
OURS = (
    CLEAN, REMOVED, REJECTED, EVIDENCE, VERDICTS, EXCERPTS, INDEX, RUN_JSON, REPORT_MD, REPORT_HTML, JOURNAL, WORK,
    SIMILAR,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its folder and the content of its run.json."""

    path: Path
    record: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Run:
        """Open a run's folder.

        Raises
        ------
        InputError
            The folder holds no run, or one of another phi_fast.
        """
        folder = Path(path).expanduser()
        try:
            record = json.loads((folder / RUN_JSON).read_bytes())
            version = record["format"]
        except FileNotFoundError as error:
            raise InputError(f"{folder}: holds no run (no {RUN_JSON})") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder / RUN_JSON}: cannot be read: {error}") from error
        if version != FORMAT:
            raise InputError(f"{folder}: a run of format {version}; this phi_fast reads format {FORMAT}")
        return cls(folder, record)

    @property
    def finished(self) -> bool:
        """Whether every output of the run is written."""
        return bool(self.record["state"] == "finished")

    @property
    def counts(self) -> dict[str, int]:
        """Totals; see the module's text."""
        counts: dict[str, int] = self.record["counts"]
        return counts

    @property
    def policy(self) -> Policy:
        """The policy the verdicts follow."""
        return Policy.from_dict(self.record["settings"]["policy"])

    @property
    def documents(self) -> int:
        """Documents scanned."""
        return self.counts["documents"]

    @property
    def removed(self) -> int:
        """Documents with a verdict: dropped, cut or flagged."""
        return self.counts["drop"] + self.counts["cut"] + self.counts["flag"]

    @property
    def share(self) -> float:
        """Share of the documents scanned that have a verdict."""
        return self.removed / self.documents if self.documents else 0.0

    def evidence(self) -> pa.Table:
        """Read every match (evidence.parquet)."""
        return self._table(EVIDENCE)

    def verdicts(self) -> pa.Table:
        """Read every verdict (verdicts.parquet)."""
        return self._table(VERDICTS)

    def index(self) -> NgramIndex:
        """Open the index the corpus was scanned with."""
        from phi_fast.engines.ngram import NgramIndex

        return NgramIndex.load(self.path / INDEX)

    def parts(self) -> list[PartInfo]:
        """Read the items' parts, in the order of the index, and what each channel can find of them."""
        from phi_fast.decontaminate.channels import parts_with_trees
        from phi_fast.engines.trees import TreeIndex

        parts = self.index().parts
        syntax = "syntax" in self.record["settings"]["channels"]
        return parts_with_trees(parts, TreeIndex.build(parts) if syntax else None)

    def _table(self, name: str) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(self.path / name)

    def __repr__(self) -> str:
        counts = self.counts
        return (
            f"Run({str(self.path)!r}, {self.record['state']}: {counts['documents']:,} documents, "
            f"{counts['drop']:,} dropped, {counts['cut']:,} cut, {counts['flag']:,} flagged, "
            f"{counts['rejected']:,} rejected)"
        )
