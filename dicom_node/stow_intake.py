"""From the body of one request to instances: each part is a PS3.10 file for a ``StoreSession``.

The part's own preamble and file meta are read, bounded, and left behind: the spool writes its own.
The bytes after them are the data set, and go on untouched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dicom_node.contexts import TRANSFER_SYNTAXES
from dicom_node.errors import (
    DataSetError,
    InstanceTooLargeError,
    MultipartError,
    TooManyPartsError,
)
from dicom_node.file_meta import MAX_META_BYTES, FileMeta, parse_file_meta
from dicom_node.headers import outgoing_uids, scan_received
from dicom_node.media_type import parse_media_type
from dicom_node.multipart import MultipartReader
from dicom_node.reception import Reception, StoreCommand, StoreSession
from dicom_node.status import StoreStatus
from dicom_node.stow_request import DICOM
from dicom_node.stow_response import FailureReason, PartResult

# What a part may say about its encoding; the others would have to be decoded (RFC 2045 6).
_PLAIN_ENCODINGS = frozenset({"", "binary", "8bit", "7bit"})


class Intake:
    """Takes the body of one request in pieces, and stores what it finds."""

    def __init__(
        self,
        session: StoreSession,
        *,
        boundary: str,
        study_instance_uid: str,
        sop_classes: Collection[str],
        max_parts: int,
    ) -> None:
        """``study_instance_uid`` is the only study to store into, "" for any."""
        self._session = session
        self._study_instance_uid = study_instance_uid
        self._sop_classes = sop_classes
        self._max_parts = max_parts
        self._reader = MultipartReader(boundary, self)
        self._head: bytearray | None = None
        """The start of the part, until it is known what it is."""
        self._uids = ("", "")
        """SOP class and instance of the part, once they are known."""
        self._reception: Reception | None = None
        self._refusal: int | None = None
        self.results: list[PartResult] = []
        """Of the parts that are complete."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            MultipartError: The body is malformed or beyond a bound.
        """
        self._reader.feed(data)

    def finish(self) -> None:
        """Take note that the body has ended.

        Raises:
            MultipartError: It ended too early, or had no part.
        """
        self._reader.finish()
        if not self.results:
            raise MultipartError("the request has no part; send at least one instance")

    def part_began(self, headers: Mapping[str, str]) -> None:
        """See ``PartSink``."""
        if len(self.results) >= self._max_parts:
            raise TooManyPartsError("too many instances in one request; send several requests")
        self._reception = None
        self._uids = ("", "")
        self._head = bytearray()
        is_file = _is_dicom_file(headers)
        self._refusal = None if is_file else int(StoreStatus.CANNOT_UNDERSTAND)

    def part_data(self, data: bytes) -> None:
        """See ``PartSink``."""
        if self._refusal is not None:
            return
        if self._head is None:
            self._write(data)
            return
        self._head += data
        if len(self._head) >= MAX_META_BYTES:
            self._open()

    def part_ended(self) -> None:
        """See ``PartSink``."""
        if self._head is not None and self._refusal is None:
            self._open()
        self._head = None
        if self._reception is None:
            self._note(self._refusal or StoreStatus.CANNOT_UNDERSTAND)
            return
        status = self._session.finish(self._reception)
        is_too_large = isinstance(self._reception.failure, InstanceTooLargeError)
        self._note(
            status,
            is_for_want_of_room=status == StoreStatus.OUT_OF_RESOURCES and not is_too_large,
        )

    def _write(self, data: bytes) -> None:
        if self._reception is not None:
            self._reception.write(data)

    def _open(self) -> None:
        """Begin to store the part whose first bytes are held; or know why not."""
        head, self._head = bytes(self._head or b""), None
        try:
            meta = parse_file_meta(head)
            self._uids = _uids_of(head, meta)
        except DataSetError:
            self._refusal = int(StoreStatus.CANNOT_UNDERSTAND)
            return
        if meta.transfer_syntax_uid not in TRANSFER_SYNTAXES:
            self._refusal = int(FailureReason.TRANSFER_SYNTAX_NOT_SUPPORTED)
            return
        self._reception = self._session.begin(self._command(meta.transfer_syntax_uid))
        self._write(head[meta.data_set_offset :])

    def _command(self, transfer_syntax_uid: str) -> StoreCommand:
        """What a C-STORE-RQ would have said.

        No context was negotiated, so a class that the node takes counts as accepted.
        """
        sop_class, sop_instance = self._uids
        return StoreCommand(
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            context_class_uid=sop_class if sop_class in self._sop_classes else "",
            transfer_syntax_uid=transfer_syntax_uid,
            study_instance_uid=self._study_instance_uid,
        )

    def _note(self, status: int, *, is_for_want_of_room: bool = False) -> None:
        sop_class, sop_instance = self._uids
        self.results.append(
            PartResult(
                sop_class_uid=sop_class,
                sop_instance_uid=sop_instance,
                status=int(status),
                is_for_want_of_room=is_for_want_of_room,
            )
        )


def _uids_of(head: bytes, meta: FileMeta) -> tuple[str, str]:
    """Which instance a file is, by its first bytes.

    The data set's word counts: programs that change it may leave a stale file meta before it, and
    a sender of C-STORE would have announced what the data set says.

    Raises:
        DataSetUnreadableError: Neither says it, or no transfer syntax is named.
    """
    found = scan_received(lambda offset, size: head[offset : offset + size], len(head), meta)
    return outgoing_uids(found)


def _is_dicom_file(headers: Mapping[str, str]) -> bool:
    """Whether the headers of a part let it be a file; without any, the message's type holds."""
    if headers.get("content-transfer-encoding", "").lower() not in _PLAIN_ENCODINGS:
        return False
    content = parse_media_type(headers.get("content-type", DICOM))
    return content is not None and content.essence == DICOM
