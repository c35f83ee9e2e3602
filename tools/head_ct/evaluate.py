"""Evaluate an exported model on phantoms that neither training nor calibration saw.

``python -m tools.head_ct.evaluate --work WORK --data CACHE`` writes ``evaluation.json`` beside the
model; the card and its figures take their numbers from there.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.calibration import decide
from engines.card import Curve, CurveKind, CurvePoint, Estimate, Evaluation, Quantile, Statistic
from engines.loading import EVALUATION_FILE
from engines.package import ModelPackage
from tools.figures_of_merit import (
    BandPoint,
    Interval,
    area_under_roc,
    bootstrap,
    expected_calibration_error,
    proportion,
    reliability,
    response,
    roc_band,
)
from tools.head_ct.groups import RESPONSES, SENSITIVITY, SPECIFICITY, STATISTICS, Group
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.refusals import count_refusals
from tools.head_ct.scoring import outputs_of
from tools.head_ct.simulate import SimulatedStudy, simulate_set
from tools.head_ct.training_result import MODEL_FILE, read_manifest

TEST_SET = (
    "Synthetic head CT phantoms of this project's own generator, 512 x 512, slices of 1 to 5 mm, "
    "anywhere along the table, in four of ten the gantry tilted by up to 1 degree, drawn from "
    "seeds that neither training nor calibration nor an earlier version's test used. Half of them "
    "hold one bleed, the five types in equal parts. They come from the same generator as the "
    "training phantoms: the numbers say nothing about patients."
)
BOOTSTRAP_SEED = 20_260_115
GATE_TITLE = "What the gate does before the model looks"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One test phantom and what the model said of it."""

    study: SimulatedStudy
    logit: float
    probability: float
    suspected: bool


def score(studies: Sequence[SimulatedStudy], model: Path, package: ModelPackage) -> list[Scored]:
    """Run the device's engine and decision over the studies."""
    results = []
    for study, outputs in zip(studies, outputs_of(model, studies), strict=True):
        decision = decide(outputs, package.findings[0])
        results.append(
            Scored(
                study=study,
                logit=decision.logit,
                probability=decision.probability,
                suspected=decision.suspected,
            )
        )
    return results


def summarise(
    scored: Sequence[Scored], package: ModelPackage, model: Path, gate: Sequence[Estimate] = ()
) -> Evaluation:
    """All figures with their intervals; groups without cases are left out.

    Args:
        scored: the test set.
        package: the model's rules.
        model: the ONNX file.
        gate: what was measured of the gate.
    """
    ill = [item for item in scored if item.study.positive]
    return Evaluation(
        model_version=package.version,
        model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        thresholds={rule.key: rule.operating_point.threshold for rule in package.findings},
        test_set=TEST_SET,
        positives=len(ill),
        negatives=len(scored) - len(ill),
        estimates=(*_estimates(scored), *gate),
        curves=_curves(scored),
        statistics=_statistics(scored),
    )


def _estimates(scored: Sequence[Scored]) -> list[Estimate]:
    heads = [item for item in scored if not item.study.plastic]
    logits, chances, positive = _columns(heads)
    error = bootstrap(expected_calibration_error, chances, positive, seed=BOOTSTRAP_SEED)
    well = [item for item in heads if not item.study.positive]
    plastic = [item for item in scored if item.study.plastic]
    clean = Group(
        key="specificity_plastic",
        label="Specificity, skulls filled with air and plastic inserts",
        title=None,
        belongs=lambda study: study.plastic,
    )
    return [
        make_estimate("auc", "Area under the ROC curve", area_under_roc(logits, positive)),
        make_estimate("calibration_error", "Expected calibration error", error),
        *_shares([item for item in heads if item.study.positive], SENSITIVITY, suspected=True),
        *_shares(plastic, (clean,), suspected=False),
        *_shares(well, SPECIFICITY, suspected=False),
    ]


def _shares(
    scored: Sequence[Scored], groups: Sequence[Group], *, suspected: bool
) -> list[Estimate]:
    """In each group the share that came out as it should."""
    estimates = []
    for group in groups:
        outcomes = [item.suspected is suspected for item in scored if group.belongs(item.study)]
        if outcomes:
            share = proportion(sum(outcomes), len(outcomes))
            estimates.append(make_estimate(group.key, group.label, share, title=group.title))
    return estimates


def make_estimate(
    key: str, label: str, interval: Interval, *, title: str | None = None
) -> Estimate:
    """An entry of the evaluation, rounded outwards: no interval is told narrower than it is."""
    return Estimate(
        key=key,
        label=label,
        group=title,
        value=round(interval.value, 4),
        lower=float(np.floor(interval.lower * 1e4) / 1e4),
        upper=float(np.ceil(interval.upper * 1e4) / 1e4),
        cases=interval.cases,
    )


def _curves(scored: Sequence[Scored]) -> tuple[Curve, ...]:
    heads = [item for item in scored if not item.study.plastic]
    ill = [item for item in heads if item.study.positive]
    logits, chances, positive = _columns(heads)
    found = np.array([item.suspected for item in ill])
    curves = [
        _curve(
            ("roc", CurveKind.ROC, "ROC curve"),
            ("1 - specificity", "Sensitivity"),
            roc_band(logits, positive, seed=BOOTSTRAP_SEED),
        ),
        _curve(
            ("reliability", CurveKind.RELIABILITY, "Calibration"),
            ("Predicted probability", "Observed frequency"),
            reliability(chances, positive),
        ),
    ]
    for key, label, x_label, measure in RESPONSES:
        quantity = np.array([measure(item.study) for item in ill])
        points = response(quantity, found)
        curves.append(_curve((key, CurveKind.RESPONSE, label), (x_label, "Sensitivity"), points))
    return tuple(curve for curve in curves if curve is not None)


def _curve(
    what: tuple[str, CurveKind, str], axes: tuple[str, str], points: Sequence[BandPoint]
) -> Curve | None:
    """None where there are too few points for a line."""
    if len(points) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    key, kind, label = what
    return Curve(
        key=key,
        kind=kind,
        label=label,
        x_label=axes[0],
        y_label=axes[1],
        points=tuple(
            CurvePoint(
                x=round(point.x, 4),
                y=round(point.y.value, 4),
                lower=float(np.floor(point.y.lower * 1e4) / 1e4),
                upper=float(np.ceil(point.y.upper * 1e4) / 1e4),
                cases=point.y.cases,
            )
            for point in points
        ),
    )


def _statistics(scored: Sequence[Scored]) -> tuple[Statistic, ...]:
    found = []
    for key, label, unit, measure, of_bleeds in STATISTICS:
        group = [item.study for item in scored if item.study.positive or not of_bleeds]
        values = np.array([measure(study) for study in group])
        if not len(values):
            continue
        found.append(
            Statistic(
                key=key,
                label=label,
                unit=unit,
                population="Test phantoms with a bleed" if of_bleeds else "Test phantoms",
                cases=len(values),
                mean=round(float(values.mean()), 3),
                sd=round(float(values.std()), 3),
                quantiles=tuple(
                    Quantile(
                        fraction=fraction, value=round(float(np.quantile(values, fraction)), 3)
                    )
                    for fraction in QUANTILES
                ),
            )
        )
    return tuple(found)


def _columns(
    scored: Sequence[Scored],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Logits, probabilities, and which phantoms bleed."""
    return (
        np.array([item.logit for item in scored]),
        np.array([item.probability for item in scored]),
        np.array([item.study.positive for item in scored]),
    )


def _gate_estimates(phantoms: int) -> list[Estimate]:
    counted = count_refusals(phantoms)
    return [
        make_estimate(
            "gate_accepts",
            "Test phantoms that the gate lets through",
            proportion(counted.accepted, counted.within),
            title=GATE_TITLE,
        ),
        make_estimate(
            "gate_refuses_tilt",
            "The same phantoms with the gantry tilted by 1.1 to 30 degrees, refused for it",
            proportion(counted.refused, counted.steep),
            title=GATE_TITLE,
        ),
    ]


def _misses(scored: Sequence[Scored]) -> list[str]:
    wrong = [item for item in scored if item.suspected != item.study.positive]
    return [
        f"seed {item.study.seed}: {item.study.kind.value if item.study.kind else 'no bleed'}"
        f"{' (plastic)' if item.study.plastic else ''}, {item.study.volume_ml:.2f} ml, "
        f"{item.study.contrast_hu:.0f} HU, {item.study.spacing_mm} mm, "
        f"probability {item.probability:.3f}"
        for item in wrong
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained model")
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the phantoms")
    parser.add_argument("--phantoms", type=int, default=640)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    package = read_manifest(options.work)
    model = options.work / MODEL_FILE
    studies = list(
        simulate_set(
            PhantomSet.TEST,
            options.phantoms,
            matrix=options.matrix,
            folder=options.data,
            processes=options.processes,
        )
    )
    scored = score(studies, model, package)
    evaluation = summarise(scored, package, model, _gate_estimates(options.phantoms))
    text = evaluation.model_dump_json(indent=2) + "\n"
    (options.work / EVALUATION_FILE).write_text(text, "utf-8")
    for line in _misses(scored):
        print(line)
    for estimate in evaluation.estimates:
        print(
            f"{estimate.group or ''} {estimate.label}: {estimate.value:.3f} "
            f"({estimate.lower:.3f}-{estimate.upper:.3f}), n={estimate.cases}".lstrip()
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
