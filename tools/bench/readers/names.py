"""What can be read, by whom, and into what, by the names that command line and report use."""

from __future__ import annotations

from enum import Enum

DCM2NIIX = "dcm2niix"
"""The program."""
HEAD_CT = "head_ct_phantom"
"""The shipped package on which all are compared."""


class ReaderName(str, Enum):
    """Who reads a folder."""

    OURS = "ours"
    SIMPLEITK = "simpleitk"
    DCM2NIIX = "dcm2niix"
    DICOM2NIFTI = "dicom2nifti"
    HIGHDICOM = "highdicom"
    PYDICOM = "pydicom"
    MONAI = "monai"
    MONAI_DEPLOY = "monai-deploy"
    BARE = "bare"


class Job(str, Enum):
    """Into what it is read."""

    VOLUME = "volume"
    """All pixels in Hounsfield units, and where they lie."""
    TENSOR = "tensor"
    """The input of the head CT model."""
    REPORT = "report"
    """A structured report with the model's finding."""
    COLD_REPORT = "cold report"
    """The same by a process that is started for it: imports and the model's loading count."""


class Trait(str, Enum):
    """What a series has that a reader may get wrong."""

    PLAIN = "plain"
    ANISOTROPIC = "anisotropic-pixels"
    """Twice as wide as high."""
    SLOPES = "slope-per-slice"
    MISSING = "missing-slice"
    DUPLICATE = "slice-twice"
    """Under another UID."""
    TILTED = "gantry-tilt"

    @property
    def is_sound(self) -> bool:
        """Whether there is one right volume; else the right answer is to refuse."""
        return self in {Trait.PLAIN, Trait.ANISOTROPIC, Trait.SLOPES}
