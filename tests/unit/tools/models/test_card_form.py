"""The form of card.toml names every field, and an empty one verifies nowhere."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from simulators.model_card import CARD_TOML
from simulators.model_package import write_model_package

from engines.card import ModelCard
from engines.package import ModelPackage
from tools.models.card_form import HINTS, card_tables, card_text, unfilled
from tools.models.errors import AnswersError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return write_model_package(tmp_path_factory.mktemp("package")).manifest


def leaves(tables: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in tables.items():
        place = f"{path}{key}"
        found += leaves(value, f"{place}.") if isinstance(value, dict) else [place]
    return found


def test_every_field_of_the_card_is_in_the_form_and_has_a_hint(package: ModelPackage) -> None:
    form = leaves(card_tables(package, {}))
    assert set(form) <= set(HINTS)
    assert {key.split(".")[0] for key in form} == set(ModelCard.model_fields) - {"figures"}


def test_hints_are_for_fields_that_exist(package: ModelPackage) -> None:
    form = leaves(card_tables(package, {}))
    places = {key.rpartition(".")[0] for key in form} | set(form)
    assert set(HINTS) <= places


def test_the_text_of_a_form_is_the_form(package: ModelPackage) -> None:
    tables = card_tables(package, {})
    assert tomllib.loads(card_text(tables)) == tables


def test_what_only_people_know_is_empty_and_refused(package: ModelPackage) -> None:
    tables = card_tables(package, {})
    missing = unfilled(tables)
    assert {"developer.name", "release.date", "system.training_data"} <= set(missing)
    assert "metrics.fairness.estimates" in missing
    assert "bibliography" not in missing
    assert tables["metrics"]["usefulness"]["estimates"] == ["auc_bright"]


def test_a_filled_form_is_a_card(package: ModelPackage) -> None:
    words = tomllib.loads(CARD_TOML)
    tables = card_tables(package, words)
    assert unfilled(tables) == ()
    card = ModelCard.model_validate(tomllib.loads(card_text(tables)))
    assert card.developer.name == words["developer"]["name"]


def test_an_answer_for_no_field_is_refused(package: ModelPackage) -> None:
    with pytest.raises(AnswersError, match=r"card\.colour: the card has no such field"):
        card_tables(package, {"colour": "red"})
