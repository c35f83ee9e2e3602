from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.headers import read_headers
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.dataset import DataSplit, find_radiographs, of_split, read_pixels
from tools.paediatric_cxr.errors import WrapError
from tools.paediatric_cxr.wrap import main, wrap
from tools.phantoms.radiograph import RadiographKind


def test_identities_are_invented_and_ages_fit(drawn_data: Path, tmp_path: Path) -> None:
    radiograph = find_radiographs(drawn_data)[0]
    for number in range(12):
        path = tmp_path / f"{number}.dcm"
        wrap(radiograph, number).save_as(path, enforce_file_format=True)
        header, identity = read_headers(path)

        assert header.modality in {"DX", "CR"}
        assert header.view_position in {"AP", "PA"}
        assert header.patient_age_years is not None
        assert recipe.AGES[0] <= header.patient_age_years <= recipe.AGES[1]
        assert "PHANTOM" in identity.patient_name
        assert header.lossy_image_compression


def test_all_bits_and_both_interpretations_come_and_show_the_same(drawn_data: Path) -> None:
    radiograph = find_radiographs(drawn_data)[0]
    wanted = read_pixels(radiograph.path) / 255
    seen = set()
    for number in range(60):
        dataset = wrap(radiograph, number)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(wanted.shape)
        shown = stored / (2**dataset.BitsStored - 1)
        seen.add((int(dataset.BitsStored), inverted))

        np.testing.assert_allclose(1 - shown if inverted else shown, wanted, atol=1e-3)
    assert {bits for bits, _ in seen} == {10, 12, 14, 15, 16}
    assert {inverted for _, inverted in seen} == {True, False}


def test_the_same_number_gives_the_same_object(drawn_data: Path) -> None:
    radiograph = find_radiographs(drawn_data)[0]

    assert wrap(radiograph, 3) == wrap(radiograph, 3)
    assert wrap(radiograph, 3).StudyInstanceUID != wrap(radiograph, 4).StudyInstanceUID


def test_negative_numbers_are_refused(drawn_data: Path) -> None:
    with pytest.raises(WrapError, match="0 or more"):
        wrap(find_radiographs(drawn_data)[0], -1)


def test_the_command_writes_test_radiographs_by_label(drawn_data: Path, tmp_path: Path) -> None:
    main(["--data", str(drawn_data), "--out", str(tmp_path), "--count", "8"])

    paths = sorted(tmp_path.rglob("*.dcm"))
    assert len(paths) == 8
    assert {path.parent.name for path in paths} == {"normal", "pneumonia"}
    assert len({pydicom.dcmread(path).StudyInstanceUID for path in paths}) == 8


@pytest.mark.peer
@pytest.mark.parametrize("kind", [RadiographKind.DX, RadiographKind.CR, RadiographKind.DX_RAW])
def test_wrapped_objects_are_valid(drawn_data: Path, tmp_path: Path, kind: RadiographKind) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dicom3tools is not installed")
    test = of_split(find_radiographs(drawn_data), DataSplit.TEST)
    path = tmp_path / "wrapped.dcm"
    wrap(test[0], 5, kind=kind).save_as(path, enforce_file_format=True)

    answer = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)

    assert "Error" not in answer.stderr + answer.stdout
