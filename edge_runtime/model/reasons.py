"""Why a study was not analysed, or why its analysis failed: one closed table.

Every code has one row. The sentence is for the radiologist: it holds no patient data, says what is
wrong with the images or the device, and never reads as a negative result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType


class ReasonKind(str, Enum):
    """Which outcome a reason belongs to."""

    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"


class ReasonCode(str, Enum):
    """The closed list of reasons; values are stored, sent in telemetry and must never change."""

    # Nothing here is for this model.
    NO_IMAGES = "no_images"
    NO_ACTIVE_MODEL = "no_active_model"
    WRONG_MODALITY = "wrong_modality"
    BODY_PART_NOT_COVERED = "body_part_not_covered"
    NO_MATCHING_SERIES = "no_matching_series"
    # For this model, but the images or the patient are outside what it may look at.
    TOO_FEW_IMAGES = "too_few_images"
    TOO_MANY_IMAGES = "too_many_images"
    NOTHING_VISIBLE = "nothing_visible"
    MULTIFRAME_NOT_SUPPORTED = "multiframe_not_supported"
    PIXEL_FORMAT_NOT_SUPPORTED = "pixel_format_not_supported"
    RESCALE_MISSING = "rescale_missing"
    GEOMETRY_MISSING = "geometry_missing"
    INCONSISTENT_IMAGES = "inconsistent_images"
    MIXED_ORIENTATION = "mixed_orientation"
    DUPLICATE_POSITIONS = "duplicate_positions"
    MISSING_SLICES = "missing_slices"
    GANTRY_TILT = "gantry_tilt"
    OBLIQUE = "oblique"
    ORIENTATION_NOT_COVERED = "orientation_not_covered"
    SLICE_THICKNESS_MISSING = "slice_thickness_missing"
    SLICE_THICKNESS_OUT_OF_RANGE = "slice_thickness_out_of_range"
    SLICE_SPACING_OUT_OF_RANGE = "slice_spacing_out_of_range"
    PIXEL_SPACING_OUT_OF_RANGE = "pixel_spacing_out_of_range"
    COVERAGE_OUT_OF_RANGE = "coverage_out_of_range"
    CONTRAST_NOT_ALLOWED = "contrast_not_allowed"
    CONTRAST_REQUIRED = "contrast_required"
    LOSSY_COMPRESSION = "lossy_compression"
    FOR_PROCESSING = "for_processing"
    VIEW_MISSING = "view_missing"
    VIEW_NOT_COVERED = "view_not_covered"
    MANUFACTURER_NOT_COVERED = "manufacturer_not_covered"
    KERNEL_NOT_COVERED = "kernel_not_covered"
    AGE_MISSING = "age_missing"
    AGE_OUT_OF_RANGE = "age_out_of_range"
    SEX_NOT_COVERED = "sex_not_covered"
    UNDECODABLE_PIXELS = "undecodable_pixels"
    PIXELS_TOO_LARGE = "pixels_too_large"
    STUDY_TOO_LARGE = "study_too_large"
    PROCEDURE_DISCONTINUED = "procedure_discontinued"
    # The device's own fault.
    IMAGES_LOST = "images_lost"
    ENGINE_FAILED = "engine_failed"
    DEVICE_FAILED = "device_failed"
    TIMED_OUT = "timed_out"
    REPEATED_CRASH = "repeated_crash"


class ResultStatus(str, Enum):
    """How a report codes that there is no result (PS3.16 CID 6042, scheme DCM)."""

    FAILED = "111224"
    NOT_ATTEMPTED = "111225"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonEntry:
    """One row of the table."""

    kind: ReasonKind
    in_scope: bool
    """True when the study was meant for the model, so that a reader would expect a result."""
    sentence: str

    @property
    def result_status(self) -> ResultStatus:
        """The code that a report writes for this reason."""
        if self.kind is ReasonKind.FAILED:
            return ResultStatus.FAILED
        return ResultStatus.NOT_ATTEMPTED


def _out_of_scope(sentence: str) -> ReasonEntry:
    return ReasonEntry(kind=ReasonKind.NOT_ANALYSED, in_scope=False, sentence=sentence)


def _not_analysed(sentence: str) -> ReasonEntry:
    return ReasonEntry(kind=ReasonKind.NOT_ANALYSED, in_scope=True, sentence=sentence)


def _failed(sentence: str) -> ReasonEntry:
    return ReasonEntry(kind=ReasonKind.FAILED, in_scope=True, sentence=sentence)


REASONS: Mapping[ReasonCode, ReasonEntry] = MappingProxyType(
    {
        ReasonCode.NO_IMAGES: _out_of_scope("The study holds no images that can be analysed."),
        ReasonCode.NO_ACTIVE_MODEL: _out_of_scope("No model is active on this device."),
        ReasonCode.WRONG_MODALITY: _out_of_scope(
            "The study holds no images of the modality that the model is for."
        ),
        ReasonCode.BODY_PART_NOT_COVERED: _out_of_scope(
            "The images show a body part that the model is not for."
        ),
        ReasonCode.NO_MATCHING_SERIES: _out_of_scope(
            "No series of the study is of the kind that the model is for."
        ),
        ReasonCode.TOO_FEW_IMAGES: _not_analysed(
            "No matching series holds as many images as the model needs."
        ),
        ReasonCode.TOO_MANY_IMAGES: _not_analysed(
            "The series holds more images, or covers more, than the model takes."
        ),
        ReasonCode.NOTHING_VISIBLE: _not_analysed(
            "The images are blank: nothing in them lies above the value of air."
        ),
        ReasonCode.MULTIFRAME_NOT_SUPPORTED: _not_analysed(
            "The images are stored as multi-frame objects, which this device does not read."
        ),
        ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED: _not_analysed(
            "The pixels are stored in a format that this device does not read."
        ),
        ReasonCode.RESCALE_MISSING: _not_analysed(
            "The images do not say how stored values become Hounsfield units."
        ),
        ReasonCode.GEOMETRY_MISSING: _not_analysed(
            "Images lack their position, orientation or pixel spacing."
        ),
        ReasonCode.INCONSISTENT_IMAGES: _not_analysed(
            "The images of the series differ in size, pixel spacing or place."
        ),
        ReasonCode.MIXED_ORIENTATION: _not_analysed(
            "The images of the series are not parallel to each other."
        ),
        ReasonCode.DUPLICATE_POSITIONS: _not_analysed(
            "Several images of the series lie at the same position."
        ),
        ReasonCode.MISSING_SLICES: _not_analysed(
            "The gaps between images are not equal: images are missing."
        ),
        ReasonCode.GANTRY_TILT: _not_analysed("The series was acquired with a tilted gantry."),
        ReasonCode.OBLIQUE: _not_analysed("The images are more oblique than the model allows."),
        ReasonCode.ORIENTATION_NOT_COVERED: _not_analysed(
            "The images are not in the orientation that the model is for."
        ),
        ReasonCode.SLICE_THICKNESS_MISSING: _not_analysed("Images lack their slice thickness."),
        ReasonCode.SLICE_THICKNESS_OUT_OF_RANGE: _not_analysed(
            "The slice thickness is outside the range that the model allows."
        ),
        ReasonCode.SLICE_SPACING_OUT_OF_RANGE: _not_analysed(
            "The distance between slices is outside the range that the model allows."
        ),
        ReasonCode.PIXEL_SPACING_OUT_OF_RANGE: _not_analysed(
            "The pixel spacing is outside the range that the model allows."
        ),
        ReasonCode.COVERAGE_OUT_OF_RANGE: _not_analysed(
            "The series covers less or more of the body than the model allows."
        ),
        ReasonCode.CONTRAST_NOT_ALLOWED: _not_analysed(
            "Contrast medium was given; the model is for images without it."
        ),
        ReasonCode.CONTRAST_REQUIRED: _not_analysed(
            "No contrast medium was given; the model is for images with it."
        ),
        ReasonCode.LOSSY_COMPRESSION: _not_analysed(
            "The images were compressed with loss; the model needs the original values."
        ),
        ReasonCode.FOR_PROCESSING: _not_analysed(
            "The images are raw ones, meant for processing and not for looking at."
        ),
        ReasonCode.VIEW_MISSING: _not_analysed(
            "The images do not tell the view, which the model needs to know."
        ),
        ReasonCode.VIEW_NOT_COVERED: _not_analysed(
            "The images show the body from a side that the model is not for."
        ),
        ReasonCode.MANUFACTURER_NOT_COVERED: _not_analysed(
            "The images come from a manufacturer that the model was not made for."
        ),
        ReasonCode.KERNEL_NOT_COVERED: _not_analysed(
            "The images were reconstructed with a kernel that the model is not for."
        ),
        ReasonCode.AGE_MISSING: _not_analysed(
            "The images do not tell the age, which the model needs to know."
        ),
        ReasonCode.AGE_OUT_OF_RANGE: _not_analysed(
            "The patient's age is outside the range that the model is for."
        ),
        ReasonCode.SEX_NOT_COVERED: _not_analysed(
            "The patient's sex is missing or not one that the model is for."
        ),
        ReasonCode.UNDECODABLE_PIXELS: _not_analysed(
            "The pixels of an image are damaged or incomplete."
        ),
        ReasonCode.PIXELS_TOO_LARGE: _not_analysed(
            "An image is larger than this device may decode."
        ),
        ReasonCode.STUDY_TOO_LARGE: _not_analysed(
            "The study holds more images than this device may analyse."
        ),
        ReasonCode.PROCEDURE_DISCONTINUED: _not_analysed(
            "The scanner reported that the examination was broken off."
        ),
        ReasonCode.IMAGES_LOST: _failed("The device can no longer read images that it stored."),
        ReasonCode.ENGINE_FAILED: _failed("The model could not be run."),
        ReasonCode.DEVICE_FAILED: _failed("A fault of the device stopped the analysis."),
        ReasonCode.TIMED_OUT: _failed("The analysis took longer than allowed."),
        ReasonCode.REPEATED_CRASH: _failed("The analysis stopped the device's worker repeatedly."),
    }
)
