"""From a C-STORE command and its data set to a durable instance and a status.

The order is the promise (PS3.4 B.2.3): whole file synced, name durable, row durable, Success. One
``StoreSession`` per association; it knows nothing of sockets or PDUs.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, field

import structlog

from dicom_node import errors
from dicom_node.file_meta import encode_file_meta
from dicom_node.headers import header_of, identity_of, scan_file
from dicom_node.inbox import Inbox, RecordResult
from dicom_node.instance import StoredInstance
from dicom_node.spool import IncomingFile, Spool
from dicom_node.status import StoreStatus
from dicom_node.uids import is_valid_uid

_log = structlog.get_logger()

_STATUS_OF: dict[type[errors.DicomNodeError], StoreStatus] = {
    errors.NotAuthorisedError: StoreStatus.NOT_AUTHORISED,
    errors.SopClassNotNegotiatedError: StoreStatus.SOP_CLASS_NOT_SUPPORTED,
    errors.DataSetMismatchError: StoreStatus.DATA_SET_MISMATCH,
    errors.DataSetUnreadableError: StoreStatus.CANNOT_UNDERSTAND,
    errors.InstanceTooLargeError: StoreStatus.OUT_OF_RESOURCES,
    errors.SpoolFullError: StoreStatus.OUT_OF_RESOURCES,
    errors.SpoolFailedError: StoreStatus.OUT_OF_RESOURCES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCommand:
    """What a C-STORE-RQ and its presentation context announce."""

    sop_class_uid: str
    sop_instance_uid: str = field(repr=False)
    context_class_uid: str
    """The abstract syntax of the presentation context, "" if it was not accepted."""
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The peer of one association, as admitted."""

    ae_title: str = field(repr=False)
    address: str = field(repr=False)
    may_store: bool


class Reception:
    """The data set of one C-STORE while it arrives; never raises into the network layer.

    After a failure the rest of the data set is let through and dropped, so that the association
    lives on and the peer gets its status.
    """

    def __init__(self, command: StoreCommand) -> None:
        self.command = command
        self.file: IncomingFile | None = None
        self.failure: errors.DicomNodeError | None = None

    def write(self, data: bytes) -> None:
        """Take a piece of the data set."""
        if self.failure is not None or self.file is None:
            return
        try:
            self.file.write(data)
        except errors.DicomNodeError as error:
            self.fail(error)

    def fail(self, error: errors.DicomNodeError) -> None:
        """Note why the instance cannot be taken, and drop what has arrived."""
        self.failure = error
        self.drop()

    def drop(self) -> None:
        """Remove the unfinished file, if any."""
        if self.file is not None:
            self.file.discard()
            self.file = None


class StoreSession:
    """All stores of one association."""

    def __init__(
        self,
        *,
        association_id: str,
        caller: Caller,
        spool: Spool,
        inbox: Inbox,
        max_instance_bytes: int,
    ) -> None:
        self.association_id = association_id
        self._caller = caller
        self._spool = spool
        self._inbox = inbox
        self._max_instance_bytes = max_instance_bytes
        self._is_opened = False
        self._is_closed = False
        self._pending: set[Reception] = set()
        self._lock = threading.Lock()
        self._stored = 0

    def begin(self, command: StoreCommand) -> Reception:
        """Get ready for a data set; whatever is wrong is answered in ``finish``."""
        reception = Reception(command)
        try:
            reception.file = self._open_file(command)
        except errors.DicomNodeError as error:
            reception.failure = error
        with self._lock:
            if self._is_closed:
                reception.drop()
            self._pending.add(reception)
        return reception

    def _open_file(self, command: StoreCommand) -> IncomingFile:
        if not self._caller.may_store:
            raise errors.NotAuthorisedError("this peer may not store; see the list of peers")
        if not (is_valid_uid(command.sop_class_uid) and is_valid_uid(command.sop_instance_uid)):
            raise errors.DataSetUnreadableError("the command names no valid UIDs")
        if command.sop_class_uid != command.context_class_uid:
            raise errors.SopClassNotNegotiatedError("the context is for another SOP class")
        meta = encode_file_meta(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=command.transfer_syntax_uid,
            source_ae_title=self._caller.ae_title,
        )
        return self._spool.begin(meta, max_bytes=self._max_instance_bytes)

    def finish(self, reception: Reception) -> StoreStatus:
        """Make a received instance durable and say what to answer."""
        try:
            self._store(reception)
        except errors.DicomNodeError as error:
            status = _STATUS_OF.get(type(error), StoreStatus.OUT_OF_RESOURCES)
            _log.warning(
                "node.instance_refused",
                association_id=self.association_id,
                status=f"{status:04X}",
                error=type(error).__name__,
            )
            return status
        except Exception as error:  # noqa: BLE001  boundary: the peer gets a status in any case
            # The text of a foreign error may hold values, so only its type and place are logged.
            _log.error(
                "node.store_failed",
                association_id=self.association_id,
                error=type(error).__name__,
                place=[
                    f"{each.name}:{each.lineno}"
                    for each in traceback.extract_tb(error.__traceback__)
                ],
            )
            return StoreStatus.OUT_OF_RESOURCES
        finally:
            reception.drop()
            with self._lock:
                self._pending.discard(reception)
        return StoreStatus.SUCCESS

    def _store(self, reception: Reception) -> None:
        if reception.failure is not None:
            raise reception.failure
        if reception.file is None:
            raise errors.DataSetUnreadableError("the command came without a data set")
        instance = self._publish(reception.command, reception.file)
        reception.file = None
        self._open_once()
        result = self._inbox.record(instance)
        self._settle(instance, result)

    def _publish(self, command: StoreCommand, file: IncomingFile) -> StoredInstance:
        """Check the received file against its command, and give it its durable name."""
        file.sync()
        found = scan_file(file.path)
        header = header_of(found)
        if (header.sop_class_uid, header.sop_instance_uid) != (
            command.sop_class_uid,
            command.sop_instance_uid,
        ):
            raise errors.DataSetMismatchError("command and data set name different instances")
        return StoredInstance(
            header=header,
            identity=identity_of(found.scan),
            path=self._spool.publish(file),
            file_bytes=file.file_bytes,
            data_set_digest=file.data_set_digest,
            calling_ae_title=self._caller.ae_title,
            association_id=self.association_id,
        )

    def _open_once(self) -> None:
        if self._is_opened:
            return
        self._inbox.association_opened(
            self.association_id, self._caller.ae_title, self._caller.address
        )
        self._is_opened = True
        _log.info("node.association_opened", association_id=self.association_id)

    def _settle(self, instance: StoredInstance, result: RecordResult) -> None:
        self._stored += 1
        settle_file(self._spool, instance.path, result)
        _log.debug(
            "node.instance_stored",
            association_id=self.association_id,
            result=result.value,
            file_bytes=instance.file_bytes,
        )

    def close(self, *, released: bool) -> None:
        """End the session: unfinished files go, and the index hears of the end."""
        with self._lock:
            self._is_closed = True
            for reception in self._pending:
                reception.drop()
            self._pending.clear()
        if not self._is_opened:
            return
        self._inbox.association_closed(self.association_id, released=released)
        _log.info(
            "node.association_closed",
            association_id=self.association_id,
            released=released,
            instances=self._stored,
        )


def settle_file(spool: Spool, path: str, result: RecordResult) -> None:
    """Do with a published file what the index decided."""
    if result is RecordResult.DUPLICATE:
        spool.remove(path)
    elif result is RecordResult.CONFLICT:
        spool.quarantine(path)
        _log.error("node.instance_quarantined", name=path.rpartition("/")[2])
