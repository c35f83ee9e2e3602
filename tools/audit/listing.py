"""``edge-triage audit list``: who did what, the oldest first."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from edge_runtime.config.loading import load_settings
from edge_runtime.governance.chain import AuditEntry
from edge_runtime.governance.records import Approved, Denied, Refused, subject_of
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.doctor.own_chain import read_device_chain
from tools.models.store import SHORT_DIGITS, iso

_MAX_ROWS = 100_000


def list_entries(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_ROWS, help="Most entries, the last.")] = 100,
    json: JsonOption = False,
) -> None:
    """List who did what, the oldest first; `audit verify` says whether it can be believed."""
    with explained_errors():
        entries = read_device_chain(load_settings(config)).chain.entries[-limit:]
    if json:
        print_json({"entries": [entry.model_dump(mode="json") for entry in entries]})
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("no.", "time (UTC)", "who", "did"):
        table.add_column(heading, no_wrap=True)
    # On 80 columns too, the reason of a refusal can be read.
    table.add_column("what", overflow="fold", min_width=24)
    for entry in entries:
        table.add_row(
            str(entry.seq),
            iso(entry.wall_us),
            entry.actor,
            entry.record.action,
            f"{_shown(subject_of(entry.record))}: {_details(entry)}",
        )
    out.print(table, markup=False)


def _details(entry: AuditEntry) -> str:
    record = entry.record
    if isinstance(record, Approved):
        return f"{record.person}: {record.note}" if record.note else record.person
    if isinstance(record, Denied):
        return f"{record.asked}: {record.reason}"
    if isinstance(record, Refused):
        return record.reason
    values = record.model_dump(exclude={"action", "digest"}, exclude_none=True)
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value) or "none"
    text = str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 - SHA-256
    return text[:SHORT_DIGITS] if is_digest else text
