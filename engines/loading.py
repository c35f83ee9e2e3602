"""Opens a model package: everything about it is checked before anything of it is believed.

Order (each step rests on those before):

1. CHECKSUMS: the folder holds exactly the listed bytes.
2. ``package.toml``, ``card.toml``, ``evaluation.json`` obey their closed schemas.
3. They agree: the card quotes estimates that exist, and the evaluation is of this model, at this
   version and operating point.

What takes the ``onnx`` library or an engine stands in ``engines.verifying``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from engines.card import Evaluation, ModelCard
from engines.checksums import VerifiedFile, verify_checksums
from engines.errors import PackageSchemaError
from engines.package import ClosedModel, ModelPackage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODEL_FILE = "model.onnx"
PACKAGE_FILE = "package.toml"
CARD_FILE = "card.toml"
EVALUATION_FILE = "evaluation.json"
GOLDEN_INPUTS_FILE = "golden/inputs.npz"
GOLDEN_OUTPUTS_FILE = "golden/outputs.npz"

MAX_TEXT_BYTES = 512 * 1024
"""Of a TOML or JSON file: a card of every field at its longest is about 130 kB."""

_SHOWN_ERRORS = 5

Schema = TypeVar("Schema", bound=ClosedModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPackage:
    """A package whose files and papers were checked."""

    folder: Path
    digest: str
    """SHA-256 of CHECKSUMS: it names this very package."""
    manifest: ModelPackage
    card: ModelCard
    evaluation: Evaluation
    model: VerifiedFile
    golden_inputs: VerifiedFile
    golden_outputs: VerifiedFile


def load_package(folder: Path) -> LoadedPackage:
    """Checks and opens the package in ``folder``.

    Raises:
        PackageIntegrityError: The files are not those of CHECKSUMS.
        PackageSchemaError: A file is outside its schema, or two contradict each other.
    """
    files = verify_checksums(folder)
    package = LoadedPackage(
        folder=folder,
        digest=files.digest,
        manifest=parse_toml(files.file(PACKAGE_FILE), ModelPackage),
        card=parse_toml(files.file(CARD_FILE), ModelCard),
        evaluation=parse_json(files.file(EVALUATION_FILE), Evaluation),
        model=files.file(MODEL_FILE),
        golden_inputs=files.file(GOLDEN_INPUTS_FILE),
        golden_outputs=files.file(GOLDEN_OUTPUTS_FILE),
    )
    _check_agreement(package)
    return package


def parse_toml(file: VerifiedFile, schema: type[Schema]) -> Schema:
    """Reads a TOML file into its schema.

    Raises:
        PackageSchemaError: It is no TOML, or outside the schema; the text names the keys.
    """
    try:
        tables = tomllib.loads(file.read(MAX_TEXT_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PackageSchemaError(f"{file.path.name} is not valid TOML: {error}") from error
    try:
        return schema.model_validate(tables)
    except ValidationError as error:
        raise _outside_schema(file, error) from error


def parse_json(file: VerifiedFile, schema: type[Schema]) -> Schema:
    """Reads a JSON file into its schema.

    Raises:
        PackageSchemaError: It is no JSON, or outside the schema; the text names the keys.
    """
    try:
        return schema.model_validate_json(file.read(MAX_TEXT_BYTES))
    except ValidationError as error:
        raise _outside_schema(file, error) from error


def _outside_schema(file: VerifiedFile, error: ValidationError) -> PackageSchemaError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
        for fault in faults[:_SHOWN_ERRORS]
    ]
    if len(faults) > _SHOWN_ERRORS:
        lines.append(f"and {len(faults) - _SHOWN_ERRORS} more")
    return PackageSchemaError(
        f"{file.path.name}: {'; '.join(lines)} (docs/model-package.md lists every key)"
    )


def _check_agreement(package: LoadedPackage) -> None:
    evaluation, manifest = package.evaluation, package.manifest
    unknown = package.card.estimate_keys() - {item.key for item in evaluation.estimates}
    if unknown:
        raise PackageSchemaError(
            f"{CARD_FILE} quotes {min(unknown)!r}, which {EVALUATION_FILE} does not hold"
        )
    if evaluation.model_sha256 != package.model.sha256:
        raise PackageSchemaError(
            f"{EVALUATION_FILE} is of another {MODEL_FILE}; evaluate this one and seal again"
        )
    if evaluation.model_version != manifest.version:
        raise PackageSchemaError(
            f"{EVALUATION_FILE} is of version {evaluation.model_version}, "
            f"{PACKAGE_FILE} of {manifest.version}"
        )
    if evaluation.threshold != manifest.output.operating_point.threshold:
        raise PackageSchemaError(
            f"{EVALUATION_FILE} was measured at threshold {evaluation.threshold}, "
            f"{PACKAGE_FILE} decides at {manifest.output.operating_point.threshold}"
        )
