"""``edge-triage engines``: what runs the models of this device, built, proven and timed here."""

from __future__ import annotations

import typer

from tools.bench.engine.command import engine as bench
from tools.engines.building import build
from tools.engines.listing import list_engines
from tools.engines.verifying import verify

app = typer.Typer(help="Engines of this device: what runs its models.", no_args_is_help=True)
app.command("list")(list_engines)
app.command("build")(build)
app.command("verify")(verify)
app.command("bench")(bench)
