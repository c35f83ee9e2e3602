"""A scanner that pushes small CT studies and keeps each image until the node has it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.errors import DicomNodeError
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scu import SendOutcome, SendResult, send_files
from simulators.ct_slices import write_ct_slice

AE_TITLE = "SCANNER"
SLICES = 10
SIZE = 128
BRIGHT_HU = 100
DARK_HU = 0
_AGAIN_S = 0.1
_GIVE_UP_S = 180.0
_TIMEOUTS = RequestorTimeouts(connect_s=5.0, association_s=15.0, answer_s=30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedStudy:
    """What was sent, and whether ``simulators.model_package`` must suspect something in it."""

    uid: str
    paths: tuple[Path, ...]
    is_bright: bool


@dataclass(slots=True, kw_only=True)
class Scanner:
    """Pushes one study after the other; what got no Success goes out again on a new association."""

    node: PeerAddress
    folder: Path
    seed: int
    longest_pause_s: float = 0.2
    studies: list[PushedStudy] = field(default_factory=list)
    stored: dict[str, Path] = field(default_factory=dict)
    """By SOP Instance UID: what the node answered Success for."""
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def push_until(self, stop: threading.Event) -> None:
        """Push studies until ``stop``, then finish the last; of some the last image comes late."""
        held: tuple[Path, ...] = ()
        while not stop.is_set():
            study = self.draw(is_bright=self.rng.random() < 0.5)
            late = 1 if self.rng.random() < 0.25 else 0
            self.push(study.paths[: SLICES - late])
            self.push(held)
            held = study.paths[SLICES - late :]
            stop.wait(self.rng.uniform(0, self.longest_pause_s))
        self.push(held)

    def draw(self, *, is_bright: bool) -> PushedStudy:
        """Write the files of the next study."""
        number = len(self.studies) + 1
        uid = f"1.2.3.{number}"
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        paths = []
        for slice_number in range(1, SLICES + 1):
            paths.append(folder / f"{uid}.1.{slice_number}")
            write_ct_slice(
                paths[-1],
                number=slice_number,
                hu=BRIGHT_HU if is_bright else DARK_HU,
                study=uid,
                images=SLICES,
                size=SIZE,
            )
        study = PushedStudy(uid=uid, paths=tuple(paths), is_bright=is_bright)
        self.studies.append(study)
        return study

    def push(self, paths: tuple[Path, ...]) -> None:
        """Send until each has Success."""
        ends_s = time.monotonic() + _GIVE_UP_S
        pause = threading.Event()
        while left := [path for path in paths if path.name not in self.stored]:
            assert time.monotonic() < ends_s, f"the node took none of {len(left)} images"
            try:
                send_files(
                    left,
                    self.node,
                    calling_ae_title=AE_TITLE,
                    on_result=self._note,
                    timeouts=_TIMEOUTS,
                )
            except DicomNodeError:
                pause.wait(_AGAIN_S)

    def _note(self, result: SendResult) -> None:
        assert result.path is not None
        if result.outcome is SendOutcome.STORED:
            self.stored[result.path.name] = result.path
