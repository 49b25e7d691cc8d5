"""What the commands share: their options, and what a person sees when something goes wrong."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from phi_fast.errors import InputError, PhiFastError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
_GO_ON = ("decontaminate", "embed", "calibrate", "kernels", "tokenize", "train", "finetune")
CORPUS, RULE, OWN, RUNNING = "Corpus", "Rule", "Suites of your own", "Running"


def option(*names: str, panel: str | None = None, help: str, metavar: str | None = None) -> Any:
    """Make an option whose default speaks for itself in its help."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False, rich_help_panel=panel)


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)]
Against = Annotated[
    list[str] | None,
    option("--against", "-a", metavar="SUITE", help="humaneval, mbpp=PATH or NAME=PATH; repeat for several."),
]
Text = Annotated[str | None, option("--text", panel=CORPUS, help="Column or key of the text. Found.")]
Id = Annotated[str | None, option("--id", panel=CORPUS, help='Column or key of the id, "id" unless given.')]
Pattern = Annotated[
    str | None, option("--pattern", panel=CORPUS, help="Files of a source tree that are documents. [**/*.py]")
]
Strict = Annotated[
    bool, typer.Option("--strict", rich_help_panel=CORPUS, help="Stop at the first row that is no document.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=RUNNING, help="Print errors only.")]
Own = Annotated[
    list[str] | None, option("--suite", metavar="NAME=PATH", panel=OWN, help="A JSONL or Parquet file; repeat.")
]
Question = Annotated[str | None, option("--question", panel=OWN, help="Its field of questions; several with commas.")]
Solution = Annotated[str | None, option("--solution", panel=OWN, help="Its field of solutions. Fields are guessed.")]
Tests = Annotated[str | None, option("--tests", panel=OWN, help="Its field of tests.")]
IdField = Annotated[str | None, option("--id-field", panel=OWN, help="Its field of ids.")]
Ns = Annotated[
    list[int] | None, option("--n", "-n", panel=RULE, help="Words of an n-gram; repeat; the smallest decides. [13, 4]")
]
Preset = Annotated[
    str | None, option("--preset", panel=RULE, help="A published rule: default, gpt3, phi1, phi1-similar or tulu3.")
]
Mode = Annotated[
    str | None, option("--mode", panel=RULE, help="drop the document, cut the matches out of it, or only flag it.")
]
Coverage = Annotated[
    float | None, option("--coverage", panel=RULE, help="Least share of a part in one place of a document, 0.2 to 1.")
]
RunWords = Annotated[int | None, option("--run", panel=RULE, help="Or: least words shared in a row, 13 or more.")]
Words = Annotated[int | None, option("--words", panel=RULE, help="Least words of a part matched, 8 or more.")]
Channels = Annotated[
    list[str] | None,
    option("--channels", metavar="LIST", panel=RULE, help="Of ngram, syntax, embedding. [ngram,syntax]"),
]
Tau = Annotated[
    float | None, option("--tau", panel=RULE, help="Least match rate of functions by syntax node types, 0.8 to 1.")
]
Alpha = Annotated[
    float | None, option("--alpha", panel=RULE, help="Least match rate of functions but for their names, 0.8 to 1.")
]
Nodes = Annotated[int | None, option("--nodes", panel=RULE, help="Least syntax nodes of functions, 13 or more. [13]")]
Distance = Annotated[float | None, option("--distance", panel=RULE, help="Largest distance of embeddings, to 0.8.")]
EmbeddingModel = Annotated[
    str, option("--embedding-model", panel=RULE, help="minilm, a model's folder, or its name on the hub. [minilm]")
]
Device = Annotated[str | None, option("--device", panel=RUNNING, help="Where the embedding model runs: cpu, cuda.")]
Both = Annotated[bool | None, option("--both/--either", panel=RULE, help="phi-1's rule: the distance first, then tau.")]
Parts = Annotated[
    list[str] | None, option("--part", panel=RULE, help="Look at this part alone: question, solution, tests; repeat.")
]
Weights = Annotated[
    list[str] | None,
    option("--weight", metavar="PART=W", panel=RULE, help="Multiply a part's coverage and run by W; repeat."),
]
Allow = Annotated[
    list[str] | None,
    option("--allow", panel=RULE, help='Never a reason: a suite, an item, "ITEM PART", or a file of such; repeat.'),
]
Window = Annotated[int | None, option("--window", panel=RULE, help="cut: characters that go on either side. [200]")]
MinPiece = Annotated[int | None, option("--min-piece", panel=RULE, help="cut: pieces with fewer characters go too.")]
MaxPieces = Annotated[int | None, option("--max-pieces", panel=RULE, help="cut: drop documents in more pieces.")]
Threads = Annotated[int | None, option("--threads", "-t", panel=RUNNING, help="All cores unless given.")]


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what goes wrong in a command into a red line, what to do about it, and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            again = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
            goes_on = command.__name__ in _GO_ON
            said = "Nothing is lost. The same command goes on from here:" if goes_on else "Give the command again:"
            _complain("stopped", said, f"  {again}")
            # Threads may still be inside a long call; nothing of theirs needs to be waited for.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        except BrokenPipeError:
            os._exit(141)  # as if by SIGPIPE: whoever read the output has seen enough
        except PhiFastError as error:
            if os.environ.get("PHI_FAST_DEBUG") == "1":
                raise
            first, *rest = str(error).split("\n")
            _complain("error", first, *rest)
            raise typer.Exit(error.exit_code) from None

    return run


def _complain(what: str, first: str, *rest: str) -> None:
    from rich.text import Text

    screen = console(stderr=True)
    screen.print(Text.assemble((f"{what}: ", "bold red"), (first, "red")), soft_wrap=True)
    for line in rest:
        screen.print(Text(line), soft_wrap=True)


def console(stderr: bool = False) -> Console:
    """Open the terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def weights_of(given: Sequence[str] | None) -> dict[str, float] | None:
    """Read ``PART=W`` options."""
    if not given:
        return None
    weights = {}
    for one in given:
        part, _, weight = one.partition("=")
        try:
            weights[part] = float(weight)
        except ValueError as error:
            raise InputError(f'--weight "{one}": give PART=NUMBER, as in tests=0.5') from error
    return weights
