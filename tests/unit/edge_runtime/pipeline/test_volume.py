from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_node.headers import read_headers
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.errors import DecodeError, PreprocessError
from edge_runtime.pipeline.volume import File, Staging, read_volume
from tools.phantoms.encoding import PhantomSyntax, encode_pixels
from tools.phantoms.headers import STYLES, Style
from tools.phantoms.variants import PhantomName, make_study

SLICES = 4
Change = Callable[[int, Dataset], None]


@pytest.fixture(scope="module")
def slices() -> tuple[Dataset, ...]:
    study = make_study(PhantomName.HEAD_CT, seed=3, positive=True, slices=SLICES)
    header = dataclasses.replace(study.header, style=STYLES[Style.SIEMENS])
    return tuple(dataclasses.replace(study, header=header).datasets())


def write(folder: Path, slices: tuple[Dataset, ...], change: Change | None = None) -> list[File]:
    """The files of a series, the last slice first."""
    files = []
    for number, dataset in reversed(list(enumerate(slices))):
        own = copy.deepcopy(dataset)
        if change is not None:
            change(number, own)
        path = folder / f"{number}.dcm"
        own.save_as(path, enforce_file_format=True)
        files.append((path, read_headers(path)[0]))
    return files


def stored(dataset: Dataset) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return dataset.pixel_array.astype(np.float64)


def test_whole_numbers_are_exact_in_int16_and_ordered_along_the_normal(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    volume = read_volume(write(tmp_path, slices))
    assert volume.values.dtype == np.int16
    for place, dataset in zip(volume.values, slices, strict=True):
        assert np.array_equal(place, stored(dataset) + float(dataset.RescaleIntercept))
    first = volume.affine @ (0.0, 0.0, 0.0, 1.0)
    last = volume.affine @ (0.0, 0.0, SLICES - 1.0, 1.0)
    assert np.allclose(first[:3], [float(mm) for mm in slices[0].ImagePositionPatient])
    assert np.allclose(last[:3], [float(mm) for mm in slices[-1].ImagePositionPatient])


def test_staging_is_used_again_and_grows(tmp_path: Path, slices: tuple[Dataset, ...]) -> None:
    files = write(tmp_path, slices)
    plain = read_volume(files).values
    staging = Staging()
    small = read_volume(files[:2], staging=staging).values
    assert np.array_equal(small, plain[-2:])
    large = read_volume(files, staging=staging).values
    assert np.array_equal(large, plain)
    again = read_volume(files[:2], staging=staging).values
    assert np.shares_memory(large, again)
    assert np.array_equal(again, plain[-2:])


def test_a_slope_that_is_no_whole_number_makes_float32_exact_for_each_slice(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    def change(number: int, dataset: Dataset) -> None:
        dataset.RescaleSlope = "1" if number < SLICES - 1 else "0.5"

    volume = read_volume(write(tmp_path, slices, change))
    assert volume.values.dtype == np.float32
    for number, (place, dataset) in enumerate(zip(volume.values, slices, strict=True)):
        slope = 1.0 if number < SLICES - 1 else 0.5
        assert np.array_equal(place, stored(dataset) * slope + float(dataset.RescaleIntercept))


def test_padding_becomes_air_even_where_its_value_leaves_int16(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    def change(_number: int, dataset: Dataset) -> None:
        pixels = dataset.pixel_array.astype(np.int16)
        pixels[:2] = -32768
        dataset.PixelData = pixels.tobytes()
        dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 1, 16, 15
        dataset.add_new("PixelPaddingValue", "SS", -32768)

    volume = read_volume(write(tmp_path, slices, change))
    assert volume.values.dtype == np.int16
    assert (volume.values[:, :2] == -1024).all()
    assert np.array_equal(volume.values[0, 2:], (stored(slices[0]) - 1024)[2:])


def test_values_beyond_int16_make_float32(tmp_path: Path, slices: tuple[Dataset, ...]) -> None:
    def change(number: int, dataset: Dataset) -> None:
        pixels = dataset.pixel_array.copy()
        pixels[0, 0] = 65_535 if number == 1 else 0
        dataset.PixelData = pixels.tobytes()
        dataset.BitsStored, dataset.HighBit = 16, 15

    volume = read_volume(write(tmp_path, slices, change))
    assert volume.values.dtype == np.float32
    assert volume.values[1, 0, 0] == 65_535 - 1024


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless], ids=lambda uid: uid.name
)
def test_every_transfer_syntax_gives_the_same_volume(
    tmp_path: Path, slices: tuple[Dataset, ...], syntax: UID
) -> None:
    def change(_number: int, dataset: Dataset) -> None:
        if syntax == RLELossless:
            encode_pixels(dataset, PhantomSyntax.RLE)
            return
        pixels = dataset.pixel_array
        big = syntax == ExplicitVRBigEndian
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax

    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    plain = read_volume(write(tmp_path / "plain", slices))
    other_files = write(tmp_path / "other", slices, change)
    assert {header.transfer_syntax_uid for _, header in other_files} == {syntax}
    other = read_volume(other_files)
    assert other.values.dtype == np.int16
    assert np.array_equal(plain.values, other.values)


def test_bits_above_the_stored_ones_are_no_part_of_the_value(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    def change(_number: int, dataset: Dataset) -> None:
        dataset.PixelData = (dataset.pixel_array | 0x8000).tobytes()

    volume = read_volume(write(tmp_path, slices, change))
    assert np.array_equal(volume.values[0], stored(slices[0]) - 1024)


def test_slices_of_different_size_make_no_volume(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    def change(number: int, dataset: Dataset) -> None:
        if number == 2:
            dataset.PixelData = dataset.pixel_array[:-2].tobytes()
            dataset.Rows = dataset.Rows - 2

    with pytest.raises(PreprocessError) as caught:
        read_volume(write(tmp_path, slices, change))
    assert caught.value.reason is ReasonCode.INCONSISTENT_IMAGES


def test_no_file_and_a_slice_without_a_place_make_no_volume(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    def change(number: int, dataset: Dataset) -> None:
        if number == 2:
            del dataset.ImagePositionPatient

    files = write(tmp_path, slices, change)
    for given in ([], files):
        with pytest.raises(PreprocessError) as caught:
            read_volume(given)
        assert caught.value.reason is ReasonCode.GEOMETRY_MISSING


def test_a_file_that_was_cut_since_its_header_was_read_is_told(
    tmp_path: Path, slices: tuple[Dataset, ...]
) -> None:
    files = write(tmp_path, slices)
    path = files[0][0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DecodeError) as caught:
        read_volume(files)
    assert caught.value.reason is ReasonCode.UNDECODABLE_PIXELS
