"""Stored values to HU, against SimpleITK's reading of the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from simulators.reference_images import picture, sitk

from engines.errors import ImageFault, UnfitImagesError
from engines.preprocessing.rescaling import invert_monochrome1, rescale
from engines.preprocessing.values import StoredImage
from engines.steps import InvertMonochrome1, Rescale

Pixels = npt.NDArray[Any]
AIR = Rescale(step="rescale", padding=-1000.0)
INVERT = InvertMonochrome1(step="invert_monochrome1")


def stored(pixels: npt.ArrayLike, dtype: Any = np.int16, **fields: Any) -> StoredImage:
    array = np.array(pixels, dtype=dtype)
    known = {
        "bits_stored": array.dtype.itemsize * 8,
        "is_signed": array.dtype.kind == "i",
        **fields,
    }
    return StoredImage(pixels=array, **known)


def write_ct(path: Path, image: StoredImage) -> None:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = image.pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = image.pixels.dtype.itemsize * 8
    dataset.BitsStored = image.bits_stored
    dataset.HighBit = image.bits_stored - 1
    dataset.PixelRepresentation = int(image.is_signed)
    dataset.RescaleSlope = str(image.slope)
    dataset.RescaleIntercept = str(image.intercept)
    mask = (1 << image.bits_stored) - 1
    dataset.PixelData = (image.pixels.astype(np.int64) & mask).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, -800.25), (2.1978, -3.3)])
def test_values_are_what_simpleitk_reads(
    tmp_path: Path, bits: int, is_signed: bool, slope: float, intercept: float
) -> None:
    lowest = -(1 << bits - 1) if is_signed else 0
    ends = [lowest, lowest + (1 << bits) - 1]
    rng = np.random.default_rng(bits)
    pixels = np.concatenate([ends, rng.integers(ends[0], ends[1], 62)]).reshape(8, 8)
    image = stored(
        pixels,
        np.int16 if is_signed else np.uint16,
        bits_stored=bits,
        is_signed=is_signed,
        slope=slope,
        intercept=intercept,
    )
    write_ct(tmp_path / "ct.dcm", image)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ct.dcm")))[0]
    result = rescale(image, AIR)
    assert result.values.dtype == np.float32
    np.testing.assert_array_equal(result.values, theirs.astype(np.float32))
    assert result.extremes == (theirs.min(), theirs.max())


@given(
    dtype=st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32]),
    slope=st.floats(-100, 100).filter(lambda value: abs(value) > 1e-6),
    intercept=st.floats(-5000, 5000),
    seed=st.integers(0, 2**32 - 1),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_every_value_is_the_float32_nearest_to_the_exact_one(
    dtype: Any, slope: float, intercept: float, seed: int
) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(limits.min, limits.max, (3, 5), dtype=dtype, endpoint=True)
    exact = pixels.astype(np.float64) * slope + intercept
    values = rescale(stored(pixels, dtype, slope=slope, intercept=intercept), AIR).values
    np.testing.assert_array_equal(values, exact.astype(np.float32))


def test_negative_slope_leaves_the_extremes_in_order() -> None:
    image = stored([[0, 255]], np.uint8, slope=-2.0, intercept=10.0)
    assert rescale(image, AIR).extremes == (-500.0, 10.0)


@pytest.mark.parametrize(
    ("dtype", "padding"), [(np.int16, -2000), (np.int16, 63536), (np.uint16, 63536)]
)
def test_padding_is_found_even_when_its_sign_was_confused(dtype: Any, padding: int) -> None:
    pixels = np.full((8, 8), 1024, dtype=dtype)
    pixels[0, 0] = np.array([63536], dtype=np.uint16).view(dtype)[0]
    values = rescale(stored(pixels, dtype, padding=padding, intercept=-1024.0), AIR).values
    assert values[0, 0] == -1000.0
    assert (values.ravel()[1:] == 0.0).all()


def test_values_may_come_less_what_the_next_grid_fills_with() -> None:
    image = stored([[-5, 7]], padding=-5, intercept=0.5)
    result = rescale(image, Rescale(step="rescale", padding=-1000.0), minus=-1000.0)
    assert result.minus == -1000.0
    assert result.values.tolist() == [[0.0, 1007.5]]
    assert result.extremes == (-32767.5, 32767.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"slope": 0.0},
        {"slope": float("nan")},
        {"slope": 1e300},
        {"intercept": float("inf")},
        {"bits_stored": 17},
        {"bits_stored": 0},
        {"pixels": np.zeros((2, 2, 3), dtype=np.int16)},
        {"pixels": np.zeros((0, 4), dtype=np.int16)},
    ],
)
def test_headers_that_contradict_the_pixels_are_refused(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"pixels": np.zeros((4, 4), dtype=np.int16), **changes}
    with pytest.raises(UnfitImagesError) as caught:
        rescale(StoredImage(**fields), AIR)
    assert caught.value.fault is ImageFault.PIXEL_FORMAT


@pytest.mark.parametrize("spacing", [(0.5, 0.0), (0.5, -1.0), (float("nan"), 0.5), (0.5, 1e300)])
def test_spacing_that_cannot_be_counts_as_missing(spacing: tuple[float, float]) -> None:
    assert rescale(stored([[1]], spacing_mm=spacing), AIR).spacing_mm is None


@pytest.mark.parametrize("position", [float("nan"), float("inf"), 1e300])
def test_position_that_cannot_be_counts_as_missing(position: float) -> None:
    assert rescale(stored([[1]], position_mm=position), AIR).position_mm is None


def test_place_is_kept() -> None:
    image = stored([[1]], spacing_mm=(0.4, 0.8), position_mm=-12.5, thickness_mm=5.0)
    result = rescale(image, AIR)
    place = (result.spacing_mm, result.position_mm, result.thickness_mm)
    assert place == ((0.4, 0.8), -12.5, 5.0)


@pytest.mark.parametrize(
    ("dtype", "bits", "sum_of_ends"),
    [(np.uint16, 12, 4095), (np.uint8, 8, 255), (np.int16, 12, -1)],
)
def test_monochrome1_is_turned_over_between_what_its_bits_express(
    dtype: Any, bits: int, sum_of_ends: int
) -> None:
    pixels = np.array([[0, 100], [7, 90]])
    image = stored(pixels, dtype, bits_stored=bits, is_monochrome1=True)
    turned = invert_monochrome1(rescale(image, AIR), INVERT)
    np.testing.assert_array_equal(turned.values, sum_of_ends - pixels)
    assert not turned.is_monochrome1
    assert invert_monochrome1(turned, INVERT) is turned


def test_monochrome1_is_turned_over_in_rescaled_values() -> None:
    image = stored([[0, 255]], np.uint8, slope=2.0, intercept=-10.0, is_monochrome1=True)
    turned = invert_monochrome1(rescale(image, AIR), INVERT)
    assert turned.values.tolist() == [[500.0, -10.0]]


def test_padding_keeps_its_value_when_a_picture_is_turned_over() -> None:
    image = stored([[9, 200], [9, 9]], np.uint8, padding=9, is_monochrome1=True)
    turned = invert_monochrome1(rescale(image, AIR), INVERT)
    assert turned.values.tolist() == [[-1000.0, 55.0], [-1000.0, -1000.0]]


def test_monochrome2_is_left_alone() -> None:
    plain = picture([[1.0, 2.0]])
    assert invert_monochrome1(plain, INVERT) is plain
