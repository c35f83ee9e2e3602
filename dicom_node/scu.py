"""Sending: files as they are, or data sets made here; and C-ECHO.

What is sent is what is stored: a file's data set goes out byte by byte in its own transfer syntax.
Only where a peer refuses that, and both it and what the peer takes instead are native little
endian, the data set is written anew.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import cast

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode

from dicom_node.contexts import NATIVE_SYNTAXES
from dicom_node.errors import (
    AssociationLostError,
    ContextRejectedError,
    DataSetError,
    DataSetUnreadableError,
    StoreRefusedError,
)
from dicom_node.headers import outgoing_uids, scan_file
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.requestor import (
    MAX_CONTEXTS,
    VERIFICATION_PAIR,
    Connection,
    ContextPair,
    Outgoing,
    PeerAddress,
    RequestorTimeouts,
)
from dicom_node.status import is_stored

_DEFAULT_TIMEOUTS = RequestorTimeouts()


class SendOutcome(str, Enum):
    """What became of one instance."""

    STORED = "stored"
    """The peer has it: Success or a warning."""
    REFUSED = "refused"
    """The peer answered with a failure status."""
    NO_CONTEXT = "no_context"
    """The peer does not take the class in this transfer syntax."""
    UNREADABLE = "unreadable"
    """The file is no DICOM file, or names no instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The answer to one instance."""

    outcome: SendOutcome
    status: int | None = None
    """The peer's status; None if nothing was sent."""
    path: Path | None = None

    def raise_for_refusal(self) -> None:
        """Turn a failure status into an error.

        Raises:
            StoreRefusedError: The peer answered with a failure status.
        """
        if self.outcome is SendOutcome.REFUSED and self.status is not None:
            raise StoreRefusedError(self.status)


def outgoing_file(path: Path) -> Outgoing:
    """Look at a file that is to be sent.

    Raises:
        NotADicomFileError: The file is not in the DICOM File Format.
        DataSetUnreadableError: It names no SOP class, instance or transfer syntax.
        OSError: It cannot be read.
    """
    found = scan_file(path)
    sop_class_uid, sop_instance_uid = outgoing_uids(found)
    return Outgoing(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=found.meta.transfer_syntax_uid,
        data_set=(path, found.meta.data_set_offset),
    )


def outgoing_dataset(ds: Dataset) -> Outgoing:
    """Encode a data set in the syntax of its file meta, else in explicit VR little endian.

    Raises:
        DataSetUnreadableError: It lacks its UIDs, or cannot be encoded.
    """
    meta = getattr(ds, "file_meta", None)
    syntax = UID(str(getattr(meta, "TransferSyntaxUID", None) or ExplicitVRLittleEndian))
    return _encoded(ds, syntax)


def _encoded(ds: Dataset, syntax: UID) -> Outgoing:
    if "SOPClassUID" not in ds or "SOPInstanceUID" not in ds:
        raise DataSetUnreadableError("the data set names no SOP class or instance")
    data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if data is None:
        raise DataSetUnreadableError("the data set cannot be encoded")
    return Outgoing(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=str(syntax),
        data_set=data,
    )


class Sender:
    """Sends instances to one peer over one association, opened when needed and kept.

    Use it from one thread at a time. An association that the peer has closed meanwhile is opened
    again, and the instance sent again: with the same UID that is harmless.
    """

    def __init__(
        self,
        peer: PeerAddress,
        *,
        calling_ae_title: str,
        timeouts: RequestorTimeouts = _DEFAULT_TIMEOUTS,
    ) -> None:
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._timeouts = timeouts
        self._connection: Connection | None = None
        self._pairs: dict[ContextPair, None] = {}
        self._proposed: frozenset[ContextPair] = frozenset()
        """To the association that is open; ``_pairs`` are for the next one."""

    def __enter__(self) -> Sender:
        """Nothing is opened yet."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the association."""
        self.close()

    def close(self) -> None:
        """Release the association; the next store opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def propose(self, pairs: Iterable[ContextPair]) -> None:
        """Name contexts that the next association should have, up to the limit of 128."""
        for pair in pairs:
            wanted = dict.fromkeys((*_alternatives(pair), *self._pairs))
            if len(wanted) <= MAX_CONTEXTS:
                self._pairs = wanted

    def store_file(self, path: Path) -> SendResult:
        """Send one file; see ``store`` for what it raises.

        Raises:
            DataSetError: The file is no DICOM file, or names no instance.
            OSError: It cannot be read.
        """
        return replace(self.store(outgoing_file(path)), path=path)

    def store_dataset(self, ds: Dataset) -> SendResult:
        """Send one data set from memory; see ``store`` for what it raises.

        Raises:
            DataSetUnreadableError: It lacks its UIDs, or cannot be encoded.
        """
        return self.store(outgoing_dataset(ds))

    def store(self, outgoing: Outgoing) -> SendResult:
        """Send one instance.

        Raises:
            PeerUnreachableError: No association, or it was lost before the answer.
            AssociationRejectedError: The peer refuses the association.
            ContextRejectedError: The peer takes the instance in no way that we can offer.
        """
        was_open = self._connection is not None
        try:
            status = self._store_once(outgoing)
        except AssociationLostError:
            self._connection = None
            if not was_open:
                raise
            status = self._store_once(outgoing)
        outcome = SendOutcome.STORED if is_stored(status) else SendOutcome.REFUSED
        return SendResult(outcome=outcome, status=status)

    def _store_once(self, outgoing: Outgoing) -> int:
        connection = self._connected(outgoing.pair)
        if outgoing.pair not in connection.accepted:
            outgoing = _rewritten(outgoing, connection)
        return connection.store(outgoing)

    def _connected(self, pair: ContextPair) -> Connection:
        """A live association to which ``pair`` was proposed."""
        is_open = self._connection is not None and self._connection.is_open
        if self._connection is not None and is_open and pair in self._proposed:
            return self._connection
        self.close()
        wanted = dict.fromkeys((*_alternatives(pair), *self._pairs))
        self._pairs = dict.fromkeys(list(wanted)[:MAX_CONTEXTS])
        self._proposed = frozenset(self._pairs)
        self._connection = Connection(
            self._peer,
            calling_ae_title=self._calling_ae_title,
            pairs=list(self._pairs),
            timeouts=self._timeouts,
        )
        return self._connection


def _alternatives(pair: ContextPair) -> tuple[ContextPair, ...]:
    """The pair, and for a native one the other native syntax as a way out."""
    sop_class_uid, syntax = pair
    if UID(syntax) not in NATIVE_SYNTAXES:
        return (pair,)
    return (pair, *((sop_class_uid, str(each)) for each in NATIVE_SYNTAXES if each != syntax))


def _rewritten(outgoing: Outgoing, connection: Connection) -> Outgoing:
    """The same instance in a native syntax that the peer accepted.

    Raises:
        ContextRejectedError: There is none, or the instance is not native itself.
    """
    for pair in _alternatives(outgoing.pair):
        if pair in connection.accepted:
            return _encoded(_decoded(outgoing), UID(pair[1]))
    raise ContextRejectedError("the peer does not take this class in this transfer syntax")


def _decoded(outgoing: Outgoing) -> Dataset:
    silence_dicom_libraries()
    if isinstance(outgoing.data_set, bytes):
        data = outgoing.data_set
    else:
        path, offset = outgoing.data_set
        data = path.read_bytes()[offset:]
    syntax = UID(outgoing.transfer_syntax_uid)
    return decode(BytesIO(data), syntax.is_implicit_VR, syntax.is_little_endian)


def verify_peer(
    peer: PeerAddress,
    *,
    calling_ae_title: str,
    timeouts: RequestorTimeouts = _DEFAULT_TIMEOUTS,
) -> None:
    """C-ECHO a peer.

    Raises:
        PeerUnreachableError: It does not answer.
        AssociationRejectedError: It refuses the association.
        ContextRejectedError: It does not offer verification.
    """
    connection = Connection(
        peer, calling_ae_title=calling_ae_title, pairs=[VERIFICATION_PAIR], timeouts=timeouts
    )
    try:
        connection.echo()
    finally:
        connection.close()


def send_files(
    paths: Sequence[Path],
    peer: PeerAddress,
    *,
    calling_ae_title: str,
    associations: int = 1,
    on_result: Callable[[SendResult], None] | None = None,
    timeouts: RequestorTimeouts = _DEFAULT_TIMEOUTS,
) -> list[SendResult]:
    """Push files as a scanner would.

    Args:
        paths: DICOM files; what is none is reported as UNREADABLE.
        peer: Where to.
        calling_ae_title: Who we say we are.
        associations: How many to use at the same time.
        on_result: Called after each file, never from two threads at once.
        timeouts: How long the peer may take.

    Returns:
        One result per path, in the order of ``paths``.

    Raises:
        PeerUnreachableError: No association, or one was lost and could not be opened again.
        AssociationRejectedError: The peer refuses the association.
    """
    run = _SendRun(paths, on_result)
    with ThreadPoolExecutor(associations, thread_name_prefix="sender") as pool:
        workers = [
            pool.submit(
                run.work, Sender(peer, calling_ae_title=calling_ae_title, timeouts=timeouts)
            )
            for _ in range(associations)
        ]
        for worker in workers:
            worker.result()
    return run.results


class _SendRun:
    """The work that the associations of one ``send_files`` share."""

    def __init__(
        self, paths: Sequence[Path], on_result: Callable[[SendResult], None] | None
    ) -> None:
        self._on_result = on_result
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()
        self._found: list[SendResult | None] = [None] * len(paths)
        self._pairs: dict[ContextPair, None] = {}
        for each in enumerate(paths):
            self._todo.put(each)
            self._note_pair(each[1])

    def _note_pair(self, path: Path) -> None:
        try:
            self._pairs[outgoing_file(path).pair] = None
        except (DataSetError, OSError):
            return  # reported when its turn comes

    @property
    def results(self) -> list[SendResult]:
        return cast("list[SendResult]", self._found)

    def work(self, sender: Sender) -> None:
        """Send until nothing is left; an error leaves nothing for the others either."""
        sender.propose(self._pairs)
        with sender:
            try:
                while True:
                    index, path = self._todo.get_nowait()
                    self._note(index, _send_one(sender, path))
            except queue.Empty:
                return
            except BaseException:
                self._drain()
                raise

    def _note(self, index: int, result: SendResult) -> None:
        with self._lock:
            self._found[index] = result
            if self._on_result is not None:
                self._on_result(result)

    def _drain(self) -> None:
        try:
            while True:
                self._todo.get_nowait()
        except queue.Empty:
            return


def _send_one(sender: Sender, path: Path) -> SendResult:
    try:
        return sender.store_file(path)
    except (DataSetError, OSError):
        return SendResult(outcome=SendOutcome.UNREADABLE, path=path)
    except ContextRejectedError:
        return SendResult(outcome=SendOutcome.NO_CONTEXT, path=path)
