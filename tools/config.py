"""``edge-triage config``: what can be set, whether a file is right, what a device would use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_node.errors import DeviceError
from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import Settings
from edge_runtime.errors import SettingsError
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)

app = typer.Typer(help="Show, check and describe settings.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the settings file: every key with its bounds, unit and default."""
    print_json(Settings.model_json_schema())


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="Settings file (TOML).")], *, json: JsonOption = False
) -> None:
    """Check a settings file; every mistake is named with its key."""
    from edge_runtime.app.node import node_settings  # noqa: PLC0415  half a second; only here

    with explained_errors():
        try:
            node_settings(load_settings(file))  # knows what a value's type cannot say
        except (SettingsError, DeviceError) as error:
            if json:
                print_json({"file": str(file), "valid": False, "errors": str(error).splitlines()})
            raise
    if json:
        print_json({"file": str(file), "valid": True, "errors": []})
    else:
        out.print(f"{file}: valid", markup=False, soft_wrap=True)


@app.command()
def show(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """Print what a device would use: the file's values, and defaults elsewhere; no secrets."""
    with explained_errors():
        settings = load_settings(config)
    values = settings.model_dump(mode="json")
    if json:
        print_json(values)
        return
    for key, value in _flatten(values, ""):
        out.print(f"{key} = {value!r}", markup=False, soft_wrap=True)


def _flatten(values: dict[str, object], prefix: str) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _flatten(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", value))
    return lines
