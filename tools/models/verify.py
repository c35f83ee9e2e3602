"""``edge-triage models verify``: checks a model package as a stranger would."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from edge_runtime.governance.errors import ArchiveError
from edge_runtime.governance.unpacking import unpack
from edge_runtime.pipeline.answers import Answer, CheckName, CheckStatus, Verification
from edge_runtime.pipeline.confinement import verify_confined
from engines.contract import Backend
from engines.errors import PackageIntegrityError
from engines.shipped import shipped_packages
from tools.console import EXIT_FAILED, JsonOption, out, print_json

_STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "yellow",
    CheckStatus.FAILED: "bold red",
    CheckStatus.NOT_RUN: "dim",
}


def verify(
    package: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder, a .zip, .tar or .tar.gz file, or the name of a shipped package.",
        ),
    ],
    *,
    engine: Annotated[
        Backend, typer.Option(help="The engine that must reproduce the golden outputs.")
    ] = Backend.ONNXRUNTIME,
    json: JsonOption = False,
) -> None:
    """Check a model package: files, papers, model, golden tensors and studies; changes nothing."""
    with _folder_of(package) as folder:
        verification = (
            verify_confined(folder, engine) if isinstance(folder, Path) else _refused(folder)
        )
    if json:
        answers = [_as_json(answer) for answer in verification.answers]
        print_json({"ok": verification.fault is None, "checks": answers})
    else:
        _show(verification)
    if verification.fault is not None:
        raise typer.Exit(EXIT_FAILED)


@contextlib.contextmanager
def _folder_of(package: Path) -> Iterator[Path | ArchiveError | PackageIntegrityError]:
    """Where the package lies, or why the archive cannot be unpacked."""
    folder = package if package.exists() else shipped_packages().get(str(package))
    if folder is None:
        known = ", ".join(shipped_packages())
        raise typer.BadParameter(f"{package} does not exist, and is no shipped package ({known})")
    if folder.is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edge-triage-verify-") as scratch:
        try:
            unpacked: Path | ArchiveError | PackageIntegrityError = unpack(folder, Path(scratch))
        except (ArchiveError, PackageIntegrityError) as error:
            unpacked = error
        yield unpacked


def _refused(error: ArchiveError | PackageIntegrityError) -> Verification:
    first, *others = CheckName
    failed = Answer(
        name=first,
        status=CheckStatus.FAILED,
        found=f"the archive cannot be unpacked: {error}",
        error=type(error).__name__,
    )
    left = (Answer(name=name, status=CheckStatus.NOT_RUN, found="not run") for name in others)
    return Verification(answers=(failed, *left))


def _as_json(answer: Answer) -> dict[str, str | None]:
    return {
        "name": answer.name.value,
        "status": answer.status.value,
        "found": answer.found,
        "error": answer.error,
    }


def _show(verification: Verification) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for answer in verification.answers:
        status = Text(answer.status.value, _STYLES[answer.status])
        table.add_row(status, answer.name.value, Text(answer.found))
    out.print(table)
    fault = verification.fault
    out.print("refused: do not install it" if fault else "the package is what its maker sealed")
