"""What a check is and what it finds.

Findings go on screens and into tickets: they hold settings, paths, versions, codes and counts, and
nothing of a patient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge_runtime.config.settings import Settings

LOCAL_LIMIT_S = 60.0
"""The ledger of years is read within it; what takes longer hangs."""
NETWORK_LIMIT_S = 5.0


class Status(str, Enum):
    """How bad it is."""

    OK = "OK"
    WARNING = "WARNING"
    """The device works; something will cost it later."""
    FAILED = "FAILED"
    """Something that the settings ask for does not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found, as a sentence, and what to do; no remedy where all is well."""

    status: Status
    found: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a code means, and what to do about it."""

    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every check is told."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Check:
    """One question; ``run`` changes nothing on the device and holds no state."""

    name: str
    run: Callable[[Context], Finding]
    limit_s: float = LOCAL_LIMIT_S


def fine(found: str) -> Finding:
    """Say that all is well."""
    return Finding(status=Status.OK, found=found)


def warning(found: str, remedy: str) -> Finding:
    """Say what will cost the device later."""
    return Finding(status=Status.WARNING, found=found, remedy=remedy)


def failed(found: str, remedy: str) -> Finding:
    """Say what does not work."""
    return Finding(status=Status.FAILED, found=found, remedy=remedy)


def worst(findings: list[Finding]) -> Finding:
    """Join findings into one of the worst status; those that are fine are left out beside others.

    Raises:
        ValueError: there are none.
    """
    severity = list(Status)
    status = max((finding.status for finding in findings), key=severity.index)
    if status is not Status.OK:
        findings = [finding for finding in findings if finding.status is not Status.OK]
    remedies = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    return Finding(
        status=status,
        found="; ".join(finding.found for finding in findings),
        remedy="; ".join(remedies) or None,
    )
