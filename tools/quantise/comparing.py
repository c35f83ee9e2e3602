"""What INT8 does to the decisions of a test set: flips, logits and figures of merit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.batching import run_batches
from engines.calibration import decide
from engines.contract import Engine
from engines.package import ModelPackage
from tools.figures_of_merit import area_under_roc
from tools.quantise.labelled import Case

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a model says of a package's first finding, case by case, and what is true."""

    logits: NDArray[np.float64]
    suspected: Mask
    positive: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Merit:
    """How good a model is at the package's operating point."""

    cases: int
    auc: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From one model to another on the same cases."""

    flips: int
    """Cases that are decided otherwise."""
    largest: float
    """Of the changes of a case's logit."""
    mean: float


def answers_of(engine: Engine, package: ModelPackage, cases: Iterable[Case]) -> Answers:
    """Runs cases as a device does: its batches, its arithmetic.

    Args:
        engine: Loaded.
        package: The model's.
        cases: At least one.

    Raises:
        EngineError: The engine failed.
    """
    rule = package.findings[0]
    found = [
        (decide(run_batches(engine, package.input, case.items), rule), case.positive)
        for case in cases
    ]
    return Answers(
        logits=np.array([decision.logit for decision, _ in found]),
        suspected=np.array([decision.suspected for decision, _ in found]),
        positive=np.array([positive for _, positive in found]),
    )


def merit_of(answers: Answers) -> Merit:
    """Works out the figures.

    Raises:
        ValueError: All cases are positive, or none is.
    """
    return Merit(
        cases=len(answers.logits),
        auc=area_under_roc(answers.logits, answers.positive).value,
        sensitivity=float(answers.suspected[answers.positive].mean()),
        specificity=float((~answers.suspected[~answers.positive]).mean()),
    )


def change_of(before: Answers, after: Answers) -> Change:
    """Compares two models' answers to the same cases, in the same order."""
    moved = np.abs(after.logits - before.logits)
    return Change(
        flips=int((before.suspected != after.suspected).sum()),
        largest=float(moved.max()),
        mean=float(moved.mean()),
    )
