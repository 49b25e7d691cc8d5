"""Commands about tokens: train a tokenizer, turn a corpus into tokens, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option
from phi_fast.cli_progress import CorpusProgress, advancing

tokenizer_app = typer.Typer(help="Tokenizers of your own.", no_args_is_help=True, rich_markup_mode="rich")
tokens_app = typer.Typer(help="Folders of tokens.", no_args_is_help=True, rich_markup_mode="rich")

Corpus = Annotated[
    list[str], typer.Argument(metavar="CORPUS", help="Files, folders, globs or URLs.", show_default=False)
]


@tokenizer_app.command("train")
@guarded
def train_tokenizer(
    corpus: Corpus,
    output: Annotated[Path, option("--output", "-o", metavar="FILE", help="The tokenizer.json to write.")],
    vocab: Annotated[int, option("--vocab", metavar="N", help="Tokens in all; 8192 unless given.")] = 8192,
    runs: Annotated[
        bool, typer.Option("--runs", help="Tokens for runs of spaces and tabs, as CodeGen's tokenizer has them.")
    ] = False,
    sample: Annotated[
        int,
        option("--sample", metavar="MB", help="Text to learn from, from all over the corpus; 1000 MB unless given."),
    ] = 1000,
    text: opt.Text = None,
    id: opt.Id = None,
    pattern: opt.Pattern = None,
    quiet: opt.Quiet = False,
) -> None:
    """Train a byte-level BPE tokenizer on a corpus, without a network.

    The same corpus and options give the same file. Its end-of-text token is <|endoftext|>.

    [bold]Examples[/]

    phi-fast tokenizer train data/*.jsonl.zst --vocab 8192 --runs --output tokenizer.json
    """
    from phi_fast.train.tokenizer import train_tokenizer as train

    with CorpusProgress("reading", quiet, lambda read, _: f"{read / 1e6:,.1f} MB/s") as progress:
        made = train(
            corpus, output, vocabulary=vocab, runs=runs, text=text, id=id, pattern=pattern,
            sample_bytes=sample * 10**6, begin=progress.begin, progress=progress.add,
        )  # fmt: skip
    if not quiet:
        console().print(f"{made.vocabulary:,} tokens, sha256 {made.sha256}: {output}", markup=False, soft_wrap=True)
        if made.vocabulary < vocab:
            console().print(f"Fewer than {vocab:,}: the corpus holds no more pairs to merge", markup=False)


@guarded
def tokenize(
    corpus: Corpus,
    tokenizer: Annotated[
        str, option("--tokenizer", metavar="T", help="A tokenizer.json, a folder with one, or a hub name.")
    ],
    output: Annotated[Path, option("--output", "-o", metavar="TOKENS", help="Folder for the tokens.")],
    end_of_text: Annotated[
        str | None, option("--end-of-text", metavar="TOKEN", help="What closes a document. [<|endoftext|>]")
    ] = None,
    shard_tokens: Annotated[
        int | None, option("--shard-tokens", metavar="N", help="Tokens of a shard, about; 134,217,728 unless given.")
    ] = None,
    text: opt.Text = None,
    id: opt.Id = None,
    pattern: opt.Pattern = None,
    strict: opt.Strict = False,
    workers: Annotated[
        int | None, option("--workers", "-w", panel=opt.RUNNING, help="Processes; all cores unless given.")
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Turn every document of a corpus into tokens.

    The same command after an interruption goes on where it stopped, and the output is the same whatever --workers.
    From Python: phi_fast.train.open_tokens(TOKENS).

    [bold]Examples[/]

    phi-fast tokenize data/*.jsonl.zst --tokenizer Salesforce/codegen-350M-mono --output tokens

    phi-fast tokenize src/ --tokenizer tokenizer.json --output tokens
    """
    from phi_fast.train.shards import SHARD_TOKENS
    from phi_fast.train.tokenize import tokenize_corpus

    with CorpusProgress("tokenizing", quiet, lambda _, made: f"{made / 1e6:,.2f} M tokens/s") as progress:
        store = tokenize_corpus(
            corpus, output, tokenizer, end_of_text=end_of_text, text=text, id=id, pattern=pattern, strict=strict,
            workers=workers, shard_tokens=SHARD_TOKENS if shard_tokens is None else shard_tokens,
            begin=progress.begin, progress=advancing(progress, "tokens"),
        )  # fmt: skip
    if quiet:
        return
    rate = f"{progress.made / progress.seconds / 1e6:,.2f} M tokens/s" if progress.made else "all there before"
    _say(f"{_counts(store)}, {rate}")
    if rejected := store.state["rejected"]:
        rows = "row is no document" if rejected == 1 else "rows are no documents"
        _say(f"{rejected:,} {rows}: {output / 'rejected.jsonl'}")
    _say(str(output))


@tokens_app.command("show")
@guarded
def show_tokens(
    folder: Annotated[Path, typer.Argument(metavar="TOKENS", help="Folder of tokens.", show_default=False)],
    document: Annotated[int, option("--document", metavar="N", help="The one to show, from 0; 0 unless given.")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and compare the checksums.")] = False,
) -> None:
    """Say what a folder of tokens holds, and show the beginning of a document of it.

    [bold]Examples[/]

    phi-fast tokens show tokens --document 1000 --verify
    """
    from phi_fast.train.tokens import open_tokens

    store = open_tokens(folder)
    if verify:
        store.verify()
    _say(_counts(store))
    _say(f"tokenizer: {store.vocabulary:,} tokens, end of text {store.end_of_text}, sha256 {store.identity['sha256']}")
    _say(f"{store.state['rejected']:,} rows were no documents" + ("; every checksum holds" if verify else ""))
    if len(store):
        one = store.document(document)
        _say(f"\ndocument {document:,}: {one.file} row {one.row}, {one.stop - one.start:,} tokens from {one.start:,}\n")
        _say(store.tokenizer().decode(store[one.start : min(one.stop, one.start + 200)]))


def _counts(store: Any) -> str:
    shards = len(store.state["shards"])
    return (
        f"{len(store):,} tokens of {store.documents:,} documents in {shards:,} shard{'s' * (shards != 1)} of "
        f"{store.state['dtype']}"
    )


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)
