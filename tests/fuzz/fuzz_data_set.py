"""Whatever the bytes of a data set, reading them ends in a header or in a declared error.

The first byte chooses the transfer syntax. Time is bounded by ``MAX_ELEMENTS`` and the length of
the input, memory by the reads: no read may ask for more than a block.

    python tests/fuzz/fuzz_data_set.py tests/fuzz/corpus/data_set -max_total_time=600
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for fuzz and simulators

from fuzz.fuzzing import fuzz, instrumented

with instrumented():
    from dicom_node.errors import DataSetUnreadableError
    from dicom_node.file_meta import FileMeta
    from dicom_node.headers import header_of, identity_of, scan_received
    from dicom_node.scanner import MAX_VALUE_BYTES

SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
)
_MAX_READ_BYTES = 256 * 1024
_MAX_READS_A_BYTE = 4


class Target:
    """Reads one data set."""

    def __call__(self, given: bytes) -> None:
        """Check the invariant for one input."""
        data_set, reads = given[1:], 0

        def read_at(offset: int, length: int) -> bytes:
            nonlocal reads
            reads += 1
            assert offset >= 0
            assert 0 <= length <= _MAX_READ_BYTES, "a read by a declared length"
            return data_set[offset : offset + length]

        meta = FileMeta(
            sop_class_uid="1.2",
            sop_instance_uid="1.3",
            transfer_syntax_uid=SYNTAXES[given[0] % len(SYNTAXES)] if given else SYNTAXES[0],
            source_ae_title="",
            data_set_offset=0,
        )
        try:
            found = scan_received(read_at, len(data_set), meta)
            identity_of(found.scan)
            header = header_of(found)
        except DataSetUnreadableError:
            return
        assert all(len(value) <= MAX_VALUE_BYTES for value in found.scan.values.values())
        assert reads <= _MAX_READS_A_BYTE * len(data_set) + 2
        if header.pixel_data_offset is not None and header.pixel_data_length is not None:
            assert header.pixel_data_offset + header.pixel_data_length <= len(data_set)

    def close(self) -> None:
        """Nothing is held."""


if __name__ == "__main__":
    fuzz(Target())
