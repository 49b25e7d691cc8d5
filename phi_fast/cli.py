"""The command line: every command, thin. Parse, call, print."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from phi_fast import cli_bench, cli_train, cli_train_data, cli_vectors
from phi_fast import cli_options as opt
from phi_fast.cli_calibrate import calibrate
from phi_fast.cli_options import console, guarded, option, weights_of
from phi_fast.cli_similar import similar
from phi_fast.errors import InputError

app = typer.Typer(
    name="phi-fast",
    help="""Decontaminate a code corpus against benchmarks, fast and with evidence; tokenize it; measure phi's kernels.

    [bold]Examples[/]

    phi-fast demo

    phi-fast decontaminate data/*.jsonl.zst --against humaneval --output run

    phi-fast tokenize data/*.jsonl.zst --tokenizer tokenizer.json --output tokens

    phi-fast bench kernels --interpret
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
suites_app = typer.Typer(help="Benchmarks: which are known, and what is in them.", rich_markup_mode="rich")
index_app = typer.Typer(help="N-gram indexes as files.", no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(suites_app, name="suites")
app.add_typer(index_app, name="index")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_train_data.tokenizer_app, name="tokenizer")
app.add_typer(cli_train_data.tokens_app, name="tokens")


def main() -> None:
    """Run the command line; the entry point of ``phi-fast``."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        import phi_fast

        print(f"phi_fast {phi_fast.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


@app.command()
@guarded
def decontaminate(
    corpus: Annotated[
        list[str], typer.Argument(metavar="CORPUS", help="Files, folders, globs or URLs.", show_default=False)
    ],
    output: Annotated[Path, option("--output", "-o", metavar="RUN", help="Folder for all that comes out.")],
    against: opt.Against = None,
    text: opt.Text = None,
    id: opt.Id = None,
    pattern: opt.Pattern = None,
    strict: opt.Strict = False,
    channels: opt.Channels = None,
    preset: opt.Preset = None,
    mode: opt.Mode = None,
    n: opt.Ns = None,
    coverage: opt.Coverage = None,
    run: opt.RunWords = None,
    words: opt.Words = None,
    tau: opt.Tau = None,
    alpha: opt.Alpha = None,
    nodes: opt.Nodes = None,
    distance: opt.Distance = None,
    both: opt.Both = None,
    embedding_model: opt.EmbeddingModel = "minilm",
    device: opt.Device = None,
    part: opt.Parts = None,
    weight: opt.Weights = None,
    allow: opt.Allow = None,
    window: opt.Window = None,
    min_piece: opt.MinPiece = None,
    max_pieces: opt.MaxPieces = None,
    suite: opt.Own = None,
    question: opt.Question = None,
    solution: opt.Solution = None,
    tests: opt.Tests = None,
    id_field: opt.IdField = None,
    threads: opt.Threads = None,
    fail_above: Annotated[
        float | None, option("--fail-above", panel=opt.RUNNING, help="Exit with 3 if a larger share has a verdict.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=opt.RUNNING, help="Replace another run in the folder.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Take out of a corpus what leaks a benchmark.

    The same command after an interruption goes on where it stopped. RUN holds the clean corpus (clean/), what was
    removed and rejected, all evidence, verdicts with reasons, and a report.

    [bold]Examples[/]

    phi-fast decontaminate data/*.jsonl.zst --against humaneval --against mbpp=mbpp.jsonl --output run

    phi-fast decontaminate src/ --against humaneval --mode flag --fail-above 0.001 --output run

    phi-fast decontaminate hf-dataset/ --suite exam=exam.parquet --question prompt --solution answer -o run
    """
    from phi_fast.decontaminate.run import decontaminate, gate
    from phi_fast.decontaminate.terminal import Progress, print_summary

    before = _stamp(output)
    done = decontaminate(
        corpus, [*(against or []), *(suite or [])], output, preset=preset or "default", mode=_mode(mode), n=n,
        coverage=coverage, run=run, words=words, tau=tau, alpha=alpha, nodes=nodes, distance=distance,
        both=both, parts=part, weights=weights_of(weight), allow=allow or (), channels=channels,
        embedding_model=embedding_model, embedding_device=device, window=window, min_piece=min_piece,
        max_pieces=max_pieces,
        fields={"question": question, "solution": solution, "tests": tests, "id": id_field},
        text=text, id=id, pattern=pattern, threads=threads, strict=strict, overwrite=overwrite,
        progress=functools.partial(Progress, quiet=quiet),
    )  # fmt: skip
    if not quiet:
        if before is not None and before == _stamp(output):
            console().print("This run is finished, so nothing was scanned again. --overwrite does it anew.\n")
        print_summary(output, console())
    if fail_above is not None:
        gate(done, fail_above)


@app.command()
@guarded
def decide(
    run_folder: opt.RunFolder,
    preset: opt.Preset = None,
    mode: opt.Mode = None,
    n: Annotated[int | None, option("--n", "-n", panel=opt.RULE, help="Which of the scanned n decides.")] = None,
    coverage: opt.Coverage = None,
    run: opt.RunWords = None,
    words: opt.Words = None,
    tau: opt.Tau = None,
    alpha: opt.Alpha = None,
    nodes: opt.Nodes = None,
    distance: opt.Distance = None,
    both: opt.Both = None,
    part: opt.Parts = None,
    weight: opt.Weights = None,
    allow: opt.Allow = None,
    window: opt.Window = None,
    min_piece: opt.MinPiece = None,
    max_pieces: opt.MaxPieces = None,
    write: Annotated[bool, typer.Option("--write", help="Write clean/ and removed.jsonl anew as well.")] = False,
    threads: opt.Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Decide anew about a finished run, from its evidence, without scanning.

    What is not given stays as it is. Verdicts and reports are new; clean/ stays as it is without --write.

    [bold]Examples[/]

    phi-fast decide run --coverage 0.5

    phi-fast decide run --mode cut --allow "HumanEval/53" --write
    """
    from phi_fast.decontaminate.decide import redecide
    from phi_fast.decontaminate.terminal import print_summary

    done = redecide(
        run_folder, preset=preset, mode=_mode(mode), n=n, coverage=coverage, run_words=run, words=words, tau=tau,
        alpha=alpha, nodes=nodes, distance=distance, both=both, parts=part, weights=weights_of(weight),
        allow=allow or (),
        window=window, min_piece=min_piece, max_pieces=max_pieces,
        write=write, threads=threads,
    )  # fmt: skip
    if quiet:
        return
    print_summary(run_folder, console())
    clean = done.record["clean_policy"]
    if clean is None and done.policy.mode != "flag":
        console().print("There is no whole clean/: add --write to write it.")
    elif clean is not None and clean != done.record["settings"]["policy"]:
        console().print("clean/ and removed.jsonl still follow the policy before: add --write to write them anew.")


@app.command()
@guarded
def reproduce(run_folder: opt.RunFolder, threads: opt.Threads = None) -> None:
    """Do a run again from its run.json and compare; exit with 1 where evidence or verdicts differ.

    [bold]Examples[/]

    phi-fast reproduce run
    """
    from phi_fast.decontaminate.reproduce import TABLES, reproduce_run
    from phi_fast.decontaminate.terminal import Progress

    result = reproduce_run(run_folder, threads=threads, progress=Progress)
    screen = console()
    for name in TABLES:
        same = result.hashes[name] == result.run.record["hashes"][name]
        screen.print(f"{name}: {'the same' if same else 'different'}, sha256 {result.hashes[name]}", soft_wrap=True)
    for line in result.differences:
        screen.print(f"  {line}", markup=False, soft_wrap=True)
    if not result.same:
        raise typer.Exit(1)


@app.command()
@guarded
def report(run_folder: opt.RunFolder) -> None:
    """Write report.md and report.html of a run anew, and print its summary.

    [bold]Examples[/]

    phi-fast report run
    """
    from phi_fast.decontaminate.record import Run
    from phi_fast.decontaminate.report import write_reports
    from phi_fast.decontaminate.terminal import print_summary

    if not Run.load(run_folder).finished:
        raise InputError(f"{run_folder}: the run is not finished; give its command again first")
    write_reports(run_folder)
    print_summary(run_folder, console())


app.command()(similar)
app.command()(calibrate)


@suites_app.callback(invoke_without_command=True)
def _suites(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_suites()


@suites_app.command("list")
@guarded
def list_suites() -> None:
    """List the suites known by name, and how to give each.

    [bold]Examples[/]

    phi-fast suites list
    """
    from phi_fast.suites import print_suites

    print_suites(console())


@suites_app.command("show")
@guarded
def show_suite(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="humaneval, mbpp=PATH or NAME=PATH.")],
    question: opt.Question = None,
    solution: opt.Solution = None,
    tests: opt.Tests = None,
    id_field: opt.IdField = None,
    n: opt.Ns = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every item.")] = False,
) -> None:
    """Show a suite: its items and parts, and which of them cannot be tested and why.

    [bold]Examples[/]

    phi-fast suites show humaneval

    phi-fast suites show exam=exam.parquet --question prompt --solution answer
    """
    from phi_fast.decontaminate.policy import make_policy
    from phi_fast.engines.ngram import NgramIndex
    from phi_fast.suites import load_suite, print_suite

    loaded = load_suite(suite, question=question, solution=solution, tests=tests, id=id_field)
    lengths, _ = make_policy(n=n)
    index = NgramIndex.build([loaded], lengths)
    print_suite(loaded, index.parts, lengths, console(), **({"limit": sys.maxsize} if everything else {}))


@index_app.command("build")
@guarded
def build_index(
    output: Annotated[Path, option("--output", "-o", metavar="FILE", help="File to write, as x.phifast.")],
    against: opt.Against = None,
    suite: opt.Own = None,
    question: opt.Question = None,
    solution: opt.Solution = None,
    tests: opt.Tests = None,
    id_field: opt.IdField = None,
    n: opt.Ns = None,
) -> None:
    """Build an n-gram index for use from Python: NgramIndex.load(FILE).scan(texts).

    [bold]Examples[/]

    phi-fast index build --against humaneval --against mbpp=mbpp.jsonl --output both.phifast
    """
    from phi_fast.decontaminate.policy import make_policy
    from phi_fast.decontaminate.safely import disk_errors
    from phi_fast.engines.ngram import NgramIndex
    from phi_fast.suites import load_suites

    specs = [*(against or []), *(suite or [])]
    if not specs:
        raise InputError("nothing to index: give --against humaneval, or --against NAME=PATH")
    suites = load_suites(specs, question=question, solution=solution, tests=tests, id=id_field)
    index = NgramIndex.build(suites, make_policy(n=n)[0])
    with disk_errors(output):
        index.save(output)
    index_info(output)


@index_app.command("info")
@guarded
def index_info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An index, as RUN/index.phifast.", show_default=False)],
) -> None:
    """Say what is in an n-gram index.

    [bold]Examples[/]

    phi-fast index info run/index.phifast
    """
    from rich.table import Table

    from phi_fast.engines.ngram import NgramIndex

    index = NgramIndex.load(file)
    parts = index.parts
    screen = console()
    screen.print(f"{file}: {len(index.buffer):,} bytes, sha256 {index.sha256}", soft_wrap=True, markup=False)
    screen.print(f"n = {' and '.join(map(str, index.n))}, {index.keys:,} n-grams that carry weight")
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("suite", "items", "parts", "testable"):
        table.add_column(name, justify="left" if name == "suite" else "right")
    for name in dict.fromkeys(part.suite for part in parts):
        mine = [part for part in parts if part.suite == name]
        counts = (len({part.item for part in mine}), len(mine), sum(part.testable for part in mine))
        table.add_row(name, *(f"{count:,}" for count in counts))
    screen.print(table)


@app.command()
@guarded
def demo(
    output: Annotated[Path, option("--output", "-o", metavar="FOLDER", help="[phi-fast-demo]")] = Path("phi-fast-demo"),
    threads: opt.Threads = None,
) -> None:
    """Hide HumanEval in Python's own library, decontaminate it, and show what was found. Needs nothing.

    [bold]Examples[/]

    phi-fast demo
    """
    from phi_fast.demo import run_demo

    run_demo(output, threads=threads, console=console())


@app.command()
@guarded
def doctor() -> None:
    """Say what this machine can do, and the one command for what is missing.

    [bold]Examples[/]

    phi-fast doctor
    """
    from phi_fast.doctor import run_doctor

    if not run_doctor(console()):
        raise typer.Exit(1)


app.command()(cli_vectors.embed)
app.command()(cli_train_data.tokenize)
for _command in (cli_train.train, cli_train.finetune, cli_train.export, cli_train.plan):
    app.command()(_command)


def _stamp(folder: Path) -> int | None:
    try:
        return (folder / "run.json").stat().st_mtime_ns
    except OSError:
        return None


def _mode(mode: str | None) -> Any:
    return mode  # which modes there are, the policy says


if __name__ == "__main__":
    main()
