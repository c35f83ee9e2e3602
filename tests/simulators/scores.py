"""Results of a model that looks for one thing."""

from __future__ import annotations

from edge_runtime.model.finding import FindingScore, Scored


def scored(
    probability: float,
    *,
    threshold: float = 0.5,
    urgency: int = 3,
    key: str = "bright",
    series_instance_uid: str | None = "1.2.3.1",
) -> Scored:
    """Make the result of one finding."""
    score = FindingScore(key=key, probability=probability, threshold=threshold, urgency=urgency)
    return Scored(findings=(score,), series_instance_uid=series_instance_uid)
