"""docs/model-package.md describes the schema: each class has its section, each key its row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from engines.card import Evaluation, ModelCard
from engines.checksums import MAX_FILE_BYTES, MAX_FILES, MAX_PACKAGE_BYTES
from engines.fields import ClosedModel
from engines.golden_studies import GoldenStudies
from engines.onnx_checks import OPSETS
from engines.package import ModelPackage

DOCUMENT = Path(__file__).parents[3] / "docs" / "model-package.md"


def models_in(annotation: Any) -> set[type[ClosedModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ClosedModel):
        return reachable(annotation)
    return set().union(*(models_in(part) for part in get_args(annotation)))


def reachable(model: type[ClosedModel]) -> set[type[ClosedModel]]:
    inner = (models_in(field.annotation) for field in model.model_fields.values())
    return {model}.union(*inner)


SCHEMA = sorted(
    reachable(ModelPackage)
    | reachable(ModelCard)
    | reachable(Evaluation)
    | reachable(GoldenStudies),
    key=lambda model: model.__name__,
)


def sections() -> dict[str, list[str]]:
    """Keys in the first column of each section's table, by the section's title."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            title = line.lstrip("# ")
        elif title and line.startswith("| `"):
            found.setdefault(title, []).extend(re.findall(r"`([^`]+)`", line.split(" | ")[0]))
    return found


@pytest.mark.parametrize("model", SCHEMA, ids=lambda model: model.__name__)
def test_every_key_of_the_schema_has_its_row_and_every_row_its_key(
    model: type[ClosedModel],
) -> None:
    assert sections()[model.__name__] == list(model.model_fields)


def test_no_section_describes_a_class_that_is_gone() -> None:
    one_word = {title for title in sections() if re.fullmatch(r"[A-Z]\w+", title)}
    assert one_word == {model.__name__ for model in SCHEMA}


def test_the_numbers_in_the_text_are_those_of_the_code() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    assert f"{MAX_FILES:,} files" in text
    assert f"{MAX_FILE_BYTES // 1024**2} MiB a file" in text
    assert f"{MAX_PACKAGE_BYTES // 1024**3} GiB together" in text
    assert f"opset {OPSETS[0]} to {OPSETS[-1]}" in text
