"""What can go wrong while engines are measured."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError, PeerFaultError


class RunnerFailedError(DeviceFaultError):
    """A runner's process ended, or does not answer; the text has its last line."""


class PeerUnfitError(PeerFaultError):
    """A peer cannot run this model here."""
