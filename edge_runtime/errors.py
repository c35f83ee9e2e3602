"""What can go wrong in the device, grouped by who is at fault.

``PeerFaultError``: a neighbour or an input is wrong, and the text says what to change there.
``DeviceFaultError``: this device or its settings. ``BugError``: us.
"""

from __future__ import annotations


class EdgeTriageError(Exception):
    """Base of every error that the runtime raises on purpose."""


class PeerFaultError(EdgeTriageError):
    """A neighbour sent something wrong or does not answer."""


class DeviceFaultError(EdgeTriageError):
    """This device, its disk or its settings are at fault."""


class BugError(EdgeTriageError):
    """Our own code broke a promise."""


class IllegalTransitionError(BugError):
    """A state was asked to move in a way that its table does not know."""


class SettingsError(DeviceFaultError):
    """The settings file cannot be used; the text names the key and what it may be."""


class StoreError(DeviceFaultError):
    """The database cannot be opened, migrated or written."""


class SchemaTooNewError(StoreError):
    """The database was written by a later release than this one."""


class AlreadyRunningError(DeviceFaultError):
    """Another process of the same role works with the same state folder."""


class LeaseLostError(EdgeTriageError):
    """Someone else holds the work now: what was computed must be dropped."""


class DeliveryError(PeerFaultError):
    """A delivery did not reach its peer; ``code`` is stable, ``permanent`` ends the retries."""

    def __init__(self, message: str, *, code: str, permanent: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent
