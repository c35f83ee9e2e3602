"""Operating points of a package that is being made. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from engines.package import FindingRule, ModelPackage, OperatingPoint

PROVISIONAL = OperatingPoint(threshold=0.5, allowed=(0.25, 0.75))
"""Until one is known."""


def operating_point(threshold: float) -> OperatingPoint:
    """An operating point that a site may move half-way to either end."""
    return OperatingPoint(
        threshold=threshold,
        allowed=(round(threshold / 2, 6), round((1 + threshold) / 2, 6)),
    )


def with_operating_points(package: ModelPackage, points: Mapping[str, float]) -> ModelPackage:
    """The package with other thresholds for the findings of those keys."""
    findings: tuple[FindingRule, ...] = tuple(
        rule.model_copy(update={"operating_point": operating_point(points[rule.key])})
        if rule.key in points
        else rule
        for rule in package.findings
    )
    return package.model_copy(update={"findings": findings})
