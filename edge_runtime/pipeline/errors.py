"""What can go wrong in a pipeline stage, by who is at fault."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError, EdgeTriageError, PeerFaultError
from edge_runtime.model.reasons import ReasonCode


class StudyDataError(PeerFaultError):
    """A peer sent images that cannot be used; the study is not analysed, for ``reason``."""

    def __init__(self, reason: ReasonCode, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DecodeError(StudyDataError):
    """The pixels of one stored file cannot be read."""


class PreprocessError(StudyDataError):
    """The pixels were read, but the model's preprocessing steps cannot use them."""


class PackageStepsError(PeerFaultError):
    """The model package names preprocessing steps in an order that has no meaning."""


class CodecMissingError(DeviceFaultError):
    """This installation lacks a codec that the node accepts images in."""


class EngineLostError(DeviceFaultError):
    """An engine failed and does not work any more: the worker ends, and starts again with another.

    After an error of its own a GPU refuses everything that a process asks for, until that has ended
    (CUDA Programming Guide, "Error Checking"). What was in hand is tried again by the next worker.
    """


class StopRequestedError(EdgeTriageError):
    """The worker was told to stop in the middle of a long analysis: the work is handed back."""
