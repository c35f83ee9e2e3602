"""What the page is told by whoever composes the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.governance.card_page import CardPage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWords:
    """How the page speaks of a model."""

    version: str
    finding: str
    """What the model looks for, such as 'Intracranial haemorrhage'."""
    findings: Mapping[str, str]
    """Each of its findings by the package's key, in words."""
    disclaimer: str
    """What every page must say while the model is active; empty if there is nothing to say."""
    demonstration: bool
    """True when the model must not be used on patients; every page says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebContext:
    """All that the page needs."""

    database: Path
    clock: Clock
    device_name: str
    allowed_hosts: tuple[str, ...]
    """Names under which browsers may call, without port; loopback is always allowed."""
    models: Mapping[str, ModelWords]
    """Active models by name."""
    read_card: Callable[[str], CardPage | None]
    """The card of an active model; None where there is none. May take as long as a package is
    large."""
