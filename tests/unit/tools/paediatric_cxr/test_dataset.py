from __future__ import annotations

from pathlib import Path

import pytest

from tools.paediatric_cxr.dataset import (
    Cause,
    DataSplit,
    find_radiographs,
    of_split,
    parse_name,
    read_pixels,
    split_of,
)
from tools.paediatric_cxr.errors import DataSetError


@pytest.mark.parametrize(
    ("name", "patient", "cause"),
    [
        ("NORMAL/IM-0115-0001.jpeg", "normal-115", Cause.NONE),
        ("NORMAL/IM-0011-0001-0002.jpeg", "normal-11", Cause.NONE),
        ("NORMAL/NORMAL2-IM-0173-0001-0001.jpeg", "normal-173", Cause.NONE),
        ("PNEUMONIA/person1_bacteria_2.jpeg", "person-1", Cause.BACTERIA),
        ("PNEUMONIA/person1345_virus_2321.jpeg", "person-1345", Cause.VIRUS),
        ("PNEUMONIA/person9_virus_3_1.jpeg", "person-9", Cause.VIRUS),
    ],
)
def test_names_tell_patient_and_cause(name: str, patient: str, cause: Cause) -> None:
    found = parse_name(Path("train") / name)

    assert (found.patient, found.cause) == (patient, cause)
    assert found.positive is (cause is not Cause.NONE)


@pytest.mark.parametrize(
    "name",
    [
        "NORMAL/person1_bacteria_2.jpeg",
        "PNEUMONIA/IM-0115-0001.jpeg",
        "PNEUMONIA/person1_fungus_2.jpeg",
        "OTHER/IM-0115-0001.jpeg",
        "NORMAL/IM-0115.jpeg",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(DataSetError, match="not a name of the data set"):
        parse_name(Path(name))


def test_what_may_be_one_child_stays_together() -> None:
    names = ("NORMAL/IM-0115-0001.jpeg", "NORMAL/NORMAL2-IM-0115-0001.jpeg")
    ill = ("PNEUMONIA/person7_bacteria_1.jpeg", "PNEUMONIA/person7_virus_2.jpeg")

    assert len({parse_name(Path(name)).patient for name in names}) == 1
    assert len({parse_name(Path(name)).patient for name in ill}) == 1


def test_no_patient_is_in_two_sets(drawn_data: Path) -> None:
    radiographs = find_radiographs(drawn_data)
    patients = [{item.patient for item in of_split(radiographs, split)} for split in DataSplit]

    assert all(patients)
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert sum(len(of_split(radiographs, split)) for split in DataSplit) == len(radiographs)


def test_sets_have_their_shares_and_never_change() -> None:
    splits = [split_of(f"person-{number}") for number in range(4000)]

    assert splits.count(DataSplit.TRAINING) / 4000 == pytest.approx(0.70, abs=0.03)
    assert splits.count(DataSplit.CALIBRATION) / 4000 == pytest.approx(0.12, abs=0.02)
    assert [split_of(f"normal-{number}").value for number in range(6)] == [
        *("training", "calibration", "calibration", "test", "test", "training"),
    ]


def test_a_folder_without_the_data_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="where to get the data"):
        find_radiographs(tmp_path)


def test_pixels_are_grey_and_bright_is_large(drawn_data: Path) -> None:
    pixels = read_pixels(find_radiographs(drawn_data)[0].path)

    assert pixels.shape == (112, 112)
    assert pixels.dtype.name == "uint8"
    assert pixels[-10:, 40:70].mean() > pixels[30:60, :4].mean()


def test_a_broken_picture_is_told(tmp_path: Path) -> None:
    path = tmp_path / "NORMAL" / "IM-0001-0001.jpeg"
    path.parent.mkdir()
    path.write_bytes(b"no picture")

    with pytest.raises(DataSetError, match="cannot be read"):
        read_pixels(path)
