"""How fast the generator is: ``python -m tools.phantoms.speed``.

Prints slices per second of whole DICOM files, drawn by one process, by the clock and by the
processor's time: on a busy machine only the latter says what one quiet core would do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tools.phantoms.encoding import PhantomSyntax
from tools.phantoms.variants import PhantomName, make_study
from tools.phantoms.workers import drawing_processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of one run."""

    slices: int
    bytes_written: int
    wall_slices_per_s: float
    cpu_slices_per_s: float
    """Slices per second of processor time, all threads together."""


def measure(*, slices: int, matrix: int, syntax: PhantomSyntax) -> Speed:
    """Draw a bleeding head and make its files, in memory."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    study = make_study(
        PhantomName.HEAD_CT, seed=1, positive=True, slices=slices, matrix=matrix, syntax=syntax
    )
    size = sum(len(content) for content in study.files())
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return Speed(
        slices=slices,
        bytes_written=size,
        wall_slices_per_s=round(slices / wall_s, 1),
        cpu_slices_per_s=round(slices / max(cpu_s, 1e-9), 1),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument(
        "--syntax",
        type=PhantomSyntax,
        default=PhantomSyntax.EXPLICIT,
        help=", ".join(syntax.value for syntax in PhantomSyntax),
    )
    options = parser.parse_args(arguments)
    with drawing_processes(1) as pool:
        speed = pool.submit(
            measure, slices=options.slices, matrix=options.matrix, syntax=options.syntax
        ).result()
    print(json.dumps(asdict(speed)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
