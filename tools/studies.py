"""``edge-triage studies`` and ``edge-triage study UID``: what became of what was sent."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from edge_runtime.config.loading import load_settings
from edge_runtime.errors import DeviceFaultError
from edge_runtime.model.finding import TRIAGE_NOTICE
from edge_runtime.model.reasons import REASONS
from edge_runtime.process import database_path
from edge_runtime.store.database import connect
from edge_runtime.store.worklist import AnalysisView, StudyView, find_study, list_studies
from tools.console import (
    DEFAULT_CONFIG,
    EXIT_FAILED,
    ConfigOption,
    JsonOption,
    err,
    explained_errors,
    out,
    print_json,
)
from tools.study_report import report_study

_MAX_ROWS = 10_000


def studies(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    limit: Annotated[int, typer.Option(min=1, max=_MAX_ROWS, help="Most rows shown.")] = 50,
    json: JsonOption = False,
) -> None:
    """List studies: raised ones first, then the longest waiting."""
    with explained_errors(), open_database(config) as connection:
        views = list_studies(connection, limit=limit)
        if json:
            details = (find_study(connection, view.study_key) for view in views)
            print_json({"studies": [report_study(item) for item in details if item is not None]})
            return
    table = Table(title=TRIAGE_NOTICE, title_justify="left")
    for heading in ("received (UTC)", "study", "images", "rev.", "outcome"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason")
    for view in views:
        table.add_row(*_row(view))
    out.print(table)


def study(
    key_or_uid: Annotated[str, typer.Argument(help="Study key or Study Instance UID.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    json: JsonOption = False,
) -> None:
    """Show one study: outcome, reasons, clock, deliveries."""
    with explained_errors(), open_database(config) as connection:
        detail = find_study(connection, key_or_uid)
    if detail is None:
        err.print("edge-triage: no such study; `edge-triage studies` lists them", style="red")
        raise typer.Exit(EXIT_FAILED)
    if json:
        print_json(report_study(detail))
        return
    out.print(TRIAGE_NOTICE, style="bold")
    out.print_json(data=report_study(detail))


@contextlib.contextmanager
def open_database(config: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of the device that ``config`` describes.

    Raises:
        EdgeTriageError: the settings cannot be used, or there is no database.
    """
    path = database_path(load_settings(config))
    if not path.is_file():
        raise DeviceFaultError(f"{path} does not exist: has the device run with this config?")
    with contextlib.closing(connect(path)) as connection:
        yield connection


def _row(view: StudyView) -> tuple[str, ...]:
    received = datetime.fromtimestamp(view.received_wall_us / 1_000_000, tz=timezone.utc)
    return (
        received.strftime("%m-%d %H:%M:%S"),
        view.study_key,
        str(view.instances),
        str(view.revision),
        "\n".join(_outcome(item, among=len(view.current)) for item in view.current)
        or view.state.value,
        "\n".join(_reason(item) for item in view.current),
    )


def _outcome(view: AnalysisView, *, among: int) -> str:
    return view.state.value if among == 1 else f"{view.model_name}: {view.state.value}"


def _reason(view: AnalysisView) -> str:
    if view.reason is None:
        return ""
    detail = f" ({view.reason_detail})" if view.reason_detail else ""
    return f"{REASONS[view.reason].sentence}{detail}"
