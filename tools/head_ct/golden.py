"""The golden files of the package: tensors for every engine, studies for the whole pipeline.

Besides the few studies that the package carries, phantoms of every kind are drawn and must come
out as expected; those are too large to carry.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.finding import Refused, Result, Scored
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.trial import examine
from engines.calibration import suspected_items
from engines.contract import Engine
from engines.golden_studies import STUDIES_FILE, STUDIES_FOLDER, GoldenOutcome
from engines.loading import GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE
from engines.package import ModelPackage
from tools.head_ct.phantom_sets import PhantomSet, phantom_of
from tools.head_ct.simulate import channels, simulate
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import (
    REFUSALS,
    Expectation,
    PhantomName,
    PhantomStudy,
    make_study,
    write_study,
)
from tools.toml_text import toml_text

GOLDEN_PHANTOMS = (0, 3, 6)
"""Numbers within the smoke set: an epidural, a healthy and an intraparenchymal one."""
GOLDEN_LEVELS = 255
"""Golden inputs hold multiples of 1/255: they pack well, and engines see ordinary values."""
SLICES = 14
"""70 mm: as few as the gate lets through, so that the studies are quick."""
CARRIED_MATRIX = 128
"""Of the studies in the package: pixels of 1.8 mm, which the gate just lets through."""
REFUSED_MATRIX = 64
"""Of one whose pixels nothing looks at."""
TOLERANCE = 0.02
"""Of a carried study's probability: engines differ in the last bits, not in this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A phantom study whose outcome the package promises."""

    folder: str
    phantom: PhantomName
    seed: int
    bleed: BleedKind | None = None
    matrix: int = 512
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT

    def plan(self) -> PhantomStudy:
        """The study, not yet drawn."""
        return make_study(
            self.phantom,
            seed=self.seed,
            bleed=self.bleed,
            slices=SLICES,
            matrix=self.matrix,
            syntax=self.syntax,
        )


CARRIED = (
    Promise(
        folder="bleed",
        phantom=PhantomName.HEAD_CT,
        seed=21,
        bleed=BleedKind.INTRAPARENCHYMAL,
        matrix=CARRIED_MATRIX,
        syntax=PhantomSyntax.JPEG_LS,
    ),
    Promise(
        folder="healthy",
        phantom=PhantomName.HEAD_CT,
        seed=29,
        matrix=CARRIED_MATRIX,
        syntax=PhantomSyntax.JPEG_LS,
    ),
    Promise(
        folder="tilted",
        phantom=PhantomName.TILTED,
        seed=23,
        matrix=REFUSED_MATRIX,
        syntax=PhantomSyntax.JPEG_LS,
    ),
)
"""Written into the package."""
DRAWN = (
    *(
        Promise(folder=kind.value, phantom=PhantomName.HEAD_CT, seed=number, bleed=kind)
        for number, kind in enumerate(BleedKind, start=1)
    ),
    Promise(folder="healthy", phantom=PhantomName.HEAD_CT, seed=11),
    Promise(folder="full-exam", phantom=PhantomName.FULL_EXAM, seed=12),
    Promise(folder="plastic", phantom=PhantomName.QA_PHANTOM, seed=13),
    *(
        Promise(folder=name.value, phantom=name, seed=14, matrix=CARRIED_MATRIX)
        for name in REFUSALS
    ),
)
"""Drawn when the package is made, and by the tests."""


class UnexpectedOutcomeError(Exception):
    """The model does not do what the package would promise; train again or choose others."""


def write_golden_tensors(target: Path, package: ModelPackage, engine: Engine) -> None:
    """Write inputs and the outputs of the loaded model.

    Raises:
        UnexpectedOutcomeError: all inputs fall on one side of the operating point.
    """
    inputs = _golden_inputs(package, engine)
    logits = engine.run({package.input.name: inputs})[package.findings[0].tensor]
    # By the names of recipe.INPUT and recipe.OUTPUT.
    np.savez_compressed(target / GOLDEN_INPUTS_FILE, slabs=inputs)
    np.savez_compressed(target / GOLDEN_OUTPUTS_FILE, logit=logits)


def _golden_inputs(package: ModelPackage, engine: Engine) -> NDArray[np.float32]:
    """Of each golden phantom the slab with the highest and that with the lowest logit."""
    rule = package.findings[0]
    chosen = []
    for number in GOLDEN_PHANTOMS:
        study = simulate(phantom_of(PhantomSet.SMOKE, number, matrix=256))
        slabs = np.rint(channels(study.slab_hu) * GOLDEN_LEVELS) / np.float32(GOLDEN_LEVELS)
        logits = engine.run({package.input.name: slabs})[rule.tensor]
        chosen += [slabs[int(logits.argmax())], slabs[int(logits.argmin())]]
    golden = np.stack(chosen).astype(np.float32)
    if len(set(suspected_items(engine.run({package.input.name: golden}), rule).tolist())) == 1:
        raise UnexpectedOutcomeError("all golden slabs fall on one side of the operating point")
    return golden


def write_golden_studies(target: Path, package: ModelPackage, engine: Engine) -> None:
    """Write the carried studies and what came of them.

    Raises:
        UnexpectedOutcomeError: a study comes out otherwise than expected.
    """
    shutil.rmtree(target / STUDIES_FOLDER, ignore_errors=True)
    tables = []
    for promise in CARRIED:
        study = promise.plan()
        paths = write_study(study, target / STUDIES_FOLDER / promise.folder)
        result = examine(paths, package, engine)
        _check(study, result)
        tables.append({"folder": promise.folder, **_table(result)})
    (target / STUDIES_FILE).write_text(toml_text({"studies": tables}), "utf-8")


def check_promises(
    package: ModelPackage, engine: Engine, promises: Sequence[Promise] = DRAWN
) -> None:
    """Draw phantoms, one of every kind, and take them through the device's own steps.

    Raises:
        UnexpectedOutcomeError: one comes out otherwise than expected.
    """
    for promise in promises:
        study = promise.plan()
        with tempfile.TemporaryDirectory() as folder:
            result = examine(write_study(study, Path(folder)), package, engine)
        print(f"{promise.folder}, seed {promise.seed}: {_shown(result)}")
        _check(study, result)


def _check(study: PhantomStudy, result: Result) -> None:
    wanted = (study.expectation, REFUSALS.get(study.name))
    if outcome_of(result) != wanted:
        raise UnexpectedOutcomeError(f"{study.name.value}: {_shown(result)}, wanted {wanted}")


def outcome_of(result: Result) -> tuple[Expectation | None, ReasonCode | None]:
    """The outcome in the generator's words, and the reason for which there is none."""
    if isinstance(result, Scored):
        found = Expectation.SUSPECTED if result.suspected else Expectation.NOT_SUSPECTED
        return found, None
    if isinstance(result, Refused):
        return Expectation.NOT_ANALYSED, result.reason
    return None, result.reason


def _shown(result: Result) -> str:
    if isinstance(result, Scored):
        return f"{result.leading.probability:.3f}, suspected: {result.suspected}"
    return f"{type(result).__name__.lower()}, {result.reason.value} {result.detail}"


def _table(result: Result) -> dict[str, object]:
    if not isinstance(result, Scored):
        return {"outcome": GoldenOutcome.NOT_ANALYSED.value, "reason": result.reason.value}
    outcome = GoldenOutcome.SUSPECTED if result.suspected else GoldenOutcome.NOT_SUSPECTED
    findings = [
        {"key": score.key, "probability": round(score.probability, 4), "tolerance": TOLERANCE}
        for score in result.findings
    ]
    return {"outcome": outcome.value, "findings": findings}
