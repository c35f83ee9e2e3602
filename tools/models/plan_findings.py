"""The questions about what the model's numbers stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.package import Code
from tools.models import answer_types
from tools.models.answer_types import SKIPPED
from tools.models.codes import CODES, key_of
from tools.models.input_facts import OutputFacts
from tools.models.plan_points import PROVISIONAL, operating_point
from tools.models.questions import Interview, ask, choose
from tools.models.recipes import Kind


def ask_findings(
    interview: Interview, kind: Kind, outputs: tuple[OutputFacts, ...]
) -> tuple[list[Mapping[str, Any]], frozenset[str]]:
    """Asks for what every number of every output stands for.

    Returns:
        The findings' tables, and the keys of those whose operating point nobody knows yet.

    Raises:
        AnswersError: an answer is missing, or cannot be one.
    """
    top = 1
    if kind in (Kind.SLICES, Kind.SLABS):
        text = "How many of the highest slices or slabs decide together"
        top = ask(interview, "top", text, answer_types.TOP, "2")
    findings: list[Mapping[str, Any]] = []
    automatic = set()
    for output in outputs:
        labels = _ask_labels(interview, output)
        if all(label == SKIPPED for label in labels):
            continue
        scales = ("logit", "probability") + (("softmax",) if output.elements > 1 else ())
        text = f"Numbers of {output.name!r} are"
        scale = choose(interview, ("scale", output.name), text, scales)
        for element, label in enumerate(labels):
            if label == SKIPPED:
                continue
            key = key_of(label)
            finding, is_automatic = _ask_finding(interview, key, label)
            automatic |= {key} if is_automatic else set()
            place = {"element": element} if output.elements > 1 else {}
            findings.append(
                {**finding, **place, "tensor": output.name, "scale": scale}
                | {"aggregation": {"top": top}}
            )
    return findings, frozenset(automatic)


def _ask_labels(interview: Interview, output: OutputFacts) -> tuple[str, ...]:
    if output.elements == 1:
        text = f"What {output.name!r} stands for, such as Pneumothorax"
    else:
        text = (
            f"What the {output.elements} numbers of {output.name!r} stand for, in their order, "
            f"{SKIPPED} for none"
        )
    labels: tuple[str, ...] = ask(
        interview, ("labels", output.name), text, answer_types.labels(output.elements)
    )
    return labels


def _ask_finding(interview: Interview, key: str, label: str) -> tuple[dict[str, Any], bool]:
    def path(last: str) -> tuple[str, ...]:
        return ("findings", key, last)

    code: Code = ask(
        interview, path("code"), f"{label}: code (value scheme meaning)", answer_types.CODE,
        CODES.get(key),
    )  # fmt: skip
    urgency = choose(
        interview, path("urgency"), f"{label}: urgency", ("urgent", "critical", "routine")
    )
    threshold = ask(
        interview, path("threshold"),
        f"{label}: probability from which it is suspected (auto: not known yet)",
        answer_types.THRESHOLD, "auto",
    )  # fmt: skip
    point = PROVISIONAL if threshold is None else operating_point(threshold)
    finding = {
        "key": key,
        "code": code,
        "urgency": urgency,
        "calibration": {"slope": 1.0, "intercept": 0.0},
        "operating_point": point,
    }
    return finding, threshold is None
