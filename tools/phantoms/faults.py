"""What can be wrong with single objects of a study, as scanners and archives send them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.uid import UID


class HeaderFault(str, Enum):
    """A fault of every header of the stack."""

    NO_RESCALE = "no_rescale"
    NO_POSITION = "no_position"
    NO_THICKNESS = "no_thickness"
    DERIVED = "derived"
    OTHER_BODY_PART = "other_body_part"


def spoil_header(dataset: Dataset, fault: HeaderFault) -> None:
    """Put the fault into one object, in place."""
    _FAULTS[fault](dataset)


def _without_rescale(dataset: Dataset) -> None:
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(dataset, keyword)


def _without_position(dataset: Dataset) -> None:
    del dataset.ImagePositionPatient
    del dataset.SliceLocation


def _without_thickness(dataset: Dataset) -> None:
    dataset.SliceThickness = None  # type 2 (PS3.3 C.7.6.2): may be empty


def _derived(dataset: Dataset) -> None:
    """As a reformation that was sent back into the study."""
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "AVERAGE"]
    dataset.SeriesDescription = "MPR HEAD THICK"
    dataset.DerivationDescription = "Multiplanar reformation"


def _of_other_body_part(dataset: Dataset) -> None:
    dataset.BodyPartExamined = "CHEST"
    dataset.ProtocolName = "CHEST ROUTINE"
    dataset.SeriesDescription = "CHEST"
    dataset.StudyDescription = "CT CHEST WO CONTRAST"


_FAULTS: Mapping[HeaderFault, Callable[[Dataset], None]] = MappingProxyType(
    {
        HeaderFault.NO_RESCALE: _without_rescale,
        HeaderFault.NO_POSITION: _without_position,
        HeaderFault.NO_THICKNESS: _without_thickness,
        HeaderFault.DERIVED: _derived,
        HeaderFault.OTHER_BODY_PART: _of_other_body_part,
    }
)


def as_multi_frame(
    slices: Sequence[Dataset], *, series_uid: UID, sop_uid: UID, acquired: dt.datetime
) -> Dataset:
    """One object of all slices (PS3.3 A.70), as devices make that know no single slices.

    Args:
        slices: of one stack, uncompressed.
        series_uid: of the new series.
        sop_uid: of the new object.
        acquired: time of the study; nothing is dated otherwise.
    """
    # Only this phantom needs it, and it takes a second to import.
    from highdicom.legacy import LegacyConvertedEnhancedCTImage  # noqa: PLC0415 - see above

    whole = LegacyConvertedEnhancedCTImage(
        slices,
        series_instance_uid=series_uid,
        series_number=3,
        sop_instance_uid=sop_uid,
        instance_number=1,
    )
    for kind in ("InstanceCreation", "Content"):
        setattr(whole, f"{kind}Date", f"{acquired:%Y%m%d}")
        setattr(whole, f"{kind}Time", f"{acquired:%H%M%S}")
    # It names the slices, which do not exist anywhere.
    del whole.ReferencedSeriesSequence
    # Its index of frames, a database in memory that nobody asks here; Python 3.13 warns of it.
    whole._db_con.close()  # noqa: SLF001 - no public way
    return whole
