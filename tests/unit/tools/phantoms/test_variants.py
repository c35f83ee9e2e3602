from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, CTImageStorage, XRayRadiationDoseSRStorage

from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.headers import Style, style_for
from tools.phantoms.spec import BleedKind
from tools.phantoms.variants import (
    Expectation,
    PhantomName,
    PhantomStudy,
    make_study,
    write_study,
)

SLICES = 8
INVALID = frozenset({PhantomName.NO_RESCALE, PhantomName.NO_POSITION})
"""Phantoms that lack what the standard asks for; that is their fault."""


def small(
    name: PhantomName, *, seed: int = 3, positive: bool = False, slices: int = SLICES
) -> PhantomStudy:
    return make_study(name, seed=seed, positive=positive, slices=slices, matrix=64)


def positions(study: PhantomStudy, batch: int | None = None) -> list[float]:
    return [float(d.ImagePositionPatient[2]) for d in study.datasets(batch)]


def gaps(study: PhantomStudy) -> set[float]:
    return {round(float(gap), 3) for gap in np.diff(sorted(positions(study)))}


def test_the_same_study_has_the_same_bytes() -> None:
    assert list(small(PhantomName.HEAD_CT).files()) == list(small(PhantomName.HEAD_CT).files())


@pytest.mark.parametrize(
    "other",
    [
        make_study(PhantomName.THICK, seed=3, slices=SLICES, matrix=64),
        make_study(PhantomName.HEAD_CT, seed=4, slices=SLICES, matrix=64),
        make_study(PhantomName.HEAD_CT, seed=3, slices=SLICES, matrix=64, positive=True),
        make_study(PhantomName.HEAD_CT, seed=3, slices=SLICES + 1, matrix=64),
        make_study(PhantomName.HEAD_CT, seed=3, slices=SLICES, matrix=64, syntax=PhantomSyntax.RLE),
        make_study(
            PhantomName.HEAD_CT,
            seed=3,
            slices=SLICES,
            matrix=64,
            acquired=dt.datetime(2026, 2, 1, 12, 0),  # noqa: DTZ001 - DICOM times carry no zone
        ),
    ],
    ids=["name", "seed", "positive", "slices", "syntax", "time"],
)
def test_whatever_differs_gives_another_identity(other: PhantomStudy) -> None:
    study = small(PhantomName.HEAD_CT)
    uids, others = (
        {d.SOPInstanceUID for d in each.datasets()} | {each.study_uid} for each in (study, other)
    )

    assert uids.isdisjoint(others)


@pytest.mark.parametrize("name", PhantomName)
def test_uids_are_valid_and_unique(name: PhantomName) -> None:
    datasets = list(small(name).datasets())
    uids = [UID(d.SOPInstanceUID) for d in datasets]

    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert len(set(uids)) == len(uids) == len(small(name))
    assert len({d.StudyInstanceUID for d in datasets}) == 1


def test_the_patient_is_a_phantom() -> None:
    dataset = next(small(PhantomName.HEAD_CT).datasets())

    assert dataset.PatientName == "PHANTOM^HEAD3"
    assert dataset.PatientID == "PHANTOM-000003"
    assert dataset.InstitutionName == "PHANTOM HOSPITAL"


def test_a_plain_head_is_one_even_stack_with_its_count() -> None:
    study = small(PhantomName.HEAD_CT)
    datasets = list(study.datasets())

    assert len(gaps(study)) == 1
    assert {d.ImagesInAcquisition for d in datasets} == {SLICES}
    assert {int(d.InstanceNumber) for d in datasets} == set(range(1, SLICES + 1))
    assert {tuple(d.ImageType[:3]) for d in datasets} == {("ORIGINAL", "PRIMARY", "AXIAL")}
    assert study.expectation is Expectation.NOT_SUSPECTED


def test_slice_one_is_at_the_top_or_at_the_bottom_by_style() -> None:
    rising = {}
    for style in Style:
        seed = next(n for n in range(100) if style_for(n) is style)
        heights = positions(small(PhantomName.HEAD_CT, seed=seed))
        rising[style] = heights == sorted(heights)

    assert set(rising.values()) == {True, False}


def test_a_positive_study_is_expected_to_be_suspected() -> None:
    study = small(PhantomName.HEAD_CT, positive=True)

    assert study.expectation is Expectation.SUSPECTED
    assert [truth.kind for truth in study.truth()] == [study.spec.bleeds[0].kind]


def test_the_caller_may_choose_the_bleed() -> None:
    study = make_study(PhantomName.HEAD_CT, bleed=BleedKind.EPIDURAL, slices=SLICES, matrix=64)

    assert study.spec.bleeds[0].kind is BleedKind.EPIDURAL
    assert study.expectation is Expectation.SUSPECTED


def test_a_missing_slice_leaves_a_gap_of_two() -> None:
    study = small(PhantomName.MISSING_SLICE)
    spacing = study.spec.acquisition.spacing_mm

    assert len(study) == SLICES - 1
    assert gaps(study) == {spacing, 2 * spacing}
    assert {d.ImagesInAcquisition for d in study.datasets()} == {SLICES}


def test_the_late_image_comes_alone_and_completes_the_stack() -> None:
    study = small(PhantomName.LATE_IMAGE)

    assert [len(batch) for batch in study.batches] == [SLICES - 1, 1]
    assert len(positions(study, 0)) == SLICES - 1
    assert positions(study, 0) + positions(study, 1) == positions(study)
    assert len(gaps(study)) == 1
    assert study.expectation is Expectation.NOT_SUSPECTED


def test_a_tilted_stack_says_so_and_is_sheared() -> None:
    first, second = list(small(PhantomName.TILTED).datasets())[:2]
    row, column = np.split(np.array(first.ImageOrientationPatient, float), 2)
    step = np.array(second.ImagePositionPatient, float) - np.array(
        first.ImagePositionPatient, float
    )
    along = abs(step @ np.cross(row, column)) / np.linalg.norm(step)

    assert float(first.GantryDetectorTilt) == 15
    assert along == pytest.approx(np.cos(np.radians(15)), abs=1e-3)


def test_a_duplicate_position_has_two_objects() -> None:
    study = small(PhantomName.DUPLICATE_POSITION)
    heights = positions(study)

    assert len(study) == SLICES + 1
    assert len(set(heights)) == SLICES


def test_mixed_orientation_has_two_orientations_in_one_series() -> None:
    datasets = list(small(PhantomName.MIXED_ORIENTATION).datasets())

    assert len({tuple(d.ImageOrientationPatient) for d in datasets}) == 2
    assert len({d.SeriesInstanceUID for d in datasets}) == 1


def test_contrast_is_told_in_the_header() -> None:
    assert all("ContrastBolusAgent" in d for d in small(PhantomName.CONTRAST).datasets())
    assert all("ContrastBolusAgent" not in d for d in small(PhantomName.HEAD_CT).datasets())


def test_thick_slices_are_ten_millimetres() -> None:
    assert {float(d.SliceThickness) for d in small(PhantomName.THICK).datasets()} == {10.0}


def test_a_full_exam_brings_localizer_and_dose_report() -> None:
    datasets = list(small(PhantomName.FULL_EXAM).datasets())

    assert datasets[0].ImageType[2] == "LOCALIZER"
    assert datasets[-1].SOPClassUID == XRayRadiationDoseSRStorage
    assert len({d.SeriesInstanceUID for d in datasets}) == 3
    assert len(datasets) == SLICES + 2


def test_a_dose_report_is_all_of_its_study() -> None:
    (report,) = small(PhantomName.DOSE_REPORT).datasets()

    assert report.SOPClassUID == XRayRadiationDoseSRStorage
    assert report.ConceptNameCodeSequence[0].CodeValue == "113701"


def test_a_localizer_is_all_of_its_study() -> None:
    (localizer,) = small(PhantomName.LOCALIZER_ONLY).datasets()

    assert localizer.SOPClassUID == CTImageStorage
    assert localizer.ImageType[2] == "LOCALIZER"


@pytest.mark.parametrize("name", [PhantomName.DOSE_REPORT, PhantomName.LOCALIZER_ONLY])
def test_what_has_no_slices_cannot_be_positive(name: PhantomName) -> None:
    with pytest.raises(PhantomUsageError, match="cannot be positive"):
        make_study(name, positive=True)


def test_files_are_numbered_through_all_batches(tmp_path: Path) -> None:
    study = small(PhantomName.LATE_IMAGE)
    first = write_study(study, tmp_path, batch=0)
    second = write_study(study, tmp_path, batch=1)

    assert [path.name for path in second] == [f"IM{SLICES:06d}.dcm"]
    assert len(set(first) | set(second)) == SLICES
    assert pydicom.dcmread(second[0]).StudyInstanceUID == study.study_uid


@pytest.mark.parametrize("name", [PhantomName.CORONAL, PhantomName.MIXED_MATRIX])
def test_a_fault_of_the_stack_leaves_its_objects_sound(name: PhantomName) -> None:
    for dataset in small(name).datasets():
        assert len(dataset.PixelData) == 2 * dataset.Rows * dataset.Columns


def test_series_are_described_as_the_manufacturer_does() -> None:
    found = {}
    for style in Style:
        seed = next(n for n in range(100) if style_for(n) is style)
        dataset = next(small(PhantomName.HEAD_CT, seed=seed).datasets())
        found[dataset.Manufacturer] = (dataset.SeriesDescription, dataset.ConvolutionKernel)

    assert len(found) == len(Style)
    assert found["GE MEDICAL SYSTEMS"][0] == f"5mm {found['GE MEDICAL SYSTEMS'][1]} HEAD"
    assert len(set(found.values())) == len(Style)


def test_no_header_has_private_attributes() -> None:
    for name in PhantomName:
        for dataset in small(name).datasets():
            assert not [element for element in dataset if element.tag.is_private]


@pytest.mark.peer
@pytest.mark.parametrize("name", [name for name in PhantomName if name not in INVALID])
def test_dciodvfy_finds_no_error(name: PhantomName, tmp_path: Path) -> None:
    paths = write_study(small(name), tmp_path)
    for path in {paths[0], paths[-1]}:
        result = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        report = result.stdout + result.stderr

        assert not [line for line in report.splitlines() if line.startswith("Error")], report


@pytest.mark.peer
@pytest.mark.parametrize("style", Style)
def test_dciodvfy_finds_no_error_in_any_style(style: Style, tmp_path: Path) -> None:
    seed = next(n for n in range(100) if style_for(n) is style)
    for syntax in (PhantomSyntax.EXPLICIT, PhantomSyntax.JPEG_LOSSLESS):
        study = make_study(PhantomName.HEAD_CT, seed=seed, slices=1, matrix=64, syntax=syntax)
        (path,) = write_study(study, tmp_path / syntax.value)
        result = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        report = result.stdout + result.stderr

        assert not [line for line in report.splitlines() if line.startswith("Error")], report
