"""Parquet files written a row at a time, in constant memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phi_fast.decontaminate.safely import replacing

GROUP = 1 << 16  # rows of a row group, at most
_TEXT = 8 << 20  # characters of a row group, about


def numbers(batch: pa.RecordBatch | pa.Table, name: str) -> npt.NDArray[Any]:
    """Read a column of numbers; 0 where it is null."""
    column = batch.column(name)
    return np.asarray(pc.fill_null(column, 0) if column.null_count else column)


def strength(batch: pa.RecordBatch | pa.Table) -> npt.NDArray[np.float64]:
    """How telling matches are, 0 to 1, for matches of all channels alike: coverage, or else the channel's score."""
    by_words = pc.fill_null(batch.column("coverage"), -1.0)
    coverage, score = np.asarray(by_words, np.float64), numbers(batch, "score").astype(np.float64)
    return np.where(coverage >= 0, coverage, score)


class TableFile:
    """A Parquet file that stands under its name once all of it is written.

    Parameters
    ----------
    path, schema
        The file and its columns.
    options
        For ``pyarrow.parquet.ParquetWriter``; compressed with zstd where they do not say.
    """

    def __init__(self, path: Path, schema: pa.Schema, **options: Any) -> None:
        self._path, self._schema, self._options = path, schema, {"compression": "zstd"} | options
        self._rows: list[tuple[Any, ...]] = []
        self._characters = 0
        self._stack = ExitStack()

    def add(self, *row: Any) -> None:
        """Add a row, one value a column."""
        self._rows.append(row)
        self._characters += sum(len(value) for value in row if isinstance(value, str))
        if len(self._rows) >= GROUP or self._characters >= _TEXT:
            self.flush()

    def flush(self) -> None:
        """End the row group."""
        if self._rows:
            columns = zip(zip(*self._rows, strict=True), self._schema, strict=True)
            self.write([pa.array(values, one.type) for values, one in columns])
            self._rows.clear()
            self._characters = 0

    def write(self, columns: list[pa.Array]) -> None:
        """Write columns as a row group of their own."""
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> Self:
        temporary = self._stack.enter_context(replacing(self._path))
        self._writer = self._stack.enter_context(pq.ParquetWriter(temporary, self._schema, **self._options))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)
        pa.default_memory_pool().release_unused()  # else Arrow keeps what a stage needed for the rest of the run
