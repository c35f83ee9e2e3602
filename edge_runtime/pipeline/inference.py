"""From prepared images to the model's outputs: item by item where the steps allow it.

An item is one row of the model's batch: a slab, a slice or a radiograph. Where it rests on a few
neighbouring images only, it can be run while others still arrive, and what was run early is found
again by its key: which images it was made of, and with which weights. An item whose images or
weights have changed since has another key and is run anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.geometry import position_along_normal
from edge_runtime.pipeline.preprocess import reasons_told
from engines.batching import MOST_ITEMS
from engines.errors import ImageFault, UnfitImagesError
from engines.package import ModelPackage
from engines.preprocessing.collecting import Item
from engines.preprocessing.running import neighbour_radius, plan_items
from engines.runner import AnyRunner, ItemRun, Outputs, Prepared
from engines.steps import Part, can_stream, parts_of

Load = Callable[[int], Prepared]
"""Returns a prepared image by its instance id."""
ItemKey = tuple[int, tuple[tuple[tuple[int, float], ...], ...]]
"""The place of an item in the window around it, and for each item of the window its images with
their weights."""

# Weights of the same images may differ in the last bit, as their neighbours' number changes.
_WEIGHT_DIGITS = 6
# Of a gap between slices from the usual one, before a slice is taken for missing.
_EVEN_GAP = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image of the series, before it is loaded."""

    instance_id: int
    header: InstanceHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which images make which items."""

    sources: tuple[Source, ...]
    """In the order along the normal."""
    positions_mm: tuple[float | None, ...]
    items: tuple[Item, ...]
    radius: int

    def window(self, place: int) -> tuple[int, ...]:
        """Return the places of an item and of those of its neighbours that there are."""
        last = len(self.items)
        return tuple(range(max(place - self.radius, 0), min(place + self.radius + 1, last)))

    def key(self, place: int) -> ItemKey:
        """Return what one item of the model's input is made of."""
        window = self.window(place)
        return place - window[0], tuple(self._images(self.items[each]) for each in window)

    def images(self, place: int) -> frozenset[int]:
        """Return the instance ids that an item of the model's input rests on."""
        return frozenset(
            self.sources[member].instance_id
            for each in self.window(place)
            for member in self.items[each].members
        )

    def _images(self, item: Item) -> tuple[tuple[int, float], ...]:
        return tuple(
            (self.sources[member].instance_id, round(weight, _WEIGHT_DIGITS))
            for member, weight in zip(item.members, item.weights, strict=True)
        )

    def settled(self) -> tuple[int, ...]:
        """Return the places of items that later images will leave as they are, as far as one sees.

        A slice is settled when both its neighbours are there, at the usual distance; an item when
        its window is complete and all slices of it are.
        """
        slices = self._settled_slices()
        sound = [all(slices[member] for member in item.members) for item in self.items]
        return tuple(
            place
            for place in range(len(self.items))
            if all(sound[each] for each in self.window(place)) and self._is_gapless(place)
        )

    def _settled_slices(self) -> list[bool]:
        count = len(self.sources)
        if self.radius == 0 and all(item.members and item.weights == (1.0,) for item in self.items):
            return [True] * count  # images that stand for themselves
        if count < 3 or any(position is None for position in self.positions_mm):  # noqa: PLR2004 - two neighbours
            return [False] * count
        gaps = np.diff(np.array(self.positions_mm, dtype=np.float64))
        even = gaps <= _EVEN_GAP * float(np.median(gaps))
        return [False, *(bool(flag) for flag in even[:-1] & even[1:]), False]

    def _is_gapless(self, place: int) -> bool:
        indexes = [self.items[each].index for each in self.window(place)]
        first = indexes[0]
        return indexes == list(range(first, first + 2 * self.radius + 1))


def runs_by_item(package: ModelPackage) -> bool:
    """Whether items can be run one by one, and so while a study still arrives."""
    return can_stream(package.preprocess) and not package.input.layout.is_volume


def plan(sources: Sequence[Source], package: ModelPackage) -> Plan:
    """Say which images make which items of the model's input.

    Raises:
        PreprocessError: positions are missing or occur twice, or there are too many items.
    """
    with reasons_told():
        if not sources:
            raise UnfitImagesError(ImageFault.NO_IMAGES, "no image is left")
        ordered = tuple(sorted(sources, key=_place))
        positions = tuple(position_along_normal(source.header) for source in ordered)
        items = plan_items(
            positions,
            [source.header.slice_thickness_mm for source in ordered],
            parts_of(package.preprocess)[Part.COLLECT][0],
        )
    return Plan(
        sources=ordered,
        positions_mm=positions,
        items=items,
        radius=neighbour_radius(package.preprocess),
    )


def _place(source: Source) -> tuple[float, str, int, str]:
    """Order along the normal; images without position as their device numbered them."""
    header = source.header
    position = position_along_normal(header)
    return (
        -math.inf if position is None else position,
        header.series_instance_uid,
        header.instance_number or 0,
        header.sop_instance_uid,
    )


def infer(
    sources: Sequence[Source],
    package: ModelPackage,
    runner: AnyRunner,
    load: Load,
    known: Mapping[ItemKey, Outputs],
) -> Outputs:
    """Run the model over a whole series.

    Args:
        sources: the selected images, in any order.
        package: the model's.
        runner: its engine is loaded.
        load: returns an image that this runner prepared.
        known: what was run early.

    Returns:
        The outputs for all items, in their order along the normal.

    Raises:
        PreprocessError: The steps cannot use the images.
        EngineError: The engine failed.
    """
    planned = plan(sources, package)
    if not runs_by_item(package):
        pictures = (load(source.instance_id) for source in planned.sources)
        with reasons_told():
            return runner.run_series(pictures, planned.items)
    found = {
        place: known[key]
        for place in range(len(planned.items))
        if (key := planned.key(place)) in known
    }
    missing = [place for place in range(len(planned.items)) if place not in found]
    for start in range(0, len(missing), MOST_ITEMS):
        places = missing[start : start + MOST_ITEMS]
        (outputs,) = run_items([ChosenItems(planned=planned, places=places, load=load)], runner)
        found.update(zip(places, outputs, strict=True))
    parts = [found[place] for place in range(len(planned.items))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenItems:
    """Some items of one study."""

    planned: Plan
    places: Sequence[int]
    """Ascending."""
    load: Load


def run_items(chosen: Sequence[ChosenItems], runner: AnyRunner) -> list[list[Outputs]]:
    """Run some items of one study or several, as few batches as they fill.

    Args:
        chosen: Of several studies only where all inputs of the model have one size.
        runner: Its engine is loaded.

    Returns:
        For each study, for each place the outputs of its item, with a first axis of one.

    Raises:
        PreprocessError: The images of a study differ in size.
        EngineError: The engine failed.
    """
    with reasons_told():
        outputs = runner.run([run for each in chosen for run in _runs(each)])
    rows = iter(range(sum(len(each.places) for each in chosen)))
    return [
        [
            {name: array[row : row + 1] for name, array in outputs.items()}
            for _, row in zip(each.places, rows, strict=False)
        ]
        for each in chosen
    ]


def _runs(chosen: ChosenItems) -> list[ItemRun[Prepared]]:
    planned = chosen.planned
    windows = {place: planned.window(place) for place in chosen.places}
    wanted = {each for window in windows.values() for each in window}
    members = sorted({member for each in wanted for member in planned.items[each].members})
    pictures = {member: chosen.load(planned.sources[member].instance_id) for member in members}
    runs = []
    for run in runs_of(chosen.places):
        first, last = windows[run[0]][0], windows[run[-1]][-1]
        runs.append(
            ItemRun(
                pictures=pictures,
                items=planned.items[first : last + 1],
                places=range(run.start - first, run.stop - first),
            )
        )
    return runs


def runs_of(places: Sequence[int]) -> tuple[range, ...]:
    """Divide ascending places into runs without a gap: neighbours are worked out once for each."""
    runs: list[range] = []
    for place in places:
        if runs and runs[-1].stop == place:
            runs[-1] = range(runs[-1].start, place + 1)
        else:
            runs.append(range(place, place + 1))
    return tuple(runs)
