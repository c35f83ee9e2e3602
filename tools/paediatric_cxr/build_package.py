"""Make the shipped package of a trained, calibrated and evaluated model.

``python -m tools.paediatric_cxr.build_package --work WORK --out PACKAGE`` writes everything but
``card.toml``, which is written by hand and stays where it is: it holds words, and names the numbers
it quotes. Golden inputs and studies are drawn chests; nothing of the data set is among them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.finding import Refused, Result, Scored
from edge_runtime.pipeline.trial import examine
from engines.backends import open_engine
from engines.batching import run_batches
from engines.calibration import suspected_items
from engines.card import Evaluation
from engines.contract import Backend, Engine, EngineOptions
from engines.golden_studies import (
    STUDIES_FILE,
    STUDIES_FOLDER,
    GoldenFinding,
    GoldenOutcome,
    GoldenStudies,
    GoldenStudy,
)
from engines.loading import (
    EVALUATION_FILE,
    GOLDEN_INPUTS_FILE,
    GOLDEN_OUTPUTS_FILE,
    MODEL_FILE,
    PACKAGE_FILE,
    load_package,
)
from engines.package import ModelPackage
from engines.verifying import verify_package
from engines.writing import write_checksums
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.draw import write_pictures
from tools.paediatric_cxr.errors import UnexpectedOutcomeError
from tools.paediatric_cxr.page import with_figures
from tools.paediatric_cxr.scoring import verified
from tools.paediatric_cxr.training_result import read_manifest
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec
from tools.phantoms.chest_studies import ChestName, ChestStudy, make_chest_study, write_chest_study
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.variants import Expectation
from tools.toml_text import toml_text

FIGURES_FOLDER = "figures"
GOLDEN_LEVELS = 255
"""Golden pictures hold multiples of 1/255: they pack well, and engines see ordinary values."""
GOLDEN_CHESTS: tuple[tuple[int, OpacityKind | None], ...] = (
    (101, None),
    (102, None),
    (103, None),
    (104, OpacityKind.LOBAR),
    (105, OpacityKind.PATCHY),
    (106, OpacityKind.INTERSTITIAL),
)
STUDY_ROWS, STUDY_COLUMNS = 224, 192
"""Small, so that the package stays small; the preprocessing area-averages it all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedStudy:
    """A drawn study whose outcome the package promises."""

    name: ChestName
    seed: int
    opacity: OpacityKind | None = None
    syntax: PhantomSyntax = PhantomSyntax.JPEG_LS

    @property
    def folder(self) -> str:
        """Of its files in the package."""
        return f"{self.name.value}-{self.opacity.value if self.opacity else 'clear'}-{self.seed}"

    def study(self) -> ChestStudy:
        """The study, not yet drawn."""
        return make_chest_study(
            self.name,
            seed=self.seed,
            opacity=self.opacity,
            rows=STUDY_ROWS,
            columns=STUDY_COLUMNS,
            syntax=self.syntax,
        )


PROMISED_STUDIES = (
    PromisedStudy(name=ChestName.DX, seed=111),
    PromisedStudy(name=ChestName.CR, seed=112, syntax=PhantomSyntax.EXPLICIT),
    PromisedStudy(name=ChestName.INVERTED, seed=113),
    PromisedStudy(name=ChestName.DX, seed=114, opacity=OpacityKind.LOBAR),
    PromisedStudy(name=ChestName.CR, seed=115, opacity=OpacityKind.PATCHY),
    PromisedStudy(name=ChestName.INVERTED, seed=116, opacity=OpacityKind.INTERSTITIAL),
    PromisedStudy(name=ChestName.PAIR, seed=117, opacity=OpacityKind.PATCHY),
    PromisedStudy(name=ChestName.ADULT, seed=121, opacity=OpacityKind.LOBAR),
    PromisedStudy(name=ChestName.INFANT, seed=122),
    PromisedStudy(name=ChestName.AGE_MISSING, seed=123, opacity=OpacityKind.PATCHY),
    PromisedStudy(name=ChestName.RAW, seed=124, opacity=OpacityKind.LOBAR),
    PromisedStudy(name=ChestName.LATERAL, seed=125),
    PromisedStudy(name=ChestName.VIEW_MISSING, seed=126),
)


def write_package(work: Path, target: Path) -> None:
    """Fill ``target`` from the results in ``work``, seal it, and verify it as a device would.

    Raises:
        UnexpectedOutcomeError: a promised study comes out otherwise.
        PackageError: the package is not in order, ``card.toml`` included.
    """
    package = read_manifest(work)
    (target / "golden").mkdir(parents=True, exist_ok=True)
    for name in (MODEL_FILE, EVALUATION_FILE):
        shutil.copyfile(work / name, target / name)
    text = toml_text(package.model_dump(mode="json", exclude_none=True))
    (target / PACKAGE_FILE).write_text(text, "utf-8")
    evaluation = Evaluation.model_validate_json((work / EVALUATION_FILE).read_text("utf-8"))
    write_pictures(evaluation, target / FIGURES_FOLDER)
    with open_engine(Backend.ONNXRUNTIME, verified(target / MODEL_FILE), EngineOptions()) as engine:
        _write_golden_tensors(target, package, engine)
        _write_golden_studies(target, package, engine)
    write_checksums(target)
    report = verify_package(target, Backend.ONNXRUNTIME, EngineOptions())
    print(f"verified: {report.elements} golden logits, deviation {report.max_absolute:.2g}")


def golden_pictures() -> NDArray[np.float32]:
    """Pictures of drawn chests, clear ones first: (N, SIDE, SIDE), 0 to 1."""
    pictures = []
    for seed, kind in GOLDEN_CHESTS:
        drawn = draw_chest(draw_chest_spec(seed, opacity=kind), rows=448, columns=448).density
        picture = recipe.picture(np.rint(drawn * GOLDEN_LEVELS).astype(np.uint8))
        pictures.append(np.rint(picture * GOLDEN_LEVELS) / np.float32(GOLDEN_LEVELS))
    return np.stack(pictures).astype(np.float32)


def _write_golden_tensors(target: Path, package: ModelPackage, engine: Engine) -> None:
    inputs = recipe.items(golden_pictures())
    outputs = run_batches(engine, package.input, inputs)
    flags = suspected_items(outputs, package.finding(recipe.FINDING)).tolist()
    if flags != [kind is not None for _, kind in GOLDEN_CHESTS]:
        raise UnexpectedOutcomeError(f"golden chests come out as {flags}; choose others")
    # The keywords are the tensors' names; a name that changes in the recipe must change here.
    np.savez_compressed(target / GOLDEN_INPUTS_FILE, images=inputs)
    np.savez_compressed(target / GOLDEN_OUTPUTS_FILE, logit=outputs[recipe.OUTPUT.name])


def _write_golden_studies(target: Path, package: ModelPackage, engine: Engine) -> None:
    root = target / STUDIES_FOLDER
    shutil.rmtree(root, ignore_errors=True)
    found = []
    for promised in PROMISED_STUDIES:
        study = promised.study()
        result = examine(write_chest_study(study, root / promised.folder), package, engine)
        golden = _golden(promised.folder, result)
        print(f"{promised.folder}: {golden.outcome.value} {golden.reason or ''}", flush=True)
        if golden.outcome is not _OUTCOMES[study.expectation]:
            raise UnexpectedOutcomeError(
                f"{promised.folder} comes out as {golden.outcome.value}; wanted "
                f"{study.expectation.value}"
            )
        found.append(golden)
    text = toml_text(GoldenStudies(studies=tuple(found)).model_dump(mode="json", exclude_none=True))
    (target / STUDIES_FILE).write_text(text, "utf-8")


_OUTCOMES = {
    Expectation.SUSPECTED: GoldenOutcome.SUSPECTED,
    Expectation.NOT_SUSPECTED: GoldenOutcome.NOT_SUSPECTED,
    Expectation.NOT_ANALYSED: GoldenOutcome.NOT_ANALYSED,
}


def _golden(folder: str, result: Result) -> GoldenStudy:
    if isinstance(result, Refused):
        return GoldenStudy(
            folder=folder, outcome=GoldenOutcome.NOT_ANALYSED, reason=result.reason.value
        )
    if not isinstance(result, Scored):
        raise UnexpectedOutcomeError(f"{folder} fails: {result.reason.value}")
    outcome = GoldenOutcome.SUSPECTED if result.suspected else GoldenOutcome.NOT_SUSPECTED
    findings = tuple(
        GoldenFinding(key=score.key, probability=round(score.probability, 5))
        for score in result.findings
    )
    return GoldenStudy(folder=folder, outcome=outcome, findings=findings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of train and evaluate")
    parser.add_argument("--out", type=Path, required=True, help="the package's folder")
    parser.add_argument("--page", type=Path, help="Markdown page whose figures are renewed")
    options = parser.parse_args(arguments)
    write_package(options.work, options.out)
    if options.page is not None:
        evaluation = load_package(options.out).evaluation
        page = with_figures(options.page.read_text("utf-8"), evaluation)
        options.page.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
