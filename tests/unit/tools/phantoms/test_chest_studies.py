from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.headers import read_headers
from tools.phantoms.chest_studies import ChestName, main, make_chest_study, write_chest_study
from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.headers import DEFAULT_ACQUIRED, derived_uid
from tools.phantoms.radiograph import (
    RadiographHeader,
    RadiographKind,
    RadiographStudy,
    age_string,
    radiograph_dataset,
)
from tools.phantoms.variants import Expectation


def small(name: ChestName, seed: int = 1) -> list[pydicom.Dataset]:
    return list(make_chest_study(name, seed=seed, rows=96, columns=80).datasets())


def test_the_same_arguments_give_the_same_bytes() -> None:
    one, again = (
        list(make_chest_study(ChestName.DX, seed=2, rows=96, columns=80).files()) for _ in range(2)
    )

    assert one == again


def test_other_arguments_give_other_studies() -> None:
    studies = [make_chest_study(name, seed=seed) for name in ChestName for seed in (1, 2)]

    assert len({study.study_uid for study in studies}) == len(studies)


@pytest.mark.parametrize("name", list(ChestName))
def test_each_name_is_what_it_says(name: ChestName) -> None:
    first = small(name)[0]

    assert first.Modality == ("CR" if name is ChestName.CR else "DX")
    raw_or_inverted = name in {ChestName.INVERTED, ChestName.RAW}
    assert (first.PhotometricInterpretation == "MONOCHROME1") is raw_or_inverted
    assert ("PatientAge" in first) is (name is not ChestName.AGE_MISSING)
    assert (first.PatientBirthDate == "") is (name is ChestName.AGE_MISSING)
    if name is not ChestName.CR:
        wanted = "FOR PROCESSING" if name is ChestName.RAW else "FOR PRESENTATION"
        assert first.PresentationIntentType == wanted
    assert 10 <= first.BitsStored <= 16


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [(ChestName.DX, 1, 6), (ChestName.ADULT, 20, 90), (ChestName.INFANT, 0, 1)],
)
def test_ages_are_those_of_the_name(
    name: ChestName, low: float, high: float, tmp_path: Path
) -> None:
    for seed in range(20):
        study = make_chest_study(name, seed=seed, rows=96, columns=80)
        (path,) = write_chest_study(study, tmp_path / str(seed))
        header, identity = read_headers(path)
        assert header.patient_age_years is not None
        assert low <= header.patient_age_years < high
        assert identity.patient_name.startswith("PHANTOM")


def test_what_the_gate_must_refuse_is_expected_so() -> None:
    clear = make_chest_study(ChestName.CR, seed=1)
    ill = make_chest_study(ChestName.CR, seed=1, positive=True)
    adult = make_chest_study(ChestName.ADULT, seed=1, positive=True)

    assert clear.expectation is Expectation.NOT_SUSPECTED
    assert ill.expectation is Expectation.SUSPECTED
    assert adult.expectation is Expectation.NOT_ANALYSED


def test_two_views_are_two_series_of_one_study() -> None:
    frontal, lateral = small(ChestName.PAIR)

    assert frontal.StudyInstanceUID == lateral.StudyInstanceUID
    assert frontal.SeriesInstanceUID != lateral.SeriesInstanceUID
    assert frontal.ViewPosition in {"AP", "PA"}
    assert lateral.ViewPosition == "LL"


@pytest.mark.parametrize("syntax", list(PhantomSyntax))
def test_every_transfer_syntax_holds_the_same_pixels(syntax: PhantomSyntax, tmp_path: Path) -> None:
    plain = small(ChestName.DX, seed=4)[0].pixel_array
    study = make_chest_study(ChestName.DX, seed=4, syntax=syntax, rows=96, columns=80)
    (path,) = write_chest_study(study, tmp_path)

    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, plain)


def test_raw_values_fall_where_the_chest_is_dense() -> None:
    raw, shown = small(ChestName.RAW, seed=6)[0], small(ChestName.DX, seed=6)[0]
    dense = shown.pixel_array > np.median(shown.pixel_array)

    assert raw.pixel_array[dense].mean() < raw.pixel_array[~dense].mean()


@pytest.mark.parametrize(("bits", "pixel_mm"), [(9, 0.2), (17, 0.2), (12, None)])
def test_what_dx_cannot_hold_is_refused(bits: int, pixel_mm: float | None) -> None:
    study = make_chest_study(ChestName.DX, seed=1)
    image = RadiographHeader(
        kind=RadiographKind.DX,
        series_uid=derived_uid("s"),
        sop_uid=derived_uid("i"),
        bits=bits,
        pixel_mm=pixel_mm,
    )
    with pytest.raises(PhantomUsageError):
        radiograph_dataset(study.study, image, np.zeros((64, 64), np.float32))


def test_an_age_is_told_in_months_below_two_years() -> None:
    on = DEFAULT_ACQUIRED.date()
    ages = [age_string(on.replace(year=on.year - years), on) for years in (1, 2, 5)]

    assert ages == ["012M", "002Y", "005Y"]


def test_a_cr_image_may_leave_the_pixel_size_out() -> None:
    plan = make_chest_study(ChestName.CR, seed=1)
    image = RadiographHeader(
        kind=RadiographKind.CR,
        series_uid=derived_uid("s"),
        sop_uid=derived_uid("i"),
        pixel_mm=None,
    )
    study = RadiographStudy(
        study_uid=plan.study_uid, identity=plan.study.identity, acquired=DEFAULT_ACQUIRED
    )

    dataset = radiograph_dataset(study, image, np.zeros((64, 64), np.float32))
    assert "ImagerPixelSpacing" not in dataset


def test_the_command_writes_one_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["chest-two-views", "--seed", "5", "--positive", "--out", str(tmp_path)])

    assert capsys.readouterr().out.split() == [str(path) for path in sorted(tmp_path.iterdir())]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.peer
@pytest.mark.parametrize("name", list(ChestName))
def test_objects_are_valid(name: ChestName, tmp_path: Path) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dicom3tools is not installed")
    study = make_chest_study(name, seed=3, positive=True, rows=96, columns=80)
    for path in write_chest_study(study, tmp_path):
        answer = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)
        assert "Error" not in answer.stderr + answer.stdout
