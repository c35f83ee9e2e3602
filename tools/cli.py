"""The ``edge-triage`` command: one module for each subcommand, listed here."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from edge_runtime.config.settings import LoggingSettings, LogLevel
from edge_runtime.logs import configure_logs
from tools import (
    audit,
    callers,
    config,
    demo,
    doctor,
    engines,
    models,
    release,
    resend,
    run,
    send,
    studies,
)
from tools.bench import command as bench

app = typer.Typer(
    name="edge-triage",
    help="Runs triage models beside the scanner and puts urgent studies on top of the worklist.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("send")(send.send)
app.command("studies")(studies.studies)
app.command("study")(studies.study)
app.command("resend")(resend.resend)
app.command("release")(release.release)
app.command("callers")(callers.callers)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(engines.app, name="engines")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.add_typer(bench.app, name="bench")


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer's callback signature
    if asked:
        typer.echo(f"edge-triage {importlib.metadata.version('edge-triage')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Runs triage models beside the scanner and puts urgent studies on top of the worklist."""
    configure_logs(LoggingSettings(level=LogLevel.WARNING), process="command")


def main() -> None:
    """Run the command line."""
    app()
