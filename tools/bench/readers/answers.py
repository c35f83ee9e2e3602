"""What readers make of a folder, beside volumes and tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Read = Callable[[Path], object]
"""Of a folder that holds the files of one series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A rendered report, and what it says."""

    outcome: str
    probability: float | None
    report_bytes: int
