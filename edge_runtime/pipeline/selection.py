"""Which series of a study a model looks at, if any.

What is never analysed stands in two closed tables here (STANDARDS: stored but never analysed); what
a model wants stands in its package's rules. The outcome is a value: a rejected study is ordinary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from engines.package import SelectionRules


class Exclusion(str, Enum):
    """Why an instance is never analysed, whatever a model's rules say."""

    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary_capture"
    DOSE_REPORT = "dose_report"
    STRUCTURED_REPORT = "structured_report"
    KEY_OBJECT_SELECTION = "key_object_selection"
    PRESENTATION_STATE = "presentation_state"
    RAW_DATA = "raw_data"
    ENCAPSULATED_DOCUMENT = "encapsulated_document"
    DERIVED_OBJECT = "derived_object"
    NO_PIXEL_DATA = "no_pixel_data"


_LONGEST_TEXT = 64
"""Characters of a value of type LO (PS3.5 6.2)."""
_STORAGE = "1.2.840.10008.5.1.4.1.1."

# PS3.4 B.5: projection radiography, mammography and intra-oral images For Processing.
_FOR_PROCESSING = frozenset(_STORAGE + part for part in ("1.1.1", "1.2.1", "1.3.1"))

# PS3.4 B.5; a class of objects ends in "." and stands for all below it. The longest match wins.
EXCLUDED_SOP_CLASSES: Mapping[str, Exclusion] = MappingProxyType(
    {
        _STORAGE + "7": Exclusion.SECONDARY_CAPTURE,
        _STORAGE + "7.": Exclusion.SECONDARY_CAPTURE,
        _STORAGE + "88.": Exclusion.STRUCTURED_REPORT,
        _STORAGE + "88.59": Exclusion.KEY_OBJECT_SELECTION,
        _STORAGE + "88.67": Exclusion.DOSE_REPORT,
        _STORAGE + "88.68": Exclusion.DOSE_REPORT,
        _STORAGE + "88.73": Exclusion.DOSE_REPORT,
        _STORAGE + "88.74": Exclusion.DOSE_REPORT,
        _STORAGE + "88.76": Exclusion.DOSE_REPORT,
        _STORAGE + "11.": Exclusion.PRESENTATION_STATE,
        _STORAGE + "66": Exclusion.RAW_DATA,
        _STORAGE + "66.": Exclusion.DERIVED_OBJECT,
        _STORAGE + "30": Exclusion.DERIVED_OBJECT,
        _STORAGE + "104.": Exclusion.ENCAPSULATED_DOCUMENT,
        _STORAGE + "481.": Exclusion.DERIVED_OBJECT,
    }
)

# Values of ImageType (0008,0008), any place: PS3.3 C.8.2.1.1.1 and what vendors write there.
EXCLUDED_IMAGE_TYPES: Mapping[str, Exclusion] = MappingProxyType(
    {
        "LOCALIZER": Exclusion.LOCALIZER,
        "REF_SURVIEW": Exclusion.LOCALIZER,
        "SCREEN SAVE": Exclusion.SECONDARY_CAPTURE,
        "SCREENSHOT": Exclusion.SECONDARY_CAPTURE,
        "DOSE_INFO": Exclusion.DOSE_REPORT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The series that the model looks at, and those of its instances that qualify."""

    series_instance_uid: str | None
    """None where several series are looked at."""
    headers: tuple[InstanceHeader, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """No series qualifies; the reason is that of the series that came furthest."""

    reason: ReasonCode


def exclusion_of(header: InstanceHeader) -> Exclusion | None:
    """Why this instance is never analysed; None when a model's rules may look at it."""
    uid = header.sop_class_uid
    places = [uid, *(uid[: end + 1] for end in range(len(uid) - 1, 0, -1) if uid[end] == ".")]
    for place in places:
        if place in EXCLUDED_SOP_CLASSES:
            return EXCLUDED_SOP_CLASSES[place]
    for value in header.image_type:
        if value.strip().upper() in EXCLUDED_IMAGE_TYPES:
            return EXCLUDED_IMAGE_TYPES[value.strip().upper()]
    return None if header.has_pixel_data else Exclusion.NO_PIXEL_DATA


def reopens(header: InstanceHeader) -> bool:
    """Whether a late instance makes a complete study incomplete again: only images do.

    Our own report, sent back by a PACS, must not start the analysis that made it.
    """
    return exclusion_of(header) is None


def select_series(headers: Iterable[InstanceHeader], rules: SelectionRules) -> Selected | Rejected:
    """Choose the series that pass every rule: the preferred one, or all of them.

    Args:
        headers: of every instance of the study.
        rules: the model package's.
    """
    candidates: list[Selected] = []
    furthest = 0
    for uid, images in _images_by_series(headers).items():
        remaining = images
        for depth, (_, passes) in enumerate(_RULES, start=1):
            remaining = tuple(image for image in remaining if passes(image, rules))
            if not remaining:
                furthest = max(furthest, depth)
                break
        else:
            furthest = len(_RULES) + 1
            if len(remaining) >= rules.min_images:
                candidates.append(Selected(series_instance_uid=uid, headers=remaining))
    candidates.sort(key=lambda candidate: _preference(candidate, rules))
    if len(candidates) > 1 and rules.series == "all":
        headers = tuple(header for each in candidates for header in each.headers)
        return Selected(series_instance_uid=None, headers=headers)
    if candidates:
        return candidates[0]
    return Rejected(reason=_REJECTIONS[furthest])


def may_be_selected(header: InstanceHeader, rules: SelectionRules) -> bool:
    """Whether this instance alone passes every rule, so that preparing it early is worth while."""
    return exclusion_of(header) is None and all(passes(header, rules) for _, passes in _RULES)


def _images_by_series(
    headers: Iterable[InstanceHeader],
) -> dict[str, tuple[InstanceHeader, ...]]:
    series: dict[str, list[InstanceHeader]] = {}
    for header in headers:
        if exclusion_of(header) is None:
            series.setdefault(header.series_instance_uid, []).append(header)
    return {uid: tuple(images) for uid, images in series.items()}


def _modality_matches(header: InstanceHeader, rules: SelectionRules) -> bool:
    return header.modality in rules.modalities


def _body_part_matches(header: InstanceHeader, rules: SelectionRules) -> bool:
    part = (header.body_part_examined or "").strip().upper()
    return not rules.body_parts or not part or part in rules.body_parts


def _is_not_raw(header: InstanceHeader, rules: SelectionRules) -> bool:
    """Raw detector values look nothing like what a radiologist, or a model, has learnt."""
    intent = (header.presentation_intent_type or "").strip().upper()
    is_raw = intent == "FOR PROCESSING" or header.sop_class_uid in _FOR_PROCESSING
    return rules.for_processing == "allowed" or not is_raw


def _view_matches(header: InstanceHeader, rules: SelectionRules) -> bool:
    view = (header.view_position or "").strip().upper()
    return not rules.view_positions or not view or view in rules.view_positions


def _kind_matches(header: InstanceHeader, rules: SelectionRules) -> bool:
    image_type = {value.strip().upper() for value in header.image_type}
    return (
        header.sop_class_uid in rules.sop_class_uids
        and image_type.issuperset(rules.image_type_required)
        and image_type.isdisjoint(rules.image_type_excluded)
    )


# Applied in this order; the reason is given when no image of any series passes that far.
_RULES = (
    (ReasonCode.WRONG_MODALITY, _modality_matches),
    (ReasonCode.BODY_PART_NOT_COVERED, _body_part_matches),
    (ReasonCode.FOR_PROCESSING, _is_not_raw),
    (ReasonCode.NO_MATCHING_SERIES, _kind_matches),
    (ReasonCode.VIEW_NOT_COVERED, _view_matches),
)
_REJECTIONS = (
    ReasonCode.NO_IMAGES,
    *(reason for reason, _ in _RULES),
    ReasonCode.TOO_FEW_IMAGES,
)


def _preference(candidate: Selected, rules: SelectionRules) -> tuple[object, ...]:
    """Sort key: the package's wishes in order, then series number and UID to be deterministic."""
    number = candidate.headers[0].series_number
    return (
        *(_WISHES[wish](candidate.headers, rules) for wish in rules.prefer),
        math.inf if number is None else number,
        candidate.headers[0].series_instance_uid,
    )


def first_match(text: str | None, patterns: Sequence[str]) -> int | None:
    """Return the place of the first pattern of a package that an attribute matches, without case.

    The attribute is cut to what its type may hold: what bounds a pattern's time counts on it.
    """
    searched = (text or "")[:_LONGEST_TEXT]
    for place, pattern in enumerate(patterns):
        if re.search(pattern, searched, re.IGNORECASE):
            return place
    return None


def _thickness_mm(headers: Sequence[InstanceHeader], _: SelectionRules) -> float:
    thickness = headers[0].slice_thickness_mm
    return math.inf if thickness is None else thickness


def _kernel_rank(headers: Sequence[InstanceHeader], rules: SelectionRules) -> float:
    """Place of the first expression that matches; the later, the less soft."""
    rank = first_match(headers[0].convolution_kernel, rules.soft_kernels)
    return float(len(rules.soft_kernels) if rank is None else rank)


def _fewness(headers: Sequence[InstanceHeader], _: SelectionRules) -> float:
    return float(-len(headers))


# The smallest value wins.
_WISHES: Mapping[str, Callable[[Sequence[InstanceHeader], SelectionRules], float]] = (
    MappingProxyType(
        {"thinnest": _thickness_mm, "soft_kernel": _kernel_rank, "most_images": _fewness}
    )
)
