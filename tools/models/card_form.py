"""The form of ``card.toml``: every field, with what can be told from the package filled in.

What only people can tell is left empty, and an empty field is an error, so that a package whose
card nobody has filled in does not verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from engines.card import ModelCard, ReleaseStage
from engines.fields import ClosedModel
from engines.package import ModelPackage
from tools.models.errors import AnswersError
from tools.toml_text import TomlStyle, toml_text

MOST_QUOTED = 32
"""Estimates that a metric can name."""

METRIC_HINTS = {
    "goal": "What was asked.",
    "estimates": "Keys in evaluation.json: numbers are never written here.",
    "curves": "Keys of its curves.",
    "statistics": "Keys of its statistics.",
    "interpretation": "What the numbers mean, in words.",
    "test_type": "Internal, external, prospective, ...",
    "testing_data": "What it was tested on.",
    "validation": "How it was validated, and why that way.",
}
HINTS: Mapping[str, str] = MappingProxyType(
    {
        "bibliography": "References, or None.",
        "disclaimers": "Shown above and below the card.",
        "developer.name": "Who made the model.",
        "developer.contact": "How to reach them.",
        "release.stage": "demonstration, investigational or cleared.",
        "release.date": "Of this version, such as 2026-01-31.",
        "release.availability": "Countries or settings in which it may be used.",
        "release.regulatory_approval": "What was approved, where, under which number; or None.",
        "summary.text": "The model in one paragraph.",
        "summary.keywords": "A few words to find it by.",
        "uses.intended_use_and_workflow": "What for, and where in the work.",
        "uses.primary_users": "Who uses it.",
        "uses.how_to_use": "How.",
        "uses.target_population": "Whose studies.",
        "uses.out_of_scope": "A list: settings and studies that it is not for.",
        "warnings.cautions": "A list: what to keep in mind at every result.",
        "warnings.risks_and_limitations": "A list of what is known.",
        "warnings.biases": "A list of known biases and ethical considerations.",
        "warnings.clinical_risk_level": "The class, and by whose rules.",
        "system.outputs": "What comes out.",
        "system.model_type": "Architecture and how it was made.",
        "system.foundation_models": "Which it was built on, or None.",
        "system.input_data_source": "Where the inputs come from.",
        "system.data_types": "What goes in and what comes out.",
        "system.training_data": "Whose data, how much, when, from where, how it was labelled.",
        "system.bias_mitigation": "What was done against biases.",
        "system.maintenance": "How it is watched and made anew.",
        "system.security": "What protects it.",
        "system.transparency": "What a user can see of it.",
        "transparency.funding": "Who paid.",
        "transparency.third_parties": "Who else took part, or None.",
        "transparency.stakeholders": "Who was asked: patients, clinicians, technologists.",
        "metrics.usefulness": "Does it find what it is for?",
        "metrics.fairness": "Is it as good for every group of patients?",
        "metrics.safety": "Where does it fail, and what then?",
        **{
            f"metrics.{metric}.{key}": hint
            for metric in ("usefulness", "fairness", "safety")
            for key, hint in METRIC_HINTS.items()
        },
        "metrics.fairness.estimates": "Keys of groups in evaluation.json, such as by sex and age.",
        "resources.evaluation_references": "Further evaluations, or None.",
        "resources.clinical_trial": "If there was one.",
        "resources.publications": "Peer-reviewed, or None.",
        "resources.reimbursement": "Status.",
        "resources.patient_consent": "What patients must be told or asked.",
    }
)
"""What to write, by the field's dotted path."""
EMPTY = 'Fill in what is empty: "" and [] do not verify. Numbers stand in evaluation.json only.'


def card_tables(package: ModelPackage, answers: Mapping[str, object]) -> dict[str, Any]:
    """The card's tables.

    Args:
        package: from which some fields follow.
        answers: the maker's words, in tables as in the card.

    Raises:
        AnswersError: an answer is for no field of the card, or outside its type.
    """
    form = _empty(ModelCard)
    known = _merged(form, _inferred(package), ())
    filled = _merged(known, answers, ("card",))
    for fault in _faults(filled):
        place, text = fault
        if _at(answers, place) is not None:
            raise AnswersError(f"card.{'.'.join(place)}: {text}")
    return filled


def unfilled(tables: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted paths of what only people can fill in, in the order of the file."""
    return tuple(dict.fromkeys(".".join(place) for place, _ in _faults(tables)))


def card_text(tables: Mapping[str, Any]) -> str:
    """The file, each field under what to write there."""
    text = toml_text(tables, TomlStyle(comments=HINTS))
    return f"# The model card. {EMPTY}\n\n{text}"


def _faults(tables: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    try:
        ModelCard.model_validate(tables)
    except ValidationError as error:
        return [
            (tuple(part for part in fault["loc"] if isinstance(part, str)), fault["msg"])
            for fault in error.errors(include_url=False, include_input=False)
        ]
    return []


def _empty(model: type[ClosedModel]) -> dict[str, Any]:
    """Every field: its default, its inner table, or what no validation passes."""
    form: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, ClosedModel):
            form[name] = _empty(kind)
        elif field.default is not PydanticUndefined:
            if field.default != ():
                form[name] = field.default
            elif name != "figures":
                form[name] = []
        else:
            form[name] = [] if get_args(kind) else ""
    return form


def _inferred(package: ModelPackage) -> dict[str, Any]:
    meanings = [finding.code.meaning for finding in package.findings]
    keys = [finding.key for finding in package.findings][:MOST_QUOTED]
    stage = {"stage": ReleaseStage.DEMONSTRATION.value} if package.demonstration else {}
    shape = " x ".join("any" if size < 0 else str(size) for size in package.input.shape)
    return {
        "disclaimers": [package.disclaimer],
        "release": stage,
        "summary": {"keywords": meanings[:16]},
        "uses": {"intended_use_and_workflow": package.intended_use},
        "system": {
            "outputs": f"A calibrated probability for each of: {', '.join(meanings)}.",
            "input_data_source": f"{', '.join(package.selection.modalities)} images (DICOM).",
            "data_types": f"In: float32, {shape} ({package.input.layout.value}). Out: coded "
            "findings, suspected or not, with their probability.",
        },
        "metrics": {
            "usefulness": {"estimates": [f"auc_{key}" for key in keys]},
            "safety": {"estimates": [f"sensitivity_{key}" for key in keys]},
        },
    }


def _merged(
    form: Mapping[str, Any], answers: Mapping[str, Any], path: tuple[str, ...]
) -> dict[str, Any]:
    merged = dict(form)
    for key, value in answers.items():
        if key not in form:
            raise AnswersError(f"{'.'.join((*path, key))}: the card has no such field")
        if isinstance(form[key], Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(form[key], value, (*path, key))
        else:
            merged[key] = value
    return merged


def _at(tables: Mapping[str, Any], place: tuple[str, ...]) -> object:
    found: Any = tables
    for key in place:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
