"""``edge-triage bench ingest``: how fast the node stores, beside the peers on this machine."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tools.bench.ingest.measure import Plan, measure
from tools.bench.ingest.names import LoadName, ReceiverName, SenderName
from tools.bench.ingest.rates import faults_of
from tools.bench.ingest.receivers import (
    KINDS,
    OWN_AND_LIMIT,
    PEERS,
    find_program,
    is_installed,
)
from tools.bench.ingest.report import report, show
from tools.bench.ingest.stored import takes_direct_writes
from tools.bench.machine import describe_machine
from tools.bench.names import names_of
from tools.console import EXIT_FAILED, JsonOption, err, explained_errors, out, print_json

_LARGEST_ASSOCIATIONS = 32


def ingest(
    *,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure the peers found on this machine too.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each kind.")] = 3,
    loads: Annotated[
        str, typer.Option(help="Of ct, small, radiograph, huge; with commas.")
    ] = "ct,small,radiograph",
    huge: Annotated[
        bool, typer.Option("--huge", help="One object of 2 GB, too; takes time and disk.")
    ] = False,
    associations: Annotated[str, typer.Option(help="At the same time; with commas.")] = "1,4",
    senders: Annotated[
        str | None,
        typer.Option(help="Of blast, storescu; with commas.", show_default="those installed"),
    ] = None,
    receivers: Annotated[
        str | None,
        typer.Option(
            help=f"Of {', '.join(ReceiverName)}; with commas.", show_default="ours and the limit"
        ),
    ] = None,
    instances: Annotated[
        int | None,
        typer.Option(
            min=1, max=100_000, help="Objects of a run.", show_default="400, 1000, 16 by load"
        ),
    ] = None,
    idle_s: Annotated[
        float, typer.Option(min=0, max=3_600, help="Watch the idle node so long; 0: not.")
    ] = 10.0,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Receivers store there: it decides which disk is measured.",
            show_default="the system's folder for temporary files",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Store objects in our node, in the plainest receiver there can be, and in the peers."""
    machine = describe_machine()
    place = folder or Path(tempfile.gettempdir())
    kinds = names_of(loads, LoadName)
    plan = Plan(
        receivers=_receivers(receivers, place, peers=peers),
        senders=_senders(senders),
        loads=tuple(dict.fromkeys((*kinds, LoadName.HUGE))) if huge else kinds,
        associations=_counts(associations),
        rounds=rounds,
        instances=instances,
        idle_s=idle_s,
        folder=place,
    )
    software = _software(plan)
    with explained_errors():
        measured = measure(plan, lambda text: err.print(text, markup=False, soft_wrap=True))
    if json:
        print_json(report(machine, software, plan, measured))
    else:
        show(out, machine, software, plan, measured)
    if faults_of(measured.runs):
        raise typer.Exit(EXIT_FAILED)


def _receivers(named: str | None, place: Path, *, peers: bool) -> tuple[ReceiverName, ...]:
    chosen = OWN_AND_LIMIT if named is None else names_of(named, ReceiverName)
    if not takes_direct_writes(place):
        err.print(f"{place} takes no O_DIRECT: {ReceiverName.SINK_DIRECT.value} is left out")
        chosen = tuple(name for name in chosen if name is not ReceiverName.SINK_DIRECT)
    if peers:
        chosen = (*chosen, *(name for name in PEERS if is_installed(name)))
    return tuple(dict.fromkeys(chosen))


def _senders(named: str | None) -> tuple[SenderName, ...]:
    if named is not None:
        return names_of(named, SenderName)
    return tuple(SenderName) if find_program("storescu") else (SenderName.BLAST,)


def _counts(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(re.fullmatch(r"\s*\d{1,2}\s*", word) for word in words):
        raise typer.BadParameter(f"{text!r} is no list of numbers, such as 1,4")
    counts = tuple(dict.fromkeys(int(word) for word in words))
    if not all(1 <= count <= _LARGEST_ASSOCIATIONS for count in counts):
        raise typer.BadParameter(f"1 to {_LARGEST_ASSOCIATIONS} associations can be measured")
    return counts


def _software(plan: Plan) -> Mapping[str, str]:
    """Versions of what is compared."""
    programs = {KINDS[name].program for name in plan.receivers}
    if SenderName.STORESCU in plan.senders:
        programs.add("storescu")
    versions = {program: _version(program) for program in sorted(filter(None, programs))}
    return {**versions, "pynetdicom": importlib.metadata.version("pynetdicom")}


def _version(program: str) -> str:
    found = find_program(program)
    if found is None:
        return "not installed"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+\.\d+\.\d+", said)
    return match[0] if match else "unknown"
