"""The XML of the card: every field lands, in CHAI's elements, and reads back as it was written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from simulators.model_papers import DIGEST, card_source, card_table, evaluation_table

from edge_runtime.governance.card_source import STAGE_WORDS, CardSource
from edge_runtime.governance.card_source import card_source as package_source
from edge_runtime.governance.card_xml import NAMESPACE, render_card_xml
from engines.card import ReleaseStage
from engines.loading import load_package
from engines.shipped import shipped_packages

# The elements of CHAI's Applied Model Card v0.2 that we write, in its order.
TEXTS = {
    "BasicInfo": ("ModelName", "ModelDeveloper", "DeveloperContact"),
    "ReleaseInfo": (
        *("ReleaseStage", "ReleaseDate", "ReleaseVersion", "GlobalAvailability"),
        "RegulatoryApproval",
    ),
    "ModelSummary": ("Summary", "Keywords"),
    "UsesAndDirections": (
        *("IntendedUseAndWorkflow", "PrimaryIntendedUsers", "HowToUse"),
        *("TargetedPatientPopulation", "CautionedOutOfScopeSettings"),
    ),
    "Warnings": (
        *("KnownRisksAndLimitations", "KnownBiasesOrEthicalConsiderations"),
        "ClinicalRiskLevel",
    ),
    "TrustIngredients": ("AISystemFacts", "TransparencyInformation"),
    "TrustIngredients/AISystemFacts": (
        *("OutcomesAndOutputs", "ModelType", "FoundationModels", "InputDataSource"),
        *("OutputAndInputDataTypes", "DevelopmentDataCharacterization"),
        *("BiasMitigationApproaches", "OngoingMaintenance", "Security", "Transparency"),
    ),
    "TrustIngredients/TransparencyInformation": (
        *("FundingSource", "ThirdPartyInformation", "StakeholdersConsulted"),
    ),
    "KeyMetrics": ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability"),
    **{
        f"KeyMetrics/{metric}": (
            *("MetricGoal", "Results", "Interpretation", "TestType"),
            *("TestingDataDescription", "ValidationProcessAndJustification"),
        )
        for metric in ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability")
    },
    "Resources": (
        *("EvaluationReferences", "ClinicalTrial", "PeerReviewedPublications"),
        *("ReimbursementStatus", "PatientConsentOrDisclosure"),
    ),
}
TOP = (
    *("BasicInfo", "ReleaseInfo", "ModelSummary", "UsesAndDirections", "Warnings"),
    *("TrustIngredients", "KeyMetrics", "Resources", "Bibliography"),
)
HOSTILE = (
    "]]> </Summary><evil/> <!-- --> <?pi?> &amp; &lt; &#0; <![CDATA[ \"'` {{ 7*7 }} {% x %} "
    "Köln 日本 مرحبا 😀 \u00a0\u2028"
)


def parse(source: CardSource) -> ET.Element:
    return ET.fromstring(render_card_xml(source))


def local(element: ET.Element) -> str:
    namespace, _, name = element.tag[1:].partition("}")
    assert namespace == NAMESPACE
    return name


def find(root: ET.Element, path: str) -> ET.Element:
    found = root.find("/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/")))
    assert found is not None, path
    return found


def text_of(root: ET.Element, path: str) -> str:
    return find(root, path).text or ""


def results(root: ET.Element, metric: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (text_of(result, "Label"), json.loads(text_of(result, "ValueJson")))
        for result in find(root, f"KeyMetrics/{metric}/Results")
    ]


def strings_in(table: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of ``card.toml`` that is for people, with its path."""
    if isinstance(table, dict):
        for key, value in table.items():
            yield from strings_in(value, f"{path}.{key}")
    elif isinstance(table, list):
        for number, value in enumerate(table):
            yield from strings_in(value, f"{path}.{number}")
    elif isinstance(table, str):
        yield path, table


def complete_card() -> dict[str, Any]:
    """A card that leaves no field to its default."""
    table = card_table()
    table["bibliography"] = "Books"
    table["system"]["foundation_models"] = "One"
    table["transparency"]["third_parties"] = "Two"
    table["resources"] |= {
        "evaluation_references": "Three",
        "clinical_trial": "Four",
        "publications": "Five",
        "reimbursement": "Six",
    }
    return table


def marked(table: Any, path: str = "") -> Any:
    """The card with its own path in every text that is for people."""
    if isinstance(table, dict):
        kept = ("stage", "estimates", "curves", "statistics", "file")
        return {
            key: value if key in kept else marked(value, f"{path}.{key}")
            for key, value in table.items()
        }
    if isinstance(table, list):
        return [marked(value, f"{path}.{number}") for number, value in enumerate(table)]
    return f"<{path}>" if isinstance(table, str) else table


def test_the_elements_are_chais_in_its_order_each_once() -> None:
    root = parse(card_source())
    assert local(root) == "AppliedModelCard"
    assert tuple(local(child) for child in root) == TOP
    for path, names in TEXTS.items():
        assert tuple(local(child) for child in find(root, path)) == names, path


def test_every_text_of_the_card_lands_in_the_xml() -> None:
    table = marked(complete_card())
    root = parse(card_source(table))
    written = "\n".join(root.itertext())
    texts = [text for path, text in strings_in(table) if text == f"<{path}>"]
    assert len(texts) > 50
    assert [text for text in texts if text not in written] == []


def test_every_field_of_a_complete_card_is_known_to_this_test() -> None:
    def fields(model: Any) -> dict[str, Any]:
        return {
            name: fields(getattr(model, name))
            if hasattr(getattr(model, name), "model_fields_set")
            else None
            for name in type(model).model_fields
        }

    def keys(table: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        return {
            key: keys(value, like[key]) if like.get(key) else None for key, value in table.items()
        }

    table = complete_card()
    table["metrics"]["usefulness"] |= {"statistics": []}
    table["metrics"]["fairness"] |= {"statistics": [], "curves": []}
    expected = fields(card_source(table).card)

    def in_order(value: Any) -> Any:
        return {key: in_order(value[key]) for key in sorted(value)} if value else None

    assert in_order(keys(table, expected)) == in_order(expected)


def test_what_the_package_says_lands_too() -> None:
    root = parse(card_source())
    assert text_of(root, "BasicInfo/ModelName") == "BRIGHT (bright_phantom)"
    assert text_of(root, "ReleaseInfo/ReleaseVersion") == "1.2.3"
    assert text_of(root, "ReleaseInfo/ReleaseDate") == "2025-01-31"
    assert text_of(root, "UsesAndDirections/IntendedUseAndWorkflow").startswith(
        "Shows brightness in tests.\n\n"
    )
    references = text_of(root, "Resources/EvaluationReferences")
    for fact in ("cd" * 32, DIGEST, "Invented cases.", "320 with", "280 without", "0.5"):
        assert fact in references


@pytest.mark.parametrize("stage", ReleaseStage)
def test_the_stage_is_said_in_words(stage: ReleaseStage) -> None:
    table = card_table()
    table["release"]["stage"] = stage.value
    assert text_of(parse(card_source(table)), "ReleaseInfo/ReleaseStage") == STAGE_WORDS[stage]


def test_the_disclaimers_come_before_everything_else() -> None:
    source = card_source()
    written = render_card_xml(source).decode()
    summary = text_of(parse(source), "ModelSummary/Summary")
    for notice in ("For triage, not for diagnosis.", "For tests only.", "Not for patients."):
        assert written.index(notice) < written.index("<AppliedModelCard")
        assert summary.index(notice) < summary.index("Finds brightness.")
    assert "Demonstration, not a cleared device." in summary
    cleared = parse(card_source(demonstration=False))
    assert "Demonstration, not a" not in text_of(cleared, "ModelSummary/Summary")


def test_numbers_are_those_of_the_evaluation_and_in_the_order_of_the_card() -> None:
    evaluation = evaluation_table()
    root = parse(card_source(evaluation=evaluation))
    labels = [label for label, _ in results(root, "UsefulnessUsabilityEfficacy")]
    assert labels == ["Sensitivity (n = 320)", "ROC", "Reliability"]
    _, sensitivity = results(root, "UsefulnessUsabilityEfficacy")[0]
    assert sensitivity == {
        "kind": "estimate_ci",
        "estimate": 0.9375,
        "lower": 0.9054,
        "upper": 0.9592,
        "level": 95,
        "unit": "fraction",
    }
    assert results(root, "FairnessEquity")[0][0] == "By sex: Sensitivity, girls (n = 150)"
    safety = dict(results(root, "SafetyReliability"))
    assert safety["Sensitivity under noise"]["points"] == evaluation["curves"][2]["points"]
    adults = safety["Mean pixel after normalisation, Adults"]
    assert (adults["mean"], adults["cases"]) == (0.66, 400)
    assert adults["quantiles"] == evaluation["statistics"][1]["quantiles"]


def test_hostile_text_is_text_and_reads_back_unchanged() -> None:
    table = card_table()
    table["summary"] |= {"text": HOSTILE, "keywords": [HOSTILE]}
    table["disclaimers"] = ["-- --> <evil/> ---", "ends with -"]
    source = card_source(table, title=HOSTILE)
    root = parse(source)
    assert "evil" not in {local(element) for element in root.iter()}
    assert text_of(root, "ModelSummary/Keywords/Keyword") == HOSTILE
    assert text_of(root, "ModelSummary/Summary").endswith(HOSTILE)
    assert text_of(root, "BasicInfo/ModelName") == f"{HOSTILE} (bright_phantom)"


def test_what_xml_cannot_hold_is_replaced_in_what_the_package_says() -> None:
    root = parse(card_source(title="a\x00b\x1b\ufffe", disclaimer="\x07"))
    assert text_of(root, "BasicInfo/ModelName") == "a\ufffdb\ufffd\ufffd (bright_phantom)"


def test_the_same_package_gives_the_same_bytes_in_utf_8() -> None:
    table = card_table()
    table["summary"]["text"] = "Größe 日本"
    first, second = (render_card_xml(card_source(table)) for _ in range(2))
    assert first == second
    assert first.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<!--')
    assert "Größe 日本".encode() in first
    assert first.endswith(b"</AppliedModelCard>\n")


@pytest.fixture(scope="module")
def chai() -> xmlschema.XMLSchema:
    folder = os.environ.get("EDGE_TRIAGE_TEST_DATA")
    if not folder or not (Path(folder) / "chai").is_dir():
        pytest.skip("CHAI's schema is not at hand: EDGE_TRIAGE_TEST_DATA holds no folder chai")
    # The schema of signatures comes with xmlschema: nothing is fetched.
    signatures = Path(xmlschema.__file__).parent / "schemas" / "DSIG" / "xmldsig-core-schema.xsd"
    return xmlschema.XMLSchema(
        str(Path(folder) / "chai" / "applied-model-card-v0.2.xsd"),
        locations={"http://www.w3.org/2000/09/xmldsig#": str(signatures)},
        allow="local",
    )


@pytest.mark.parametrize(
    "source",
    [
        card_source(),
        card_source(marked(complete_card())),
        card_source(card_table() | {"figures": []}, title=HOSTILE, disclaimer="\x00"),
    ],
    ids=["plain", "complete", "hostile"],
)
def test_the_xml_is_valid_against_chais_schema(
    chai: xmlschema.XMLSchema, source: CardSource
) -> None:
    assert [error.reason for error in chai.iter_errors(parse(source))] == []


@pytest.mark.parametrize("folder", shipped_packages().values(), ids=lambda folder: folder.name)
def test_the_xml_of_a_shipped_package_is_valid_against_chais_schema(
    chai: xmlschema.XMLSchema, folder: Path
) -> None:
    root = parse(package_source(load_package(folder)))
    assert [error.reason for error in chai.iter_errors(root)] == []


def test_an_xml_that_lacks_an_element_is_invalid_against_chais_schema(
    chai: xmlschema.XMLSchema,
) -> None:
    root = parse(card_source())
    root.remove(find(root, "Warnings"))
    assert not chai.is_valid(root)
