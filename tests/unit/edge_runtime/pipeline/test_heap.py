"""Memory of freed images stays with the process, and that of a volume does not."""

from __future__ import annotations

import subprocess
import sys

_FAULTS = """
import resource, sys
import numpy as np
from edge_runtime.pipeline.heap import keep_freed_images
if sys.argv[1] == "kept":
    keep_freed_images()
def faults(size):
    np.ones(size, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(3 * 1024 * 1024))
"""


def _faults(how: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(ended.stdout)


def test_an_image_takes_the_memory_of_the_one_before() -> None:
    kept = _faults("kept")
    assert kept < 100
    assert _faults("plain") > 10 * kept
