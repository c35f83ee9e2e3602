"""What the device's gate says of the test phantoms, with their own tilt and with a steeper one.

Headers are enough for it: nothing is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.gate import Refusal, check_series
from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet, phantom_of, steep, table_mm
from tools.phantoms.frame import SliceGeometry
from tools.phantoms.head_ct import slice_geometry
from tools.phantoms.spec import PhantomSpec

MATRIX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How many were let through, and how many refused."""

    within: int
    """Phantoms whose gantry leans as far as the gate allows, or not at all ..."""
    accepted: int
    """... and those of them that the gate lets through."""
    steep: int
    """Phantoms whose gantry leans further ..."""
    refused: int
    """... and those of them that the gate refuses for it."""


def count_refusals(phantoms: int) -> Refusals:
    """Ask the gate about the first phantoms of the test set."""
    specs = [phantom_of(PhantomSet.TEST, number, matrix=MATRIX) for number in range(phantoms)]
    answers = [_ask(spec) for spec in specs]
    steep_answers = [_ask(steep(spec)) for spec in specs]
    return Refusals(
        within=len(specs),
        accepted=sum(answer is None for answer in answers),
        steep=len(specs),
        refused=sum(
            answer is not None and answer.reason is ReasonCode.GANTRY_TILT
            for answer in steep_answers
        ),
    )


def _ask(spec: PhantomSpec) -> Refusal | None:
    table = table_mm(PhantomSet.TEST, spec)
    scan = spec.acquisition
    headers = [_header(slice_geometry(scan, index), table) for index in range(scan.slices)]
    return check_series(headers, recipe.GATE)


def _header(geometry: SliceGeometry, table: float) -> InstanceHeader:
    """What the device reads of a slice whose header does not mention the tilt: it must measure."""
    x, y, z = geometry.position_mm
    return InstanceHeader(
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        sop_instance_uid="2.25.3",
        sop_class_uid=CTImageStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="CT",
        rows=geometry.rows,
        columns=geometry.columns,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=1,
        samples_per_pixel=1,
        has_pixel_data=True,
        photometric_interpretation="MONOCHROME2",
        rescale_slope=1.0,
        rescale_intercept=0.0,
        pixel_spacing_mm=(geometry.pixel_mm, geometry.pixel_mm),
        slice_thickness_mm=geometry.thickness_mm,
        image_position_mm=(x, y, z + table),
        image_orientation=(*geometry.row_cosines, *geometry.column_cosines),
    )
