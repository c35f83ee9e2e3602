"""What every subcommand shares: where output goes, and how errors become exit codes.

Reports go to standard output, everything else to standard error. Exit codes: 0 well, 1 the thing
asked for failed, 2 wrong usage (DESIGN.md section 6).
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dicom_node.errors import DicomNodeError
from edge_runtime.errors import EdgeTriageError
from engines.errors import ModelEngineError
from telemetry.errors import TelemetryError

EXIT_FAILED = 1

DEFAULT_CONFIG = Path("/etc/edge-triage/edge-triage.toml")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="Settings file (TOML).", show_default=True)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")
]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """Write one JSON object to standard output; NaN and infinity, which JSON has not, as null."""
    json.dump(_finite(value), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


@contextlib.contextmanager
def explained_errors() -> Iterator[None]:
    """Turn our own errors into a line on standard error and exit code 1."""
    try:
        yield
    except (EdgeTriageError, DicomNodeError, ModelEngineError, TelemetryError) as error:
        err.print(f"edge-triage: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from error
