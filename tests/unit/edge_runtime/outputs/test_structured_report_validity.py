"""Reports before validators that this project did not write: dciodvfy and dsrdump."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom.data
import pytest
from pydicom.dataset import Dataset

from dicom_node.errors import DicomNodeError
from dicom_node.headers import read_headers
from dicom_node.instance import StudyIdentity
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark, Stamp
from edge_runtime.model.finding import TRIAGE_NOTICE
from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.outputs.structured_report import render_report
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob
from engines.package import ModelPackage

pytestmark = pytest.mark.peer

MakeAnalysis = Callable[..., DecidedAnalysis]
MakeJob = Callable[..., DeliveryJob]


FIRST_REPORT_SENT = Stamp(
    revision=1,
    mark=Mark.SENT,
    subject="structured_report:head_ct",
    at=Instant(wall_us=1, mono_us=1, boot_id="b", clock_synced=True),
)


def to_bytes(report: Dataset) -> bytes:
    file = io.BytesIO()
    report.save_as(file, enforce_file_format=True)
    return file.getvalue()


def errors_of_dciodvfy(path: Path) -> list[str]:
    checked = subprocess.run(
        ["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False
    )
    lines = (checked.stderr + checked.stdout).splitlines()
    assert "Comprehensive3DSR" in lines
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def all_jobs(make_job: MakeJob, make_analysis: MakeAnalysis) -> dict[str, DeliveryJob]:
    jobs = {
        "suspected": make_job(),
        "not_suspected": make_job(make_analysis(AnalysisState.NOT_SUSPECTED, probability=0.0)),
        "superseded": make_job(make_analysis(AnalysisState.SUPERSEDED)),
        "revised": make_job(revision=2, stamps=(FIRST_REPORT_SENT,)),
        "nobody": make_job(identity=StudyIdentity()),
        "nothing": make_job(instances=()),
        "scripts": make_job(identity=StudyIdentity(patient_name="Müller^Jörg=山田^太郎")),
        "long": make_job(
            identity=StudyIdentity(
                patient_name="x" * 70,
                patient_id="y" * 64,
                accession_number="1" * 17,
                study_description="z" * 70,
            )
        ),
        "broken": make_job(
            identity=StudyIdentity(
                patient_name="A\\B\x1b^C=D=E=F^\udce9",
                patient_id="1\\2",
                patient_birth_date="1.1.1970",
                patient_sex="female",
                study_date="yesterday",
                study_time="noon",
                study_description="line\r\nbreak\\",
            )
        ),
    }
    for reason in ReasonCode:
        failed = REASONS[reason].kind is ReasonKind.FAILED
        outcome = AnalysisState.FAILED if failed else AnalysisState.NOT_ANALYSED
        jobs[reason.value] = make_job(
            make_analysis(outcome, reason=reason, series_instance_uid=None)
        )
    return jobs


def test_dciodvfy_finds_no_error_in_any_report(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
    tmp_path: Path,
) -> None:
    found = {}
    for name, job in all_jobs(make_job, make_analysis).items():
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(render_report(job, package, device)))
        found[name] = errors_of_dciodvfy(path)
    assert {name: errors for name, errors in found.items() if errors} == {}


def test_dsrdump_reads_the_finding(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice, tmp_path: Path
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(render_report(make_job(), package, device)))
    dumped = subprocess.run(
        ["dsrdump", "+Pl", "+Pc", str(path)], capture_output=True, text=True, check=True
    )
    assert '(1386000,SCT,"Intracranial hemorrhage")=(52101004,SCT,"Present")>' in dumped.stdout
    assert '(111012,DCM,"Certainty of Finding")="93.12" (%,UCUM,"Percent")>' in dumped.stdout
    assert f'"{TRIAGE_NOTICE}"' in dumped.stdout
    assert "error" not in dumped.stderr.lower()


def real_files() -> list[Path]:
    """Files that this project did not write: pydicom's, and those of the folder that is named."""
    # Not get_testdata_files(): it downloads what the wheel does not carry.
    found = sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm"))
    extra = os.environ.get("EDGE_TRIAGE_TEST_DATA")
    if extra:
        found += [path for path in Path(extra).rglob("*") if path.is_file()]
    return found


def test_the_identity_of_real_files_makes_valid_reports(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice, tmp_path: Path
) -> None:
    identities: dict[StudyIdentity, str] = {}
    for path in real_files():
        try:
            header, identity = read_headers(path)
        except DicomNodeError:
            continue  # not an instance: such files never get as far as a report
        identities.setdefault(identity, header.study_instance_uid)
    assert identities
    found = []
    for identity, study_instance_uid in identities.items():
        job = make_job(identity=identity, study_instance_uid=study_instance_uid)
        path = tmp_path / "report.dcm"
        path.write_bytes(to_bytes(render_report(job, package, device)))
        found += [
            error
            for error in errors_of_dciodvfy(path)
            # The study's own UID stays as the scanner wrote it.
            if "/StudyInstanceUID(0020,000d)" not in error
        ]
    assert found == []
