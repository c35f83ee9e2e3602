"""What a report says of the study that it is for, and of the objects that it rests on."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from edge_runtime.errors import BugError
from edge_runtime.outputs.identity import clean_identity
from edge_runtime.store.deliveries import DeliveryJob


def write_study(report: Dataset, job: DeliveryJob) -> None:
    """Write patient and study as the study's own images have them."""
    identity = clean_identity(job.identity)
    report.add(element("PatientName", identity.patient_name))
    report.add(element("PatientID", identity.patient_id))
    report.add(element("PatientBirthDate", identity.patient_birth_date))
    report.add(element("PatientSex", identity.patient_sex))
    report.add(element("StudyInstanceUID", job.study_instance_uid))
    report.add(element("AccessionNumber", identity.accession_number))
    report.add(element("StudyID", identity.study_id))
    report.add(element("StudyDate", identity.study_date))
    report.add(element("StudyTime", identity.study_time))
    report.add(element("ReferringPhysicianName", identity.referring_physician_name))
    if identity.study_description:
        report.add(element("StudyDescription", identity.study_description))


def study_reference(study_instance_uid: str, series: Mapping[str, list[Dataset]]) -> Dataset:
    """Return an item of the Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    study = Dataset()
    study.add(element("StudyInstanceUID", study_instance_uid))
    items = []
    for series_instance_uid, references in series.items():
        item = Dataset()
        item.add(element("SeriesInstanceUID", series_instance_uid))
        item.ReferencedSOPSequence = Sequence(references)
        items.append(item)
    study.ReferencedSeriesSequence = items
    return study


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return an item that names one instance (PS3.3 10.8)."""
    item = Dataset()
    item.add(element("ReferencedSOPClassUID", sop_class_uid))
    item.add(element("ReferencedSOPInstanceUID", sop_instance_uid))
    return item


def element(keyword: str, value: str) -> DataElement:
    """Return an element without pydicom's check of its value.

    The values are clean, but for UIDs of the scanner that must stay as they are even where a
    component begins with a zero: otherwise the report would land in a study of its own.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise BugError(f"no such DICOM keyword: {keyword}")
    return DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE)
