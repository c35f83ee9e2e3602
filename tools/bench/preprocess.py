"""``edge-triage bench preprocess``: from a folder of files to a volume, beside the peers."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tools.bench.machine import describe_machine
from tools.bench.names import names_of
from tools.bench.readers.measure import Plan, measure
from tools.bench.readers.names import Job
from tools.bench.readers.report import report, show
from tools.bench.readers.roster import missing_of, readers_of
from tools.bench.readers.series import LEAST_SLICES
from tools.console import JsonOption, err, explained_errors, out, print_json
from tools.phantoms.encoding import PhantomSyntax

_SYNTAXES = ("explicit", "jpeg-ls", "jpeg-lossless", "jpeg2000", "rle")


def preprocess(
    *,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure the peers found on this machine too.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Readings of each series.")] = 5,
    slices: Annotated[
        list[int] | None,
        typer.Option(
            min=LEAST_SLICES,
            max=500,
            help="Slices of a series; repeat for more.",
            show_default="40, 400",
        ),
    ] = None,
    syntaxes: Annotated[
        str, typer.Option(help=f"Of {', '.join(PhantomSyntax)}; with commas.")
    ] = ",".join(_SYNTAXES),
    traits: Annotated[
        bool, typer.Option(help="See also what each does with a series that is not plain.")
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Series lie there.", show_default="temporary files"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Read series into volumes and into the head CT model's input, ours beside peers."""
    machine = describe_machine()
    counts = tuple(dict.fromkeys(slices or (40, 400)))
    plan = Plan(
        readers={job: readers_of(job, peers_too=peers) for job in (Job.VOLUME, Job.TENSOR)},
        slices=counts,
        syntaxes=names_of(syntaxes, PhantomSyntax),
        rounds=rounds,
        trait_slices=min(40, *counts) if traits else 0,
        folder=folder or Path(tempfile.gettempdir()),
    )
    if peers:
        for name in missing_of(Job.VOLUME):
            err.print(f"not installed, left out: {name.value}")
    with explained_errors():
        measured = measure(plan, lambda text: err.print(text, markup=False, soft_wrap=True))
    if json:
        print_json(
            {
                "benchmark": "preprocess",
                "machine": dataclasses.asdict(machine),
                **report(plan, measured),
            }
        )
    else:
        show(out, machine, plan, measured)
