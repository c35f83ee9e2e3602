"""``edge-triage release``: lets go of deliveries that were given up and that nobody wants."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_runtime.clock import SystemClock
from edge_runtime.model.delivery import Channel
from edge_runtime.store.retention import release_dead_deliveries
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.studies import open_database


def release(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    channel: Annotated[
        Channel | None, typer.Option(help="Only this channel; all of them otherwise.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Let studies leave in time although a delivery of theirs was given up; clears the alarms."""
    at = SystemClock().now()
    with explained_errors(), open_database(config) as connection:
        counts = {
            item.value: release_dead_deliveries(connection, item, at)
            for item in Channel
            if channel in {None, item}
        }
    if json:
        print_json({"released": counts})
        return
    for name, count in counts.items():
        out.print(f"{name}: {count} no longer keep their studies here")
