"""What a power failure leaves of what was not synced."""

from __future__ import annotations

from pathlib import Path

from dicom_node.journal_format import PAGE_BYTES, encode_record_header, record_bytes, records_of
from simulators.inspection import generations_of


def tear_file(path: Path) -> None:
    """What the disk may hold of a file that was not synced: its length, and less than its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def tear_record(spool: Path) -> None:
    """Append a record to each segment in use, of which the second half did not reach the disk."""
    segments = sorted((spool / "journal").iterdir())
    for segment, generation in zip(segments, generations_of(spool), strict=True):
        records = list(records_of(memoryview(segment.read_bytes())))
        if not records:
            continue
        content = records[0].content
        head = encode_record_header(generation, f"0b/{'7' * 30}.dcm", content)
        with segment.open("r+b") as stream:
            stream.seek(PAGE_BYTES + sum(record_bytes(len(each.content)) for each in records))
            stream.write(head.ljust(PAGE_BYTES, b"\0") + content[: len(content) // 2])
