"""The groups of phantoms for which the evaluation gives figures of their own, as one table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tools.head_ct.phantom_sets import KINDS
from tools.head_ct.simulate import SimulatedStudy
from tools.phantoms.spec import BleedKind

Belongs = Callable[[SimulatedStudy], bool]
Measure = Callable[[SimulatedStudy], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some of the phantoms."""

    key: str
    """Of the estimate: lower case, without blanks."""
    label: str
    title: str | None
    """Of the table in which it stands; None: the main one."""
    belongs: Belongs


def _ranges(
    prefix: str, title: str, measure: Measure, ranges: tuple[tuple[str, str, float, float], ...]
) -> tuple[Group, ...]:
    """Groups by a quantity: end of the key, label, from, below."""
    return tuple(
        Group(
            key=f"{prefix}_{end}",
            label=label,
            title=title,
            belongs=partial(_is_between, measure, low, high),
        )
        for end, label, low, high in ranges
    )


def _is_between(measure: Measure, low: float, high: float, study: SimulatedStudy) -> bool:
    return low <= measure(study) < high


def _is_of_kind(kind: BleedKind, study: SimulatedStudy) -> bool:
    return study.kind is kind


def _volume_ml(study: SimulatedStudy) -> float:
    return study.volume_ml


def _contrast_hu(study: SimulatedStudy) -> float:
    return study.contrast_hu


def _noise_hu(study: SimulatedStudy) -> float:
    return study.noise_hu


def _spacing_mm(study: SimulatedStudy) -> float:
    return study.spacing_mm


def _tilt_deg(study: SimulatedStudy) -> float:
    return abs(study.tilt_deg)


VOLUMES = (
    ("under_1_ml", "Under 1 ml", 0.0, 1.0),
    ("1_to_3_ml", "1 to 3 ml", 1.0, 3.0),
    ("3_to_10_ml", "3 to 10 ml", 3.0, 10.0),
    ("10_to_30_ml", "10 to 30 ml", 10.0, 30.0),
    ("over_30_ml", "30 ml and more", 30.0, math.inf),
)
"""Of the bleed within the scanned slices."""
CONTRASTS = (
    ("under_20_hu", "Less than 20 HU above grey matter", 0.0, 20.0),
    ("20_to_30_hu", "20 to 30 HU above grey matter", 20.0, 30.0),
    ("30_to_40_hu", "30 to 40 HU above grey matter", 30.0, 40.0),
    ("over_40_hu", "40 HU and more above grey matter", 40.0, math.inf),
)
NOISES = (
    ("noise_under_4_hu", "Noise under 4 HU", 0.0, 4.0),
    ("noise_4_to_6_hu", "Noise of 4 to 6 HU", 4.0, 6.0),
    ("noise_over_6_hu", "Noise of 6 HU and more", 6.0, math.inf),
)
"""Standard deviation in the middle of the head, in a native 0.45 mm pixel."""
THICKNESSES = (
    ("thin_slices", "Slices of 1 and 1.25 mm", 0.0, 2.0),
    ("medium_slices", "Slices of 2.5 and 3 mm", 2.0, 3.5),
    ("thick_slices", "Slices of 4 to 5 mm", 3.5, math.inf),
)
TILTS = (
    ("straight", "Gantry not tilted", 0.0, 0.001),
    ("tilt_under_half", "Gantry tilted by up to 0.5 degrees", 0.001, 0.5),
    ("tilt_over_half", "Gantry tilted by 0.5 to 1 degree", 0.5, math.inf),
)

SENSITIVITY: tuple[Group, ...] = (
    Group(key="sensitivity", label="Sensitivity", title=None, belongs=lambda _: True),
    *(
        Group(
            key=f"sensitivity_{kind.value}",
            label=kind.value.capitalize(),
            title="Sensitivity by type of bleed",
            belongs=partial(_is_of_kind, kind),
        )
        for kind in KINDS
    ),
    *_ranges("sensitivity", "Sensitivity by volume of the bleed", _volume_ml, VOLUMES),
    *_ranges("sensitivity", "Sensitivity by contrast of the bleed", _contrast_hu, CONTRASTS),
    *_ranges("sensitivity", "Sensitivity by noise", _noise_hu, NOISES),
    *_ranges("sensitivity", "Sensitivity by slice thickness", _spacing_mm, THICKNESSES),
    *_ranges("sensitivity", "Sensitivity by tilt of the gantry", _tilt_deg, TILTS),
)
"""Of phantoms with a bleed."""
SPECIFICITY: tuple[Group, ...] = (
    Group(key="specificity", label="Specificity", title=None, belongs=lambda _: True),
    *_ranges("specificity", "Specificity by noise", _noise_hu, NOISES),
    *_ranges("specificity", "Specificity by slice thickness", _spacing_mm, THICKNESSES),
    *_ranges("specificity", "Specificity by tilt of the gantry", _tilt_deg, TILTS),
)
"""Of heads without a bleed; plastic ones are counted apart."""

RESPONSES: tuple[tuple[str, str, str, Measure], ...] = (
    ("sensitivity_by_volume", "Sensitivity by volume", "Volume of the bleed, ml", _volume_ml),
    (
        "sensitivity_by_contrast",
        "Sensitivity by contrast",
        "Bleed above grey matter, HU",
        _contrast_hu,
    ),
    ("sensitivity_by_noise", "Sensitivity by noise", "Noise, HU", _noise_hu),
)
"""Curves: key, label, label of x, quantity."""
STATISTICS: tuple[tuple[str, str, str, Measure, bool], ...] = (
    ("volume", "Volume of the bleed", "ml", _volume_ml, True),
    ("contrast", "Bleed above grey matter", "HU", _contrast_hu, True),
    ("noise", "Noise", "HU", _noise_hu, False),
    ("spacing", "Slice thickness", "mm", _spacing_mm, False),
)
"""What the test set is made of: key, label, unit, quantity, whether of bleeding phantoms only."""
