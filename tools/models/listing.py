"""``edge-triage models list``: what is installed, what runs, and what waits for whom."""

from __future__ import annotations

from rich import box
from rich.table import Table

from edge_runtime.governance.decisions import ApprovalRules
from edge_runtime.store.model_packages import StoredPackage
from tools.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    explained_errors,
    out,
    print_json,
)
from tools.models.store import SHORT_DIGITS, opened_store, package_json, waits_for


def list_models(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """List every model package that was ever installed: state, approvals, what it waits for."""
    with explained_errors(), opened_store(config) as store:
        packages, rules = store.packages(), store.rules
    if json:
        print_json({"packages": [package_json(package, rules) for package in packages]})
        return
    if not packages:
        out.print("No model is installed: the device makes its store at its first start, and")
        out.print("`edge-triage models install PATH` adds a package.")
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("model", "version", "state", "digest"):
        table.add_column(heading, no_wrap=True)
    table.add_column("remarks", overflow="fold", min_width=20)
    for package in packages:
        table.add_row(
            package.name,
            package.version,
            package.state.value,
            package.digest[:SHORT_DIGITS],
            _remarks(package, rules),
        )
    out.print(table, markup=False)


def _remarks(package: StoredPackage, rules: ApprovalRules) -> str:
    people = ", ".join(approval.person for approval in package.approvals)
    remarks = [
        "demonstration" if package.demonstration else "",
        f"approved by {people}" if people else "",
        "a rollback returns to it" if package.is_fallback else "",
        package.refusal,
        f"waits for {waits}" if (waits := waits_for(package, rules)) else "",
    ]
    return "; ".join(remark for remark in remarks if remark)
