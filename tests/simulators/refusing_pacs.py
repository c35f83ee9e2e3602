"""A PACS that understands an object and refuses it, for good."""

from __future__ import annotations

from pathlib import Path

from dicom_node.archive import FolderArchive
from dicom_node.errors import DataSetUnreadableError
from dicom_node.inbox import Held
from dicom_node.instance import StoredInstance


class RefusingPacs(FolderArchive):
    """Answers every store with C000."""

    def __init__(self, folder: Path, *, ae_title: str, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, ae_title=ae_title, port=port)

    def record(self, instance: StoredInstance) -> Held | None:
        del instance
        raise DataSetUnreadableError("refused, as this PACS always does")
