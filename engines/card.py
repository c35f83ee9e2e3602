"""The model card (``card.toml``) and the evaluation that it quotes (``evaluation.json``).

The fields are those of the CHAI Applied Model Card v0.2, in the order of its XML, so that a card
can be written from them without asking anybody. Two rules keep it honest: name and version come
from ``package.toml``, and no number of performance is typed here. A metric names estimates of
``evaluation.json``, which the evaluation script writes and which carries the digest of the model
that was evaluated.
"""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from engines.package import ClosedModel, Name, Version

Line = Annotated[str, Field(min_length=1, max_length=200)]
Paragraph = Annotated[str, Field(min_length=1, max_length=4000)]
Paragraphs = Annotated[tuple[Paragraph, ...], Field(min_length=1, max_length=32)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReleaseStage(str, Enum):
    """How far the model has come (CHAI ``ReleaseStage``)."""

    DEMONSTRATION = "demonstration"
    """Not for patients."""
    INVESTIGATIONAL = "investigational"
    CLEARED = "cleared"
    """For the markets that ``regulatory_approval`` names."""


class Developer(ClosedModel):
    """CHAI ``BasicInfo``, less the model's name."""

    name: Line
    contact: Line


class Release(ClosedModel):
    """CHAI ``ReleaseInfo``, less the version."""

    stage: ReleaseStage
    date: date
    availability: Line
    """Countries or settings in which the model may be used."""
    regulatory_approval: Paragraph


class Summary(ClosedModel):
    """CHAI ``ModelSummary``."""

    text: Paragraph
    keywords: Annotated[tuple[Line, ...], Field(min_length=1, max_length=16)]


class Uses(ClosedModel):
    """CHAI ``UsesAndDirections``."""

    intended_use_and_workflow: Paragraph
    primary_users: Paragraph
    how_to_use: Paragraph
    target_population: Paragraph
    out_of_scope: Paragraphs


class Warnings(ClosedModel):
    """CHAI ``Warnings``."""

    cautions: Paragraphs
    """What a reader must keep in mind at every result."""
    risks_and_limitations: Paragraphs
    biases: Paragraphs
    clinical_risk_level: Line


class SystemFacts(ClosedModel):
    """CHAI ``AISystemFacts``."""

    outputs: Paragraph
    model_type: Paragraph
    foundation_models: Paragraph = "None."
    input_data_source: Paragraph
    data_types: Paragraph
    """What goes in and what comes out."""
    training_data: Paragraph
    """CHAI ``DevelopmentDataCharacterization``."""
    bias_mitigation: Paragraph
    maintenance: Paragraph
    security: Paragraph
    transparency: Paragraph


class Transparency(ClosedModel):
    """CHAI ``TransparencyInformation``."""

    funding: Paragraph
    third_parties: Paragraph = "None."
    stakeholders: Paragraph


class Metric(ClosedModel):
    """CHAI ``KeyMetricType``: the numbers are named, never written."""

    goal: Paragraph
    estimates: Annotated[tuple[Name, ...], Field(min_length=1, max_length=32)]
    """Keys of estimates in ``evaluation.json``."""
    interpretation: Paragraph
    test_type: Line
    testing_data: Paragraph
    validation: Paragraph
    """How it was validated, and why that way."""


class KeyMetrics(ClosedModel):
    """CHAI ``KeyMetrics``."""

    usefulness: Metric
    fairness: Metric
    safety: Metric


class Resources(ClosedModel):
    """CHAI ``Resources``."""

    evaluation_references: Paragraph = "None."
    clinical_trial: Paragraph = "None."
    publications: Paragraph = "None."
    reimbursement: Paragraph = "None."
    patient_consent: Paragraph


class ModelCard(ClosedModel):
    """``card.toml``."""

    developer: Developer
    release: Release
    summary: Summary
    uses: Uses
    warnings: Warnings
    system: SystemFacts
    transparency: Transparency
    metrics: KeyMetrics
    resources: Resources
    bibliography: Paragraph = "None."
    disclaimers: Paragraphs

    def estimate_keys(self) -> frozenset[str]:
        """Every key of ``evaluation.json`` that the card quotes."""
        metrics = (self.metrics.usefulness, self.metrics.fairness, self.metrics.safety)
        return frozenset(key for metric in metrics for key in metric.estimates)


class Estimate(ClosedModel):
    """One measured number with its interval, as fractions (0.95), never per cent."""

    key: Name
    label: Line
    """For people, such as 'Sensitivity, bleeds under 5 ml'."""
    value: Annotated[float, Field(ge=0, le=1)]
    lower: Annotated[float, Field(ge=0, le=1)]
    upper: Annotated[float, Field(ge=0, le=1)]
    level: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Confidence level of the interval."""
    cases: Annotated[int, Field(ge=1)]
    """How many cases the number rests on."""

    @model_validator(mode="after")
    def _value_inside_interval(self) -> Estimate:
        if not self.lower <= self.value <= self.upper:
            raise ValueError(f"estimate {self.key!r}: 'value' must lie within its interval")
        return self


class Evaluation(ClosedModel):
    """``evaluation.json``: written by the evaluation script, quoted by the card."""

    model_version: Version
    model_sha256: Sha256
    """Digest of the ``model.onnx`` that was evaluated: numbers of another model are refused."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """Operating point (probability) at which sensitivity and specificity were measured."""
    test_set: Paragraph
    """What the cases are and how they were kept apart from training."""
    positives: Annotated[int, Field(ge=0)]
    negatives: Annotated[int, Field(ge=0)]
    estimates: Annotated[tuple[Estimate, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Evaluation:
        if len({estimate.key for estimate in self.estimates}) != len(self.estimates):
            raise ValueError("evaluation: two estimates have the same 'key'")
        return self
