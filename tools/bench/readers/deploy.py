"""MONAI Deploy's App SDK: its operators, in the order of its applications, called as functions.

An application of its own would add a scheduler to this.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.bench.readers.answers import Read, Report
from tools.bench.readers.bare import BareModel, outcome_of, slab_input
from tools.bench.readers.volumes import Volume

_OPERATORS = "monai.deploy.operators"


@contextlib.contextmanager
def deploy_reader() -> Iterator[Read]:
    """From a folder to a volume."""
    core = importlib.import_module("monai.deploy.core")
    load = _loading(core.Application())

    def read(folder: Path) -> Volume:
        _, image = load(folder)
        affine = np.array(image.metadata()["affine"], dtype=np.float64)
        return Volume(values=image.asnumpy(), affine=affine)

    yield read


@contextlib.contextmanager
def deploy_examination() -> Iterator[Read]:
    """From a folder to a report of plain text, with the shipped model between."""
    core = importlib.import_module("monai.deploy.core")
    writing = importlib.import_module(f"{_OPERATORS}.dicom_text_sr_writer_operator")
    sitk = importlib.import_module("SimpleITK")
    application = core.Application()
    load = _loading(application)
    model = BareModel()

    with tempfile.TemporaryDirectory(prefix="edge-triage-bench-") as name:
        reports = Path(name)
        writer = writing.DICOMTextSRWriterOperator(
            application,
            name="writer",
            output_folder=reports,
            model_info=writing.ModelInfo("bench", model.package.manifest.title, "1", "1"),
        )

        def read(folder: Path) -> Report:
            series, image = load(folder)
            affine = np.array(image.metadata()["affine"], dtype=np.float64)
            column_mm, row_mm, gap_mm = (float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
            volume = np.asarray(image.asnumpy(), dtype=np.float32)
            decision = model.decide(slab_input(volume, (gap_mm, row_mm, column_mm), sitk))
            text = f"{model.package.manifest.title}: {outcome_of(decision)}"
            writer.write(text, series, reports)
            (report,) = reports.glob("*.dcm")
            nbytes = report.stat().st_size
            report.unlink()
            return Report(
                outcome=outcome_of(decision),
                probability=decision.probability,
                report_bytes=nbytes,
            )

        yield read


def _loading(application: Any) -> Callable[[Path], tuple[Any, Any]]:
    """What returns a folder's series, and the image that is made of it."""
    loading = importlib.import_module(f"{_OPERATORS}.dicom_data_loader_operator")
    converting = importlib.import_module(f"{_OPERATORS}.dicom_series_to_volume_operator")
    selection = importlib.import_module("monai.deploy.core.domain.dicom_series_selection")
    to_volume = converting.DICOMSeriesToVolumeOperator(
        application, name="to_volume", affine_lps_to_ras=False
    )
    loader = loading.DICOMDataLoaderOperator(application, name="loader", must_load=True)

    def load(folder: Path) -> tuple[Any, Any]:
        study = loader.load_data_to_studies(folder)[0]
        selected = selection.StudySelectedSeries(study)
        (series,) = study.get_all_series()
        selected.add_selected_series(selection.SelectedSeries("all", series, None))
        return series, to_volume.convert_to_image([selected])

    return load
