"""``phi-fast calibrate``, thin: parse, call, print."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option
from phi_fast.errors import InputError

_TRIAL = "Trial"


@guarded
def calibrate(
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS", help="Files, folders, globs or URLs; or the FOLDER of a calibration.", show_default=False
        ),
    ],
    against: opt.Against = None,
    output: Annotated[
        Path | None, option("--output", "-o", metavar="FOLDER", help="Folder for all that comes out.")
    ] = None,
    false_positives: Annotated[
        float,
        option("--false-positives", panel=_TRIAL, help="Share of clean documents a rule may flag. [0.001]"),
    ] = 0.001,
    documents: Annotated[
        int, option("--documents", panel=_TRIAL, help="Clean documents drawn, at most. [20000]")
    ] = 20_000,
    seed: Annotated[int, option("--seed", panel=_TRIAL, help="Draws documents, hosts and places. [0]")] = 0,
    channels: opt.Channels = None,
    n: opt.Ns = None,
    text: opt.Text = None,
    id: opt.Id = None,
    pattern: opt.Pattern = None,
    suite: opt.Own = None,
    question: opt.Question = None,
    solution: opt.Solution = None,
    tests: opt.Tests = None,
    id_field: opt.IdField = None,
    threads: opt.Threads = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", rich_help_panel=opt.RUNNING, help="Replace another trial in the folder.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find the rule that suits a corpus: what it finds, what it wrongly flags.

    Every item of the suites is hidden in a sample of the corpus in eleven disguises and looked for. The sample is taken
    for clean. Printed are recall by disguise and channel, false positives, and the rule that finds most at the wanted
    rate, as the command to give. With the FOLDER alone it decides again without scanning.

    [bold]Examples[/]

    phi-fast calibrate data/*.jsonl.zst --against humaneval --output calibration

    phi-fast calibrate calibration --false-positives 0.0005
    """
    from phi_fast.calibrate import calibrate, decide_again
    from phi_fast.calibrate.run import read_trial
    from phi_fast.calibrate.telling import print_calibration
    from phi_fast.decontaminate.terminal import Progress

    given = [*(against or []), *(suite or [])]
    again = len(corpus) == 1 and not given and output is None and read_trial(Path(corpus[0]).expanduser()) is not None
    if again:
        folder = Path(corpus[0]).expanduser()
        record = decide_again(folder, false_positives)
    elif output is None:
        raise InputError("give --output FOLDER, and --against SUITE; or the folder of a calibration alone")
    else:
        folder = output
        record = calibrate(
            corpus, given, output, documents=documents, false_positives=false_positives, channels=channels, n=n,
            seed=seed, fields={"question": question, "solution": solution, "tests": tests, "id": id_field}, text=text,
            id=id, pattern=pattern, threads=threads, overwrite=overwrite,
            progress=functools.partial(Progress, quiet=quiet),
        )  # fmt: skip
    if not quiet:
        print_calibration(record, folder, console())
