"""Headers made by hand, and headers of real files read without our own node."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from simulators.model_package import write_model_package

from dicom_node.instance import InstanceHeader
from engines.package import ModelPackage

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]

CT = InstanceHeader(
    study_instance_uid="1.2",
    series_instance_uid="1.2.1",
    sop_instance_uid="1.2.1.1",
    sop_class_uid=CTImageStorage,
    transfer_syntax_uid=ExplicitVRLittleEndian,
    modality="CT",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    body_part_examined="HEAD",
    series_number=2,
    rows=512,
    columns=512,
    samples_per_pixel=1,
    photometric_interpretation="MONOCHROME2",
    bits_allocated=16,
    bits_stored=12,
    pixel_representation=0,
    rescale_slope=1.0,
    rescale_intercept=-1024.0,
    pixel_spacing_mm=(0.45, 0.45),
    slice_thickness_mm=5.0,
    image_position_mm=(-115.0, -115.0, 0.0),
    image_orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    frame_of_reference_uid="1.2.9",
    has_pixel_data=True,
)


@pytest.fixture(scope="session")
def make_header() -> MakeHeader:
    def make(**changes: Any) -> InstanceHeader:
        return replace(CT, **changes)

    return make


@pytest.fixture(scope="session")
def make_stack() -> MakeStack:
    """Axial slices from the feet upwards, ``step_mm`` from one to the next."""

    def make(
        count: int, step_mm: tuple[float, float, float] = (0.0, 0.0, 5.0), **changes: Any
    ) -> list[InstanceHeader]:
        return [
            replace(
                CT,
                sop_instance_uid=f"1.2.1.{index + 1}",
                instance_number=index + 1,
                image_position_mm=(
                    -115.0 + index * step_mm[0],
                    -115.0 + index * step_mm[1],
                    index * step_mm[2],
                ),
                **changes,
            )
            for index in range(count)
        ]

    return make


def _floats(dataset: Any, keyword: str) -> Any:
    value = dataset.get(keyword)
    return None if value is None else tuple(float(number) for number in value)


def _float(dataset: Any, keyword: str) -> float | None:
    value = dataset.get(keyword)
    return None if value is None else float(value)


@pytest.fixture(scope="session")
def header_of() -> Callable[[Path], InstanceHeader]:
    """The header of a real file, by a full pydicom parse."""

    def read(path: Path) -> InstanceHeader:
        dataset = dcmread(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        raw: Any = dataset.get_item("PixelData")
        is_native = not syntax.is_compressed and raw is not None
        return InstanceHeader(
            study_instance_uid=str(dataset.get("StudyInstanceUID", "")),
            series_instance_uid=str(dataset.get("SeriesInstanceUID", "")),
            sop_instance_uid=str(dataset.get("SOPInstanceUID", "")),
            sop_class_uid=str(dataset.get("SOPClassUID", "")),
            transfer_syntax_uid=str(syntax),
            modality=dataset.get("Modality"),
            image_type=tuple(dataset.get("ImageType") or ()),
            rows=dataset.get("Rows"),
            columns=dataset.get("Columns"),
            number_of_frames=dataset.get("NumberOfFrames"),
            samples_per_pixel=dataset.get("SamplesPerPixel"),
            photometric_interpretation=dataset.get("PhotometricInterpretation"),
            bits_allocated=dataset.get("BitsAllocated"),
            bits_stored=dataset.get("BitsStored"),
            pixel_representation=dataset.get("PixelRepresentation"),
            pixel_padding_value=dataset.get("PixelPaddingValue"),
            pixel_padding_range_limit=dataset.get("PixelPaddingRangeLimit"),
            rescale_slope=_float(dataset, "RescaleSlope"),
            rescale_intercept=_float(dataset, "RescaleIntercept"),
            pixel_spacing_mm=_floats(dataset, "PixelSpacing"),
            slice_thickness_mm=_float(dataset, "SliceThickness"),
            image_position_mm=_floats(dataset, "ImagePositionPatient"),
            image_orientation=_floats(dataset, "ImageOrientationPatient"),
            frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID")),
            has_pixel_data=raw is not None,
            pixel_data_offset=raw.value_tell if is_native else None,
            pixel_data_length=raw.length if is_native else None,
        )

    return read


@pytest.fixture(scope="session")
def wheel_file() -> Callable[[str], Path]:
    """A file that pydicom's wheel carries."""

    def find(name: str) -> Path:
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str), f"pydicom's wheel has no {name}"
        return Path(path)

    return find


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of more real files; a test that needs it is skipped where it is not at hand."""
    folder = os.environ.get("EDGE_TRIAGE_TEST_DATA")
    if not folder:
        pytest.skip("EDGE_TRIAGE_TEST_DATA is not set")
    return Path(folder) / "dicom"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """One that looks at each image."""
    return write_model_package(tmp_path_factory.mktemp("package")).manifest
