"""``edge-triage models install / approve / activate / rollback / retire``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.governance.decisions import ApprovalRules
from edge_runtime.model.model_package import PackageState
from edge_runtime.store.model_packages import StoredPackage
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
from tools.models.store import SHORT_DIGITS, opened_store, package_json, waits_for

_PackageArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name, NAME@VERSION, or the first digits of the digest."),
]


def install(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", exists=True, help="A folder, or a .zip, .tar or .tar.gz file."
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    json: JsonOption = False,
) -> None:
    """Copy a model package into the device's store and verify it there."""
    with explained_errors(), opened_store(config, may_be_new=True) as store:
        done = store.install(source)
        package, rules = done.package, store.rules
    if json:
        print_json({**package_json(package, rules), "was_there": done.was_there})
    else:
        _show(package, rules, "was installed already" if done.was_there else "installed")
    if package.state is PackageState.REFUSED:
        err.print(f"edge-triage: refused: {package.refusal}", style="red", markup=False)
        raise typer.Exit(EXIT_FAILED)


def approve(
    package: _PackageArgument,
    person: Annotated[str, typer.Option(help="Who approves: the full name.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    note: Annotated[str, typer.Option(help="Why, or on what grounds.")] = "",
    json: JsonOption = False,
) -> None:
    """Record that a person approves a verified package for this device."""
    with explained_errors(), opened_store(config) as store:
        changed = store.approve(package, person=person, note=note)
        _report(changed, store.rules, "approved", json=json)


def activate(
    package: _PackageArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Only let it run beside the active version, unseen.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let an approved package decide; the version of before is kept for a rollback."""
    with explained_errors(), opened_store(config) as store:
        changed = store.shadow(package) if shadow else store.activate(package)
        _report(changed, store.rules, "now runs", json=json)


def rollback(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    json: JsonOption = False,
) -> None:
    """Go back to the version of before; the next study is analysed by it."""
    with explained_errors(), opened_store(config) as store:
        changed = store.rollback(name)
        _report(changed, store.rules, "decides again", json=json)


def retire(
    package: _PackageArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    json: JsonOption = False,
) -> None:
    """Take a package out of use; by its name, the active version."""
    with explained_errors(), opened_store(config) as store:
        changed = store.retire(package)
        _report(changed, store.rules, "is no longer used", json=json)


def _report(package: StoredPackage, rules: ApprovalRules, what: str, *, json: bool) -> None:
    if json:
        print_json(package_json(package, rules))
    else:
        _show(package, rules, what)


def _show(package: StoredPackage, rules: ApprovalRules, what: str) -> None:
    name = f"{package.name} {package.version} ({package.digest[:SHORT_DIGITS]})"
    lines = [f"{name} {what}: {package.state.value}"]
    waits = waits_for(package, rules)
    if waits:
        lines.append(f"It waits for {waits}")
    out.print("\n".join(lines), markup=False, soft_wrap=True)
