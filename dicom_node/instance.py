"""What the node tells the device about one stored instance.

``InstanceHeader`` holds no patient identity: it can be stored, compared and shown in errors.
``StudyIdentity`` holds nothing else, and its ``repr`` is empty so that no log line can carry it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Vector3 = tuple[float, float, float]
Vector6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHeader:
    """The attributes that selection, the quality gate and decoding need (PS3.3 C.7, C.8.2).

    ``None`` means that the attribute is absent, empty or unreadable. Lengths are millimetres.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str | None = None
    image_type: tuple[str, ...] = ()
    manufacturer: str | None = None
    body_part_examined: str | None = None
    view_position: str | None = None
    presentation_intent_type: str | None = None
    convolution_kernel: str | None = None
    contrast_bolus: bool = False
    """(0018,0010) ContrastBolusAgent is present and not empty."""
    patient_age_years: float | None = None
    patient_sex: str | None = None
    series_number: int | None = None
    acquisition_number: int | None = None
    instance_number: int | None = None
    images_in_acquisition: int | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int | None = None
    samples_per_pixel: int | None = None
    photometric_interpretation: str | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    pixel_padding_value: int | None = None
    pixel_padding_range_limit: int | None = None
    """The other end of a range of padding values; means nothing without the value."""
    lossy_image_compression: bool = False
    rescale_slope: float | None = None
    rescale_intercept: float | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    """Row spacing (vertical), column spacing (horizontal): PS3.3 10.7.1.1."""
    slice_thickness_mm: float | None = None
    spacing_between_slices_mm: float | None = None
    image_position_mm: Vector3 | None = None
    image_orientation: Vector6 | None = None
    gantry_tilt_deg: float | None = None
    frame_of_reference_uid: str | None = None
    has_pixel_data: bool = False
    pixel_data_offset: int | None = None
    """Byte offset in the stored file of the value of native (7FE0,0010); None if encapsulated."""
    pixel_data_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """Who and what the study is about, for the worklist and for results; never for logs."""

    patient_name: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    patient_birth_date: str = field(default="", repr=False)
    patient_sex: str = field(default="", repr=False)
    accession_number: str = field(default="", repr=False)
    study_id: str = field(default="", repr=False)
    study_date: str = field(default="", repr=False)
    study_time: str = field(default="", repr=False)
    study_description: str = field(default="", repr=False)
    referring_physician_name: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """One instance whose file is durable in the spool."""

    header: InstanceHeader
    identity: StudyIdentity
    path: str
    """Relative to the spool folder, made of opaque names only."""
    file_bytes: int
    calling_ae_title: str = field(repr=False)
    association_id: str
    """Opaque id made by the node."""
