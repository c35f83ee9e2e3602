"""Checks a model package as a stranger would, in the order of one table.

Each check rests on those above it: the first that fails ends the list. Nothing here is written to
disk, and nothing is believed of the package before its check. A hostile package may still crash or
starve a library: ``edge_runtime.pipeline.confinement`` runs the table in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import DicomNodeError
from edge_runtime.errors import EdgeTriageError
from edge_runtime.model.finding import Broken, Refused, Result, Scored
from edge_runtime.pipeline.answers import Answer, CheckName, CheckStatus
from edge_runtime.pipeline.trial import examine
from engines.backends import open_engine
from engines.card import Evaluation, ModelCard
from engines.checksums import verify_checksums
from engines.contract import Backend, Engine, EngineOptions
from engines.errors import GoldenFileError, ModelEngineError
from engines.golden import load_golden
from engines.golden_studies import (
    GoldenOutcome,
    GoldenStudy,
    StudyOnDisk,
    load_golden_studies,
)
from engines.loading import (
    CARD_FILE,
    EVALUATION_FILE,
    PACKAGE_FILE,
    LoadedPackage,
    load_package,
    parse_json,
    parse_toml,
)
from engines.onnx_checks import check_model
from engines.package import ModelPackage
from engines.parity import check_parity
from engines.requirements import this_machine, unmet
from engines.verifying import check_golden_decides


@dataclass(slots=True, kw_only=True)
class _Subject:
    """What earlier checks leave to later ones."""

    folder: Path
    backend: Backend
    options: EngineOptions
    loaded: LoadedPackage | None = None

    @property
    def package(self) -> LoadedPackage:
        if self.loaded is None:
            self.loaded = load_package(self.folder)
        return self.loaded


_MAX_CHARACTERS = 1000

_Finding = tuple[CheckStatus, str, float | None]


def run_checks(folder: Path, backend: Backend, options: EngineOptions) -> Iterator[Answer]:
    """Run the checks in their order, up to the first that fails.

    Args:
        folder: the package.
        backend: whose parity is checked.
        options: of the engine.
    """
    subject = _Subject(folder=folder, backend=backend, options=options)
    for name, check in _CHECKS:
        try:
            status, found, deviation = check(subject)
        except (ModelEngineError, EdgeTriageError) as error:
            yield Answer(
                name=name,
                status=CheckStatus.FAILED,
                found=_readable(str(error)),
                error=type(error).__name__,
            )
            return
        yield Answer(name=name, status=status, found=found, deviation=deviation)


def _readable(text: str) -> str:
    """One line for a terminal: libraries quote names that the package's maker chose."""
    line = "".join(sign if sign.isprintable() else " " for sign in text[:_MAX_CHARACTERS])
    return line + (" ..." if len(text) > _MAX_CHARACTERS else "")


def _check_checksums(subject: _Subject) -> _Finding:
    files = verify_checksums(subject.folder)
    return _fine(f"holds exactly the {len(files.digests)} files of CHECKSUMS, {files.digest[:12]}")


def _check_schemas(subject: _Subject) -> _Finding:
    files = verify_checksums(subject.folder)
    package = parse_toml(files.file(PACKAGE_FILE), ModelPackage)
    parse_toml(files.file(CARD_FILE), ModelCard)
    parse_json(files.file(EVALUATION_FILE), Evaluation)
    return _fine(f"{package.name} {package.version}; all papers obey their schemas")


def _check_agreement(subject: _Subject) -> _Finding:
    points = subject.package.evaluation.thresholds.items()
    shown = ", ".join(f"{key} {threshold:g}" for key, threshold in points)
    return _fine(f"evaluated is this model, at its operating points: {shown}")


def _check_card(subject: _Subject) -> _Finding:
    package = subject.package
    return _fine(
        f"complete; it quotes only what was measured; {len(package.figures)} plain pictures"
    )


def _check_requirements(subject: _Subject) -> _Finding:
    requires = subject.package.manifest.requires
    if lacks := unmet(requires, this_machine()):
        return CheckStatus.WARNING, "not for this machine: " + "; ".join(lacks), None
    return _fine(f"this machine has what it needs ({requires.memory_mib} MiB of memory)")


def _check_model_file(subject: _Subject) -> _Finding:
    check_model(subject.package)
    return _fine("a sound ONNX file of bounded size, with the tensors of package.toml")


def _check_golden_tensors(subject: _Subject) -> _Finding:
    check_golden_decides(subject.package)
    golden = load_golden(subject.package)
    items = len(golden.inputs[subject.package.manifest.input.name])
    return _fine(f"{items} items, on both sides of each operating point")


def _check_parity(subject: _Subject) -> _Finding:
    with _opened(subject) as engine:
        report = check_parity(engine, subject.package)
        version = engine.metadata.version
    found = (
        f"{subject.backend.value} {version} reproduces the golden outputs (largest deviation "
        f"{report.max_absolute:.2g})"
    )
    return CheckStatus.OK, found, report.max_absolute


def _check_golden_studies(subject: _Subject) -> _Finding:
    studies = load_golden_studies(subject.package)
    if not studies:
        return CheckStatus.WARNING, "none: allowed for a demonstration only", None
    with _opened(subject) as engine:
        for each in studies:
            _check_study(each, subject.package.manifest, engine)
    return _fine(f"{len(studies)} studies come out as their maker saw")


def _opened(subject: _Subject) -> Engine:
    return open_engine(subject.backend, subject.package.model, subject.options)


def _check_study(each: StudyOnDisk, package: ModelPackage, engine: Engine) -> None:
    study = each.study
    try:
        result = examine((file.path for file in each.files), package, engine)
    except DicomNodeError as error:
        raise GoldenFileError(f"golden study {study.folder!r}: {error}") from error
    wanted = study.outcome.value + (f" ({study.reason})" if study.reason else "")
    came = _outcome_of(result)
    if came != wanted:
        raise GoldenFileError(
            f"golden study {study.folder!r} comes out as {came}, its maker saw {wanted}"
        )
    if isinstance(result, Scored):
        _check_probabilities(study, result)


def _outcome_of(result: Result) -> str:
    if isinstance(result, Refused):
        return f"{GoldenOutcome.NOT_ANALYSED.value} ({result.reason.value})"
    if isinstance(result, Broken):
        return f"FAILED ({result.reason.value})"
    outcome = GoldenOutcome.SUSPECTED if result.suspected else GoldenOutcome.NOT_SUSPECTED
    return outcome.value


def _check_probabilities(study: GoldenStudy, result: Scored) -> None:
    found = {score.key: score.probability for score in result.findings}
    for finding in study.findings:
        if abs(found[finding.key] - finding.probability) > finding.tolerance:
            raise GoldenFileError(
                f"golden study {study.folder!r}: the probability of {finding.key!r} is "
                f"{found[finding.key]:.4f}, its maker saw {finding.probability:.4f} ± "
                f"{finding.tolerance:g}"
            )


def _fine(found: str) -> _Finding:
    return CheckStatus.OK, found, None


_CHECKS: Sequence[tuple[CheckName, Callable[[_Subject], _Finding]]] = (
    (CheckName.CHECKSUMS, _check_checksums),
    (CheckName.SCHEMAS, _check_schemas),
    (CheckName.AGREEMENT, _check_agreement),
    (CheckName.CARD, _check_card),
    (CheckName.REQUIREMENTS, _check_requirements),
    (CheckName.MODEL_FILE, _check_model_file),
    (CheckName.GOLDEN_TENSORS, _check_golden_tensors),
    (CheckName.PARITY, _check_parity),
    (CheckName.GOLDEN_STUDIES, _check_golden_studies),
)
