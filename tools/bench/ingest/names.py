"""What can be measured, by the names that the command line and the report use."""

from __future__ import annotations

from enum import Enum


class LoadName(str, Enum):
    """Kinds of objects."""

    CT = "ct"
    SMALL = "small"
    RADIOGRAPH = "radiograph"
    HUGE = "huge"


class SenderName(str, Enum):
    """Who sends."""

    BLAST = "blast"
    STORESCU = "storescu"


class ReceiverName(str, Enum):
    """Who receives."""

    OURS = "ours"
    OURS_LIBRARY = "ours-library"
    SINK = "sink"
    SINK_DIRECT = "sink-direct"
    STORESCP = "storescp"
    STORESCP_FORKED = "storescp-forked"
    ORTHANC = "orthanc"
    PYNETDICOM = "pynetdicom"
