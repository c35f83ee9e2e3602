"""Who can read what, what has to be installed for it, and how it is begun."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tools.bench.readers.answers import Read
from tools.bench.readers.names import DCM2NIIX, Job, ReaderName


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One reader."""

    title: str
    modules: tuple[str, ...] = ()
    """Packages that have to be installed, by the names under which they are imported."""
    distributions: tuple[str, ...] = ()
    """Under which those are released, where the names differ."""
    program: str | None = None
    jobs: Mapping[Job, str]
    """Module and function that begin it, by job."""

    @property
    def is_installed(self) -> bool:
        """Whether it can read here."""
        return all(map(_is_importable, self.modules)) and (
            self.program is None or shutil.which(self.program) is not None
        )


def version_of(name: ReaderName) -> str:
    """Return what is measured, for the report."""
    entry = ROSTER[name]
    found = [_version_of(released) for released in entry.distributions or entry.modules]
    if entry.program is not None:
        ended = subprocess.run(
            [entry.program, "--version"], capture_output=True, text=True, check=False
        )
        match = re.search(r"v(\d+(?:\.\d+)+)", ended.stdout)
        found.append(match[1] if match else "unknown")
    return ", ".join(found) or importlib.metadata.version("edge-triage")


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # what it is a part of
        return False


def _version_of(distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}"


def begin(name: ReaderName, job: Job) -> contextlib.AbstractContextManager[Read]:
    """Import what a reader needs, and nothing that another one needs: its memory is measured."""
    module, _, function = ROSTER[name].jobs[job].partition(":")
    make = getattr(importlib.import_module(f"tools.bench.readers.{module}"), function)
    made: contextlib.AbstractContextManager[Read] = make()
    return made


ROSTER: Mapping[ReaderName, Entry] = MappingProxyType(
    {
        ReaderName.OURS: Entry(
            title="one int16 volume where that is exact, or the model's input",
            jobs={
                Job.VOLUME: "own:volume_reader",
                Job.TENSOR: "own:tensor_reader",
                Job.REPORT: "reporting:own_examination",
                Job.COLD_REPORT: "reporting:own_examination",
            },
        ),
        ReaderName.SIMPLEITK: Entry(
            title="ImageSeriesReader",
            modules=("SimpleITK",),
            jobs={Job.VOLUME: "peers:simpleitk_reader"},
        ),
        ReaderName.DCM2NIIX: Entry(
            title="-b n -z n, a process each time, and its file read into memory",
            modules=("nibabel",),
            program=DCM2NIIX,
            jobs={Job.VOLUME: "peers:dcm2niix_reader"},
        ),
        ReaderName.DICOM2NIFTI: Entry(
            title="dicom_series_to_nifti, in memory",
            modules=("dicom2nifti",),
            jobs={Job.VOLUME: "peers:dicom2nifti_reader"},
        ),
        ReaderName.HIGHDICOM: Entry(
            title="get_volume_from_series",
            modules=("highdicom",),
            jobs={Job.VOLUME: "peers:highdicom_reader"},
        ),
        ReaderName.PYDICOM: Entry(
            title="pixel_array of each, sorted, rescaled, stacked",
            modules=("pydicom",),
            jobs={Job.VOLUME: "peers:pydicom_reader"},
        ),
        ReaderName.MONAI: Entry(
            title="LoadImage with PydicomReader",
            modules=("monai", "torch"),
            jobs={Job.VOLUME: "peers:monai_reader"},
        ),
        ReaderName.MONAI_DEPLOY: Entry(
            title="App SDK: DICOMDataLoaderOperator, DICOMSeriesToVolumeOperator, and for a report "
            "the bare loop's resampling, ONNX Runtime, DICOMTextSRWriterOperator",
            modules=("monai.deploy", "holoscan"),
            distributions=("monai-deploy-app-sdk",),
            jobs={
                Job.VOLUME: "deploy:deploy_reader",
                Job.REPORT: "deploy:deploy_examination",
                Job.COLD_REPORT: "deploy:deploy_examination",
            },
        ),
        ReaderName.BARE: Entry(
            title="a bare loop: pydicom, SimpleITK, ONNX Runtime, highdicom",
            modules=("pydicom", "SimpleITK", "onnxruntime", "highdicom"),
            jobs={
                Job.REPORT: "bare:bare_examination",
                Job.COLD_REPORT: "bare:bare_examination",
            },
        ),
    }
)


def readers_of(job: Job, *, peers_too: bool) -> tuple[ReaderName, ...]:
    """Return who does a job on this machine."""
    return tuple(
        name
        for name, entry in ROSTER.items()
        if job in entry.jobs and (name is ReaderName.OURS or (peers_too and entry.is_installed))
    )


def missing_of(job: Job) -> tuple[ReaderName, ...]:
    """Return who could do a job, were it installed."""
    return tuple(
        name for name, entry in ROSTER.items() if job in entry.jobs and not entry.is_installed
    )
