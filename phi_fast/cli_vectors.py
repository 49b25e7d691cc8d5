"""Commands about vectors."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option

MODEL = "Model"


@guarded
def embed(
    corpus: Annotated[
        list[str], typer.Argument(metavar="CORPUS", help="Files, folders, globs or URLs.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", metavar="FOLDER", help="Folder for the vectors.")],
    model: Annotated[
        str,
        option(
            "--model",
            "-m",
            panel=MODEL,
            metavar="NAME",
            help="minilm, a model's folder or a hub name; minilm unless given.",
        ),
    ] = "minilm",
    pooling: Annotated[
        str,
        option(
            "--pooling", panel=MODEL, help="mean over the tokens, last token, or cls: the first; mean unless given."
        ),
    ] = "mean",
    max_tokens: Annotated[
        int | None,
        option(
            "--max-tokens", panel=MODEL, help="Window; longer documents get a vector a window; else the model's own."
        ),
    ] = None,
    dtype: Annotated[
        str, option("--dtype", panel=MODEL, help="Arithmetic: float32, bfloat16, float16; float32 unless given.")
    ] = "float32",
    stored_as: Annotated[
        str, option("--stored-as", panel=MODEL, help="float32, unless given, or float16.")
    ] = "float32",
    text: opt.Text = None,
    id: opt.Id = None,
    pattern: opt.Pattern = None,
    strict: opt.Strict = False,
    batch_tokens: Annotated[
        int | None,
        option(
            "--batch-tokens", panel=opt.RUNNING, help="Most tokens of a batch; 1024, or 16384 on a GPU, unless given."
        ),
    ] = None,
    device: Annotated[
        str | None, option("--device", panel=opt.RUNNING, help="cpu, cuda, cuda:1, ...; a GPU if there is one.")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Turn every document of a corpus into vectors.

    The same command after an interruption goes on where it stopped. FOLDER holds vectors.npy, rows.arrow (id, file, row
    and characters of each vector) and rejected.jsonl. From Python: phi_fast.vectors.open_vectors(FOLDER).

    [bold]Examples[/]

    phi-fast embed data/*.jsonl.zst --output vectors

    phi-fast embed src/ --model Salesforce/codegen-350M-mono --pooling last --dtype bfloat16 --output vectors
    """
    from phi_fast.vectors.corpus import embed_corpus, summary
    from phi_fast.vectors.models import Embedder

    given: Any = {"pooling": pooling, "max_tokens": max_tokens, "dtype": dtype, "device": device}
    embedder = Embedder(model, **given, batch_tokens=batch_tokens)
    kind: Any = stored_as
    with _Progress(quiet) as progress:
        store = embed_corpus(
            corpus, output, embedder, text=text, id=id, pattern=pattern, strict=strict, stored_as=kind,
            begin=progress.begin, progress=progress.advance,
        )  # fmt: skip
    if not quiet:
        said = summary(store)
        vectors = f"{said['vectors']:,} vectors of {said['dim']:,} dimensions from {said['documents']:,} documents"
        console().print(f"{vectors}, by {store.model} on {embedder.device}", markup=False, soft_wrap=True)
        if progress.rejected:
            rows = "row is no document" if progress.rejected == 1 else "rows are no documents"
            console().print(f"{progress.rejected:,} {rows}: {output / 'rejected.jsonl'}", markup=False, soft_wrap=True)
        console().print(f"{output / 'vectors.npy'}", markup=False, soft_wrap=True)


class _Progress:
    """A bar with rate and time left on a terminal; a line every few seconds elsewhere."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._console, self._quiet = console(stderr=True), quiet
        self._bar: Progress | None = None
        self.rejected = 0
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                SpinnerColumn(), TextColumn("embedding"), BarColumn(), TaskProgressColumn(),
                TextColumn("{task.fields[counts]}", style="dim"), TimeRemainingColumn(), console=self._console,
                transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=None, counts="")
        self._total = self._bytes = self._fresh = self._documents = self._vectors = 0
        self._began = self._printed = time.monotonic()

    def begin(self, total: int) -> None:
        """Learn how large the corpus is."""
        self._total = total
        self._began = self._printed = time.monotonic()

    def advance(self, told: Any) -> None:
        """Learn what was done."""
        now = time.monotonic()
        self._bytes += told.bytes
        self.rejected += told.rejected
        if not told.resumed:
            self._fresh += told.bytes
            self._documents += told.documents
            self._vectors += told.vectors
        spent = max(now - self._began, 1e-6)
        counts = f"{self._documents:,} documents · {self._vectors / spent:,.0f} vectors/s"
        if self.rejected:
            counts += f" · {self.rejected:,} rejected"
        if self._bar:
            self._bar.update(self._task, completed=self._bytes, total=self._total or None, counts=counts)
        elif not self._quiet and now - self._printed >= 5 and self._fresh:
            self._printed = now
            left = (self._total - self._bytes) * spent / self._fresh
            share = self._bytes / max(self._total, 1)
            self._console.print(
                f"embedding {share:.0%}, {counts.replace(' · ', ', ')}, {left:,.0f} s left", markup=False
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
