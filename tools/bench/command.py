"""``edge-triage bench``: how fast this device is, and what it needs, on this machine."""

from __future__ import annotations

import typer

from tools.bench.engine.command import engine
from tools.bench.ingest import command as ingest_command
from tools.bench.pipeline import pipeline
from tools.bench.preprocess import preprocess

app = typer.Typer(help="Measure this device on this machine.", no_args_is_help=True)
app.command("ingest")(ingest_command.ingest)
app.command("pipeline")(pipeline)
app.command("preprocess")(preprocess)
app.command("engine")(engine)


@app.callback()
def _group() -> None:
    """Measure this device on this machine."""
