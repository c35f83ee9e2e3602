"""What can go wrong while a model is quantised; its maker can mend all of it."""

from __future__ import annotations

from engines.errors import PackageError


class QuantiseError(PackageError):
    """Base of this package's errors."""


class CalibrationError(QuantiseError):
    """There is nothing to calibrate with, or it does not fit the model."""


class LabelledSetError(QuantiseError):
    """A test set cannot tell what INT8 does."""


class UnquantisableError(QuantiseError):
    """The model has no layer to quantise, or has Q/DQ nodes already."""


class ChangedDecisionsError(QuantiseError):
    """In INT8 the model decides otherwise."""


class TargetFolderError(QuantiseError):
    """The folder for the package cannot be used."""
