"""Make the shipped package of a trained and evaluated model, and its page's figures and pictures.

``python -m tools.head_ct.build_package --work WORK`` writes everything but ``card.toml``, which is
written by hand and stays where it is: it holds words, and names the numbers that it quotes.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from engines.backends import open_engine
from engines.card import Curve, Evaluation
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions
from engines.loading import EVALUATION_FILE, MODEL_FILE, PACKAGE_FILE, load_package
from engines.verifying import verify_package
from engines.writing import write_checksums
from tools.head_ct.golden import check_promises, write_golden_studies, write_golden_tensors
from tools.head_ct.page import with_figures
from tools.head_ct.pictures import curve_svg, examples_png
from tools.head_ct.training_result import read_manifest
from tools.toml_text import toml_text

FIGURES_FOLDER = "figures"
LOGARITHMIC = frozenset({"sensitivity_by_volume"})
EXAMPLES_FILE = "examples.png"


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
    evaluation = Evaluation.model_validate_json((work / EVALUATION_FILE).read_text("utf-8"))
    write_curves(evaluation.curves, target / FIGURES_FOLDER)
    model = target / MODEL_FILE
    file = VerifiedFile(path=model, sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    with open_engine(Backend.ONNXRUNTIME, file, EngineOptions()) as engine:
        write_golden_tensors(target, package, engine)
        write_golden_studies(target, package, engine)
        check_promises(package, engine)
    write_checksums(target)
    report = verify_package(target, Backend.ONNXRUNTIME, EngineOptions())
    print(f"verified: {report.elements} golden logits, deviation {report.max_absolute:.2g}")


def write_curves(curves: Sequence[Curve], folder: Path) -> None:
    """Draw each curve into a file of its key's name."""
    folder.mkdir(parents=True, exist_ok=True)
    for curve in curves:
        picture = curve_svg(curve, log_x=curve.key in LOGARITHMIC)
        (folder / f"{curve.key}.svg").write_text(picture, "utf-8")


def write_page(page: Path, evaluation: Evaluation) -> None:
    """Renew a page's tables, and the pictures in the folder of its name beside it."""
    page.write_text(with_figures(page.read_text("utf-8"), evaluation), "utf-8")
    pictures = page.with_suffix("")
    write_curves(evaluation.curves, pictures)
    (pictures / EXAMPLES_FILE).write_bytes(examples_png())


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of train and evaluate")
    parser.add_argument("--out", type=Path, required=True, help="the package's folder")
    parser.add_argument("--page", type=Path, help="Markdown page that is renewed")
    options = parser.parse_args(arguments)
    write_package(options.work, options.out)
    if options.page is not None:
        write_page(options.page, load_package(options.out).evaluation)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
