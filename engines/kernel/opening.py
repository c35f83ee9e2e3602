"""Chooses who prepares the images for a loaded engine: the fused kernel, where it can and may.

The kernel's input differs from that of NumPy by rounding only. That is not believed: before the
first study both prepare the same drawn images, and the model must decide alike on them. Where the
kernel does not serve a package, cannot be compiled, fails, or is not proven, the processor prepares
the images, as it does beside every other engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from engines.batching import batch_of
from engines.contract import Backend, Engine, Precision
from engines.errors import ModelEngineError, ParityError
from engines.kernel.compiling import compiled_kernels
from engines.kernel.drawn_images import draw_ct, draw_radiographs
from engines.kernel.fusing import NotFused, fusable
from engines.kernel.runner import FusedRunner
from engines.kernel.staging import FusedStaging
from engines.package import ModelPackage
from engines.parity import ParityReport, compare
from engines.plans.sealed_folder import SealedFolder
from engines.preprocessing.running import plan_items
from engines.preprocessing.values import StoredImage
from engines.runner import AnyRunner, HostRunner, Outputs
from engines.steps import EachImage, Part, parts_of

OWN_ENGINES = frozenset({Backend.TENSORRT, Backend.TENSORRT_RTX})
"""Those whose inputs may lie on the device already."""

_SLICES = 24
_RADIOGRAPHS = 4
_RADIOGRAPH_SHAPE = (640, 500)
"""Of the drawn images: small, for every start waits for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRunner:
    """A runner, and why it is that one."""

    runner: AnyRunner
    obstacle: str = ""
    """Why the processor prepares the images of an engine that could take them from a device."""
    parity: ParityReport | None = None
    """How closely the answers follow those to NumPy's input, where the device prepares."""


@contextmanager
def open_runner(
    package: ModelPackage, engine: Engine, precision: Precision
) -> Iterator[OpenedRunner]:
    """Put preprocessing in front of a loaded engine.

    Args:
        package: Of the engine's model.
        engine: Entered; it is left after this.
        precision: In which it computes.
    """
    host = HostRunner(package, engine)
    with ExitStack() as stack:
        try:
            opened = _fused(package, engine, host, precision, stack)
        except ModelEngineError as error:
            stack.close()
            opened = OpenedRunner(runner=host, obstacle=str(error))
        yield opened


def check_runner(
    runner: FusedRunner, host: HostRunner, package: ModelPackage, precision: Precision
) -> ParityReport:
    """Compare the answers to what the kernel prepares with those to what NumPy prepares.

    Returns:
        The report, which holds.

    Raises:
        ParityError: The model does not decide alike.
        EngineError: The engine or its device failed.
    """
    images = _drawn_for(package)
    report = compare(
        answers_of(host, package, images), answers_of(runner, package, images), package, precision
    )
    if not report.holds:
        raise ParityError(
            "on images that the device prepares the model does not decide as on those of the "
            f"processor: largest deviation {report.max_absolute:.3g}, {report.outside_tolerance} "
            f"of {report.elements} out of tolerance, {report.flips} decisions differ"
        )
    return report


def answers_of(runner: AnyRunner, package: ModelPackage, images: Sequence[StoredImage]) -> Outputs:
    """Return a model's outputs for a series.

    Args:
        runner: The model's.
        package: Likewise.
        images: In order along the normal, where they have positions.

    Raises:
        UnfitImagesError: The images make no input.
        EngineError: The engine or its device failed.
    """
    items = plan_items(
        [image.position_mm for image in images],
        [image.thickness_mm for image in images],
        parts_of(package.preprocess)[Part.COLLECT][0],
    )
    outputs: Outputs = runner.run_series([runner.prepare(image) for image in images], items)
    return outputs


def _fused(
    package: ModelPackage, engine: Engine, host: HostRunner, precision: Precision, stack: ExitStack
) -> OpenedRunner:
    if engine.metadata.backend not in OWN_ENGINES:
        return OpenedRunner(runner=host)
    # Only where it is loaded already.
    from engines.tensorrt.engine import TensorRtEngine  # noqa: PLC0415 - see above

    plan = fusable(package)
    if isinstance(plan, NotFused):
        return OpenedRunner(runner=host, obstacle=plan.reason)
    assert isinstance(engine, TensorRtEngine)  # noqa: S101 - nothing else is called so
    batch = batch_of(engine, package.input, 1)
    if package.input.layout.is_volume and batch.size > 1:
        return OpenedRunner(runner=host, obstacle=f"the model takes {batch.size} volumes at once")
    kernels = compiled_kernels(engine.device.info, SealedFolder(engine.plans.folder))
    staging = stack.enter_context(FusedStaging(engine.device, plan, kernels))
    runner = FusedRunner(package.input, engine, staging)
    return OpenedRunner(runner=runner, parity=check_runner(runner, host, package, precision))


def _drawn_for(package: ModelPackage) -> list[StoredImage]:
    if isinstance(parts_of(package.preprocess)[Part.COLLECT][0], EachImage):
        rows, columns = _RADIOGRAPH_SHAPE
        return draw_radiographs(_RADIOGRAPHS, rows=rows, columns=columns)
    return draw_ct(_SLICES)
