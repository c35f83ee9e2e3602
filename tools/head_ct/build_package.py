"""Make the shipped package of a trained and evaluated model.

``python -m tools.head_ct.build_package --work WORK`` writes everything but ``card.toml``, which is
written by hand and stays where it is: it holds words, and names the numbers it quotes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.backends import open_engine
from engines.calibration import suspected_elements
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
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
from tools.head_ct.page import with_figures
from tools.head_ct.simulate import PhantomSet, channels, phantom_of, simulate
from tools.head_ct.through import examine
from tools.head_ct.toml_text import toml_text
from tools.head_ct.training_result import read_manifest
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import Expectation, PhantomName, make_study, write_study

GOLDEN_STUDIES_FILE = "golden/studies.toml"
GOLDEN_PHANTOMS = (0, 3, 6)
"""Numbers within the smoke set: an epidural, a healthy and an intraparenchymal one."""
GOLDEN_LEVELS = 255
"""Golden inputs hold multiples of 1/255: they pack well, and engines see ordinary values."""
SLICES = 14
"""70 mm: as few as the gate lets through, so that the golden studies are quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenStudy:
    """A phantom whose outcome the package promises."""

    phantom: PhantomName
    seed: int
    outcome: Expectation
    bleed: BleedKind | None = None


GOLDEN_STUDIES = (
    *(
        GoldenStudy(
            phantom=PhantomName.HEAD_CT,
            seed=number,
            bleed=kind,
            outcome=Expectation.SUSPECTED,
        )
        for number, kind in enumerate(BleedKind, start=1)
    ),
    GoldenStudy(phantom=PhantomName.HEAD_CT, seed=11, outcome=Expectation.NOT_SUSPECTED),
    GoldenStudy(phantom=PhantomName.FULL_EXAM, seed=12, outcome=Expectation.NOT_SUSPECTED),
    GoldenStudy(phantom=PhantomName.QA_PHANTOM, seed=13, outcome=Expectation.NOT_SUSPECTED),
    *(
        GoldenStudy(phantom=name, seed=14, outcome=Expectation.NOT_ANALYSED)
        for name in (
            PhantomName.MISSING_SLICE,
            PhantomName.TILTED,
            PhantomName.DUPLICATE_POSITION,
            PhantomName.MIXED_ORIENTATION,
            PhantomName.CONTRAST,
            PhantomName.THICK,
            PhantomName.DOSE_REPORT,
            PhantomName.LOCALIZER_ONLY,
        )
    ),
)


class UnexpectedOutcomeError(Exception):
    """The model does not do what the package would promise; train again or choose others."""


def write_package(work: Path, target: Path) -> None:
    """Fill ``target`` from the results in ``work``, seal it, and verify it as a device would.

    Raises:
        UnexpectedOutcomeError: a golden study comes out otherwise.
        PackageError: the package is not in order, ``card.toml`` included.
    """
    package = read_manifest(work)
    (target / "golden").mkdir(parents=True, exist_ok=True)
    for name in (MODEL_FILE, EVALUATION_FILE):
        shutil.copyfile(work / name, target / name)
    (target / PACKAGE_FILE).write_text(
        toml_text(package.model_dump(mode="json", exclude_none=True)), "utf-8"
    )
    model = target / MODEL_FILE
    file = VerifiedFile(path=model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        _write_golden_tensors(target, package, engine)
        _write_golden_studies(target, package, engine)
    write_checksums(target)
    report = verify_package(target, Backend.ONNXRUNTIME, EngineOptions())
    print(f"verified: {report.elements} golden logits, deviation {report.max_absolute:.2g}")


def _write_golden_tensors(target: Path, package: ModelPackage, engine: Engine) -> None:
    inputs = _golden_inputs(package, engine)
    outputs = engine.run({package.input.name: inputs})
    np.savez_compressed(target / GOLDEN_INPUTS_FILE, slabs=inputs)
    logits = outputs[package.output.tensor.name]
    np.savez_compressed(target / GOLDEN_OUTPUTS_FILE, logit=logits)


def _golden_inputs(package: ModelPackage, engine: Engine) -> NDArray[np.float32]:
    """Of each golden phantom the slab with the highest and that with the lowest logit."""
    chosen = []
    for number in GOLDEN_PHANTOMS:
        study = simulate(phantom_of(PhantomSet.SMOKE, number, matrix=256))
        slabs = np.rint(channels(study.slab_hu) * GOLDEN_LEVELS) / np.float32(GOLDEN_LEVELS)
        logits = engine.run({package.input.name: slabs})[package.output.tensor.name]
        chosen += [slabs[int(logits.argmax())], slabs[int(logits.argmin())]]
    golden = np.stack(chosen).astype(np.float32)
    logits = engine.run({package.input.name: golden})[package.output.tensor.name]
    if len(set(suspected_elements(logits, package.output).tolist())) == 1:
        raise UnexpectedOutcomeError("all golden slabs fall on one side of the operating point")
    return golden


def _write_golden_studies(target: Path, package: ModelPackage, engine: Engine) -> None:
    tables = []
    for golden in GOLDEN_STUDIES:
        study = make_study(golden.phantom, seed=golden.seed, bleed=golden.bleed, slices=SLICES)
        with tempfile.TemporaryDirectory() as folder:
            verdict = examine(write_study(study, Path(folder)), package, engine)
        shown = f"{golden.phantom.value}, seed {golden.seed}: {verdict}"
        print(shown)
        if verdict.outcome is not golden.outcome:
            raise UnexpectedOutcomeError(f"{shown}; wanted {golden.outcome.value}")
        table: dict[str, object] = {
            "phantom": golden.phantom.value,
            "seed": golden.seed,
            "slices": SLICES,
            "outcome": verdict.outcome.value,
        }
        if golden.bleed is not None:
            table["bleed"] = golden.bleed.value
        if verdict.reason is not None:
            table["reason"] = verdict.reason.value
        tables.append(table)
    (target / GOLDEN_STUDIES_FILE).write_text(toml_text({"study": tables}), "utf-8")


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
