"""What can go wrong in governance, grouped by who is at fault."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError, EdgeTriageError, PeerFaultError


class NotAllowedError(EdgeTriageError):
    """Somebody asked for what the rules do not allow; the text says what is missing."""


class ArchiveError(PeerFaultError):
    """What shall be installed cannot be unpacked safely: its maker is at fault."""


class ModelStoreError(DeviceFaultError):
    """The folder of model packages cannot be read or written."""


class ModelStoreBusyError(DeviceFaultError):
    """Another command or process works on the model packages."""


class AuditDamagedError(DeviceFaultError):
    """The audit chain was changed, cut or lost: nothing is recorded until a person looked."""


class AuditWriteError(DeviceFaultError):
    """The audit chain cannot be written, so nothing is done."""
