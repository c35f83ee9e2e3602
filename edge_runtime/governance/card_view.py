"""A model card in the order in which people read it; the page and the plain text share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from edge_runtime.governance.card_charts import Chart, Strip, chart_of, strips_of, unit_position
from edge_runtime.governance.card_source import (
    STAGE_WORDS,
    CardSource,
    evaluation_facts,
    fraction_words,
    interval_words,
    level_words,
    number_words,
)
from engines.card import Curve, Estimate, Metric, ModelCard, Statistic
from engines.figures import FigureImage

_MAIN_TABLE = "Measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A labelled text: paragraphs, or a list."""

    label: str
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRow:
    """One measured number in words, and where it lies between 0 and 1."""

    label: str
    value: str
    interval: str
    cases: int
    strip: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateTable:
    """Measured numbers of one group and one confidence level."""

    caption: str
    level: str
    rows: tuple[EstimateRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticRow:
    """A distribution in one population."""

    population: str
    cases: int
    mean: str
    sd: str
    quantiles: tuple[str, ...]
    strip: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticTable:
    """One quantity in several populations."""

    caption: str
    unit: str
    fractions: tuple[str, ...]
    """Heads of the quantiles' columns."""
    rows: tuple[StatisticRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What was measured, as tables and charts."""

    estimates: tuple[EstimateTable, ...] = ()
    statistics: tuple[StatisticTable, ...] = ()
    charts: tuple[Chart, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.estimates or self.statistics or self.charts)


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureView:
    """A picture of the package."""

    file: str
    title: str
    alt: str
    image: FigureImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the card under one title."""

    key: str
    title: str
    level: int = 2
    """Of the heading: 3 stands below the last 2."""
    lead: tuple[Entry, ...] = ()
    """Stands before what was measured."""
    entries: tuple[Entry, ...] = ()
    measurements: Measurements = Measurements()
    figures: tuple[FigureView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CardView:
    """All that is shown."""

    title: str
    name: str
    version: str
    stage: str
    notices: tuple[str, ...]
    digest: str
    sections: tuple[Section, ...]


def card_view(source: CardSource) -> CardView:
    """Puts the papers of a model into the order in which people read them."""
    card = source.card
    return CardView(
        title=source.title,
        name=source.name,
        version=source.version,
        stage=STAGE_WORDS[card.release.stage],
        notices=source.notices,
        digest=source.digest,
        sections=(
            _summary(source),
            _uses(card),
            _warnings(card),
            *_metrics(source),
            *_figures(source),
            _system(card),
            _transparency(card),
            _release(card),
            _resources(card),
            _evaluation(source),
        ),
    )


def _text(label: str, text: str) -> Entry:
    return Entry(label=label, paragraphs=tuple(part for part in text.split("\n\n") if part.strip()))


def _list(label: str, items: Sequence[str]) -> Entry:
    return Entry(label=label, items=tuple(items))


def _release(card: ModelCard) -> Section:
    return Section(
        key="release",
        title="Release",
        entries=(
            _text("Stage", STAGE_WORDS[card.release.stage]),
            _text("Date", card.release.date.isoformat()),
            _text("Availability", card.release.availability),
            _text("Regulatory approval", card.release.regulatory_approval),
            _text("Developer", card.developer.name),
            _text("Contact", card.developer.contact),
        ),
    )


def _summary(source: CardSource) -> Section:
    summary = source.card.summary
    return Section(
        key="summary",
        title="Summary",
        entries=(
            _text("Intended use", source.intended_use),
            _text("Summary", summary.text),
            _text("Keywords", ", ".join(summary.keywords)),
        ),
    )


def _uses(card: ModelCard) -> Section:
    uses = card.uses
    return Section(
        key="uses",
        title="Uses and directions",
        entries=(
            _text("Intended use and workflow", uses.intended_use_and_workflow),
            _text("Primary users", uses.primary_users),
            _text("How to use", uses.how_to_use),
            _text("Target population", uses.target_population),
            _list("Not for", uses.out_of_scope),
        ),
    )


def _warnings(card: ModelCard) -> Section:
    warnings = card.warnings
    return Section(
        key="warnings",
        title="Warnings",
        entries=(
            _list("Keep in mind at every result", warnings.cautions),
            _list("Known risks and limitations", warnings.risks_and_limitations),
            _list("Known biases and ethical considerations", warnings.biases),
            _text("Clinical risk level", warnings.clinical_risk_level),
        ),
    )


def _metrics(source: CardSource) -> tuple[Section, ...]:
    metrics = source.card.metrics
    quoted = (metrics.usefulness, metrics.fairness, metrics.safety)
    titles = ("Usefulness, usability, efficacy", "Fairness, equity", "Safety, reliability")
    keys = ("usefulness", "fairness", "safety")
    parts = (
        _metric(source, key, title, metric)
        for key, title, metric in zip(keys, titles, quoted, strict=True)
    )
    return (Section(key="metrics", title="Key metrics"), *parts, *_further(source, quoted))


def _metric(source: CardSource, key: str, title: str, metric: Metric) -> Section:
    return Section(
        key=key,
        title=title,
        level=3,
        lead=(_text("Goal", metric.goal),),
        entries=(
            _text("Interpretation", metric.interpretation),
            _text("Type of test", metric.test_type),
            _text("Testing data", metric.testing_data),
            _text("Validation and why it is right", metric.validation),
        ),
        measurements=_measured(
            source,
            estimates=frozenset(metric.estimates).__contains__,
            curves=frozenset(metric.curves).__contains__,
            statistics=frozenset(metric.statistics).__contains__,
        ),
    )


def _further(source: CardSource, quoted: Sequence[Metric]) -> tuple[Section, ...]:
    """What was measured and no metric quotes: nothing that was measured is left out."""
    estimates = {key for metric in quoted for key in metric.estimates}
    curves = {key for metric in quoted for key in metric.curves}
    statistics = {key for metric in quoted for key in metric.statistics}
    measured = _measured(
        source,
        estimates=lambda key: key not in estimates,
        curves=lambda key: key not in curves,
        statistics=lambda key: key not in statistics,
    )
    title = "Further measurements"
    return (Section(key="further", title=title, level=3, measurements=measured),) * bool(measured)


def _measured(
    source: CardSource,
    *,
    estimates: Callable[[str], bool],
    curves: Callable[[str], bool],
    statistics: Callable[[str], bool],
) -> Measurements:
    evaluation = source.evaluation
    return Measurements(
        estimates=_estimate_tables(item for item in evaluation.estimates if estimates(item.key)),
        statistics=_statistic_tables(
            item for item in evaluation.statistics if statistics(item.key)
        ),
        charts=_charts(item for item in evaluation.curves if curves(item.key)),
    )


def _estimate_tables(estimates: Iterable[Estimate]) -> tuple[EstimateTable, ...]:
    def table(item: Estimate) -> tuple[str, str]:
        return item.group or _MAIN_TABLE, level_words(item.level)

    items = list(estimates)
    order = list(dict.fromkeys(table(item) for item in items))
    grouped = groupby(sorted(items, key=lambda item: order.index(table(item))), key=table)
    return tuple(
        EstimateTable(
            caption=caption, level=level, rows=tuple(_estimate_row(item) for item in group)
        )
        for (caption, level), group in grouped
    )


def _estimate_row(estimate: Estimate) -> EstimateRow:
    low, high = unit_position(estimate.lower), unit_position(estimate.upper)
    return EstimateRow(
        label=estimate.label,
        value=fraction_words(estimate.value),
        interval=interval_words(estimate.lower, estimate.upper),
        cases=estimate.cases,
        strip=Strip(
            low=low, high=high, box_low=low, box_high=high, middle=unit_position(estimate.value)
        ),
    )


def _statistic_tables(statistics: Iterable[Statistic]) -> tuple[StatisticTable, ...]:
    tables: dict[tuple[str, str], list[Statistic]] = {}
    for item in statistics:
        tables.setdefault((item.label, item.unit), []).append(item)
    return tuple(_statistic_table(label, unit, items) for (label, unit), items in tables.items())


def _statistic_table(label: str, unit: str, items: Sequence[Statistic]) -> StatisticTable:
    fractions = sorted({quantile.fraction for item in items for quantile in item.quantiles})
    return StatisticTable(
        caption=label,
        unit=unit,
        fractions=tuple(level_words(fraction) for fraction in fractions),
        rows=tuple(
            _statistic_row(item, fractions, strip)
            for item, strip in zip(items, strips_of(items), strict=True)
        ),
    )


def _statistic_row(item: Statistic, fractions: Sequence[float], strip: Strip) -> StatisticRow:
    quantiles = {quantile.fraction: number_words(quantile.value) for quantile in item.quantiles}
    return StatisticRow(
        population=item.population,
        cases=item.cases,
        mean=number_words(item.mean),
        sd=number_words(item.sd),
        quantiles=tuple(quantiles.get(fraction, "–") for fraction in fractions),
        strip=strip,
    )


def _charts(curves: Iterable[Curve]) -> tuple[Chart, ...]:
    return tuple(chart_of(curve) for curve in curves)


def _figures(source: CardSource) -> tuple[Section, ...]:
    pairs = zip(source.card.figures, source.figures, strict=True)
    figures = tuple(
        FigureView(file=figure.file, title=figure.title, alt=figure.alt, image=image)
        for figure, image in pairs
    )
    return (Section(key="figures", title="Figures", level=3, figures=figures),) * bool(figures)


def _system(card: ModelCard) -> Section:
    system = card.system
    return Section(
        key="system",
        title="How it works and was made",
        entries=(
            _text("Outcomes and outputs", system.outputs),
            _text("Type of model", system.model_type),
            _text("Foundation models", system.foundation_models),
            _text("Source of input data", system.input_data_source),
            _text("Types of input and output", system.data_types),
            _text("Development data", system.training_data),
            _text("Mitigation of bias", system.bias_mitigation),
            _text("Ongoing maintenance", system.maintenance),
            _text("Security", system.security),
            _text("Transparency", system.transparency),
        ),
    )


def _transparency(card: ModelCard) -> Section:
    transparency = card.transparency
    return Section(
        key="transparency",
        title="Who took part",
        entries=(
            _text("Funding", transparency.funding),
            _text("Third parties", transparency.third_parties),
            _text("Stakeholders consulted", transparency.stakeholders),
        ),
    )


def _resources(card: ModelCard) -> Section:
    resources = card.resources
    return Section(
        key="resources",
        title="Resources",
        entries=(
            _text("Evaluation references", resources.evaluation_references),
            _text("Clinical trial", resources.clinical_trial),
            _text("Peer-reviewed publications", resources.publications),
            _text("Reimbursement", resources.reimbursement),
            _text("Patient consent or disclosure", resources.patient_consent),
            _text("Bibliography", card.bibliography),
        ),
    )


def _evaluation(source: CardSource) -> Section:
    return Section(
        key="evaluation",
        title="The evaluation",
        entries=tuple(_text(label, text) for label, text in evaluation_facts(source.evaluation)),
    )
