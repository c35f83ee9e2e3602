"""A PACS that also remembers the content of all that arrives, repetitions included."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from dicom_node.archive import FolderArchive
from dicom_node.inbox import Held
from dicom_node.instance import StoredInstance
from dicom_node.requestor import PeerAddress

AE_TITLE = "WITNESS"


class WitnessPacs(FolderArchive):
    """Like ``FolderArchive``; ``digests`` has those of all data sets, by SOP Instance UID."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, ae_title=AE_TITLE, port=port)
        self.digests: defaultdict[str, list[str]] = defaultdict(list)

    def __enter__(self) -> WitnessPacs:
        super().__enter__()
        return self

    @property
    def address(self) -> PeerAddress:
        return PeerAddress(ae_title=AE_TITLE, host="127.0.0.1", port=self.port)

    def record(self, instance: StoredInstance) -> Held | None:
        self.digests[instance.header.sop_instance_uid].append(
            self._node.spool.data_set_digest(instance.path)
        )
        return super().record(instance)
