"""Every storage class that the node knows, proposed by dcmtk."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from dicom_node.archive import FolderArchive
from dicom_node.contexts import STORAGE_CLASSES

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk"),
]

_CT = "1.2.840.10008.5.1.4.1.1.2"
_SYNTAXES = "TransferSyntax1 = BigEndianExplicit\nTransferSyntax2 = LittleEndianImplicit\n"


def _profile(classes: Sequence[UID]) -> str:
    """A configuration file of storescu that proposes these classes."""
    lines = [
        f"PresentationContext{number} = {each}\\Odd" for number, each in enumerate(classes, start=1)
    ]
    return "\n".join(
        [
            f"[[TransferSyntaxes]]\n[Odd]\n{_SYNTAXES}",
            "[[PresentationContexts]]\n[All]",
            *lines,
            "[[Profiles]]\n[Default]\nPresentationContexts = All\n",
        ]
    )


@pytest.mark.parametrize("first", range(0, len(STORAGE_CLASSES), 127))
def test_storescu_gets_every_storage_class_that_it_proposes(tmp_path: Path, first: int) -> None:
    """127 in one association beside CT, of which it sends a slice."""
    batch = [each for each in STORAGE_CLASSES[first : first + 127] if each != _CT]
    config = tmp_path / "storescu.cfg"
    config.write_text(_profile([UID(_CT), *batch]), encoding="ascii")
    slice_path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(slice_path, str)
    with FolderArchive(tmp_path / "pacs", ae_title="NODE") as archive:
        done = subprocess.run(
            [
                *("storescu", "-d", "-aec", "NODE", "-xf", str(config), "Default"),
                *("127.0.0.1", str(archive.port), slice_path),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert len(archive.arrivals) == 1
    answer = (done.stdout + done.stderr).split("A-ASSOCIATE-AC", 1)[1]
    assert answer.count("(Accepted)") == len(batch) + 1
    assert not re.search(r"\((Abstract|Transfer) Syntax", answer)
    chosen = re.findall(r"Accepted Transfer Syntax: (\S+)", answer)
    assert set(chosen) == {"=LittleEndianImplicit"}
