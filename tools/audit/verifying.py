"""``edge-triage audit verify``: has any entry been changed, removed or added afterwards?"""

from __future__ import annotations

import typer

from edge_runtime.config.loading import load_settings
from edge_runtime.governance.chain import AuditFault, AuditFinding
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
from tools.doctor.own_chain import read_device_chain

_WORDS = {
    AuditFault.UNREADABLE: "is not an entry in our form",
    AuditFault.ALTERED: "was changed after it was written",
    AuditFault.BROKEN_CHAIN: "does not follow the line before: one was removed or added",
    AuditFault.TORN_TAIL: "has no end: a crash, or an entry under way; the next action repairs it",
    AuditFault.CUT_SHORT: "is the last, and the entry that the database remembers is not there",
}


def verify(config: ConfigOption = DEFAULT_CONFIG, *, json: JsonOption = False) -> None:
    """Check every entry, the chain, and its end against the database."""
    with explained_errors():
        found = read_device_chain(load_settings(config))
    chain = found.chain
    if json:
        print_json(
            {
                "ok": chain.is_intact,
                "entries": len(chain.entries),
                "lost_before": chain.continues_after,
                "head": chain.entries[-1].hash if chain.entries else None,
                "findings": [
                    {"fault": finding.fault.value, "line": finding.line}
                    for finding in chain.findings
                ],
            }
        )
    else:
        _show(len(chain.entries), chain.continues_after, chain.findings)
    if not chain.is_intact:
        raise typer.Exit(EXIT_FAILED)


def _show(entries: int, lost: int, findings: tuple[AuditFinding, ...]) -> None:
    if lost:
        err.print(f"{lost} entries of before are not in this file: look for the one moved away")
    for finding in findings:
        err.print(f"line {finding.line} {_WORDS[finding.fault]}", style="red", markup=False)
    out.print(f"{entries} entries{'' if findings else ', none changed, removed or added'}")
