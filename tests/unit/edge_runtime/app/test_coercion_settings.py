"""Coercions that cannot be are told at the start, by name, and not when the first image comes."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.admission import Coercion
from dicom_node.errors import CoercionNotAllowedError
from edge_runtime.app.node import node_settings
from edge_runtime.config.settings import Settings


def _settings(*coercions: dict[str, str]) -> Settings:
    caller: dict[str, Any] = {"ae_title": "CT2", "coercions": coercions}
    return Settings.model_validate({"node": {"callers": [caller]}})


def test_coercions_of_a_caller_become_part_of_its_rule() -> None:
    settings = _settings(
        {"attribute": "InstitutionName", "value": "Hill Clinic"}, {"attribute": "OperatorsName"}
    )
    (rule,) = node_settings(settings).peers
    assert rule.coercions == (
        Coercion(keyword="InstitutionName", value="Hill Clinic"),
        Coercion(keyword="OperatorsName", value=""),
    )


@pytest.mark.parametrize(
    ("attribute", "value", "remedy"),
    [
        ("SOPInstanceUID", "1.2.3", "cannot be coerced; can be set: InstitutionName"),
        ("PatientID", "1", "can only be emptied"),
        ("InstitutionName", "Universitätsklinik", "must be ASCII"),
    ],
)
def test_coercion_that_cannot_be_keeps_the_node_from_starting(
    attribute: str, value: str, remedy: str
) -> None:
    settings = _settings({"attribute": attribute, "value": value})
    with pytest.raises(CoercionNotAllowedError, match=remedy):
        node_settings(settings)
