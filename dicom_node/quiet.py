"""Keeps the libraries below from telling what they see: UIDs, AE titles, data sets."""

from __future__ import annotations

import logging
import warnings

_LIBRARIES = ("pynetdicom", "pydicom")


def silence_dicom_libraries() -> None:
    """Let no log record and no warning of pynetdicom and pydicom reach anybody.

    They put data set values into both. What is worth knowing about an association is
    logged by this package, without values. Calling this again does nothing more.
    """
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(pydicom|pynetdicom)(\.|$)")
