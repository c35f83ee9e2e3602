"""When a study is complete: a table of rules over what is known of it, without a clock.

The first rule of ``RULES`` whose time has come decides; until then the answer says when to look
again if nothing arrives. Being early is not being wrong: a late image reopens the study as a new
revision. Being silent would be, so ``FORCED`` always comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dicom_node.instance import InstanceHeader
from edge_runtime.model.study import CompletionReason
from edge_runtime.pipeline.geometry import measure_stack
from edge_runtime.pipeline.selection import exclusion_of

# Gaps may differ by this part and still be one series; the gate applies the model's own limit.
UNIFORM_GAP_DEVIATION = 0.1
# A sender that pauses is given this many times its longest pause so far.
PAUSE_FACTOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyRules:
    """How long to wait, in microseconds; from the settings."""

    settle_us: int = 150_000
    """After the last image, where counts or geometry tell that all are there."""
    quiet_closed_us: int = 2_000_000
    """After the last image or the last association's end, where nothing else tells."""
    quiet_open_us: int = 30_000_000
    """After the last image, while an association stays open."""
    longest_wait_us: int = 600_000_000
    """After the first image, whatever still arrives."""
    min_stack_images: int = 8
    """A series with fewer images does not tell by its geometry that it is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """One series of images; localizers and objects that are no images are left out."""

    images: int
    missing_by_count: int | None
    """Images that ImagesInAcquisition promises and that are not here; None when it is silent."""
    is_gapless_stack: bool
    """The images are parallel, evenly spaced slices, each position once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsView:
    """What the scanner says of its procedure steps for a study (decision record 0012)."""

    in_progress: int
    completed: int
    discontinued: int
    completed_without_images: int
    """Completed steps that name no image: they promise nothing that could be checked."""
    missing_images: int
    """Named by completed steps, and not here."""
    missing_of_begun_series: int
    """Of these, the ones of series that are here in part: they are on their way."""
    changed_mono_us: int
    """When the scanner last said something; 0 for another boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyView:
    """What is known of one revision of a study; times are monotonic microseconds."""

    series: tuple[SeriesView, ...]
    first_stored_mono_us: int
    last_stored_mono_us: int
    longest_pause_us: int
    """Between two instances of the study."""
    open_associations: int
    """Of those that brought instances of this study."""
    are_all_released: bool
    """No association is open, and none of them was aborted or lost."""
    last_closed_mono_us: int | None
    """When the latest of them ended in any way."""
    revision: int = 1
    steps: StepsView | None = None
    """None: the scanner said nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Nothing more is expected."""

    reason: CompletionReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Look again at ``until_mono_us``, or when something changes."""

    until_mono_us: int
    expected: CompletionReason
    """The rule that will apply then if nothing changes."""


def decide(view: AssemblyView, now_mono_us: int, rules: AssemblyRules) -> Complete | Wait:
    """Say whether the study is complete now, and if not, when to ask again.

    Args:
        view: of the revision being received.
        now_mono_us: on the same clock as the view's times.
        rules: from the settings.
    """
    due = [(reason, when(view, rules)) for reason, when in RULES]
    times = [(time_us, reason) for reason, time_us in due if time_us is not None]
    for time_us, reason in times:
        if time_us <= now_mono_us:
            return Complete(reason=reason)
    until_mono_us, expected = min(times, key=lambda item: item[0])
    return Wait(until_mono_us=until_mono_us, expected=expected)


def is_discontinued(view: AssemblyView) -> bool:
    """Whether the scanner broke the examination off, so that no model looks at this revision.

    It speaks of the first revision, and of one that was being received when it said so. Images
    that come after that are analysed as always: looking once too often harms less than not at all.
    """
    steps = view.steps
    if steps is None or not steps.discontinued or steps.completed or steps.in_progress:
        return False
    return view.revision == 1 or steps.changed_mono_us >= view.first_stored_mono_us


def _mpps_due(view: AssemblyView, rules: AssemblyRules) -> int | None:
    """All steps have ended, and every image that they name is here."""
    steps = view.steps
    if steps is None:
        return None
    if is_discontinued(view):
        # Images that were acquired before may still be in the scanner's queue.
        return max(view.last_stored_mono_us, steps.changed_mono_us) + rules.quiet_closed_us
    is_whole = steps.completed > 0 and not (
        steps.in_progress or steps.completed_without_images or steps.missing_images
    )
    if not is_whole:
        return None
    return max(view.last_stored_mono_us + rules.settle_us, steps.changed_mono_us)


def _is_overruled(view: AssemblyView) -> bool:
    """The scanner said what counts, geometry and closed associations only let guess.

    Either it broke the examination off, or it named images of a series that is here in part.
    """
    if view.steps is None:
        return False
    return view.steps.missing_of_begun_series > 0 or is_discontinued(view)


def _counts_due(view: AssemblyView, rules: AssemblyRules) -> int | None:
    if _is_overruled(view) or not view.series:
        return None
    if any(series.missing_by_count != 0 for series in view.series):
        return None
    return view.last_stored_mono_us + rules.settle_us


def _geometry_due(view: AssemblyView, rules: AssemblyRules) -> int | None:
    """Half a series is a gapless stack too: so only once the sender has let go.

    Some senders open an association for each image; their pauses lengthen the settle time, up to
    the one that needs no geometry.
    """
    if view.last_closed_mono_us is None or not view.are_all_released or not view.series:
        return None
    if _is_overruled(view) or not all(
        series.is_gapless_stack and series.images >= rules.min_stack_images
        for series in view.series
    ):
        return None
    patience = min(view.longest_pause_us * PAUSE_FACTOR, rules.quiet_closed_us)
    return max(view.last_closed_mono_us, view.last_stored_mono_us + max(rules.settle_us, patience))


def _association_due(view: AssemblyView, rules: AssemblyRules) -> int | None:
    if _is_overruled(view) or view.open_associations > 0 or view.last_closed_mono_us is None:
        return None
    return max(view.last_closed_mono_us, view.last_stored_mono_us) + rules.quiet_closed_us


def _quiet_due(view: AssemblyView, rules: AssemblyRules) -> int:
    return view.last_stored_mono_us + rules.quiet_open_us


def _forced_due(view: AssemblyView, rules: AssemblyRules) -> int:
    return view.first_stored_mono_us + rules.longest_wait_us


# The most certain first.
RULES: tuple[tuple[CompletionReason, Callable[[AssemblyView, AssemblyRules], int | None]], ...] = (
    (CompletionReason.MPPS, _mpps_due),
    (CompletionReason.COUNTS, _counts_due),
    (CompletionReason.GEOMETRY, _geometry_due),
    (CompletionReason.ASSOCIATION, _association_due),
    (CompletionReason.QUIET, _quiet_due),
    (CompletionReason.FORCED, _forced_due),
)


@dataclass(slots=True)
class _SeriesTally:
    headers: list[InstanceHeader] = field(default_factory=list)
    received: dict[int | None, int] = field(default_factory=dict)
    promised: dict[int | None, set[int | None]] = field(default_factory=dict)
    measured: SeriesView | None = None

    def add(self, header: InstanceHeader) -> None:
        acquisition = header.acquisition_number
        self.headers.append(header)
        self.received[acquisition] = self.received.get(acquisition, 0) + 1
        self.promised.setdefault(acquisition, set()).add(header.images_in_acquisition)
        self.measured = None

    def view(self) -> SeriesView:
        if self.measured is None:
            self.measured = SeriesView(
                images=len(self.headers),
                missing_by_count=self._missing_by_count(),
                is_gapless_stack=_is_gapless(self.headers),
            )
        return self.measured

    def _missing_by_count(self) -> int | None:
        missing = 0
        for acquisition, promises in self.promised.items():
            promise = next(iter(promises)) if len(promises) == 1 else None
            # Contradicting promises, and ones that more images break, are none.
            if promise is None or promise < self.received[acquisition]:
                return None
            missing += promise - self.received[acquisition]
        return missing


class StudyTally:
    """What one revision's images say about completeness, kept up to date as they arrive.

    Adding costs the same however large the study is; a series is measured again only after it
    has grown.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._series: dict[str, _SeriesTally] = {}

    def add(self, header: InstanceHeader) -> None:
        """Count one stored instance; duplicates and what is never analysed change nothing."""
        if header.sop_instance_uid in self._seen or exclusion_of(header) is not None:
            return
        self._seen.add(header.sop_instance_uid)
        self._series.setdefault(header.series_instance_uid, _SeriesTally()).add(header)

    def series(self) -> tuple[SeriesView, ...]:
        """One view for each series of images."""
        return tuple(tally.view() for tally in self._series.values())


def _is_gapless(headers: list[InstanceHeader]) -> bool:
    stack = measure_stack(headers)
    return (
        stack is not None
        and stack.is_parallel
        and stack.duplicate_positions == 0
        and stack.spacing_mm is not None
        and stack.max_gap_deviation <= UNIFORM_GAP_DEVIATION
    )
