"""The card as XML of the CHAI Applied Model Card, v0.2 (``https://mc.chai.org/v0.2/schema.xsd``).

Invariants:

* Elements stand in the order of the schema, each exactly once; every text of ``card.toml`` lands
  in one of them. docs/models/card.md has the table, and says what the schema has no place for.
* The same package gives the same bytes.
* The disclaimers come first: in a comment above the root, and in front of the summary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from edge_runtime.governance.card_source import (
    STAGE_WORDS,
    CardSource,
    evaluation_facts,
    percent_of,
)
from engines.card import Curve, Estimate, Evaluation, Metric, Statistic

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Fields = tuple[tuple[str, str], ...]


def render_card_xml(source: CardSource) -> bytes:
    """Writes the card as UTF-8 XML with a line feed at its end."""
    root = ET.Element("AppliedModelCard", {"xmlns": NAMESPACE})
    _fill(root, "BasicInfo", _basic_info(source))
    _fill(root, "ReleaseInfo", _release_info(source))
    _model_summary(root, source)
    _fill(root, "UsesAndDirections", _uses(source))
    _fill(root, "Warnings", _warnings(source))
    trust = ET.SubElement(root, "TrustIngredients")
    _fill(trust, "AISystemFacts", _system_facts(source))
    _fill(trust, "TransparencyInformation", _transparency(source))
    _key_metrics(root, source)
    _fill(root, "Resources", _resources(source))
    _text(root, "Bibliography", source.card.bibliography)
    ET.indent(root, space="  ")
    body = ET.tostring(root, encoding="unicode")
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<!--\n{_comment(source.notices)}\n-->\n{body}\n'
    ).encode()


def _basic_info(source: CardSource) -> Fields:
    return (
        ("ModelName", f"{source.title} ({source.name})"),
        ("ModelDeveloper", source.card.developer.name),
        ("DeveloperContact", source.card.developer.contact),
    )


def _release_info(source: CardSource) -> Fields:
    release = source.card.release
    return (
        ("ReleaseStage", STAGE_WORDS[release.stage]),
        ("ReleaseDate", release.date.isoformat()),
        ("ReleaseVersion", source.version),
        ("GlobalAvailability", release.availability),
        ("RegulatoryApproval", release.regulatory_approval),
    )


def _model_summary(root: ET.Element, source: CardSource) -> None:
    summary = source.card.summary
    element = ET.SubElement(root, "ModelSummary")
    _text(element, "Summary", _paragraphs(_listed(source.notices), summary.text))
    keywords = ET.SubElement(element, "Keywords")
    for keyword in summary.keywords:
        _text(keywords, "Keyword", keyword)


def _uses(source: CardSource) -> Fields:
    uses = source.card.uses
    return (
        (
            "IntendedUseAndWorkflow",
            _paragraphs(source.intended_use, uses.intended_use_and_workflow),
        ),
        ("PrimaryIntendedUsers", uses.primary_users),
        ("HowToUse", uses.how_to_use),
        ("TargetedPatientPopulation", uses.target_population),
        ("CautionedOutOfScopeSettings", _listed(uses.out_of_scope)),
    )


def _warnings(source: CardSource) -> Fields:
    warnings = source.card.warnings
    return (
        (
            "KnownRisksAndLimitations",
            _paragraphs(
                f"Keep in mind at every result:\n{_listed(warnings.cautions)}",
                f"Known risks and limitations:\n{_listed(warnings.risks_and_limitations)}",
            ),
        ),
        ("KnownBiasesOrEthicalConsiderations", _listed(warnings.biases)),
        ("ClinicalRiskLevel", warnings.clinical_risk_level),
    )


def _system_facts(source: CardSource) -> Fields:
    system = source.card.system
    return (
        ("OutcomesAndOutputs", system.outputs),
        ("ModelType", system.model_type),
        ("FoundationModels", system.foundation_models),
        ("InputDataSource", system.input_data_source),
        ("OutputAndInputDataTypes", system.data_types),
        ("DevelopmentDataCharacterization", system.training_data),
        ("BiasMitigationApproaches", system.bias_mitigation),
        ("OngoingMaintenance", system.maintenance),
        ("Security", system.security),
        ("Transparency", system.transparency),
    )


def _transparency(source: CardSource) -> Fields:
    transparency = source.card.transparency
    return (
        ("FundingSource", transparency.funding),
        ("ThirdPartyInformation", transparency.third_parties),
        ("StakeholdersConsulted", transparency.stakeholders),
    )


def _key_metrics(root: ET.Element, source: CardSource) -> None:
    metrics = source.card.metrics
    element = ET.SubElement(root, "KeyMetrics")
    for name, metric in (
        ("UsefulnessUsabilityEfficacy", metrics.usefulness),
        ("FairnessEquity", metrics.fairness),
        ("SafetyReliability", metrics.safety),
    ):
        _key_metric(ET.SubElement(element, name), metric, source.evaluation)


def _key_metric(element: ET.Element, metric: Metric, evaluation: Evaluation) -> None:
    _text(element, "MetricGoal", metric.goal)
    results = ET.SubElement(element, "Results")
    for label, value in _results(metric, evaluation):
        result = ET.SubElement(results, "MetricResult")
        _text(result, "Label", label)
        _text(result, "ValueJson", _json(value))
    _text(element, "Interpretation", metric.interpretation)
    _text(element, "TestType", metric.test_type)
    _text(element, "TestingDataDescription", metric.testing_data)
    _text(element, "ValidationProcessAndJustification", metric.validation)


def _results(metric: Metric, evaluation: Evaluation) -> Iterable[tuple[str, dict[str, object]]]:
    """What the metric quotes, in the metric's order."""
    estimates = {item.key: item for item in evaluation.estimates}
    curves = {item.key: item for item in evaluation.curves}
    statistics = {item.key: item for item in evaluation.statistics}
    for key in metric.estimates:
        estimate = estimates[key]
        yield _estimate_label(estimate), _estimate_value(estimate)
    for key in metric.curves:
        yield curves[key].label, _curve_value(curves[key])
    for key in metric.statistics:
        statistic = statistics[key]
        yield f"{statistic.label}, {statistic.population}", _statistic_value(statistic)


def _estimate_label(estimate: Estimate) -> str:
    group = f"{estimate.group}: " if estimate.group else ""
    return f"{group}{estimate.label} (n = {estimate.cases})"


def _estimate_value(estimate: Estimate) -> dict[str, object]:
    """The form that CHAI's own cards use for an estimate with its interval."""
    return {
        "kind": "estimate_ci",
        "estimate": estimate.value,
        "lower": estimate.lower,
        "upper": estimate.upper,
        "level": percent_of(estimate.level),
        "unit": "fraction",
    }


def _curve_value(curve: Curve) -> dict[str, object]:
    """A form of ours: CHAI has none for curves."""
    return {
        "kind": "curve",
        "curve": curve.kind.value,
        "x": curve.x_label,
        "y": curve.y_label,
        "level": percent_of(curve.level),
        "points": [point.model_dump(exclude_none=True) for point in curve.points],
    }


def _statistic_value(statistic: Statistic) -> dict[str, object]:
    """A form of ours: CHAI has none for distributions."""
    return {
        "kind": "distribution",
        "unit": statistic.unit,
        "cases": statistic.cases,
        "mean": statistic.mean,
        "sd": statistic.sd,
        "quantiles": [quantile.model_dump() for quantile in statistic.quantiles],
    }


def _resources(source: CardSource) -> Fields:
    resources = source.card.resources
    facts = (f"{label}: {text}" for label, text in evaluation_facts(source.evaluation))
    figures = (f"{figure.title} ({figure.file}): {figure.alt}" for figure in source.card.figures)
    return (
        (
            "EvaluationReferences",
            _paragraphs(
                resources.evaluation_references,
                f"The evaluation behind the key metrics:\n{_listed(facts)}",
                *(f"Figure. {figure}" for figure in figures),
                f"SHA-256 of the package's CHECKSUMS: {source.digest}",
            ),
        ),
        ("ClinicalTrial", resources.clinical_trial),
        ("PeerReviewedPublications", resources.publications),
        ("ReimbursementStatus", resources.reimbursement),
        ("PatientConsentOrDisclosure", resources.patient_consent),
    )


def _fill(parent: ET.Element, name: str, fields: Fields) -> None:
    element = ET.SubElement(parent, name)
    for tag, text in fields:
        _text(element, tag, text)


def _text(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = _writable(text)


def _writable(text: str) -> str:
    """Replaces what XML 1.0 cannot hold; ``package.toml`` does not refuse it as the card does."""
    return _NOT_XML.sub("\ufffd", text)


def _comment(notices: Sequence[str]) -> str:
    """Two hyphens in a row, or one at the end, are no part of a comment (XML 1.0, 2.5)."""
    text = _writable("\n".join(notices))
    return re.sub("-(?=-|$)", "- ", text)


def _listed(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(parts)


def _json(value: dict[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
