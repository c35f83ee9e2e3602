"""Opens a model package: everything about it is checked before anything of it is believed.

Order (each step rests on those before):

1. CHECKSUMS: the folder holds exactly the listed bytes.
2. ``package.toml``, ``card.toml``, ``evaluation.json`` obey their closed schemas.
3. They agree: the card quotes measurements that exist, and the evaluation is of this model, at
   this version and operating point.
4. The card's figures are plain pictures.

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
from engines.fields import ClosedModel
from engines.figures import read_figure
from engines.package import ModelPackage
from engines.text_bounds import check_json, check_toml

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
    figures: tuple[VerifiedFile, ...]
    """Of the card, in its order; each is a plain picture."""


def load_package(folder: Path) -> LoadedPackage:
    """Checks and opens the package in ``folder``.

    Raises:
        PackageIntegrityError: The files are not those of CHECKSUMS.
        PackageSchemaError: A file is outside its schema, or two contradict each other.
        FigureError: A figure of the card is not a plain picture.
    """
    files = verify_checksums(folder)
    card = parse_toml(files.file(CARD_FILE), ModelCard)
    package = LoadedPackage(
        folder=folder,
        digest=files.digest,
        manifest=parse_toml(files.file(PACKAGE_FILE), ModelPackage),
        card=card,
        evaluation=parse_json(files.file(EVALUATION_FILE), Evaluation),
        model=files.file(MODEL_FILE),
        golden_inputs=files.file(GOLDEN_INPUTS_FILE),
        golden_outputs=files.file(GOLDEN_OUTPUTS_FILE),
        figures=tuple(files.file(figure.file) for figure in card.figures),
    )
    _check_agreement(package)
    for figure in package.figures:
        read_figure(figure)
    return package


def parse_toml(file: VerifiedFile, schema: type[Schema]) -> Schema:
    """Reads a TOML file into its schema.

    Raises:
        PackageSchemaError: It is no TOML, or outside the schema; the text names the keys.
    """
    content = file.read(MAX_TEXT_BYTES)
    check_toml(file.path.name, content)
    try:
        tables = tomllib.loads(content.decode("utf-8"))
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
    content = file.read(MAX_TEXT_BYTES)
    check_json(file.path.name, content)
    try:
        return schema.model_validate_json(content)
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
    if unmeasured := package.card.unmeasured(evaluation):
        raise PackageSchemaError(
            f"{CARD_FILE} quotes {unmeasured[0]!r}, which {EVALUATION_FILE} does not hold"
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
    decided = {rule.key: rule.operating_point.threshold for rule in manifest.findings}
    for key in sorted(decided.keys() | evaluation.thresholds.keys()):
        measured = evaluation.thresholds.get(key, "none")
        if measured != decided.get(key):
            raise PackageSchemaError(
                f"{EVALUATION_FILE} was measured at threshold {measured} of finding {key!r}, "
                f"{PACKAGE_FILE} decides at {decided.get(key, 'none')}"
            )
