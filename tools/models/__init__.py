"""``edge-triage models``: the model packages of this device, and what is done with them."""

from __future__ import annotations

import typer

from tools.models.card import card
from tools.models.changing import activate, approve, install, retire, rollback
from tools.models.listing import list_models
from tools.models.new import new
from tools.models.schema import schema
from tools.models.sealing import evaluate, seal
from tools.models.verify import verify
from tools.quantise.command import quantise

app = typer.Typer(help="Install, approve and use model packages.", no_args_is_help=True)
app.command("list")(list_models)
app.command("card")(card)
app.command("install")(install)
app.command("approve")(approve)
app.command("activate")(activate)
app.command("rollback")(rollback)
app.command("retire")(retire)
app.command("verify")(verify)
app.command("new")(new)
app.command("quantise")(quantise)
app.command("evaluate")(evaluate)
app.command("seal")(seal)
app.command("schema")(schema)
