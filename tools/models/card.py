"""``edge-triage models card``: the model card as a page, as CHAI's XML, or as text."""

from __future__ import annotations

import contextlib
import hashlib
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.config.loading import load_settings
from edge_runtime.errors import DeviceFaultError
from edge_runtime.governance.card_page import render_card_page
from edge_runtime.governance.card_source import CardSource, card_source
from edge_runtime.governance.card_text import render_card_text
from edge_runtime.governance.card_xml import render_card_xml
from edge_runtime.governance.decisions import choose
from edge_runtime.model.model_package import PackageState
from edge_runtime.process import database_path, models_path
from edge_runtime.store.database import connect
from edge_runtime.store.model_packages import StoredPackage, list_packages
from engines.loading import load_package
from engines.shipped import shipped_packages
from telemetry.durable import write_durably
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)


class CardFormat(str, Enum):
    """What is written."""

    TEXT = "text"
    HTML = "html"
    XML = "xml"


def card(
    package: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_NAME",
            help="A package's folder, or the name (NAME, NAME@VERSION, or the first digits of the "
            "digest) of one that is installed or comes with the software.",
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    form: Annotated[CardFormat, typer.Option("--format", help="What to write.")] = CardFormat.TEXT,
    file: Annotated[
        Path | None, typer.Option("--out", help="File to write; standard output otherwise.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show what a model is for, what it is not for, and what was measured."""
    with explained_errors():
        source = card_source(load_package(_find_folder(package, config)))
        content = _render(source, form)
        if file is not None:
            _write(file, content)
    if json:
        print_json(_facts(source) | _written(file, form, content))
    elif file is not None:
        out.print(f"{file}: model card of {source.name} {source.version}", markup=False)
    else:
        typer.echo(content.decode(), nl=False)


def _render(source: CardSource, form: CardFormat) -> bytes:
    if form is CardFormat.XML:
        return render_card_xml(source)
    if form is CardFormat.HTML:
        return render_card_page(source).html.encode()
    return render_card_text(source).encode()


def _find_folder(reference: str, config: Path) -> Path:
    """A folder; else what is installed, the active one first; else what comes with the software."""
    if Path(reference).is_dir():
        return Path(reference)
    installed, models = _installed(config)
    shipped = shipped_packages()
    if reference in shipped and all(package.name != reference for package in installed):
        return shipped[reference]
    active = [
        package
        for package in installed
        if package.name == reference and package.state is PackageState.ACTIVE
    ]
    return models / choose(active or installed, reference, frozenset(PackageState)).digest


def _installed(config: Path) -> tuple[list[StoredPackage], Path]:
    """What lies in the device's store, and where; nothing where no device has run yet."""
    if config == DEFAULT_CONFIG and not config.exists():
        return [], Path()
    settings = load_settings(config)
    database = database_path(settings)
    if not database.is_file():
        return [], Path()
    with contextlib.closing(connect(database)) as connection:
        packages = [item for item in list_packages(connection) if not item.is_removed]
    return packages, models_path(settings)


def _write(file: Path, content: bytes) -> None:
    try:
        write_durably(file, content)
    except OSError as error:
        raise DeviceFaultError(
            f"{file} cannot be written ({error.strerror}): choose another --out"
        ) from error


def _facts(source: CardSource) -> dict[str, object]:
    return {
        "name": source.name,
        "version": source.version,
        "digest": source.digest,
        "notices": list(source.notices),
        "card": source.card.model_dump(mode="json"),
        "evaluation": source.evaluation.model_dump(mode="json"),
    }


def _written(file: Path | None, form: CardFormat, content: bytes) -> dict[str, object]:
    if file is None:
        return {}
    return {
        "written": {
            "file": str(file),
            "format": form.value,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    }
