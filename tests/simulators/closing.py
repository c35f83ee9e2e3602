"""Stock pynetdicom as a peer, without the socket that it forgets."""

from __future__ import annotations

from pynetdicom import evt

from dicom_node.transport import ClosingSocket


def _always_close(event: evt.Event) -> None:
    """Give a peer's transport our way to close.

    Stock pynetdicom shuts down and closes in one attempt. Where the other side was killed, shutting
    down fails, and the socket stays open until the collector finds it: in a test that comes later.
    """
    event.assoc.dul.socket.__class__ = ClosingSocket


ALWAYS_CLOSE: evt.EventHandlerType = (evt.EVT_CONN_OPEN, _always_close)
"""For ``evt_handlers`` of a stock peer whose other side a test kills."""
