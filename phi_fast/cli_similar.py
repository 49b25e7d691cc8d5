"""``phi-fast similar``: which items a corpus holds something like, and the corpus without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi_fast import cli_options as opt
from phi_fast.cli_options import console, guarded, option

if TYPE_CHECKING:
    from rich.console import Console

    from phi_fast.decontaminate.similar import Similar

_NAMED = 20  # untestable items named at most


@guarded
def similar(
    run_folder: opt.RunFolder,
    tau: Annotated[
        list[float] | None,
        option("--tau", help="Match rate by syntax node types, 0.8 to 1; repeat. [0.95, 0.9, 0.85, 0.8]"),
    ] = None,
    distance: Annotated[
        float | None, option("--distance", help="Only pairs whose embeddings lie within this too: phi-1's rule.")
    ] = None,
    min_nodes: Annotated[
        int | None, option("--min-nodes", help="Only functions of so many syntax nodes, 25 or more. [25]")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the pruned corpora, one folder a tau.")] = False,
    output: Annotated[
        Path | None, option("--output", "-o", metavar="FOLDER", help="Folder for what comes out. [RUN/similar]")
    ] = None,
    threads: opt.Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Split the items into similar and non-similar ones, at several match rates, and prune the corpus.

    An item is similar where a document holds a function like its. Score a model on both lists apart.
    Nothing is scanned again.

    [bold]Examples[/]

    phi-fast similar run

    phi-fast similar run --tau 0.95 --tau 0.8 --write
    """
    import functools

    from phi_fast.decontaminate.policy import LARGE_NODES
    from phi_fast.decontaminate.similar import TAUS, similar
    from phi_fast.decontaminate.terminal import Progress

    found = similar(
        run_folder, taus=tau or TAUS, distance=distance, min_nodes=LARGE_NODES if min_nodes is None else min_nodes,
        write=write, threads=threads, output=output, progress=functools.partial(Progress, quiet=quiet),
    )  # fmt: skip
    if not quiet:
        print_similar(found, console())


def print_similar(found: Similar, screen: Console) -> None:
    """Print what was found: the table, the untestable items, and where everything is."""
    from rich.table import Table
    from rich.text import Text

    from phi_fast.decontaminate.similar import ITEMS, PLOTS, PRUNED, SIMILAR_JSON, corpus_name
    from phi_fast.decontaminate.wording import counted, printable, share

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("τ", "documents pruned", "share", "suite", "items", "similar", "non-similar", "untestable"):
        table.add_column(name, justify="left" if name in ("τ", "suite") else "right", overflow="fold")
    for one in found.at:
        head = [f"{one.tau:g}", f"{one.documents:,}", share(one.documents, found.documents)]
        for split in one.suites:
            counts = (split.items, len(split.similar), len(split.non_similar), len(split.untestable))
            table.add_row(*head, Text(printable(split.suite)), *(f"{count:,}" for count in counts))
            head = [""] * len(head)
    near = "" if found.distance is None else f", at embedding distance {found.distance:g} or less"
    screen.print()
    screen.print(
        Text(f"Functions like an item's in {counted(found.documents, 'document')}{near}", "bold"), soft_wrap=True
    )
    screen.print()
    screen.print(table)
    screen.print()
    for suite in found.suites:
        names = [one.item for one in found.items if one.suite == suite and not one.testable]
        if names:
            more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
            said = f"Untestable of {suite}, no function of {found.min_nodes} nodes: {', '.join(names[:_NAMED])}{more}"
            screen.print(Text(printable(said), "yellow"))
    here = {
        ITEMS: "each item, its match rate, and where",
        PLOTS[0]: "the shares over every tau",
        PRUNED: "the same as a table",
        SIMILAR_JSON: "all numbers and lists",
    }
    here |= {f"{name}/": "the corpus without the documents pruned" for name in found.corpora}
    width = max(len(str(found.path / name)) for name in here) + 3
    for name, said in here.items():
        path = f"{found.path / name}{'/' if name.endswith('/') else ''}"
        screen.print(Text.assemble(printable(path).ljust(width), (said, "dim")), soft_wrap=True)
    for name, says in found.corpora.items():
        rows = says["unwritable_rows"]
        if rows:
            screen.print(Text(f"{name}/ lacks {counted(rows, 'row')} that could not be read", "yellow"))
        for note in says["notes"]:
            screen.print(Text(printable(note), "yellow"))
        asked = {corpus_name(one.tau) for one in found.at}
        if (says["distance"], says["min_nodes"]) != (found.distance, found.min_nodes) and name in asked:
            screen.print(Text(f"{name}/ still follows other settings: add --write to write it anew.", "yellow"))
