"""How peers read a folder, each as its own documentation says; imported only where it is asked for.

Whatever a peer needs is imported when its reader is made, so that none of it is timed; the command
line tool is a process each time, and its start is a part of its time.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.bench.readers.answers import Read
from tools.bench.readers.errors import SeriesRefusedError
from tools.bench.readers.names import DCM2NIIX
from tools.bench.readers.volumes import LPS_OF_RAS, Volume

Float64 = npt.NDArray[np.float64]


@contextlib.contextmanager
def simpleitk_reader() -> Iterator[Read]:
    """SimpleITK's ``ImageSeriesReader`` with GDCM's order of files."""
    sitk = importlib.import_module("SimpleITK")

    def read(folder: Path) -> Volume:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        return Volume(values=sitk.GetArrayFromImage(image), affine=affine)

    yield read


@contextlib.contextmanager
def highdicom_reader() -> Iterator[Read]:
    """Highdicom's ``get_volume_from_series`` on data sets that pydicom has read."""
    highdicom = importlib.import_module("highdicom")
    pydicom = importlib.import_module("pydicom")

    def read(folder: Path) -> Volume:
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        volume = highdicom.get_volume_from_series(datasets)
        # Its array is (slices, rows, columns), and so are the columns of its affine.
        affine = np.array(volume.affine, dtype=np.float64)
        affine[:, :3] = affine[:, 2::-1]
        return Volume(values=volume.array, affine=affine)

    yield read


@contextlib.contextmanager
def pydicom_reader() -> Iterator[Read]:
    """Pydicom's own example: sorted by position, rescaled, stacked."""
    pydicom = importlib.import_module("pydicom")

    def read(folder: Path) -> Volume:
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
        stack = [
            pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset) for dataset in datasets
        ]
        return Volume(values=np.stack(stack), affine=_affine_of(datasets))

    yield read


def _affine_of(datasets: list[Any]) -> Float64:
    """From the first slice, and the way to the second."""
    first = datasets[0]
    positions = [np.array(each.ImagePositionPatient, dtype=np.float64) for each in datasets[:2]]
    cosines = np.array(first.ImageOrientationPatient, dtype=np.float64)
    row_mm, column_mm = (float(mm) for mm in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[:3] * column_mm, cosines[3:] * row_mm
    affine[:3, 2] = (
        positions[1] - positions[0] if len(positions) > 1 else np.cross(cosines[:3], cosines[3:])
    )
    affine[:3, 3] = positions[0]
    return affine


@contextlib.contextmanager
def dicom2nifti_reader() -> Iterator[Read]:
    """dicom2nifti's ``dicom_series_to_nifti``, in memory and not turned."""
    convert = importlib.import_module("dicom2nifti.convert_dicom")

    def read(folder: Path) -> Volume:
        made = convert.dicom_series_to_nifti(str(folder), None, reorient_nifti=False)
        return _of_nifti(made["NII"])

    yield read


@contextlib.contextmanager
def dcm2niix_reader() -> Iterator[Read]:
    """The program with neither JSON nor compression, and its NIfTI file read into memory."""
    nibabel = importlib.import_module("nibabel")

    def read(folder: Path) -> Volume:
        with tempfile.TemporaryDirectory(prefix="edge-triage-bench-") as name:
            command = [DCM2NIIX, "-b", "n", "-z", "n", "-f", "volume", "-o", name, str(folder)]
            ended = subprocess.run(command, check=False)
            made = sorted(Path(name).glob("*.nii"))
            if ended.returncode or not made:
                raise SeriesRefusedError(f"exit code {ended.returncode}, {len(made)} volumes")
            # Where it repairs, it writes the series as it came and then the repaired one.
            return _of_nifti(nibabel.load(made[-1]))

    yield read


@contextlib.contextmanager
def monai_reader() -> Iterator[Read]:
    """MONAI's ``LoadImage`` with its reader for pydicom."""
    transforms = importlib.import_module("monai.transforms")

    def read(folder: Path) -> Volume:
        load = transforms.LoadImage(reader="PydicomReader", image_only=True)
        image = load(str(folder))
        affine = LPS_OF_RAS @ np.array(image.affine, dtype=np.float64)
        return Volume(values=np.asarray(image).transpose(2, 1, 0), affine=affine)

    yield read


def _of_nifti(image: Any) -> Volume:
    """Its values are (columns, rows, slices)."""
    stored = np.array(image.dataobj.get_unscaled() if _is_file(image) else image.dataobj)
    if stored.ndim != 3:  # noqa: PLR2004  a volume
        raise SeriesRefusedError(f"{stored.ndim} axes")
    slope, intercept = (image.dataobj.slope, image.dataobj.inter) if _is_file(image) else (1.0, 0.0)
    return Volume(
        values=stored.transpose(2, 1, 0),
        affine=LPS_OF_RAS @ np.array(image.affine, dtype=np.float64),
        slope=float(slope),
        intercept=float(intercept),
    )


def _is_file(image: Any) -> bool:
    return hasattr(image.dataobj, "get_unscaled")
