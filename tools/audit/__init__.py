"""``edge-triage audit list / verify``: who did what on this device, and whether it is all there."""

from __future__ import annotations

import typer

from tools.audit.listing import list_entries
from tools.audit.verifying import verify

app = typer.Typer(help="Show and check who did what on this device.", no_args_is_help=True)
app.command("list")(list_entries)
app.command("verify")(verify)
