"""``edge-triage send``: pushes DICOM files, or a phantom study, as a scanner would."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.requestor import PeerAddress
from dicom_node.scu import SendOutcome, SendResult, send_files
from tools.console import EXIT_FAILED, JsonOption, err, explained_errors, out, print_json
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.errors import PhantomError
from tools.phantoms.studies import NAMES, AnyStudy, plan_study, write_batches
from tools.phantoms.variants import DEFAULT_SLICES

_ADDRESS = re.compile(r"(?P<ae>[^@]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")
_MAX_PORT = 65_535


def parse_peer(text: str) -> PeerAddress:
    """Read ``AET@HOST:PORT``.

    Raises:
        typer.BadParameter: the text has another form.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _MAX_PORT:
        raise typer.BadParameter(f"{text!r} is not AET@HOST:PORT, such as EDGETRIAGE@127.0.0.1:104")
    return PeerAddress(
        ae_title=match["ae"], host=match["host"].strip("[]"), port=int(match["port"])
    )


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files named, and those below the folders named, sorted by path."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(item for item in path.rglob("*") if item.is_file())
        else:
            found.append(path)
    return found


def send(
    to: Annotated[str, typer.Option("--to", help="Receiver: AET@HOST:PORT.")],
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="DICOM files or folders.")
    ] = None,
    *,
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "SCANNER",
    associations: Annotated[int, typer.Option(min=1, max=64, help="At the same time.")] = 1,
    phantom: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help=f"Make this phantom study and push it: {', '.join(NAMES)}."
        ),
    ] = None,
    positive: Annotated[
        bool, typer.Option("--positive", help="Phantom with a bleed, or an opacity.")
    ] = False,
    slices: Annotated[
        int, typer.Option(min=1, max=4_000, help="Slices of a CT phantom.")
    ] = DEFAULT_SLICES,
    seed: Annotated[int, typer.Option(min=0, help="Draws the phantom.")] = 0,
    syntax: Annotated[
        PhantomSyntax, typer.Option(help="Transfer syntax of the phantom.")
    ] = PhantomSyntax.EXPLICIT,
    json: JsonOption = False,
) -> None:
    """Push DICOM files or folders, or a phantom study, as a scanner would."""
    peer = parse_peer(to)
    if (phantom is None) == (not paths):
        raise typer.BadParameter("name files or folders, or --phantom, and not both")
    with explained_errors(), tempfile.TemporaryDirectory() as folder:
        if phantom is None:
            batches = [find_files(paths or [])]
        else:
            study = _plan(phantom, positive=positive, slices=slices, seed=seed, syntax=syntax)
            err.print(f"drawing {len(study)} objects of phantom {phantom}")
            batches = [list(batch) for batch in write_batches(study, Path(folder))]
        results = [
            result
            for batch in batches
            for result in send_files(
                batch, peer, calling_ae_title=calling, associations=associations
            )
        ]
    _report(results, json=json)


def _plan(name: str, *, positive: bool, slices: int, seed: int, syntax: PhantomSyntax) -> AnyStudy:
    try:
        return plan_study(name, seed=seed, positive=positive, slices=slices, syntax=syntax)
    except PhantomError as error:
        raise typer.BadParameter(str(error)) from error


def _report(results: list[SendResult], *, json: bool) -> None:
    counts = Counter(result.outcome for result in results)
    statuses = Counter(
        f"0x{result.status:04X}"
        for result in results
        if result.outcome is SendOutcome.REFUSED and result.status is not None
    )
    if json:
        print_json(
            {
                "sent": len(results),
                **{outcome.value: counts[outcome] for outcome in SendOutcome},
                "refused_with": dict(statuses),
            }
        )
    else:
        words = ", ".join(f"{counts[item]} {item.value}" for item in SendOutcome if counts[item])
        out.print(f"{len(results)} files: {words or 'none'}")
        for status, count in statuses.items():
            out.print(f"  {count} refused with status {status}")
    if counts[SendOutcome.STORED] < len(results) or not results:
        raise typer.Exit(EXIT_FAILED)
