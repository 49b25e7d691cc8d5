"""Commands about vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option
from phi_fast.cli_progress import CorpusProgress, advancing

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
    with CorpusProgress("embedding", quiet, lambda _, made: f"{made:,.0f} vectors/s") as progress:
        store = embed_corpus(
            corpus, output, embedder, text=text, id=id, pattern=pattern, strict=strict, stored_as=kind,
            begin=progress.begin, progress=advancing(progress, "vectors"),
        )  # fmt: skip
    if not quiet:
        said = summary(store)
        vectors = f"{said['vectors']:,} vectors of {said['dim']:,} dimensions from {said['documents']:,} documents"
        console().print(f"{vectors}, by {store.model} on {embedder.device}", markup=False, soft_wrap=True)
        if progress.rejected:
            rows = "row is no document" if progress.rejected == 1 else "rows are no documents"
            console().print(f"{progress.rejected:,} {rows}: {output / 'rejected.jsonl'}", markup=False, soft_wrap=True)
        console().print(f"{output / 'vectors.npy'}", markup=False, soft_wrap=True)
