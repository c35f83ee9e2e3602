"""Lays out a package folder around an ONNX file.

Everything is asked before anything is written, and the folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.backends import open_engine
from engines.checksums import MAX_FILE_BYTES, VerifiedFile, read_bounded
from engines.contract import Backend, EngineOptions
from engines.golden import MAX_GOLDEN_BYTES, read_arrays, spec_of
from engines.onnx_checks import Boundary, read_boundary
from engines.package import ModelPackage
from tools.models.card_form import card_tables, unfilled
from tools.models.codes import key_of
from tools.models.errors import AnswersError, TargetFolderError, UnfitModelError
from tools.models.golden import Float32, Golden, golden_of, make_golden
from tools.models.input_facts import input_facts, output_facts
from tools.models.manuscript import write_folder
from tools.models.plan import Plan, make_plan
from tools.models.questions import Ask, Interview

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_ANSWERS_BYTES = 512 * 1024
MAX_THREADS = 16
CARD = "card"
"""Table of the answers that is for the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """What was made."""

    folder: Path
    package: ModelPackage
    automatic: tuple[str, ...]
    """Findings whose operating point was put amid the golden outputs."""
    one_sided: tuple[str, ...]
    """Findings whose golden outputs lie all on one side of the operating point."""
    unfilled: tuple[str, ...]
    """Fields of the card that somebody has to fill in."""


def read_answers(file: Path) -> dict[str, Any]:
    """Reads a file of answers.

    Raises:
        AnswersError: it is no TOML.
        PackageIntegrityError: it cannot be read.
    """
    try:
        return tomllib.loads(read_bounded(file, MAX_ANSWERS_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise AnswersError(f"{file.name} is not valid TOML: {error}") from error


def scaffold(
    model: Path,
    target: Path,
    *,
    name: str,
    answers: Mapping[str, Any],
    ask: Ask | None,
    inputs: Path | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Scaffold:
    """Makes the folder.

    Args:
        model: the ONNX file.
        target: the folder, which must not exist.
        name: the package's, unless another is answered; empty: the file's.
        answers: given beforehand.
        ask: how to ask a person; None: nobody is there.
        inputs: the maker's golden inputs; None: they are drawn.
        seed: decides golden inputs that are drawn.
        tell: takes lines about what is going on.

    Raises:
        PackageError: the model or an answer will not do, or the folder exists.
        EngineError: the model does not run.
    """
    if target.exists():
        raise TargetFolderError(f"{target} exists; remove it, or choose another folder")
    content = read_bounded(model, MAX_FILE_BYTES)
    boundary = read_boundary(content)
    _tell_boundary(boundary, tell)
    rest = {key: value for key, value in answers.items() if key != CARD}
    interview = Interview(rest, ask)
    name = name or key_of(model.stem, prefix="model")
    plan = make_plan(interview, input_facts(boundary), output_facts(boundary), name)
    interview.finish()
    words = answers.get(CARD, {})
    if not isinstance(words, Mapping):
        raise AnswersError(f"{CARD}: it is a table, such as [{CARD}.developer]")
    card = card_tables(plan.package, words)
    tell("making golden inputs and outputs with ONNX Runtime")
    golden = _golden(model, content, plan, inputs, seed)
    _publish(target, content, golden, card)
    return Scaffold(
        folder=target,
        package=golden.package,
        automatic=tuple(key for key in _keys(golden.package) if key in plan.automatic),
        one_sided=golden.one_sided,
        unfilled=unfilled(card),
    )


def _tell_boundary(boundary: Boundary, tell: Callable[[str], None]) -> None:
    for side, tensors in (("input", boundary.inputs), ("output", boundary.outputs)):
        for tensor in tensors:
            shape = " x ".join("any" if size < 0 else str(size) for size in tensor.shape)
            tell(f"{side} {tensor.name}: {tensor.dtype}, {shape}")


def _keys(package: ModelPackage) -> tuple[str, ...]:
    return tuple(finding.key for finding in package.findings)


def _golden(model: Path, content: bytes, plan: Plan, inputs: Path | None, seed: int) -> Golden:
    file = VerifiedFile(path=model, sha256=hashlib.sha256(content).hexdigest())
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    own = None if inputs is None else _own_inputs(inputs, plan.package)
    options = EngineOptions(intra_op_threads=threads)
    with open_engine(Backend.ONNXRUNTIME, file, options) as engine:
        if own is None:
            return make_golden(engine, plan.package, plan.automatic, seed=seed)
        return golden_of(engine, plan.package, plan.automatic, own)


def _own_inputs(file: Path, package: ModelPackage) -> Float32:
    rule = package.input
    array = read_arrays(read_bounded(file, MAX_GOLDEN_BYTES), [rule.name])[rule.name]
    spec = spec_of(rule)
    fits = len(array.shape) == len(spec.shape) and all(
        wanted in (-1, size) for wanted, size in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise UnfitModelError(
            f"{file.name}: {rule.name!r} has shape {array.shape}, the model takes {spec.shape}"
        )
    return array


def _publish(target: Path, content: bytes, golden: Golden, card: Mapping[str, Any]) -> None:
    """Write beside the target, then rename: an interrupted run leaves nothing that looks whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise TargetFolderError(f"{target} cannot be made ({error.strerror})") from error
    try:
        write_folder(unfinished, content, golden, card)
        unfinished.chmod(0o755)  # mkdtemp keeps it from everybody else
        unfinished.rename(target)
    except OSError as error:
        raise TargetFolderError(f"{target} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
