"""What can go wrong with a model package or an engine, grouped by who is at fault.

``PackageError``: whoever made the package, or whoever changed it since; install another one.
``EngineError``: this device; the same package may run elsewhere.
``UnfitImagesError``: the images; the steps of the package cannot make the model's input of them.
``EngineMisuseError``: a bug of ours.

No text holds anything of a study: names of files and tensors, shapes, counts and digests only.
"""

from __future__ import annotations

from enum import Enum


class ModelEngineError(Exception):
    """Base of every error of this package."""


class PackageError(ModelEngineError):
    """The model package is bad: its maker is at fault."""


class PackageIntegrityError(PackageError):
    """The folder does not hold exactly the files that CHECKSUMS lists."""


class PackageSchemaError(PackageError):
    """A file of the package is outside its schema, or two of them contradict each other."""


class FigureError(PackageError):
    """A picture of the model card is not a plain PNG or SVG."""


class ModelFileError(PackageError):
    """``model.onnx`` is not a model that this device may run."""


class GoldenFileError(PackageError):
    """The golden inputs or outputs are unreadable, or do not fit the model."""


class EngineError(ModelEngineError):
    """The engine failed on this device."""


class EngineUnavailableError(EngineError):
    """The chosen back end is not installed here; nothing else is chosen in its place."""


class NoEngineError(EngineError):
    """None of the engines that the settings prefer runs the model."""


class EngineLoadError(EngineError):
    """The back end refused the model."""


class EngineNotBuiltError(EngineLoadError):
    """This device has not built the engine yet, and may not build it now."""


class EngineEndsProcessError(EngineLoadError):
    """The processes that opened the engine ended meanwhile, one after the other."""


class EngineRunError(EngineError):
    """The back end failed while it ran."""


class EngineOutputError(EngineError):
    """The engine answered with something that must not be read as a result."""


class ParityError(EngineError):
    """The engine does not reproduce the golden outputs on this device."""


class EngineBuildError(EngineError):
    """The library refused to build an engine of the model, or was told to stop."""


class KernelBuildError(EngineError):
    """The kernel that prepares images cannot be compiled here; the processor prepares them."""


class EngineMemoryError(EngineError):
    """Not enough memory to build or to run the engine."""


class PlanRejectedError(EngineError):
    """A stored plan is not one that this device built, or not for what it runs now."""


class PlanStoreError(EngineError):
    """The folder of plans, or the secret that seals them, cannot be used."""


class DeviceError(EngineError):
    """The device or its driver failed."""


class DeviceUnavailableError(DeviceError):
    """There is no device here, or no library or driver that can talk to it."""


class OutOfDeviceMemoryError(DeviceError, EngineMemoryError):
    """The device has not so much memory."""


class ImageFault(str, Enum):
    """What is wrong with images that no step can make an input of."""

    NO_IMAGES = "no_images"
    PIXEL_FORMAT = "pixel_format"
    """Pixels and header contradict each other, or the rescale is no number."""
    GEOMETRY_MISSING = "geometry_missing"
    """A step needs spacing or position, and the image has none."""
    DUPLICATE_POSITIONS = "duplicate_positions"
    INCONSISTENT = "inconsistent"
    """Images that shall lie in one stack differ in size or spacing."""
    TOO_LARGE = "too_large"
    """More images, slabs or voxels than the package allows."""
    NO_FOREGROUND = "no_foreground"
    """Nothing lies above the value that tells the body from air."""


class UnfitImagesError(ModelEngineError):
    """The steps of a package cannot make the model's input of these images."""

    def __init__(self, fault: ImageFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class EngineMisuseError(ModelEngineError):
    """We used an engine against its contract: a bug of ours."""


class EngineStateError(EngineMisuseError):
    """The engine was used before it was entered, after it was left, or entered twice."""


class DeviceStateError(EngineMisuseError):
    """A device or something of it was used before it was opened, after it was freed, or wrongly."""


class TensorMismatchError(EngineMisuseError):
    """Inputs have other names, types or shapes than the model's."""
