"""Every real DICOM file is stored byte by byte or refused with the right status.

What is right is read from each file by pydicom, which has no part in receiving. The node is the
real process; it neither ends nor stumbles, whatever it is sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pydicom.data
import pytest
from pydicom import FileDataset, dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.filereader import _read_file_meta_info, read_preamble
from pynetdicom import AllStoragePresentationContexts
from simulators.lone_node import LoneNode

from dicom_node.scu import SendOutcome, SendResult, send_files

pytestmark = pytest.mark.timeout(120)

_UID = re.compile(r"\d+(\.\d+)*", re.ASCII)
_STANDARD_CLASSES = {str(each.abstract_syntax) for each in AllStoragePresentationContexts}
_RETIRED_CLASSES = {
    value
    for value, (name, kind, _, state, _) in UID_dictionary.items()
    if kind == "SOP Class" and state == "Retired" and "Storage" in name
}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_JPEG_PROCESS_14 = "1.2.840.10008.1.2.4.57"
_SYNTAXES = {_BIG_ENDIAN, _JPEG_PROCESS_14} | {
    value
    for value, (_, kind, _, state, _) in UID_dictionary.items()
    if kind == "Transfer Syntax" and state != "Retired"
}


class Fate(Enum):
    """What becomes of a file, and why."""

    STORED = "a whole instance of a storage class"
    NO_STUDY = "the data set names no study or series: C000"
    NO_INSTANCE = "only the file meta names the instance, the data set does not: C000"
    CLASS_NOT_STORED = "its class is no storage class (DICOMDIR, worklist, palette): no context"
    SYNTAX_RETIRED = "its transfer syntax was retired long ago: no context"
    NAMES_NOTHING = "no SOP class, instance or transfer syntax: a sender has nothing to propose"
    NO_DICOM_FILE = "no DICM prefix: a sender does not know what it is"


_ANSWERS = {
    Fate.STORED: (SendOutcome.STORED, 0x0000),
    Fate.NO_STUDY: (SendOutcome.REFUSED, 0xC000),
    Fate.NO_INSTANCE: (SendOutcome.REFUSED, 0xC000),
    Fate.CLASS_NOT_STORED: (SendOutcome.NO_CONTEXT, None),
    Fate.SYNTAX_RETIRED: (SendOutcome.NO_CONTEXT, None),
    Fate.NAMES_NOTHING: (SendOutcome.UNREADABLE, None),
    Fate.NO_DICOM_FILE: (SendOutcome.UNREADABLE, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RealFile:
    """One file, and what it must meet with."""

    path: Path
    fate: Fate
    has_unknown_uids: bool = False
    """Its UIDs are coded with VR UN (PS3.5 6.2.2), which a reader by VR takes for numbers."""


def _real_files() -> list[RealFile]:
    assert pydicom.data.__file__ is not None
    folders = [Path(pydicom.data.__file__).parent]
    if extra := os.environ.get("EDGE_TRIAGE_TEST_DATA"):
        folders.append(Path(extra))
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd files are wanted here
        return [_judged(path) for path in paths]


def _judged(path: Path) -> RealFile:
    if path.read_bytes()[128:132] != b"DICM":
        return RealFile(path=path, fate=Fate.NO_DICOM_FILE)
    ds = dcmread(path, stop_before_pixels=True)
    vr = getattr(ds.get_item("SOPClassUID"), "VR", None)
    return RealFile(path=path, fate=_fate(ds), has_unknown_uids=vr == "UN")


def _fate(ds: FileDataset) -> Fate:
    own_class, own_instance = _uid(ds.get("SOPClassUID")), _uid(ds.get("SOPInstanceUID"))
    sop_class = own_class or _uid(ds.file_meta.get("MediaStorageSOPClassUID"))
    sop_instance = own_instance or _uid(ds.file_meta.get("MediaStorageSOPInstanceUID"))
    syntax = _uid(ds.file_meta.get("TransferSyntaxUID"))
    if not (sop_class and sop_instance and syntax):
        return Fate.NAMES_NOTHING
    if sop_class not in _STANDARD_CLASSES | _RETIRED_CLASSES:
        return Fate.CLASS_NOT_STORED
    if syntax not in _SYNTAXES:
        return Fate.SYNTAX_RETIRED
    if not (own_class and own_instance):
        return Fate.NO_INSTANCE
    if not (_uid(ds.get("StudyInstanceUID")) and _uid(ds.get("SeriesInstanceUID"))):
        return Fate.NO_STUDY
    return Fate.STORED


def _uid(value: object) -> str:
    """A UID as it may be stored, else ""; leading zeros are let through."""
    text = str(value or "")
    return text if len(text) <= 64 and _UID.fullmatch(text) else ""


@pytest.fixture(scope="module")
def real_files() -> list[RealFile]:
    found = _real_files()
    counts = Counter(each.fate for each in found)
    assert counts[Fate.STORED] > 60  # in pydicom's wheel alone
    return found


@contextmanager
def _steady_node(folder: Path, *, fast_path: bool) -> Iterator[LoneNode]:
    """A node that at the end is the process that it was, and has not stumbled."""
    with LoneNode(folder=folder, fast_path=fast_path) as node:
        pid = node.pid
        yield node
        assert node.is_alive
        assert node.pid == pid
        assert node.stop() == 0
    lines = node.log.read_text("utf-8").splitlines()
    assert all(line.startswith("{") for line in lines), "a traceback is no line of the log"
    levels = Counter(json.loads(line)["level"] for line in lines)
    assert not levels["critical"]
    events = {each["event"] for each in map(json.loads, lines) if each["level"] == "error"}
    # The same instance in several transfer syntaxes is a conflict, and kept as one.
    assert events <= {"node.instance_quarantined"}


@pytest.mark.parametrize("fast_path", [True, False])
def test_every_file_is_stored_as_it_is_or_refused_for_what_it_is(
    tmp_path: Path, real_files: Sequence[RealFile], *, fast_path: bool
) -> None:
    with _steady_node(tmp_path, fast_path=fast_path) as node:
        results = send_files(
            [each.path for each in real_files],
            node.address,
            calling_ae_title="SCANNER",
            associations=2,
        )
    odd = [
        f"{file.path}: {file.fate.value}, but {_told(result)}"
        for file, result in zip(real_files, results, strict=True)
        if (result.outcome, result.status) != _ANSWERS[file.fate]
    ]
    assert not odd, "\n".join(odd)
    stored = [path for path in node.spool.rglob("*.dcm") if path.is_file()]
    sent = {_digest(each.path) for each in real_files if each.fate is Fate.STORED}
    assert {_digest(path) for path in stored} == sent
    assert len(stored) == len(sent)


def _told(result: SendResult) -> str:
    return result.outcome.value if result.status is None else f"{result.status:04X}"


def _digest(path: Path) -> str:
    """Of the data set alone: the preamble and the file meta are ours."""
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_preamble(file, force=False)
        _read_file_meta_info(file)
        return hashlib.sha256(file.read()).hexdigest()


@pytest.mark.peer
@pytest.mark.skipif(shutil.which("dcmsend") is None, reason="needs dcmtk")
@pytest.mark.parametrize("fast_path", [True, False])
def test_every_file_that_dcmtk_takes_gets_the_same_answer(
    tmp_path: Path, real_files: Sequence[RealFile], *, fast_path: bool
) -> None:
    with _steady_node(tmp_path, fast_path=fast_path) as node:
        answers = _sent_by_dcmtk([each.path for each in real_files], node, tmp_path / "report")
    odd = [
        f"{file.path}: {file.fate.value}, but {answers[file.path]}"
        for file in real_files
        if file.path in answers and answers[file.path] != _answer_to_dcmtk(file)
    ]
    assert not odd, "\n".join(odd)
    # Among those that it does not take are data sets that break off, which it cannot encode.
    stored = [each.path for each in real_files if each.fate is Fate.STORED]
    assert sum(path in answers for path in stored) > 0.9 * len(stored)


def _answer_to_dcmtk(file: RealFile) -> str:
    if file.fate is Fate.STORED and file.has_unknown_uids:
        # dcmtk names the first byte of the UID in its command; no context was negotiated for that.
        return "0122"
    status = _ANSWERS[file.fate][1]
    return "not sent" if status is None else f"{status:04X}"


def _sent_by_dcmtk(paths: Sequence[Path], node: LoneNode, report: Path) -> dict[Path, str]:
    """The answers to ``dcmsend``, by file; files that it does not take are left out."""
    command = ["dcmsend", "-dn", "-nh", "-nuc", "-aec", node.address.ae_title, "+crf", str(report)]
    subprocess.run(
        [*command, node.address.host, str(node.port), *map(str, paths)],
        check=True,
        timeout=100,
        capture_output=True,
        # Otherwise dcmtk waits 40 ms for an acknowledgement within each instance.
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return {
        Path(record[1]): record[2].upper()
        for record in re.finditer(
            r"^Filename +: (.+)\n(?:.+\n)*?DIMSE Status +: 0x([0-9a-f]{4})",
            report.read_text("utf-8", "replace"),
            re.MULTILINE,
        )
    }
