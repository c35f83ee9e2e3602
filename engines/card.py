"""The model card (``card.toml``) and the evaluation that it quotes (``evaluation.json``).

The fields are those of the CHAI Applied Model Card v0.2, in the order of its XML, so that a card
can be written from them without asking anybody. Two rules keep it honest: name and version come
from ``package.toml``, and no number of performance is typed here. A metric names what it quotes of
``evaluation.json``, which the evaluation script writes and which carries the digest of the model
that was evaluated.

Every text can be written into XML and shown in a browser as it stands: characters that XML 1.0
cannot hold, and those that make a line read otherwise than it is written, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from enum import Enum
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from engines.fields import ClosedModel, Name, Version

_UNFIT = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # not in XML 1.0, or C1
    r"|[\u202a-\u202e\u2066-\u2069]"  # turns the direction of reading
)


def _readable(text: str) -> str:
    if unfit := _UNFIT.search(text):
        raise ValueError(f"remove the control character {unfit.group()!a}")
    if not text.strip():
        raise ValueError("write something, such as 'None.'")
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\t" in text:
        raise ValueError("keep it on one line, without tabs")
    return text


Line = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(_readable), AfterValidator(_one_line)
]
Paragraph = Annotated[str, Field(min_length=1, max_length=4000), AfterValidator(_readable)]
Paragraphs = Annotated[tuple[Paragraph, ...], Field(min_length=1, max_length=32)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Level = Annotated[float, Field(ge=0.5, lt=1)]
Cases = Annotated[int, Field(ge=1, le=1_000_000_000)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]

MAX_POINTS = 2048
"""Of all curves together: about 250 kB of JSON, half of what the file may have."""


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
    curves: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """Keys of curves in ``evaluation.json``."""
    statistics: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """Keys of statistics in ``evaluation.json``."""
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


class Figure(ClosedModel):
    """A picture that the card shows; a file of the package, listed in CHECKSUMS."""

    file: Annotated[
        str,
        Field(max_length=240, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._/-]*\.(png|svg)$"),
    ]
    title: Line
    alt: Annotated[Paragraph, Field(max_length=1000)]
    """What the picture says, for those who do not see it."""


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
    figures: Annotated[tuple[Figure, ...], Field(max_length=12)] = ()

    def unmeasured(self, evaluation: Evaluation) -> tuple[str, ...]:
        """Returns the keys that the card quotes and ``evaluation`` does not hold, sorted."""
        metrics = (self.metrics.usefulness, self.metrics.fairness, self.metrics.safety)
        pairs = (
            pair
            for metric in metrics
            for pair in (
                (metric.estimates, evaluation.estimates),
                (metric.curves, evaluation.curves),
                (metric.statistics, evaluation.statistics),
            )
        )
        missing = (set(keys) - {item.key for item in items} for keys, items in pairs)
        return tuple(sorted(set().union(*missing)))


class Estimate(ClosedModel):
    """One measured number with its interval, as fractions (0.95), never per cent."""

    key: Name
    label: Line
    """For people, such as 'Sensitivity, bleeds under 5 ml'."""
    group: Line | None = None
    """Title of the table in which the number stands, such as 'By sex'; absent: the main table."""
    value: Fraction
    lower: Fraction
    upper: Fraction
    level: Level = 0.95
    """Confidence level of the interval."""
    cases: Cases
    """How many cases the number rests on."""

    @model_validator(mode="after")
    def _value_inside_interval(self) -> Estimate:
        if not self.lower <= self.value <= self.upper:
            raise ValueError(f"estimate {self.key!r}: 'value' must lie within its interval")
        return self


class CurveKind(str, Enum):
    """What a curve is, and so how it is drawn."""

    ROC = "roc"
    """x: 1 - specificity, y: sensitivity; drawn with the diagonal of chance."""
    RELIABILITY = "reliability"
    """x: mean predicted probability of a bin, y: observed frequency; drawn with the diagonal."""
    RESPONSE = "response"
    """x: strength of a disturbance, y: the metric under it."""


class CurvePoint(ClosedModel):
    """One point of a curve, with the interval of y where there is one."""

    x: Number
    y: Number
    lower: Number | None = None
    upper: Number | None = None
    cases: Cases | None = None

    @model_validator(mode="after")
    def _y_inside_interval(self) -> CurvePoint:
        if (self.lower is None) != (self.upper is None):
            raise ValueError("point: give both 'lower' and 'upper', or neither")
        if self.lower is None or self.upper is None or self.lower <= self.y <= self.upper:
            return self
        raise ValueError("point: 'y' must lie within its interval")


class Curve(ClosedModel):
    """Measured points in the order of x: a ROC curve, a reliability diagram, a robustness curve."""

    key: Name
    kind: CurveKind
    label: Line
    x_label: Line
    """With the unit."""
    y_label: Line
    level: Level = 0.95
    """Confidence level of the intervals."""
    points: Annotated[tuple[CurvePoint, ...], Field(min_length=2, max_length=256)]

    @model_validator(mode="after")
    def _points_are_in_order(self) -> Curve:
        if any(later.x < earlier.x for earlier, later in pairwise(self.points)):
            raise ValueError(f"curve {self.key!r}: sort the points by 'x'")
        return self

    @model_validator(mode="after")
    def _fractions_where_the_kind_says_so(self) -> Curve:
        if self.kind is CurveKind.RESPONSE:
            return self
        numbers = (n for p in self.points for n in (p.x, p.y, p.lower, p.upper) if n is not None)
        if not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"curve {self.key!r}: a {self.kind.value} curve lies within 0 and 1")
        return self


class Quantile(ClosedModel):
    """``fraction`` of the values are at or below ``value``."""

    fraction: Fraction
    value: Number


class Statistic(ClosedModel):
    """How a quantity of the input is distributed in one population, such as pixels of adults.

    Statistics of one label and unit stand in one table, so that populations can be compared.
    """

    key: Name
    label: Line
    unit: Annotated[Line, Field(max_length=40)]
    population: Line
    cases: Cases
    mean: Number
    sd: Annotated[Number, Field(ge=0)]
    """Standard deviation between cases."""
    quantiles: Annotated[tuple[Quantile, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _quantiles_rise(self) -> Statistic:
        for earlier, later in pairwise(self.quantiles):
            if later.fraction <= earlier.fraction or later.value < earlier.value:
                raise ValueError(
                    f"statistic {self.key!r}: sort the quantiles by 'fraction', each once"
                )
        return self


class Evaluation(ClosedModel):
    """``evaluation.json``: written by the evaluation script, quoted by the card."""

    model_version: Version
    model_sha256: Sha256
    """Digest of the ``model.onnx`` that was evaluated: numbers of another model are refused."""
    thresholds: Annotated[
        dict[Name, Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=32)
    ]
    """Operating point (probability) of each finding, by its key, at which sensitivity and
    specificity were measured."""
    test_set: Paragraph
    """What the cases are and how they were kept apart from training."""
    positives: Annotated[int, Field(ge=0)]
    negatives: Annotated[int, Field(ge=0)]
    estimates: Annotated[tuple[Estimate, ...], Field(min_length=1, max_length=256)]
    curves: Annotated[tuple[Curve, ...], Field(max_length=32)] = ()
    statistics: Annotated[tuple[Statistic, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Evaluation:
        for kind, items in (
            ("estimates", self.estimates),
            ("curves", self.curves),
            ("statistics", self.statistics),
        ):
            if not _are_unique(item.key for item in items):
                raise ValueError(f"evaluation: two {kind} have the same 'key'")
        return self

    @model_validator(mode="after")
    def _curves_are_bounded(self) -> Evaluation:
        if sum(len(curve.points) for curve in self.curves) > MAX_POINTS:
            raise ValueError(f"evaluation: at most {MAX_POINTS} points in all curves together")
        return self


def _are_unique(keys: Iterable[str]) -> bool:
    listed = list(keys)
    return len(set(listed)) == len(listed)
