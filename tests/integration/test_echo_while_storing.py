"""C-ECHO is answered while 25 scanners push: storage never stands in its way.

The times are told (``pytest -s``, and as properties of the report), not judged: they belong to the
machine. What is judged is that every echo is answered, and that all 25 went on storing meanwhile.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from simulators.ct_slices import write_ct_slice
from simulators.lone_node import LoneNode
from simulators.waiting import wait_until

from dicom_node.requestor import VERIFICATION_PAIR, Connection, PeerAddress, RequestorTimeouts
from dicom_node.scu import verify_peer

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(shutil.which("storescu") is None, reason="needs dcmtk"),
]

_SCANNERS = 25
_ECHOES = 25
_PIXELS = 256
_STORES_S = 60.0
_AE_TITLE = "MONITOR"


@contextmanager
def _scanners(node: LoneNode, path: Path) -> Iterator[None]:
    """25 storescu that push a slice under ever new UIDs, each over one association."""
    address = node.address
    command = ["storescu", "-aec", address.ae_title, "--repeat", "1000000", "--invent-instance"]
    with ExitStack() as stack:
        processes = []
        for _ in range(_SCANNERS):
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, address.host, str(address.port), str(path)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        _wait_until_all_store(node)
        yield
        _wait_until_all_store(node)
        assert [each.poll() for each in processes] == [None] * _SCANNERS


def _wait_until_all_store(node: LoneNode) -> None:
    """Each association stores an instance from now on."""
    begin = node.log.stat().st_size
    wait_until(lambda: len(_storing(node, begin)) == _SCANNERS, _STORES_S)


def _storing(node: LoneNode, begin: int) -> set[str]:
    """The associations of which the log tells a store, from an offset on."""
    with node.log.open("rb") as log:
        log.seek(begin)
        whole = log.read().rpartition(b"\n")[0]
    events = map(json.loads, whole.splitlines())
    return {each["association_id"] for each in events if each["event"] == "node.instance_stored"}


def _measured(echo: Callable[[], None]) -> list[float]:
    """Milliseconds of each echo."""
    times_ms = []
    for _ in range(_ECHOES):
        begin_s = time.perf_counter()
        echo()
        times_ms.append((time.perf_counter() - begin_s) * 1_000)
    return times_ms


@pytest.mark.parametrize("fast_path", [True, False])
def test_echo_is_answered_while_25_associations_store(
    tmp_path: Path, record_property: Callable[[str, object], None], *, fast_path: bool
) -> None:
    sent = tmp_path / "slice.dcm"
    write_ct_slice(sent, number=1, hu=0, size=_PIXELS)
    with LoneNode(folder=tmp_path, fast_path=fast_path) as node:
        address = node.address
        with _scanners(node, sent):
            times_ms = {
                "new_association": _measured(
                    lambda: verify_peer(address, calling_ae_title=_AE_TITLE)
                ),
                "kept_association": _measured_on_one_association(address),
            }
        verify_peer(address, calling_ae_title=_AE_TITLE)
        shutil.rmtree(node.spool)  # gigabytes, on a fast disk
    for name, found in times_ms.items():
        assert len(found) == _ECHOES
        p95 = statistics.quantiles(found, n=20)[-1]
        record_property(f"echo_{name}_p95_ms", round(p95, 1))
        sys.stdout.write(
            f"\nC-ECHO, {name}, fast_path={fast_path}: median {statistics.median(found):.1f} ms, "
            f"p95 {p95:.1f} ms, longest {max(found):.1f} ms"
        )


def _measured_on_one_association(peer: PeerAddress) -> list[float]:
    connection = Connection(
        peer,
        calling_ae_title=_AE_TITLE,
        pairs=[VERIFICATION_PAIR],
        timeouts=RequestorTimeouts(),
    )
    try:
        return _measured(connection.echo)
    finally:
        connection.close()
