"""``edge-triage demo``: a scanner that pushes phantom studies until Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dicom_node.errors import DicomNodeError
from dicom_node.scu import send_files
from edge_runtime.clock import SystemClock
from edge_runtime.model.clock import Mark, interval_us
from edge_runtime.model.reasons import REASONS
from edge_runtime.store.database import connect
from edge_runtime.store.worklist import AnalysisView, StudyDetail, find_study
from tools.demo.once import SCANNER_AE_TITLE
from tools.demo.scenario import PhantomCase, draw_phantom
from tools.demo.site import Site
from tools.phantoms.chest_studies import ChestName
from tools.phantoms.variants import PhantomName

_PAUSE_S = 3.0
_LIMIT_S = 30.0
_POLL_S = 0.02

_ROUND: tuple[tuple[str, PhantomName | ChestName, bool], ...] = (
    ("head CT", PhantomName.FULL_EXAM, False),
    ("head CT with a bleed", PhantomName.FULL_EXAM, True),
    ("head CT", PhantomName.HEAD_CT, False),
    ("child's chest with an opacity", ChestName.DX, True),
    ("head CT with a slice missing", PhantomName.MISSING_SLICE, True),
    ("head CT with a bleed", PhantomName.HEAD_CT, True),
    ("adult's chest", ChestName.ADULT, False),
    ("dose report only", PhantomName.DOSE_REPORT, False),
    ("head CT with contrast", PhantomName.CONTRAST, False),
    ("child's chest", ChestName.CR, False),
    ("head CT whose last image comes late", PhantomName.LATE_IMAGE, True),
)
"""What the demonstration's scanner sees in a day, over and over, with new patients."""


def push_until_stopped(site: Site, say: Callable[[str], None]) -> None:
    """Draw and push one study after the other until ``site.stop``; say what became of each."""
    stop = site.stop
    with contextlib.closing(connect(site.database)) as connection:
        for case in _cases():
            with tempfile.TemporaryDirectory(prefix="edge-triage-demo-") as folder:
                push = draw_phantom(case, Path(folder))
                for batch in push.batches:
                    if stop.is_set():
                        return
                    say(f"scanner pushes {case.label} ({len(batch.paths)} objects)")
                    try:
                        send_files(batch.paths, site.node, calling_ae_title=SCANNER_AE_TITLE)
                    except DicomNodeError as error:
                        say(f"  the node did not take it: {error}")
                        break
                    look = partial(find_study, connection, push.study_instance_uid)
                    say(f"  {_await_outcome(look, batch.revision, stop)}")
            if stop.wait(_PAUSE_S):
                return


def _cases() -> Iterator[PhantomCase]:
    start = 1_000 + SystemClock().now().wall_us // 1_000_000 % 9_000
    for number, (label, name, positive) in enumerate(itertools.cycle(_ROUND)):
        yield PhantomCase(label=label, name=name, seed=start + number, positive=positive)


def _await_outcome(
    look: Callable[[], StudyDetail | None], revision: int, stop: threading.Event
) -> str:
    deadline_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline_s and not stop.is_set():
        detail = look()
        if detail is not None and detail.study.revision >= revision:
            current = detail.study.current
            if current and all(item.outcome is not None for item in current):
                # Two models look at every study: what is not for one of them says nothing new.
                for_it = [item for item in current if not _is_out_of_scope(item)] or current[:1]
                return "; ".join(_words(detail, item) for item in for_it)
        stop.wait(_POLL_S)
    return "" if stop.is_set() else "no outcome yet; see the page"


def _is_out_of_scope(analysis: AnalysisView) -> bool:
    return analysis.reason is not None and not REASONS[analysis.reason].in_scope


def _words(detail: StudyDetail, analysis: AnalysisView) -> str:
    at = {
        stamp.mark: stamp.at
        for stamp in detail.stamps
        if stamp.revision == analysis.revision and stamp.subject in {"", analysis.model_name}
    }
    took_s = interval_us(at[Mark.LAST_STORED], at[Mark.DECIDED]) / 1_000_000
    reason = f": {REASONS[analysis.reason].sentence}" if analysis.reason else ""
    outcome = analysis.outcome.value.replace("_", " ") if analysis.outcome else ""
    return f"{outcome} {took_s:.2f} s after its last image{reason}"
