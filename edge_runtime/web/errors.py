"""What can go wrong with the page."""

from __future__ import annotations

from edge_runtime.errors import DeviceFaultError


class WebBindError(DeviceFaultError):
    """The page cannot listen where the settings say."""
