"""What the checks of a model package are called, and what each of them found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

OUT_OF_MEMORY_STATUS = 3
"""Exit status of the process that runs the checks when a library could get no more."""


class CheckName(str, Enum):
    """The checks, in their order."""

    CHECKSUMS = "checksums"
    SCHEMAS = "schemas"
    AGREEMENT = "agreement"
    CARD = "card"
    REQUIREMENTS = "requirements"
    MODEL_FILE = "model_file"
    GOLDEN_TENSORS = "golden_tensors"
    PARITY = "parity"
    GOLDEN_STUDIES = "golden_studies"


class CheckStatus(str, Enum):
    """How a check ended."""

    OK = "OK"
    WARNING = "WARNING"
    """The package is good; this machine is not for it, or something is left out."""
    FAILED = "FAILED"
    NOT_RUN = "NOT_RUN"
    """An earlier check failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one check found."""

    name: CheckName
    status: CheckStatus
    found: str
    error: str | None = None
    """Name of the error's class, when the check failed."""
    deviation: float | None = None
    """Of parity: the largest from the golden outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All answers, in the order of the checks; those behind the first that failed were not run."""

    answers: tuple[Answer, ...]

    @property
    def fault(self) -> Answer | None:
        """The check that failed."""
        failed = (each for each in self.answers if each.status is CheckStatus.FAILED)
        return next(failed, None)

    @property
    def deviation(self) -> float | None:
        """The largest from the golden outputs, once parity was checked."""
        found = (each.deviation for each in self.answers if each.deviation is not None)
        return next(found, None)
