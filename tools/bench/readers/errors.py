"""What can go wrong while reading is measured."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError, PeerFaultError


class SeriesRefusedError(PeerFaultError):
    """Our own checks say that there is no right volume of this series."""


class ReaderFailedError(DeviceFaultError):
    """A reader's process ended, or does not answer; the text has its last line."""
