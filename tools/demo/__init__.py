"""``edge-triage demo``: a whole site on this machine, in a temporary folder, on free ports."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.model.finding import TRIAGE_NOTICE
from tools.console import EXIT_FAILED, err, explained_errors, print_json
from tools.demo.live import push_until_stopped
from tools.demo.once import push_fixed_set
from tools.demo.scenario import MODELS
from tools.demo.site import Site, SiteOptions, StoppedError
from tools.run import stop_on_signals


def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Push a fixed set, print one JSON object, and end.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Also push every DICOM file below."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Leave state and received objects (pacs/) here."),
    ] = None,
) -> None:
    """Run a device, a PACS, a broker and a scanner that pushes phantom studies."""
    if data is not None and not once:
        raise typer.BadParameter("--data goes with --once")
    stop = stop_on_signals()  # first: an exception that a signal raises anywhere could get lost
    with explained_errors(), _folder(keep) as folder:
        _say("starting a device, its worklist page and a PACS ...")
        report = None
        try:
            with Site(folder, options=SiteOptions(models=MODELS), stop=stop) as site:
                _introduce(site)
                if once:
                    report = push_fixed_set(site, data, _say)
                else:
                    push_until_stopped(site, _say)
                    _say("stopping ...")
        except StoppedError:
            report = None
        if report is not None:
            print_json(report)
            raise typer.Exit(0 if report["ok"] else EXIT_FAILED)
        _say(f"stopped; state and PACS are in {folder}" if keep else "stopped; nothing is left")
        raise typer.Exit(EXIT_FAILED if once else 0)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="edge-triage-demo-") as folder:
        yield Path(folder)


def _introduce(site: Site) -> None:
    broker = (
        f"MQTT broker    127.0.0.1:{site.broker_port} (mosquitto)"
        if site.broker
        else "MQTT broker    none is installed, so no telemetry is sent (package: mosquitto)"
    )
    for line in (
        "",
        f"worklist page  {site.page}",
        f"DICOM node     {site.node.ae_title}@{site.node.host}:{site.node.port}",
        f"PACS           {site.pacs_folder} (structured reports arrive there)",
        broker,
        f"device log     {site.log}",
        f"{TRIAGE_NOTICE}. Demonstration on phantoms, not a cleared device. Ctrl-C stops all.",
        "",
    ):
        _say(line)


def _say(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)
