"""The papers of a model that measured everything that a card can show; all of it is invented."""

from __future__ import annotations

import math
import struct
import sys
import zlib
from typing import Any

from edge_runtime.governance.card_source import CardSource
from engines.card import Evaluation, ModelCard
from engines.figures import FigureImage
from simulators.model_card import CARD_TOML

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DIGEST = "ab" * 32

SVG = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
    b'viewBox="0 0 40 20"><style>rect{fill:#246}</style><rect width="40" height="20"/></svg>'
)


def png(width: int = 2, height: int = 2) -> bytes:
    """A grey PNG whose header claims the given size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * 2) * 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def estimate(key: str, /, **changes: object) -> dict[str, Any]:
    """One estimate as ``evaluation.json`` holds it."""
    good = {
        "key": key,
        "label": key.replace("_", " ").capitalize(),
        "value": 0.912,
        "lower": 0.87,
        "upper": 0.94,
        "cases": 320,
    }
    return good | changes


def curve(key: str, /, **changes: object) -> dict[str, Any]:
    """One curve as ``evaluation.json`` holds it: sensitivity falls as noise grows."""
    good = {
        "key": key,
        "kind": "response",
        "label": "Sensitivity under noise",
        "x_label": "Added noise, standard deviation, % of the range",
        "y_label": "Sensitivity",
        "points": [
            {"x": x, "y": 0.95 - x / 40, "lower": 0.9 - x / 40, "upper": 0.97 - x / 40}
            for x in (0, 1, 2, 4, 8, 16)
        ],
    }
    return good | changes


def roc() -> dict[str, Any]:
    """A dense ROC curve with a band."""
    points = []
    for step in range(61):
        x = step / 60
        y = x**0.12
        points.append({"x": x, "y": y, "lower": y * 0.96, "upper": min(1.0, y * 1.02)})
    return curve(
        "roc",
        kind="roc",
        label="ROC",
        x_label="1 - specificity",
        y_label="Sensitivity",
        points=points,
    )


def reliability() -> dict[str, Any]:
    """A reliability diagram of ten bins."""
    points = [
        {
            "x": round(0.05 + step / 10, 2),
            "y": round(0.05 + step / 10 + 0.03 * math.sin(step), 3),
            "lower": max(0.0, round(0.05 + step / 10 - 0.08, 3)),
            "upper": min(1.0, round(0.05 + step / 10 + 0.09, 3)),
            "cases": 40 + step,
        }
        for step in range(10)
    ]
    return curve(
        "reliability",
        kind="reliability",
        label="Reliability",
        x_label="Predicted probability",
        y_label="Observed frequency",
        points=points,
    )


def statistic(key: str, population: str, mean: float, /, **changes: object) -> dict[str, Any]:
    """One distribution as ``evaluation.json`` holds it."""
    good = {
        "key": key,
        "label": "Mean pixel after normalisation",
        "unit": "1",
        "population": population,
        "cases": 400,
        "mean": mean,
        "sd": 0.08,
        "quantiles": [
            {"fraction": fraction, "value": round(mean + offset, 3)}
            for fraction, offset in (
                (0.05, -0.13),
                (0.25, -0.05),
                (0.5, 0.004),
                (0.75, 0.05),
                (0.95, 0.14),
            )
        ],
    }
    return good | changes


def card_table() -> dict[str, Any]:
    """``card.toml`` as a table, to be changed by a test."""
    table = tomllib.loads(CARD_TOML)
    table["metrics"]["usefulness"] |= {"curves": ["roc", "reliability"]}
    table["metrics"]["fairness"] |= {"estimates": ["sensitivity_girls", "sensitivity_boys"]}
    table["metrics"]["safety"] |= {
        "curves": ["noise"],
        "statistics": ["pixels_children", "pixels_adults"],
    }
    table["figures"] = [
        {"file": "figures/roc.png", "title": "ROC picture", "alt": "A curve near the corner."},
        {"file": "figures/cases.svg", "title": "Cases picture", "alt": "A blue field."},
    ]
    return table


def evaluation_table() -> dict[str, Any]:
    """``evaluation.json`` as a table, to be changed by a test."""
    return {
        "model_version": "1.2.3",
        "model_sha256": "cd" * 32,
        "thresholds": {"bright": 0.5},
        "test_set": "Invented cases.",
        "positives": 320,
        "negatives": 280,
        "estimates": [
            estimate("sensitivity", value=0.9375, lower=0.9054, upper=0.9592),
            estimate("sensitivity_girls", label="Sensitivity, girls", group="By sex", cases=150),
            estimate("sensitivity_boys", label="Sensitivity, boys", group="By sex", cases=170),
            estimate("specificity_blurred", label="Specificity, blurred", group="By quality"),
        ],
        "curves": [roc(), reliability(), curve("noise"), curve("blur", label="Under blur")],
        "statistics": [
            statistic("pixels_children", "Reference window: children", 0.48),
            statistic("pixels_adults", "Adults", 0.66),
        ],
    }


def card_source(
    card: dict[str, Any] | None = None, evaluation: dict[str, Any] | None = None, **changes: Any
) -> CardSource:
    """The papers, changed as a test likes."""
    parsed = ModelCard.model_validate(card or card_table())
    values: dict[str, Any] = {
        "name": "bright_phantom",
        "version": "1.2.3",
        "title": "BRIGHT",
        "intended_use": "Shows brightness in tests.",
        "disclaimer": "For tests only.",
        "demonstration": True,
        "digest": DIGEST,
        "card": parsed,
        "evaluation": Evaluation.model_validate(evaluation or evaluation_table()),
        "figures": (
            FigureImage(media_type="image/png", content=png()),
            FigureImage(media_type="image/svg+xml", content=SVG),
        )[: len(parsed.figures)],
    }
    return CardSource(**(values | changes))
