"""A door over a real spool and an index in memory, and what tests ask about what it stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread

from dicom_node.file_meta import parse_file_meta
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.stow import StowDoor, StowSettings
from dicom_node.tls import ServerTls
from simulators.memory_inbox import MemoryInbox
from simulators.stow_sender import StowAnswer, StowSender, client


@contextmanager
def opened_door(
    spool: Path,
    inbox: MemoryInbox,
    *,
    node: Mapping[str, Any] | None = None,
    tls: ServerTls | None = None,
    **settings: Any,
) -> Iterator[StowDoor]:
    """Open a door; keyword arguments are its settings, ``node`` those of the node behind it."""
    given = {"ae_title": "NODE", "min_free_bytes": 0, **(node or {})}
    storage = StorageNode(NodeSettings(**given), spool_folder=spool, inbox=inbox)
    with StowDoor(
        StowSettings(**{"port": 0, "clients": (client(),), **settings}),
        open_session=storage.open_session,
        check_room=storage.spool.check_room,
        tls=tls,
    ) as door:
        yield door


def store(door: StowDoor, body: bytes, **of_head: Any) -> StowAnswer:
    """Send one request; keyword arguments are those of ``stow_sender.head``."""
    with StowSender(door.port) as sender:
        return sender.store(body, **of_head)


def data_set(file: bytes) -> bytes:
    """What stands behind the file meta information."""
    return file[parse_file_meta(file).data_set_offset :]


def uid_of(path: Path) -> str:
    """The SOP Instance UID of a file."""
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def unfinished(spool: Path) -> list[Path]:
    """Files that are not whole."""
    return list((spool / "incoming").iterdir())


def is_storing(door: StowDoor) -> bool:
    """Whether a request was let in and is not answered yet."""
    return any(each.is_admitted for each in door._exchanges)


def door_threads() -> list[str]:
    """Names of the threads of all doors of this process."""
    return [each.name for each in threading.enumerate() if each.name.startswith("node-stow")]
