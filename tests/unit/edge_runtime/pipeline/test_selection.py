from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    RawDataStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
)

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.selection import (
    Exclusion,
    Rejected,
    Selected,
    exclusion_of,
    may_be_selected,
    select_series,
)
from engines.package import SelectionRules

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]

HEAD_CT = SelectionRules(
    modalities=("CT",),
    sop_class_uids=(CTImageStorage,),
    image_type_required=("AXIAL",),
    image_type_excluded=("DERIVED",),
    body_parts=("HEAD", "BRAIN"),
    min_images=4,
    prefer=("soft_kernel", "thinnest", "most_images"),
    soft_kernels=(r"^h[34]\d", "soft|brain"),
)


@pytest.mark.parametrize(
    ("sop_class", "exclusion"),
    [
        (SecondaryCaptureImageStorage, Exclusion.SECONDARY_CAPTURE),
        (MultiFrameTrueColorSecondaryCaptureImageStorage, Exclusion.SECONDARY_CAPTURE),
        (BasicTextSRStorage, Exclusion.STRUCTURED_REPORT),
        (Comprehensive3DSRStorage, Exclusion.STRUCTURED_REPORT),
        (XRayRadiationDoseSRStorage, Exclusion.DOSE_REPORT),
        (KeyObjectSelectionDocumentStorage, Exclusion.KEY_OBJECT_SELECTION),
        (GrayscaleSoftcopyPresentationStateStorage, Exclusion.PRESENTATION_STATE),
        (RawDataStorage, Exclusion.RAW_DATA),
        (EncapsulatedPDFStorage, Exclusion.ENCAPSULATED_DOCUMENT),
        (SegmentationStorage, Exclusion.DERIVED_OBJECT),
        (RTDoseStorage, Exclusion.DERIVED_OBJECT),
        (CTImageStorage, None),
        (MRImageStorage, None),
    ],
)
def test_sop_classes_that_are_never_analysed(
    make_header: MakeHeader, sop_class: str, exclusion: Exclusion | None
) -> None:
    assert exclusion_of(make_header(sop_class_uid=sop_class)) is exclusion


@pytest.mark.parametrize(
    ("image_type", "exclusion"),
    [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), Exclusion.LOCALIZER),
        (("original", "primary", "localizer "), Exclusion.LOCALIZER),
        (("DERIVED", "SECONDARY", "SCREEN SAVE"), Exclusion.SECONDARY_CAPTURE),
        (("DERIVED", "SECONDARY", "MPR"), None),
        ((), None),
    ],
)
def test_image_types_that_are_never_analysed(
    make_header: MakeHeader, image_type: tuple[str, ...], exclusion: Exclusion | None
) -> None:
    assert exclusion_of(make_header(image_type=image_type)) is exclusion


def test_object_without_pixels_is_never_analysed(make_header: MakeHeader) -> None:
    assert exclusion_of(make_header(has_pixel_data=False)) is Exclusion.NO_PIXEL_DATA


def test_matching_series_is_selected_without_its_localizer(make_stack: MakeStack) -> None:
    stack = make_stack(6)
    stack[0] = replace(stack[0], image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    chosen = select_series(stack, HEAD_CT)
    assert chosen == Selected(series_instance_uid="1.2.1", headers=tuple(stack[1:]))


@pytest.mark.parametrize(
    ("count", "changes", "reason"),
    [
        (0, {}, ReasonCode.NO_IMAGES),
        (5, {"sop_class_uid": XRayRadiationDoseSRStorage}, ReasonCode.NO_IMAGES),
        (5, {"modality": "MR"}, ReasonCode.WRONG_MODALITY),
        (5, {"modality": None}, ReasonCode.WRONG_MODALITY),
        (5, {"body_part_examined": "CHEST"}, ReasonCode.BODY_PART_NOT_COVERED),
        (5, {"sop_class_uid": MRImageStorage}, ReasonCode.NO_MATCHING_SERIES),
        (5, {"image_type": ("DERIVED", "PRIMARY", "AXIAL")}, ReasonCode.NO_MATCHING_SERIES),
        (5, {"image_type": ()}, ReasonCode.NO_MATCHING_SERIES),
        (3, {}, ReasonCode.TOO_FEW_IMAGES),
    ],
)
def test_rejection_names_what_was_missing(
    make_stack: MakeStack, count: int, changes: dict[str, Any], reason: ReasonCode
) -> None:
    assert select_series(make_stack(count, **changes), HEAD_CT) == Rejected(reason=reason)


def test_image_may_be_selected_before_its_series_is_whole(make_stack: MakeStack) -> None:
    (image,) = make_stack(1)
    assert may_be_selected(image, HEAD_CT)
    assert not may_be_selected(replace(image, modality="MR"), HEAD_CT)
    localizer = replace(image, image_type=("ORIGINAL", "PRIMARY", "AXIAL", "LOCALIZER"))
    assert not may_be_selected(localizer, HEAD_CT)


def test_rejection_is_that_of_the_series_that_came_furthest(make_stack: MakeStack) -> None:
    study = [
        *make_stack(5, modality="MR", series_instance_uid="1.2.2"),
        *make_stack(2, series_instance_uid="1.2.3"),
        *make_stack(5, body_part_examined="CHEST", series_instance_uid="1.2.4"),
    ]
    assert select_series(study, HEAD_CT) == Rejected(reason=ReasonCode.TOO_FEW_IMAGES)


@pytest.mark.parametrize("body_part", [None, "", "head", " BRAIN "])
def test_body_part_is_compared_loosely_and_may_be_absent(
    make_stack: MakeStack, body_part: str | None
) -> None:
    chosen = select_series(make_stack(5, body_part_examined=body_part), HEAD_CT)
    assert isinstance(chosen, Selected)


def choose(rules: SelectionRules, *series: list[InstanceHeader]) -> str | None:
    forwards = select_series([header for images in series for header in images], rules)
    backwards = select_series([header for images in series[::-1] for header in images], rules)
    assert isinstance(forwards, Selected)
    assert forwards == backwards
    return forwards.series_instance_uid


def test_preferences_decide_in_the_order_of_the_package(make_stack: MakeStack) -> None:
    soft = make_stack(5, series_instance_uid="soft", convolution_kernel="H31s")
    bone = make_stack(
        5, series_instance_uid="bone", convolution_kernel="H60f", slice_thickness_mm=0.6
    )
    second = make_stack(5, series_instance_uid="second", convolution_kernel="BRAIN PLUS")
    thin = make_stack(
        5, series_instance_uid="thin", convolution_kernel="H40s", slice_thickness_mm=1.0
    )
    long = make_stack(9, series_instance_uid="long", convolution_kernel=None)
    assert choose(HEAD_CT, soft, bone, second, thin, long) == "thin"
    assert choose(HEAD_CT, soft, bone, second, long) == "soft"
    assert choose(HEAD_CT, bone, second, long) == "second"
    thinnest = HEAD_CT.model_copy(update={"prefer": ("thinnest",)})
    assert choose(thinnest, soft, bone, thin) == "bone"
    most = HEAD_CT.model_copy(update={"prefer": ("most_images",)})
    assert choose(most, soft, bone, long) == "long"


CHEST = SelectionRules(
    modalities=("CT",),
    sop_class_uids=HEAD_CT.sop_class_uids,
    view_positions=("AP", "PA"),
    series="all",
)


def test_images_of_other_views_are_left_out_and_those_that_say_nothing_stay(
    make_header: MakeHeader,
) -> None:
    views = {"AP": "1", "LL": "2", None: "3", "pa": "4"}
    headers = [make_header(view_position=view, sop_instance_uid=uid) for view, uid in views.items()]
    chosen = select_series(headers, CHEST)
    assert isinstance(chosen, Selected)
    assert [header.sop_instance_uid for header in chosen.headers] == ["1", "3", "4"]
    rejected = select_series(headers[1:2], CHEST)
    assert isinstance(rejected, Rejected)
    assert rejected.reason is ReasonCode.VIEW_NOT_COVERED


@pytest.mark.parametrize(
    "raw",
    [
        {"presentation_intent_type": "FOR PROCESSING"},
        {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1.1"},
    ],
    ids=["by its intent", "by its class"],
)
def test_raw_images_are_left_out_and_alone_they_are_the_reason(
    make_header: MakeHeader, raw: dict[str, str]
) -> None:
    shown = make_header(sop_instance_uid="1", view_position="AP")
    hidden = make_header(sop_instance_uid="2", view_position="AP", **raw)
    chosen = select_series([hidden, shown], CHEST)
    assert isinstance(chosen, Selected)
    assert chosen.headers == (shown,)
    assert select_series([hidden], CHEST) == Rejected(reason=ReasonCode.FOR_PROCESSING)
    allowed = CHEST.model_copy(
        update={"for_processing": "allowed", "sop_class_uids": (hidden.sop_class_uid,)}
    )
    assert isinstance(select_series([hidden], allowed), Selected)


def test_radiographs_in_series_of_their_own_are_all_looked_at(make_header: MakeHeader) -> None:
    headers = [
        make_header(series_instance_uid=uid, sop_instance_uid=uid, view_position="AP")
        for uid in ("1.2.7", "1.2.8")
    ]
    chosen = select_series(headers, CHEST)
    assert isinstance(chosen, Selected)
    assert chosen.series_instance_uid is None
    assert len(chosen.headers) == 2
    single = select_series(headers[:1], CHEST)
    assert isinstance(single, Selected)
    assert single.series_instance_uid == "1.2.7"
    one = CHEST.model_copy(update={"series": "one"})
    assert choose(one, *([header] for header in headers)) == "1.2.7"


def test_ties_are_broken_by_series_number_then_uid(make_stack: MakeStack) -> None:
    later = make_stack(5, series_instance_uid="a", series_number=9)
    earlier = make_stack(5, series_instance_uid="b", series_number=3)
    unnumbered = make_stack(5, series_instance_uid="0", series_number=None)
    assert choose(HEAD_CT, later, earlier, unnumbered) == "b"
    assert choose(HEAD_CT, unnumbered, make_stack(5, series_instance_uid="1")) == "1"


def test_real_study_yields_its_axial_series_and_not_the_survey(
    real_data: Path, header_of: Callable[[Path], InstanceHeader]
) -> None:
    study = next(real_data.glob("*dcm_qa_ct/In/Philips/S21570"))
    headers = [header_of(path) for path in sorted(study.rglob("*")) if path.is_file()]
    chosen = select_series(headers, HEAD_CT)
    assert isinstance(chosen, Selected)
    assert len(chosen.headers) == 28
