"""Evaluate an exported model on phantoms that neither training nor calibration saw.

``python -m tools.head_ct.evaluate --work WORK --data CACHE`` writes ``evaluation.json`` beside the
model; the card takes its numbers from there.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines.backends import open_engine
from engines.calibration import decide
from engines.card import Estimate, Evaluation
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.loading import EVALUATION_FILE
from engines.package import ModelPackage
from tools.head_ct.figures import (
    Interval,
    area_under_roc,
    bootstrap,
    expected_calibration_error,
    proportion,
)
from tools.head_ct.simulate import KINDS, PhantomSet, SimulatedStudy, channels, simulate_set
from tools.head_ct.training_result import MODEL_FILE, read_manifest

TEST_SET = (
    "Synthetic head CT phantoms of this project's own generator, 512 x 512, slices of 1 to 5 mm, "
    "drawn from seeds that neither training nor calibration used. Half of them hold one bleed, "
    "the five types in equal parts. They come from the same generator as the training phantoms: "
    "the numbers say nothing about patients."
)
BOOTSTRAP_SEED = 20_260_115
SMALL_ML = 2.0
LARGE_ML = 10.0
FAINT_HU = 20.0
THIN_MM = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One test phantom and what the model said of it."""

    study: SimulatedStudy
    logit: float
    probability: float
    suspected: bool


Claim = Callable[[Scored], bool]

# Sensitivity is given for each of these groups of bleeding phantoms: key, label, which.
SENSITIVITY_GROUPS: tuple[tuple[str, str, Claim], ...] = (
    ("sensitivity", "Sensitivity", lambda _: True),
    *(
        (
            f"sensitivity_{kind.value}",
            f"Sensitivity, {kind.value} bleeds",
            lambda scored, kind=kind: scored.study.kind is kind,
        )
        for kind in KINDS
    ),
    (
        "sensitivity_under_2_ml",
        "Sensitivity, bleeds under 2 ml",
        lambda scored: scored.study.volume_ml < SMALL_ML,
    ),
    (
        "sensitivity_2_to_10_ml",
        "Sensitivity, bleeds of 2 to 10 ml",
        lambda scored: SMALL_ML <= scored.study.volume_ml < LARGE_ML,
    ),
    (
        "sensitivity_over_10_ml",
        "Sensitivity, bleeds of 10 ml and more",
        lambda scored: scored.study.volume_ml >= LARGE_ML,
    ),
    (
        "sensitivity_faint",
        "Sensitivity, bleeds less than 20 HU above grey matter",
        lambda scored: scored.study.contrast_hu < FAINT_HU,
    ),
    (
        "sensitivity_thin_slices",
        "Sensitivity, slices of 1.25 mm and less",
        lambda scored: scored.study.spacing_mm <= THIN_MM,
    ),
)
SPECIFICITY_GROUPS: tuple[tuple[str, str, Claim], ...] = (
    ("specificity", "Specificity", lambda scored: not scored.study.plastic),
    (
        "specificity_plastic",
        "Specificity, skulls filled with air and plastic inserts",
        lambda scored: scored.study.plastic,
    ),
    (
        "specificity_thin_slices",
        "Specificity, slices of 1.25 mm and less",
        lambda scored: not scored.study.plastic and scored.study.spacing_mm <= THIN_MM,
    ),
)


def score(studies: Sequence[SimulatedStudy], model: Path, package: ModelPackage) -> list[Scored]:
    """Run the device's engine and decision over the studies."""
    file = VerifiedFile(path=model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    results = []
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        for study in studies:
            outputs = engine.run({package.input.name: channels(study.slab_hu)})
            decision = decide(outputs[package.output.tensor.name], package.output)
            results.append(
                Scored(
                    study=study,
                    logit=decision.logit,
                    probability=decision.probability,
                    suspected=decision.suspected,
                )
            )
    return results


def summarise(scored: Sequence[Scored], package: ModelPackage, model: Path) -> Evaluation:
    """All figures with their intervals; groups without cases are left out."""
    with_brain = [item for item in scored if not item.study.plastic]
    logits = np.array([item.logit for item in with_brain])
    chances = np.array([item.probability for item in with_brain])
    positive = np.array([item.study.positive for item in with_brain])
    estimates = [_estimate("auc", "Area under the ROC curve", area_under_roc(logits, positive))]
    for key, label, belongs in SENSITIVITY_GROUPS:
        group = [item for item in with_brain if item.study.positive and belongs(item)]
        if group:
            hits = sum(item.suspected for item in group)
            estimates.append(_estimate(key, label, proportion(hits, len(group))))
    for key, label, belongs in SPECIFICITY_GROUPS:
        group = [item for item in scored if not item.study.positive and belongs(item)]
        if group:
            clean = sum(not item.suspected for item in group)
            estimates.append(_estimate(key, label, proportion(clean, len(group))))
    error = bootstrap(expected_calibration_error, chances, positive, seed=BOOTSTRAP_SEED)
    estimates.append(_estimate("calibration_error", "Expected calibration error", error))
    return Evaluation(
        model_version=package.version,
        model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        threshold=package.output.operating_point.threshold,
        test_set=TEST_SET,
        positives=int(positive.sum()),
        negatives=len(scored) - int(positive.sum()),
        estimates=tuple(estimates),
    )


def _estimate(key: str, label: str, interval: Interval) -> Estimate:
    # Rounded outwards, so that no interval is told narrower than it is.
    return Estimate(
        key=key,
        label=label,
        value=round(interval.value, 4),
        lower=float(np.floor(interval.lower * 1e4) / 1e4),
        upper=float(np.ceil(interval.upper * 1e4) / 1e4),
        cases=interval.cases,
    )


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
    evaluation = summarise(scored, package, model)
    text = evaluation.model_dump_json(indent=2) + "\n"
    (options.work / EVALUATION_FILE).write_text(text, "utf-8")
    for line in _misses(scored):
        print(line)
    for estimate in evaluation.estimates:
        print(
            f"{estimate.label}: {estimate.value:.3f} ({estimate.lower:.3f}-{estimate.upper:.3f}), "
            f"n={estimate.cases}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
