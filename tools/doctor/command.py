"""The command: run every check, show what was found, say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from edge_runtime.config.loading import load_settings
from edge_runtime.errors import SettingsError
from tools.console import (
    DEFAULT_CONFIG,
    EXIT_FAILED,
    ConfigOption,
    JsonOption,
    out,
    print_json,
)
from tools.doctor.findings import Context, Status, failed, fine
from tools.doctor.running import Answer, run_checks
from tools.doctor.table import checks_for

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}
_CONFIG = "config"


def doctor(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """Check config, disk, ports, clock, codecs, models and neighbours; say what to do."""
    answers = examine(config)
    is_well = all(answer.finding.status is not Status.FAILED for answer in answers)
    if json:
        print_json({"ok": is_well, "checks": [_as_json(answer) for answer in answers]})
    else:
        _show(answers)
    if not is_well:
        raise typer.Exit(EXIT_FAILED)


def examine(config: Path) -> list[Answer]:
    """Run all checks; where the settings cannot be used, nothing else means anything."""
    try:
        settings = load_settings(config)
    except SettingsError as error:
        remedy = (
            f"correct {config}; `edge-triage config schema` lists every key with its bounds, and "
            f"`edge-triage config validate {config}` checks again"
        )
        return [Answer(name=_CONFIG, finding=failed(str(error), remedy))]
    valid = Answer(name=_CONFIG, finding=fine(f"{config} is valid"))
    return [valid, *run_checks(checks_for(settings), Context(settings=settings))]


def _as_json(answer: Answer) -> dict[str, str | None]:
    return {
        "name": answer.name,
        "status": answer.finding.status.value,
        "found": answer.finding.found,
        "remedy": answer.finding.remedy,
    }


def _show(answers: Sequence[Answer]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for answer in answers:
        finding = answer.finding
        words = Text(finding.found)
        if finding.remedy:
            words.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(Text(finding.status.value, _STYLES[finding.status]), answer.name, words)
    out.print(table)
    counts = [sum(each.finding.status is status for each in answers) for status in Status]
    out.print(f"{counts[0]} OK, {counts[1]} warnings, {counts[2]} failed")
