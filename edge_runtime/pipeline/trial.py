"""A study's files through every step of an analysis, without processes, spool or database."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dicom_node.headers import read_headers
from edge_runtime.model.finding import Result
from edge_runtime.pipeline.analysis import Work, run_steps
from edge_runtime.pipeline.decode import MAX_PIXEL_BYTES
from edge_runtime.pipeline.flow import ANALYSIS
from edge_runtime.pipeline.models import ActiveModel
from edge_runtime.pipeline.reading import read_image
from edge_runtime.store.deliveries import StudyInstance
from engines.contract import Engine
from engines.package import ModelPackage
from engines.runner import HostRunner, Prepared

MAX_INSTANCES = 10_000


def examine(paths: Iterable[Path], package: ModelPackage, engine: Engine) -> Result:
    """Select, check, preprocess, infer and decide, as a device with default settings would.

    Args:
        paths: all files of one study; where two are of one instance, the later one counts.
        package: the model's.
        engine: the model, loaded.

    Raises:
        NotADicomFileError: A file is no DICOM instance.
        EngineError: The engine failed.
    """
    files: dict[str, Path] = {}
    instances: dict[str, StudyInstance] = {}
    for number, path in enumerate(paths):
        header, _ = read_headers(path)
        files[header.sop_instance_uid] = path
        instances[header.sop_instance_uid] = StudyInstance(
            instance_id=number, revision=1, header=header, path=path.name
        )

    runner = HostRunner(package, engine)

    def load(instance: StudyInstance) -> Prepared:
        return read_image(runner, files[instance.header.sop_instance_uid], instance.header)

    work = Work(
        model=ActiveModel(package=package, runner=runner),
        instances=tuple(instances.values()),
        load=load,
        max_instances=MAX_INSTANCES,
        max_pixel_bytes=MAX_PIXEL_BYTES,
    )
    return run_steps(work, ANALYSIS)
