"""Studies to push: one head is drawn, which takes long; the others are it under new identities.

The device does the same work for each: nothing it does depends on what the pixels show.
"""

from __future__ import annotations

import os
from pathlib import Path

import pydicom
from pydicom.uid import UID

from tools.phantoms.headers import derived_uid, identity_for
from tools.phantoms.variants import PhantomName, make_study, write_study

_SEED = 1
SERIES_SLICES = 400
"""No head is longer at a spacing that models take; larger studies have several such series."""


class DrawnHead:
    """A positive head CT on disk, of which any number of studies can be made."""

    def __init__(self, folder: Path, *, slices: int) -> None:
        """Draw it; takes about a tenth of a second a slice, and longer series are copies.

        Args:
            folder: for its files.
            slices: images of a study; more than ``SERIES_SLICES`` are a multiple of it.
        """
        self._series = max(slices // SERIES_SLICES, 1)
        drawn = slices // self._series
        study = make_study(PhantomName.HEAD_CT, seed=_SEED, positive=True, slices=drawn)
        self._study_uid = study.study_uid
        self._paths = write_study(study, folder / "drawn")
        self._folder = folder / "study"
        self._folder.mkdir()

    def make_study(self, number: int) -> tuple[str, tuple[Path, ...]]:
        """Write the study with this number over the one before.

        Returns:
            StudyInstanceUID, and the files in the order of sending. They are on the disk: writing
            them back would otherwise compete with the device's own syncs.
        """
        made = [
            self._write(path, number, series)
            for series in range(self._series)
            for path in self._paths
        ]
        os.sync()
        return str(_renewed(self._study_uid, number)), tuple(made)

    def _write(self, drawn: Path, number: int, series: int) -> Path:
        who = identity_for(_SEED + number)
        ds = pydicom.dcmread(drawn)
        ds.PatientID, ds.PatientName = who.patient_id, who.patient_name
        ds.AccessionNumber = who.accession_number
        ds.StudyInstanceUID = _renewed(self._study_uid, number)
        ds.FrameOfReferenceUID = _renewed(ds.FrameOfReferenceUID, number)
        ds.SeriesInstanceUID = _renewed(ds.SeriesInstanceUID, number, series)
        ds.SeriesNumber = ds.SeriesNumber + series
        ds.SOPInstanceUID = _renewed(ds.SOPInstanceUID, number, series)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = self._folder / f"{series}-{drawn.name}"
        ds.save_as(path, enforce_file_format=True)
        return path


def _renewed(uid: UID, *parts: int) -> UID:
    return derived_uid("bench", uid, *parts)
