"""What an analysis says, as values; the words that every screen and object must carry."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.model.analysis import AnalysisEvent
from edge_runtime.model.reasons import ReasonCode

TRIAGE_NOTICE = "For triage, not for diagnosis"


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCode:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingScore:
    """One finding of a model: a calibrated probability (0 to 1) against an operating point."""

    key: str
    """The package's name for the finding."""
    probability: float
    threshold: float
    urgency: int
    """Rank of a suspected finding: 3 critical, 2 urgent, 1 routine."""

    @property
    def suspected(self) -> bool:
        """Say whether the probability reaches the operating point."""
        return self.probability >= self.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The model ran."""

    findings: tuple[FindingScore, ...]
    """At least one, in the package's order: the most important first."""
    series_instance_uid: str | None
    """None where several series were looked at."""

    @property
    def leading(self) -> FindingScore:
        """Return the finding that speaks for all: the first suspected one, else the first."""
        return next((each for each in self.findings if each.suspected), self.findings[0])

    @property
    def suspected(self) -> bool:
        """Say whether any finding is suspected."""
        return self.leading.suspected

    @property
    def urgency(self) -> int:
        """Rank of the most urgent suspected finding, 0 without one."""
        return max((each.urgency for each in self.findings if each.suspected), default=0)

    @property
    def event(self) -> AnalysisEvent:
        """Name the transition that this result means."""
        return AnalysisEvent.FOUND if self.suspected else AnalysisEvent.NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Selection or the quality gate kept the model from looking."""

    reason: ReasonCode
    detail: str = ""
    """Measured numbers for the reader, such as '12 mm gap'; no text from the study."""
    series_instance_uid: str | None = None

    @property
    def event(self) -> AnalysisEvent:
        """Name the transition that this result means."""
        return AnalysisEvent.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The device could not finish: reason code only, never exception text."""

    reason: ReasonCode
    detail: str = ""

    @property
    def event(self) -> AnalysisEvent:
        """Name the transition that this result means."""
        return AnalysisEvent.BROKE


Result = Scored | Refused | Broken
