"""``edge-triage bench pipeline``: from the last image stored to the flag on the page."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tools.bench.heads import SERIES_SLICES
from tools.bench.machine import describe_machine
from tools.bench.measure import Plan, measure
from tools.bench.readers import measure as readers
from tools.bench.readers import report as readers_report
from tools.bench.readers.names import Job
from tools.bench.readers.roster import missing_of, readers_of
from tools.bench.readers.series import LEAST_SLICES
from tools.bench.report import report, show
from tools.console import JsonOption, err, explained_errors, out, print_json
from tools.phantoms.encoding import PhantomSyntax


def _whole_series(slices: list[int] | None) -> list[int] | None:
    if any(count > SERIES_SLICES and count % SERIES_SLICES for count in slices or ()):
        raise typer.BadParameter(f"more than {SERIES_SLICES} must be a multiple of it")
    return slices


def pipeline(
    *,
    studies: Annotated[int, typer.Option(min=1, max=1_000, help="Studies that count.")] = 10,
    slices: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=8_000,
            callback=_whole_series,
            help=f"Slices of a study; repeat for more sizes. Above {SERIES_SLICES}: a multiple.",
        ),
    ] = None,
    warm_up: Annotated[
        int, typer.Option(min=0, max=100, help="Studies before those that count.")
    ] = 1,
    associations: Annotated[int, typer.Option(min=1, max=32, help="At the same time.")] = 1,
    images_per_s: Annotated[
        float, typer.Option(min=0, help="The scanner's pace; 0 is as fast as it can.")
    ] = 0.0,
    model: Annotated[
        list[str] | None, typer.Option(help="Model package: a shipped one's name, or a folder.")
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Also time a folder to its report, without a device, beside those that are "
            "installed.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Push phantom studies to a device of its own, and time each until its flag is on the page."""
    machine = describe_machine()
    with explained_errors():
        runs = [
            measure(
                Plan(
                    slices=count,
                    studies=studies,
                    warm_up=warm_up,
                    associations=associations,
                    images_per_s=images_per_s,
                    models=tuple(model or ("head_ct_phantom",)),
                ),
                _say,
            )
            for count in slices or (40, 400)
        ]
    comparison = _comparison(slices or [40, 400], rounds=studies) if peers else None
    compared = None
    if comparison is not None:
        with explained_errors():
            compared = readers.measure(comparison, _say)
    if json:
        told = report(machine, runs)
        if comparison is not None and compared is not None:
            told["folder_to_report"] = readers_report.report(comparison, compared)
        print_json(told)
        return
    show(out, machine, runs)
    if comparison is not None and compared is not None:
        readers_report.show(out, machine, comparison, compared)


def _say(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def _comparison(slices: list[int], *, rounds: int) -> readers.Plan | None:
    """One series of each size that a single head can have; None: there is no such size."""
    sizes = tuple(count for count in slices if LEAST_SLICES <= count <= SERIES_SLICES)
    for name in missing_of(Job.REPORT):
        _say(f"not installed, left out: {name.value}")
    if not sizes:
        _say(f"folder to report: needs a series of {LEAST_SLICES} to {SERIES_SLICES} slices")
        return None
    return readers.Plan(
        readers={job: readers_of(job, peers_too=True) for job in (Job.REPORT, Job.COLD_REPORT)},
        slices=sizes,
        syntaxes=(PhantomSyntax.EXPLICIT, PhantomSyntax.JPEG_LS),
        rounds=rounds,
        trait_slices=0,
        folder=Path(tempfile.gettempdir()),
    )
