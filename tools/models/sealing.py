"""``edge-triage models evaluate`` and ``seal``: what makes a folder verify."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from engines.card import Evaluation
from engines.checksums import MAX_FILE_BYTES, VerifiedFile, digest_of, read_bounded
from engines.loading import EVALUATION_FILE, MODEL_FILE, PACKAGE_FILE, parse_toml
from engines.package import ModelPackage
from engines.writing import write_checksums
from tools.console import JsonOption, explained_errors, out, print_json
from tools.models.errors import ScoresError
from tools.models.scores import evaluate as evaluated
from tools.models.scores import read_scores

MAX_SCORES_BYTES = 256 * 1024**2

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the package.")]


def evaluate(
    folder: FolderArgument,
    *,
    scores: Annotated[
        Path,
        typer.Option(
            help="Table (CSV) with the columns case, finding, truth (0, 1), probability, and "
            "group if wanted (sex=female; age=18-40)."
        ),
    ],
    test_set: Annotated[
        str, typer.Option(help="What the cases are, and how they were kept apart from training.")
    ],
    json: JsonOption = False,
) -> None:
    """Write evaluation.json from a table of truth and probability."""
    with explained_errors():
        evaluation = write_evaluation(folder, scores, test_set)
    if json:
        print_json(evaluation.model_dump(mode="json", exclude_none=True))
        return
    for item in evaluation.estimates:
        out.print(
            f"{item.key}: {item.value:.3f} ({item.lower:.3f} to {item.upper:.3f}), "
            f"{item.cases} cases",
            markup=False,
            soft_wrap=True,
        )
    out.print(f"{folder / EVALUATION_FILE} is written; seal the package again", markup=False)


def seal(folder: FolderArgument, *, json: JsonOption = False) -> None:
    """List every file of a package with its checksum, which makes it one that can be verified."""
    with explained_errors():
        listing = write_checksums(folder)
        digest = hashlib.sha256(read_bounded(listing, MAX_FILE_BYTES)).hexdigest()
    if json:
        print_json({"folder": str(folder), "digest": digest})
    else:
        out.print(f"{listing} is written; the package is {digest}", markup=False, soft_wrap=True)


def write_evaluation(folder: Path, scores: Path, test_set: str) -> Evaluation:
    """Works out the numbers and writes them into the package.

    Raises:
        PackageError: the package or the scores are not in order.
    """
    manifest = folder / PACKAGE_FILE
    package = parse_toml(VerifiedFile(path=manifest, sha256=digest_of(manifest)), ModelPackage)
    text = _text(scores)
    try:
        evaluation = evaluated(
            read_scores(text, package),
            package,
            model_sha256=digest_of(folder / MODEL_FILE),
            test_set=test_set,
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise ScoresError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    target = folder / EVALUATION_FILE
    temporary = folder / f".{EVALUATION_FILE}.{os.getpid()}"
    temporary.write_text(evaluation.model_dump_json(indent=2, exclude_none=True) + "\n", "utf-8")
    temporary.replace(target)
    return evaluation


def _text(scores: Path) -> str:
    try:
        return read_bounded(scores, MAX_SCORES_BYTES).decode("utf-8-sig")
    except ValueError as error:
        raise ScoresError(f"{scores.name} is not UTF-8 text") from error
