"""What can go wrong while storing is measured."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError, PeerFaultError


class ReceiverNotStartedError(DeviceFaultError):
    """A receiver did not start; the text names its log."""


class ReceiverNotFoundError(DeviceFaultError):
    """A program that was asked for by name is not installed."""


class NoRoomError(DeviceFaultError):
    """The folder's disk is too small for the loads that were asked for."""


class SenderFailedError(PeerFaultError):
    """A sender could not send: the receiver refused the association or broke it."""


class ProtocolError(PeerFaultError):
    """A receiver answered with something that the sender does not understand."""
