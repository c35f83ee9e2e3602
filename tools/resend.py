"""``edge-triage resend``: puts what was given up back into the outbox."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_runtime.clock import SystemClock
from edge_runtime.model.delivery import Channel
from edge_runtime.model.errand import ErrandKind
from edge_runtime.store.deliveries import resend_dead_deliveries
from edge_runtime.store.errands import resend_dead_errands
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.studies import open_database


def resend(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    channel: Annotated[
        Channel | None, typer.Option(help="Only this channel; all of them otherwise.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Send again what the courier gave up on, once its cause is mended; clears the alarms."""
    at = SystemClock().now()
    with explained_errors(), open_database(config) as connection:
        counts = {
            item.value: resend_dead_deliveries(connection, item, at)
            for item in Channel
            if channel in {None, item}
        }
        if channel is None:
            counts |= {kind.value: resend_dead_errands(connection, kind, at) for kind in ErrandKind}
    if json:
        print_json({"resent": counts})
        return
    for name, count in counts.items():
        out.print(f"{name}: {count} go out again")
