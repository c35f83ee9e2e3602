"""Writes the package of a quantised model: to be evaluated, read over and sealed by its maker.

All of the old package goes with it but what is no longer true: the evaluation, which is of the old
model, and the seal.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from engines.checksums import CHECKSUMS, read_bounded
from engines.golden_studies import STUDIES_FILE, GoldenStudies
from engines.loading import (
    EVALUATION_FILE,
    GOLDEN_OUTPUTS_FILE,
    MAX_TEXT_BYTES,
    MODEL_FILE,
    PACKAGE_FILE,
    LoadedPackage,
)
from engines.package import FindingRule, ModelPackage
from tools.models.manuscript import INLINE
from tools.quantise.errors import TargetFolderError
from tools.quantise.making import Quantisation, StudyChange
from tools.toml_text import TomlStyle, toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARITY_MARGIN = 3.0
"""Of the tolerance over how far two engines were seen apart: a device's may be another two."""
MOST_TOLERANCE = 0.5
"""Of a golden study's probability, by its schema."""
DIGITS = 4

_STYLE = TomlStyle(inline=INLINE)


def write_package(
    package: LoadedPackage, quantisation: Quantisation, version: str, target: Path
) -> float:
    """Writes the folder beside its place, then renames it: it appears whole or not at all.

    Args:
        package: The old one.
        quantisation: What came of it.
        version: Of the new package.
        target: The new folder, which must not exist.

    Returns:
        The tolerance of parity that was put into ``package.toml``.

    Raises:
        TargetFolderError: It exists, or cannot be written.
        ValueError: The version is none.
    """
    tolerance = parity_of(package, quantisation.effect.rounding)
    manifest = _tables(package.folder / PACKAGE_FILE)
    manifest |= {"version": version}
    manifest["parity"] = manifest.get("parity", {}) | {"absolute": tolerance}
    ModelPackage.model_validate(manifest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise TargetFolderError(f"{target} cannot be made ({error.strerror})") from error
    try:
        _fill(unfinished, package, quantisation, manifest, tolerance)
        unfinished.chmod(0o755)  # mkdtemp keeps it from everybody else
        unfinished.rename(target)
    except OSError as error:
        raise TargetFolderError(f"{target} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return tolerance


def parity_of(package: LoadedPackage, rounding: float) -> float:
    """The tolerance within which engines reproduce a Q/DQ model, in two digits rounded up."""
    wanted = min(1.0, rounding * PARITY_MARGIN)
    step = 10.0 ** (math.floor(math.log10(wanted)) - 1) if wanted > 0 else 1.0
    return max(package.manifest.parity.absolute, round(math.ceil(wanted / step) * step, 12))


def _fill(
    folder: Path,
    package: LoadedPackage,
    quantisation: Quantisation,
    manifest: dict[str, Any],
    tolerance: float,
) -> None:
    shutil.copytree(
        package.folder,
        folder,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(CHECKSUMS, EVALUATION_FILE),
    )
    (folder / MODEL_FILE).write_bytes(quantisation.quantised.model)
    (folder / PACKAGE_FILE).write_text(toml_text(manifest, _STYLE), encoding="utf-8")
    with (folder / GOLDEN_OUTPUTS_FILE).open("wb") as file:
        named: dict[str, Any] = dict(quantisation.golden.outputs)
        np.savez_compressed(file, **named)
    if quantisation.effect.studies:
        studies = _tables(folder / STUDIES_FILE)
        _update_studies(studies, quantisation.effect.studies, package.manifest, tolerance)
        GoldenStudies.model_validate(studies)
        (folder / STUDIES_FILE).write_text(toml_text(studies), encoding="utf-8")


def _update_studies(
    tables: dict[str, Any],
    changes: tuple[StudyChange, ...],
    package: ModelPackage,
    tolerance: float,
) -> None:
    after = {change.after.folder: change.after.probabilities for change in changes}
    for study in tables["studies"]:
        for finding in study.get("findings", ()):
            rule = package.finding(finding["key"])
            finding["probability"] = round(after[study["folder"]][rule.key], DIGITS)
            finding["tolerance"] = max(
                finding.get("tolerance", 0.0), _probability_tolerance(rule, tolerance)
            )


def _probability_tolerance(rule: FindingRule, tolerance: float) -> float:
    """How far a probability is moved by a logit at most: the sigmoid's slope is a quarter."""
    moved = tolerance * rule.calibration.slope / 4
    return min(MOST_TOLERANCE, max(0.01, math.ceil(moved * 1000) / 1000))


def _tables(file: Path) -> dict[str, Any]:
    return tomllib.loads(read_bounded(file, MAX_TEXT_BYTES).decode("utf-8"))
