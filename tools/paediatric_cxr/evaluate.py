"""Evaluate an exported model on patients that neither training nor calibration saw.

``python -m tools.paediatric_cxr.evaluate --data DATA --work WORK`` writes ``evaluation.json``
beside the model; the card, the page and the pictures take their numbers from there.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.card import Curve, CurveKind, Estimate, Evaluation
from engines.loading import EVALUATION_FILE
from engines.package import ModelPackage
from tools.paediatric_cxr.cases import (
    BOOTSTRAP_SEED,
    Mask,
    TestCases,
    estimate,
    point,
    score_test_set,
)
from tools.paediatric_cxr.dataset import Cause, DataSplit, find_radiographs, of_split
from tools.paediatric_cxr.explore import (
    input_statistics,
    pointing_estimates,
    robustness_curves,
    saliency_estimates,
    shortcut_estimates,
)
from tools.paediatric_cxr.metrics import (
    Interval,
    PatientBootstrap,
    Statistic,
    area,
    calibration_error,
    reliability_bins,
    roc_points,
    share,
    tertiles,
)
from tools.paediatric_cxr.others import read_others
from tools.paediatric_cxr.quality import measure_quality
from tools.paediatric_cxr.scoring import scorer
from tools.paediatric_cxr.training_result import MODEL_FILE, read_manifest

FEWEST_OF_A_CLASS = 5
"""Radiographs: below it a figure of a group says nothing."""
TEST_SET = (
    "Frontal radiographs of children of 1 to 5 years from one hospital (Kermany et al. 2018, CC BY "
    "4.0), of patients that were used neither for training nor for calibration or the operating "
    "point. Patients were dealt out by a hash of their number in the file name. Labels are the "
    "data set's. Sex and exact age are not in the data. Intervals: 1000 draws of patients."
)


def main_estimates(cases: TestCases) -> list[Estimate]:
    """The figures of the first table."""
    positive = cases.positive
    patients = PatientFigures.of(cases)
    return [
        _measured(cases, "auc", "Area under the ROC curve", area(cases.logits, positive)),
        _measured(cases, "sensitivity", "Sensitivity", share(cases.suspected), among=positive),
        _measured(cases, "specificity", "Specificity", share(~cases.suspected), among=~positive),
        estimate(
            "patients_found", "Children with pneumonia, one image or more flagged", patients.found
        ),
        estimate("patients_spared", "Healthy children, no image flagged", patients.spared),
        _measured(
            cases, "calibration_error", "Expected calibration error",
            calibration_error(cases.chances, positive),
        ),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFigures:
    """The same counted by child."""

    found: Interval
    spared: Interval

    @classmethod
    def of(cls, cases: TestCases) -> PatientFigures:
        """Count."""
        names = np.array([item.patient for item in cases.radiographs])
        flags = {
            name: (
                bool(cases.positive[names == name][0]),
                bool(cases.suspected[names == name].any()),
            )
            for name in np.unique(names)
        }
        ill = np.array([flagged for sick, flagged in flags.values() if sick])
        well = np.array([flagged for sick, flagged in flags.values() if not sick])
        return cls(found=_by_patient(ill), spared=_by_patient(~well))


def _by_patient(claims: Mask) -> Interval:
    draws = PatientBootstrap([str(number) for number in range(len(claims))], seed=BOOTSTRAP_SEED)
    return draws.interval(share(claims))


def cause_estimates(cases: TestCases) -> list[Estimate]:
    """By what caused the pneumonia, as the file names have it."""
    normal = cases.caused_by(Cause.NONE)
    found = []
    for cause in (Cause.BACTERIA, Cause.VIRUS):
        ill = cases.caused_by(cause)
        name = {Cause.BACTERIA: "bacterial", Cause.VIRUS: "viral"}[cause]
        found += [
            _measured(
                cases, f"auc_{name}", f"Area under the ROC curve, {name} against normal",
                area(cases.logits, cases.positive), among=ill | normal, group="By cause",
            ),
            _measured(
                cases, f"sensitivity_{name}", f"Sensitivity, {name} pneumonia",
                share(cases.suspected), among=ill, group="By cause",
            ),
        ]  # fmt: skip
    return found


def quality_estimates(cases: TestCases) -> list[Estimate]:
    """By thirds of how sharp, contrasty and bright the radiographs are.

    A third with hardly any radiograph of one class is left out.
    """
    measured = [measure_quality(pixels) for pixels in cases.pixels]
    found = []
    for measure in ("sharpness", "contrast", "exposure"):
        values = np.array([float(getattr(item, measure)) for item in measured])
        for third, inside in zip(("low", "middle", "high"), tertiles(values), strict=True):
            counts = int((inside & cases.positive).sum()), int((inside & ~cases.positive).sum())
            if min(counts) >= FEWEST_OF_A_CLASS:
                found += _of_third(cases, measure, third, inside)
    return found


def _of_third(cases: TestCases, measure: str, third: str, inside: Mask) -> list[Estimate]:
    group = "By image quality (thirds of the test set)"
    end = f"{third} third of {'brightness' if measure == 'exposure' else measure}"
    key = f"{measure}_{third}"
    positive = cases.positive
    return [
        _measured(
            cases, f"auc_{key}", f"Area under the ROC curve, {end}",
            area(cases.logits, positive), among=inside, group=group,
        ),
        _measured(
            cases, f"sensitivity_{key}", f"Sensitivity, {end}",
            share(cases.suspected), among=inside & positive, group=group,
        ),
        _measured(
            cases, f"specificity_{key}", f"Specificity, {end}",
            share(~cases.suspected), among=inside & ~positive, group=group,
        ),
    ]  # fmt: skip


def main_curves(cases: TestCases) -> list[Curve]:
    """ROC with its band, and the reliability diagram."""
    positive = cases.positive
    roc = roc_points(cases.logits, positive, cases.draws)
    bins = reliability_bins(cases.chances, positive, cases.draws)
    return [
        Curve(
            key="roc", kind=CurveKind.ROC, label="ROC curve",
            x_label="1 - specificity", y_label="Sensitivity",
            points=tuple(point(x, y) for x, y in roc),
        ),
        Curve(
            key="reliability", kind=CurveKind.RELIABILITY, label="Reliability diagram",
            x_label="Predicted probability", y_label="Observed frequency",
            points=tuple(point(item.predicted, item.observed) for item in bins),
        ),
    ]  # fmt: skip


def _measured(
    cases: TestCases,
    key: str,
    label: str,
    statistic: Statistic,
    *,
    among: Mask | None = None,
    group: str | None = None,
) -> Estimate:
    return estimate(key, label, cases.draws.interval(statistic, among=among), group)


def evaluate(
    data: Path, work: Path, package: ModelPackage, others: Path | None = None
) -> Evaluation:
    """All figures of the model in ``work``.

    Args:
        data: folder of the data set.
        work: folder of the trained model.
        package: the manifest around it.
        others: folder with DICOM chest radiographs of people whom the model is not for.
    """
    radiographs = find_radiographs(data)
    path = work / MODEL_FILE
    cases = score_test_set(of_split(radiographs, DataSplit.TEST), path, package)
    estimates = [*main_estimates(cases), *cause_estimates(cases), *quality_estimates(cases)]
    with scorer(path) as model:
        training = of_split(radiographs, DataSplit.TRAINING)
        estimates += shortcut_estimates(cases, model, training)
        estimates += saliency_estimates(cases, model, path) + pointing_estimates(model)
        statistics, drift = input_statistics(cases, model, read_others(others))
        curves = [*main_curves(cases), *robustness_curves(cases, model)]
    return Evaluation(
        model_version=package.version,
        model_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        thresholds={rule.key: rule.operating_point.threshold for rule in package.findings},
        test_set=TEST_SET,
        positives=int(cases.positive.sum()),
        negatives=int((~cases.positive).sum()),
        estimates=(*estimates, *drift),
        curves=tuple(curves),
        statistics=tuple(statistics),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--work", type=Path, required=True, help="folder with the trained model")
    parser.add_argument(
        "--others", type=Path, help="DICOM chest radiographs of people whom the model is not for"
    )
    options = parser.parse_args(arguments)
    package = read_manifest(options.work)
    evaluation = evaluate(options.data, options.work, package, options.others)
    text = evaluation.model_dump_json(indent=1, exclude_none=True) + "\n"
    (options.work / EVALUATION_FILE).write_text(text, "utf-8")
    for item in evaluation.estimates:
        print(f"{item.label}: {item.value:.3f} ({item.lower:.3f}-{item.upper:.3f}), n={item.cases}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
