"""Documents in and out: what a corpus is made of, the units it is worked on in, and its clean copy.

Reading, from one thread that hands out work and many that do it::

    sources = discover(["data/", "s3://bucket/part-*.jsonl.zst"], text=None, id=None)
    for unit, batch in work(sources, done=journal, complete=finished, threads=16):
        pool.submit(job, unit, batch)                     # keep about `threads` of them pending, no more

    def job(unit, batch):                                 # in a worker thread, `buffer = Buffer()` once a thread
        source = sources[unit.source]
        if batch is None:
            batch = read(unit, source, buffer)            # plain JSONL, row groups, files: the worker reads
        match batch:
            case Lines():  result = index.scan_jsonl(batch.data, source.text, source.id)
            case Column(): result = index.scan_arrow(batch.text)
            case Files():  result = index.scan_utf8(batch.data)
        rows = result.rows + (batch.fault.rows if batch.fault else 0)

`work` gives units in no particular order; every source has units 0..k and unit k has ``last``. A source is complete
when all of them are done: pass its number in `complete`, so that a compressed file is not decompressed again.
Rows of earlier units of the same source, faults included, add up to a unit's first row.

Writing, one call a source, removals in row order::

    written = write_clean(source, clean / source.name, [Removal(17, offset, length), ...])
    write_companions(sources, clean, changed={"data-00000-of-00002.arrow"})

Names: `discover`, `work` (and `units` for one source), `read`, `sample`, `texts`, `verify_unchanged`, `write_clean`,
`write_companions`; `Source`, `Unit`, `Lines`, `Column`, `Files`, `Fault`, `Removal`, `Written`, `Buffer`.
"""

from __future__ import annotations

from phi_fast.corpus.clean import write_clean, write_companions
from phi_fast.corpus.files import Buffer, verify_unchanged
from phi_fast.corpus.find import discover
from phi_fast.corpus.sampling import sample
from phi_fast.corpus.source import (
    MAX_LINE,
    TEXT_COLUMNS,
    UNIT_BYTES,
    Batch,
    Column,
    Fault,
    Files,
    Lines,
    Removal,
    Source,
    Unit,
    Written,
)
from phi_fast.corpus.texts import texts
from phi_fast.corpus.work import read, units, work

__all__ = [
    "MAX_LINE",
    "TEXT_COLUMNS",
    "UNIT_BYTES",
    "Batch",
    "Buffer",
    "Column",
    "Fault",
    "Files",
    "Lines",
    "Removal",
    "Source",
    "Unit",
    "Written",
    "discover",
    "read",
    "sample",
    "texts",
    "units",
    "verify_unchanged",
    "work",
    "write_clean",
    "write_companions",
]
