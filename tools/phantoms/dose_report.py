"""An X-Ray Radiation Dose SR of a CT acquisition (PS3.16 TID 10011), as scanners add to a study."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, XRayRadiationDoseSRStorage

from tools.phantoms.dicom import StudyHeader, add_study, file_meta
from tools.phantoms.headers import decimal_string
from tools.phantoms.spec import Acquisition

Concept = tuple[str, str, str]
"""Code value, coding scheme designator, code meaning."""


def dose_report(
    study: StudyHeader,
    acquisition: Acquisition,
    *,
    series_uid: UID,
    sop_uid: UID,
    event_uid: UID,
) -> Dataset:
    """The dose of one helical acquisition, uncompressed explicit little endian."""
    dataset = Dataset()
    dataset.file_meta = file_meta(XRayRadiationDoseSRStorage, sop_uid)
    add_study(dataset, study)
    dataset.Modality = "SR"
    dataset.SeriesInstanceUID = series_uid
    dataset.SeriesNumber = "997"
    dataset.SeriesDescription = "Dose Report"
    dataset.InstanceNumber = "1"
    dataset.ContentDate = dataset.StudyDate
    dataset.ContentTime = dataset.StudyTime
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.ReferencedPerformedProcedureStepSequence = Sequence()
    dataset.PerformedProcedureCodeSequence = Sequence()
    root = _container(
        "",
        ("113701", "DCM", "X-Ray Radiation Dose Report"),
        _content(study, acquisition, event_uid),
    )
    template = Dataset()
    template.MappingResource = "DCMR"
    template.TemplateIdentifier = "10011"
    root.ContentTemplateSequence = Sequence([template])
    del root.RelationshipType
    dataset.update(root)
    return dataset


def _content(study: StudyHeader, acquisition: Acquisition, event_uid: UID) -> list[Dataset]:
    procedure = _code(
        "HAS CONCEPT MOD",
        ("121058", "DCM", "Procedure reported"),
        ("77477000", "SCT", "Computed Tomography X-Ray"),
    )
    intent = ("363703001", "SCT", "Has Intent"), ("261004008", "SCT", "Diagnostic Intent")
    procedure.ContentSequence = Sequence([_code("HAS CONCEPT MOD", *intent)])
    observer_type = ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")
    started = f"{study.acquired:%Y%m%d%H%M%S}"
    scope = _code(
        "HAS OBS CONTEXT",
        ("113705", "DCM", "Scope of Accumulation"),
        ("113014", "DCM", "Study"),
    )
    study_uid = _uid("HAS PROPERTIES", ("110180", "DCM", "Study Instance UID"), study.study_uid)
    scope.ContentSequence = Sequence([study_uid])
    source = (
        ("113854", "DCM", "Source of Dose Information"),
        ("113856", "DCM", "Automated Data Collection"),
    )
    return [
        procedure,
        _code("HAS OBS CONTEXT", *observer_type),
        _uid("HAS OBS CONTEXT", ("121012", "DCM", "Device Observer UID"), event_uid),
        _moment(("113809", "DCM", "Start of X-Ray Irradiation"), started),
        _moment(("113810", "DCM", "End of X-Ray Irradiation"), started),
        scope,
        _accumulated(acquisition),
        _acquisition(acquisition, event_uid),
        _code("CONTAINS", *source),
    ]


def _accumulated(acquisition: Acquisition) -> Dataset:
    events = ("113812", "DCM", "Total Number of Irradiation Events"), 1.0, "{events}"
    total = ("113813", "DCM", "CT Dose Length Product Total"), _dlp(acquisition), "mGy.cm"
    return _container(
        "CONTAINS",
        ("113811", "DCM", "CT Accumulated Dose Data"),
        [_number(*events), _number(*total)],
    )


def _acquisition(acquisition: Acquisition, event_uid: UID) -> Dataset:
    length = acquisition.slices * acquisition.spacing_mm
    tube = [
        _text(("113832", "DCM", "Identification of the X-Ray Source"), "1"),
        _number(("113733", "DCM", "KVP"), float(acquisition.kvp), "kV"),
        _number(("113833", "DCM", "Maximum X-Ray Tube Current"), acquisition.tube_mas, "mA"),
        _number(("113734", "DCM", "X-Ray Tube Current"), acquisition.tube_mas, "mA"),
    ]
    parameters = [
        _number(("113824", "DCM", "Exposure Time"), 8.0, "s"),
        _number(("113825", "DCM", "Scanning Length"), length, "mm"),
        _number(("113826", "DCM", "Nominal Single Collimation Width"), 0.6, "mm"),
        _number(("113827", "DCM", "Nominal Total Collimation Width"), 40.0, "mm"),
        _number(("113823", "DCM", "Number of X-Ray Sources"), 1.0, "{X-Ray sources}"),
        _container("CONTAINS", ("113831", "DCM", "CT X-Ray Source Parameters"), tube),
    ]
    phantom = (
        ("113835", "DCM", "CTDIw Phantom Type"),
        ("113690", "DCM", "IEC Head Dosimetry Phantom"),
    )
    dose = [
        _number(("113830", "DCM", "Mean CTDIvol"), _ctdi(acquisition), "mGy"),
        _code("CONTAINS", *phantom),
        _number(("113838", "DCM", "DLP"), _dlp(acquisition), "mGy.cm"),
    ]
    kind = ("113820", "DCM", "CT Acquisition Type"), ("116152004", "SCT", "Spiral Acquisition")
    return _container(
        "CONTAINS",
        ("113819", "DCM", "CT Acquisition"),
        [
            _text(("125203", "DCM", "Acquisition Protocol"), "ROUTINE HEAD"),
            _code("CONTAINS", ("123014", "DCM", "Target Region"), ("69536005", "SCT", "Head")),
            _code("CONTAINS", *kind),
            _uid("CONTAINS", ("113769", "DCM", "Irradiation Event UID"), event_uid),
            _container("CONTAINS", ("113822", "DCM", "CT Acquisition Parameters"), parameters),
            _container("CONTAINS", ("113829", "DCM", "CT Dose"), dose),
        ],
    )


def _ctdi(acquisition: Acquisition) -> float:
    """mGy; about 0.2 mGy per mAs in the 16 cm phantom at 120 kV."""
    return 0.2 * acquisition.tube_mas


def _dlp(acquisition: Acquisition) -> float:
    return _ctdi(acquisition) * acquisition.slices * acquisition.spacing_mm / 10


def _item(relationship: str, value_type: str, concept: Concept) -> Dataset:
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = Sequence([_concept(concept)])
    return item


def _concept(concept: Concept) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = concept
    return code


def _container(relationship: str, concept: Concept, content: list[Dataset]) -> Dataset:
    item = _item(relationship, "CONTAINER", concept)
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = Sequence(content)
    return item


def _code(relationship: str, concept: Concept, value: Concept) -> Dataset:
    item = _item(relationship, "CODE", concept)
    item.ConceptCodeSequence = Sequence([_concept(value)])
    return item


def _text(concept: Concept, text: str) -> Dataset:
    item = _item("CONTAINS", "TEXT", concept)
    item.TextValue = text
    return item


def _uid(relationship: str, concept: Concept, value: UID) -> Dataset:
    item = _item(relationship, "UIDREF", concept)
    item.UID = value
    return item


def _moment(concept: Concept, value: str) -> Dataset:
    item = _item("HAS OBS CONTEXT", "DATETIME", concept)
    item.DateTime = value
    return item


def _number(concept: Concept, value: float, unit: str) -> Dataset:
    item = _item("CONTAINS", "NUM", concept)
    measured = Dataset()
    measured.NumericValue = decimal_string(value, 2)
    measured.MeasurementUnitsCodeSequence = Sequence([_concept((unit, "UCUM", unit))])
    item.MeasuredValueSequence = Sequence([measured])
    return item
