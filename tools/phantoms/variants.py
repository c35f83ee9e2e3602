"""Named phantom studies: the plain ones, and everything that a gate must refuse.

``make_study`` plans a study; nothing is drawn until its objects are iterated, and they are drawn
one by one. The same arguments give the same bytes; any other argument gives other UIDs, so that
two studies never quarrel about one identity.
"""

from __future__ import annotations

import datetime as dt
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from edge_runtime.model.reasons import ReasonCode
from tools.phantoms.dicom import ImageHeader, StudyHeader, ct_dataset
from tools.phantoms.dose_report import dose_report
from tools.phantoms.encoding import PhantomSyntax, encode_pixels, encode_with_loss
from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.faults import HeaderFault, as_multi_frame, spoil_header
from tools.phantoms.frame import SliceGeometry
from tools.phantoms.head_ct import BleedTruth, HeadPhantom
from tools.phantoms.headers import (
    DEFAULT_ACQUIRED,
    STYLES,
    PhantomIdentity,
    derived_uid,
    identity_for,
    style_for,
)
from tools.phantoms.spec import AcquisitionChoice, BleedKind, Filling, PhantomSpec, draw_spec

TILT_DEG = 15.0
THICK_MM = 10.0
SPARSE_SPACING_MM = 8.0
SPARSE_THICKNESS_MM = 5.0
COARSE_MATRIX = 96
"""Pixels of about 2.4 mm."""
SHORT_MM = 48.0
SLANT_DEG = 25.0
SHIFT_SHARE = 0.2
"""Of the spacing by which a slice lies too high."""
DEFAULT_SLICES = 32


class PhantomName(str, Enum):
    """The closed list of phantoms."""

    HEAD_CT = "head-ct"
    FULL_EXAM = "head-ct-full-exam"
    """With a localizer and a dose report, as a scanner sends it."""
    MISSING_SLICE = "head-ct-missing-slice"
    LATE_IMAGE = "head-ct-late-image"
    """Two batches: the last image comes after the study looked complete."""
    TILTED = "head-ct-tilted"
    DUPLICATE_POSITION = "head-ct-duplicate-position"
    MIXED_ORIENTATION = "head-ct-mixed-orientation"
    CONTRAST = "head-ct-contrast"
    THICK = "head-ct-thick"
    UNEVEN_GAPS = "head-ct-uneven-gaps"
    """One slice lies nearer to its upper neighbour."""
    MIXED_MATRIX = "head-ct-mixed-matrix"
    """Some slices have another size."""
    SPARSE = "head-ct-sparse"
    """Gaps between the slices."""
    COARSE = "head-ct-coarse"
    """Few and large pixels."""
    SHORT = "head-ct-short"
    """Covers less than a head needs."""
    OBLIQUE = "head-ct-oblique"
    """Straight gantry, but reformatted along a slant."""
    CORONAL = "head-ct-coronal"
    NO_RESCALE = "head-ct-no-rescale"
    NO_POSITION = "head-ct-no-position"
    NO_THICKNESS = "head-ct-no-thickness"
    DERIVED = "head-ct-derived"
    OTHER_BODY_PART = "head-ct-other-body-part"
    """The header says that it is a chest."""
    LOSSY = "head-ct-lossy"
    MULTI_FRAME = "head-ct-multi-frame"
    """One object with all slices."""
    QA_PHANTOM = "qa-phantom"
    """A skull full of air with plastic inserts: looks odd, bleeds never."""
    DOSE_REPORT = "dose-report"
    LOCALIZER_ONLY = "localizer-only"


class Expectation(str, Enum):
    """What a device with the head CT model should say of a phantom."""

    SUSPECTED = "suspected"
    NOT_SUSPECTED = "not_suspected"
    NOT_ANALYSED = "not_analysed"


REFUSALS: Mapping[PhantomName, ReasonCode] = MappingProxyType(
    {
        PhantomName.MISSING_SLICE: ReasonCode.MISSING_SLICES,
        PhantomName.UNEVEN_GAPS: ReasonCode.MISSING_SLICES,
        PhantomName.TILTED: ReasonCode.GANTRY_TILT,
        PhantomName.DUPLICATE_POSITION: ReasonCode.DUPLICATE_POSITIONS,
        PhantomName.MIXED_ORIENTATION: ReasonCode.MIXED_ORIENTATION,
        PhantomName.MIXED_MATRIX: ReasonCode.INCONSISTENT_IMAGES,
        PhantomName.CONTRAST: ReasonCode.CONTRAST_NOT_ALLOWED,
        PhantomName.THICK: ReasonCode.SLICE_THICKNESS_OUT_OF_RANGE,
        PhantomName.SPARSE: ReasonCode.SLICE_SPACING_OUT_OF_RANGE,
        PhantomName.COARSE: ReasonCode.PIXEL_SPACING_OUT_OF_RANGE,
        PhantomName.SHORT: ReasonCode.COVERAGE_OUT_OF_RANGE,
        PhantomName.OBLIQUE: ReasonCode.OBLIQUE,
        PhantomName.CORONAL: ReasonCode.ORIENTATION_NOT_COVERED,
        PhantomName.NO_RESCALE: ReasonCode.RESCALE_MISSING,
        PhantomName.NO_POSITION: ReasonCode.GEOMETRY_MISSING,
        PhantomName.NO_THICKNESS: ReasonCode.SLICE_THICKNESS_MISSING,
        PhantomName.DERIVED: ReasonCode.NO_MATCHING_SERIES,
        PhantomName.OTHER_BODY_PART: ReasonCode.BODY_PART_NOT_COVERED,
        PhantomName.LOSSY: ReasonCode.LOSSY_COMPRESSION,
        PhantomName.MULTI_FRAME: ReasonCode.NO_MATCHING_SERIES,
        PhantomName.DOSE_REPORT: ReasonCode.NO_IMAGES,
        PhantomName.LOCALIZER_ONLY: ReasonCode.NO_IMAGES,
    }
)
"""What the head CT model must not look at, and the reason that it must give."""
_WITHOUT_SLICES = frozenset({PhantomName.DOSE_REPORT, PhantomName.LOCALIZER_ONLY})
_HEADER_FAULTS: Mapping[PhantomName, HeaderFault] = MappingProxyType(
    {
        PhantomName.NO_RESCALE: HeaderFault.NO_RESCALE,
        PhantomName.NO_POSITION: HeaderFault.NO_POSITION,
        PhantomName.NO_THICKNESS: HeaderFault.NO_THICKNESS,
        PhantomName.DERIVED: HeaderFault.DERIVED,
        PhantomName.OTHER_BODY_PART: HeaderFault.OTHER_BODY_PART,
    }
)


class ObjectKind(str, Enum):
    """Kind of one object of a study."""

    SLICE = "slice"
    SHIFTED = "shifted"
    """A slice that lies too high."""
    COARSE = "coarse"
    """A slice of half the rows and columns."""
    OBLIQUE = "oblique"
    CORONAL = "coronal"
    LOCALIZER = "localizer"
    DOSE_REPORT = "dose_report"
    MULTI_FRAME = "multi_frame"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedObject:
    """One object before it is drawn."""

    kind: ObjectKind
    instance_number: int
    slice_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomStudy:
    """A planned study; iterate it to draw it."""

    name: PhantomName
    spec: PhantomSpec
    header: StudyHeader
    syntax: PhantomSyntax
    batches: tuple[tuple[PlannedObject, ...], ...]
    """Sent one after the other; all but LATE_IMAGE have one."""
    expectation: Expectation
    """After the last batch."""

    @property
    def study_uid(self) -> UID:
        """StudyInstanceUID."""
        return self.header.study_uid

    def __len__(self) -> int:
        """Number of objects in all batches."""
        return sum(len(batch) for batch in self.batches)

    def truth(self) -> tuple[BleedTruth, ...]:
        """Measured ground truth of the bleeds."""
        return HeadPhantom(self.spec).truth()

    def datasets(self, batch: int | None = None) -> Iterator[Dataset]:
        """Objects in the order of sending, of one batch or of all, in the study's syntax."""
        chosen = self.batches if batch is None else (self.batches[batch],)
        phantom = HeadPhantom(self.spec)
        for planned in (planned for objects in chosen for planned in objects):
            yield self._encoded(self._draw(phantom, planned))

    def files(self, batch: int | None = None) -> Iterator[bytes]:
        """The same as DICOM files (PS3.10)."""
        for dataset in self.datasets(batch):
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            yield buffer.getvalue()

    def _encoded(self, dataset: Dataset) -> Dataset:
        if self.name is PhantomName.LOSSY:
            encode_with_loss(dataset)
        elif self.name is not PhantomName.MULTI_FRAME:
            encode_pixels(dataset, self.syntax)
        return dataset

    def _draw(self, phantom: HeadPhantom, planned: PlannedObject) -> Dataset:
        if planned.kind is ObjectKind.DOSE_REPORT:
            return dose_report(
                self.header,
                self.spec.acquisition,
                series_uid=self._uid("series", "dose"),
                sop_uid=self._uid("dose", planned.instance_number),
                event_uid=self._uid("irradiation"),
            )
        if planned.kind is ObjectKind.MULTI_FRAME:
            return self._draw_multi_frame(phantom)
        geometry = _geometry(phantom, planned)
        hu = phantom.draw(geometry, noise_stream=planned.instance_number).hu
        dataset = ct_dataset(self.header, self._image_header(planned, geometry), hu)
        if self.name in _HEADER_FAULTS:
            spoil_header(dataset, _HEADER_FAULTS[self.name])
        return dataset

    def _draw_multi_frame(self, phantom: HeadPhantom) -> Dataset:
        stack = _stack(self.spec.acquisition.slices, first_is_top=self.header.style.first_is_top)
        return as_multi_frame(
            [self._draw(phantom, planned) for planned in stack],
            series_uid=self._uid("series", "multi-frame"),
            sop_uid=self._uid("multi-frame"),
            acquired=self.header.acquired,
        )

    def _image_header(self, planned: PlannedObject, geometry: SliceGeometry) -> ImageHeader:
        localizer = planned.kind is ObjectKind.LOCALIZER
        rules = self.header.style
        scan = self.spec.acquisition
        stack_name = rules.describe_series(scan.kernel, scan.thickness_mm)
        return ImageHeader(
            series_uid=self._uid("series", "localizer" if localizer else "axial"),
            series_number=1 if localizer else 2,
            series_description=rules.localizer_description if localizer else stack_name,
            sop_uid=self._uid(planned.kind.value, planned.instance_number),
            instance_number=planned.instance_number,
            images_in_acquisition=1 if localizer else scan.slices,
            image_type=rules.localizer_type if localizer else rules.image_type,
            geometry=geometry,
            acquisition=scan,
            table_mm=_table_position(self.spec.seed),
            contrast=self.spec.anatomy.vessel_hu is not None and not localizer,
        )

    def _uid(self, *parts: object) -> UID:
        return derived_uid(self.header.study_uid, *parts)


def make_study(
    name: PhantomName,
    *,
    seed: int = 0,
    positive: bool = False,
    bleed: BleedKind | None = None,
    slices: int = DEFAULT_SLICES,
    matrix: int = 512,
    syntax: PhantomSyntax = PhantomSyntax.EXPLICIT,
    acquired: dt.datetime = DEFAULT_ACQUIRED,
    identity: PhantomIdentity | None = None,
) -> PhantomStudy:
    """Plan a study.

    Args:
        name: which phantom.
        seed: draws the head, the scan and the invented patient.
        positive: with a bleed.
        bleed: its type; None lets the seed choose.
        slices: axial slices of the whole acquisition. They cover the head (150 mm) at a spacing of
            at most 5 mm; fewer than 30 cover a part of it, around the bleed if there is one.
        matrix: rows and columns.
        syntax: transfer syntax of the images.
        acquired: time of the study.
        identity: an invented patient of the caller's; None takes the seed's.

    Raises:
        PhantomUsageError: the phantom cannot have a bleed, or a number is out of bounds.
    """
    if positive and name in _WITHOUT_SLICES:
        raise PhantomUsageError(f"{name.value} has no axial slices and cannot be positive")
    spec = draw_spec(
        seed,
        bleed=bleed,
        positive=positive,
        choice=_choice(name, slices, matrix),
        filling=Filling.QA_INSERTS if name is PhantomName.QA_PHANTOM else Filling.BRAIN,
        contrast=name is PhantomName.CONTRAST,
    )
    who = identity or identity_for(seed, acquired=acquired)
    basis = (
        name.value, seed, spec.positive, bleed, slices, matrix, syntax.value, acquired, who,
    )  # fmt: skip
    header = StudyHeader(
        study_uid=derived_uid("study", *basis),
        frame_of_reference_uid=derived_uid("frame", *basis),
        identity=who,
        acquired=acquired,
        description="CT HEAD W CONTRAST" if name is PhantomName.CONTRAST else "CT HEAD WO CONTRAST",
        style=STYLES[style_for(seed)],
    )
    return PhantomStudy(
        name=name,
        spec=spec,
        header=header,
        syntax=syntax,
        batches=_plan(name, slices, first_is_top=header.style.first_is_top),
        expectation=_expectation(name, positive=spec.positive),
    )


def write_study(study: PhantomStudy, folder: Path, batch: int | None = None) -> tuple[Path, ...]:
    """Write a study's files, ``IM000001.dcm`` on, in the order of sending; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    skipped = sum(len(objects) for objects in study.batches[: batch or 0])
    paths = []
    for number, content in enumerate(study.files(batch), start=skipped + 1):
        path = folder / f"IM{number:06d}.dcm"
        path.write_bytes(content)
        paths.append(path)
    return tuple(paths)


def _choice(name: PhantomName, slices: int, matrix: int) -> AcquisitionChoice:
    choice = AcquisitionChoice(slices=slices, matrix=matrix)
    if name is PhantomName.TILTED:
        return replace(choice, gantry_tilt_deg=TILT_DEG)
    if name is PhantomName.THICK:
        return replace(choice, thickness_mm=THICK_MM, spacing_mm=THICK_MM)
    if name is PhantomName.SPARSE:
        return replace(choice, thickness_mm=SPARSE_THICKNESS_MM, spacing_mm=SPARSE_SPACING_MM)
    if name is PhantomName.COARSE:
        return replace(choice, matrix=COARSE_MATRIX)
    if name is PhantomName.SHORT:
        spacing = SHORT_MM / slices
        return replace(choice, thickness_mm=spacing, spacing_mm=spacing)
    return choice


def _expectation(name: PhantomName, *, positive: bool) -> Expectation:
    if name in REFUSALS:
        return Expectation.NOT_ANALYSED
    return Expectation.SUSPECTED if positive else Expectation.NOT_SUSPECTED


def _plan(
    name: PhantomName, slices: int, *, first_is_top: bool
) -> tuple[tuple[PlannedObject, ...], ...]:
    """Objects by batch. Slices keep the numbers that the scanner gave them, lost ones included."""
    localizer = PlannedObject(kind=ObjectKind.LOCALIZER, instance_number=1)
    report = PlannedObject(kind=ObjectKind.DOSE_REPORT, instance_number=1)
    if name is PhantomName.DOSE_REPORT:
        return ((report,),)
    if name is PhantomName.LOCALIZER_ONLY:
        return ((localizer,),)
    if name is PhantomName.MULTI_FRAME:
        return ((PlannedObject(kind=ObjectKind.MULTI_FRAME, instance_number=1),),)
    stack = _stack(slices, first_is_top=first_is_top)
    if name is PhantomName.FULL_EXAM:
        return ((localizer, *stack, report),)
    if name is PhantomName.LATE_IMAGE:
        return tuple(stack[:-1]), tuple(stack[-1:])
    return (tuple(_spoilt(name, stack)),)


def _stack(slices: int, *, first_is_top: bool) -> list[PlannedObject]:
    return [
        PlannedObject(
            kind=ObjectKind.SLICE,
            instance_number=number,
            slice_index=slices - number if first_is_top else number - 1,
        )
        for number in range(1, slices + 1)
    ]


def _spoilt(name: PhantomName, stack: list[PlannedObject]) -> list[PlannedObject]:
    """The stack with the variant's fault."""
    middle = len(stack) // 2
    if name is PhantomName.MISSING_SLICE:
        return stack[:middle] + stack[middle + 1 :]
    if name is PhantomName.DUPLICATE_POSITION:
        return [*stack, replace(stack[middle], instance_number=len(stack) + 1)]
    late = 3 * middle // 2
    spoilt: Mapping[PhantomName, tuple[slice, ObjectKind]] = {
        PhantomName.MIXED_ORIENTATION: (slice(late, None), ObjectKind.CORONAL),
        PhantomName.MIXED_MATRIX: (slice(late, None), ObjectKind.COARSE),
        PhantomName.UNEVEN_GAPS: (slice(middle, middle + 1), ObjectKind.SHIFTED),
        PhantomName.OBLIQUE: (slice(None), ObjectKind.OBLIQUE),
        PhantomName.CORONAL: (slice(None), ObjectKind.CORONAL),
    }
    if name in spoilt:
        place, kind = spoilt[name]
        stack[place] = [replace(planned, kind=kind) for planned in stack[place]]
    return stack


def _geometry(phantom: HeadPhantom, planned: PlannedObject) -> SliceGeometry:
    axial = phantom.geometry(planned.slice_index)
    half = (axial.rows - 1) / 2 * axial.pixel_mm
    if planned.kind is ObjectKind.SHIFTED:
        x, y, z = axial.position_mm
        return replace(
            axial, position_mm=(x, y, z + SHIFT_SHARE * phantom.spec.acquisition.spacing_mm)
        )
    if planned.kind is ObjectKind.COARSE:
        return axial.coarsened(2)
    if planned.kind is ObjectKind.OBLIQUE:
        return _slanted(axial, phantom.spec.acquisition.spacing_mm, planned.slice_index)
    if planned.kind is ObjectKind.CORONAL:
        depth = -60.0 + planned.slice_index * phantom.spec.acquisition.spacing_mm
        return replace(
            axial,
            position_mm=(-half, depth, half),
            row_cosines=(1.0, 0.0, 0.0),
            column_cosines=(0.0, 0.0, -1.0),
        )
    if planned.kind is ObjectKind.LOCALIZER:
        return replace(
            axial,
            position_mm=(0.0, -half, half),
            row_cosines=(0.0, 1.0, 0.0),
            column_cosines=(0.0, 0.0, -1.0),
        )
    return axial


def _slanted(axial: SliceGeometry, spacing_mm: float, index: int) -> SliceGeometry:
    """A slice of a stack that runs along its own normal, which is not the patient's long axis."""
    slant = math.radians(SLANT_DEG)
    half = (axial.rows - 1) / 2 * axial.pixel_mm
    column = np.array((0.0, math.cos(slant), math.sin(slant)))
    normal = np.array((0.0, -math.sin(slant), math.cos(slant)))
    corner = index * spacing_mm * normal - half * column
    return replace(
        axial,
        position_mm=(-half, float(corner[1]), float(corner[2])),
        column_cosines=(0.0, float(column[1]), float(column[2])),
    )


def _table_position(seed: int) -> tuple[float, float, float]:
    rng = np.random.default_rng([seed, 7])
    return (0.0, math.floor(rng.uniform(-40, 40)), float(math.floor(rng.uniform(-300, 900))))
