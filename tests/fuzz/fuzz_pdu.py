"""Whatever bytes follow an association, the node ends in order and publishes only whole data sets.

Both ways of receiving get each stream; "whole" is what ``simulators.upper_layer_model`` says.

    python tests/fuzz/fuzz_pdu.py tests/fuzz/corpus/pdu -max_total_time=600
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))  # for fuzz and simulators

from fuzz.fuzzing import fuzz, instrumented

with instrumented():
    from simulators.hand_driven_node import HandDrivenNode
    from simulators.upper_layer_model import whole_data_sets

MAX_BYTES = 64 * 1024


class Target:
    """A node for each way."""

    def __init__(self, folder: Path) -> None:
        self._nodes = [
            HandDrivenNode(folder=folder / str(fast_path), fast_path=fast_path)
            for fast_path in (False, True)
        ]

    def __call__(self, given: bytes) -> None:
        """Check the invariant for one stream."""
        stream = given[:MAX_BYTES]
        allowed = whole_data_sets(stream)
        for node in self._nodes:
            outcome = node.receive(stream)
            assert outcome.has_ended, "the association does not end"
            assert set(outcome.published) <= set(allowed), "published what did not arrive so"

    def close(self) -> None:
        """Free the ports."""
        for node in self._nodes:
            node.close()


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        fuzz(Target(Path(name)))
