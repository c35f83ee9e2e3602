"""Golden studies: whole studies with the outcome that the maker saw (``golden/studies.toml``).

Golden tensors prove an engine; a golden study proves everything from the scanner's files to the
decision. Each is a folder of DICOM files under ``golden/studies``. A package that is not a
demonstration needs at least one study of each kind, suspected and not; a demonstration may come
without any.

Here is what the file may say; ``edge_runtime.pipeline.verification`` runs the studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from engines.checksums import CHECKSUMS, MAX_CHECKSUMS_BYTES, VerifiedFile, parse_checksums
from engines.errors import GoldenFileError
from engines.fields import ClosedModel, Name
from engines.loading import LoadedPackage, parse_toml
from engines.package import ModelPackage

STUDIES_FILE = "golden/studies.toml"
STUDIES_FOLDER = "golden/studies"
MAX_STUDIES = 64


class GoldenOutcome(str, Enum):
    """What a device must say of a study."""

    SUSPECTED = "SUSPECTED"
    NOT_SUSPECTED = "NOT_SUSPECTED"
    NOT_ANALYSED = "NOT_ANALYSED"


class GoldenFinding(ClosedModel):
    """The calibrated probability of one finding in the study."""

    key: Name
    probability: Annotated[float, Field(ge=0, le=1)]
    tolerance: Annotated[float, Field(gt=0, le=0.5)] = 0.01
    """Largest allowed difference."""


class GoldenStudy(ClosedModel):
    """One study and its outcome."""

    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Under ``golden/studies``; all files in it are the study's."""
    outcome: GoldenOutcome
    reason: Name | None = None
    """Code of the reason, when it is not analysed."""
    findings: Annotated[tuple[GoldenFinding, ...], Field(max_length=32)] = ()
    """One for each finding of the package, when it is analysed."""

    @model_validator(mode="after")
    def _fits_the_outcome(self) -> GoldenStudy:
        is_analysed = self.outcome is not GoldenOutcome.NOT_ANALYSED
        if is_analysed != (self.reason is None) or is_analysed != bool(self.findings):
            raise ValueError(
                f"study {self.folder!r}: an analysed study has 'findings', another a 'reason'"
            )
        keys = [finding.key for finding in self.findings]
        if len(set(keys)) < len(keys):
            raise ValueError(f"study {self.folder!r}: a finding stands there twice")
        return self


class GoldenStudies(ClosedModel):
    """``golden/studies.toml``."""

    studies: Annotated[tuple[GoldenStudy, ...], Field(min_length=1, max_length=MAX_STUDIES)]

    @model_validator(mode="after")
    def _folders_differ(self) -> GoldenStudies:
        folders = [study.folder for study in self.studies]
        if len(set(folders)) < len(folders):
            raise ValueError("two studies have the same folder")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOnDisk:
    """A golden study and its files."""

    study: GoldenStudy
    files: tuple[VerifiedFile, ...]


def load_golden_studies(package: LoadedPackage) -> tuple[StudyOnDisk, ...]:
    """Reads which studies a package has; none when it has no ``golden/studies.toml``.

    Raises:
        PackageIntegrityError: CHECKSUMS or a file changed after the package was checked.
        PackageSchemaError: ``golden/studies.toml`` is outside its schema.
        GoldenFileError: It does not fit the package or the folders, or lacks studies.
    """
    files = _listed_files(package)
    listing = files.pop(STUDIES_FILE, None)
    studies = () if listing is None else parse_toml(listing, GoldenStudies).studies
    _check_kinds(studies, package.manifest)
    found = tuple(
        StudyOnDisk(
            study=study,
            files=tuple(
                file
                for relative, file in files.items()
                if relative.startswith(f"{STUDIES_FOLDER}/{study.folder}/")
            ),
        )
        for study in studies
    )
    _check_files(found, files)
    return found


def _listed_files(package: LoadedPackage) -> dict[str, VerifiedFile]:
    listing = VerifiedFile(path=package.folder / CHECKSUMS, sha256=package.digest)
    digests = parse_checksums(listing.read(MAX_CHECKSUMS_BYTES))
    return {
        relative: VerifiedFile(path=package.folder / relative, sha256=digest)
        for relative, digest in digests.items()
    }


def _check_kinds(studies: tuple[GoldenStudy, ...], manifest: ModelPackage) -> None:
    keys = {finding.key for finding in manifest.findings}
    for study in studies:
        if study.findings and {finding.key for finding in study.findings} != keys:
            raise GoldenFileError(
                f"{STUDIES_FILE}, study {study.folder!r}: name each of {', '.join(sorted(keys))}"
            )
    outcomes = {study.outcome for study in studies}
    if not manifest.demonstration and not (
        {GoldenOutcome.SUSPECTED, GoldenOutcome.NOT_SUSPECTED} <= outcomes
    ):
        raise GoldenFileError(
            f"{STUDIES_FILE} must name a suspected study and one that is not: only a demonstration "
            "may come without"
        )


def _check_files(found: tuple[StudyOnDisk, ...], files: dict[str, VerifiedFile]) -> None:
    for each in found:
        if not each.files:
            raise GoldenFileError(f"{STUDIES_FOLDER}/{each.study.folder} has no files")
    used = {file.path for each in found for file in each.files}
    for relative, file in files.items():
        if relative.startswith(f"{STUDIES_FOLDER}/") and file.path not in used:
            raise GoldenFileError(f"{relative} belongs to no study of {STUDIES_FILE}")
