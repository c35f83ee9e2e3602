"""What can go wrong while the package is made."""

from __future__ import annotations


class PaediatricCxrError(Exception):
    """Base of this package's errors."""


class DataSetError(PaediatricCxrError):
    """The data folder is not the data set that the scripts were written for."""


class WrapError(PaediatricCxrError):
    """A picture cannot be made a DICOM object in the way that was asked for."""


class UnexpectedOutcomeError(PaediatricCxrError):
    """The model does not do what the package would promise; train again or choose others."""
