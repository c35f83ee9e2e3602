"""What can go wrong while a package is made; its maker can mend all of it."""

from __future__ import annotations

from engines.errors import PackageError


class ModelMakingError(PackageError):
    """Base of this package's errors."""


class UnfitModelError(ModelMakingError):
    """The ONNX file is sound, but no package can be made around it."""


class AnswersError(ModelMakingError):
    """The file of answers lacks one, holds a wrong one, or one that nobody asked for."""


class ScoresError(ModelMakingError):
    """The file of scores cannot be read, or does not suit the package."""


class TargetFolderError(ModelMakingError):
    """The folder for the package cannot be used."""
