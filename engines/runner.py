"""A loaded model with the preprocessing of its package in front: stored images in, outputs out.

Where images become pictures is a runner's own affair: here in NumPy, in the memory of the
processor; in ``engines.kernel.runner`` by the fused kernel, in that of a GPU. A picture goes back
only to the runner that made it. Who holds one keeps its memory; with the last reference that is
free again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.batching import run_batches
from engines.contract import Engine
from engines.errors import ImageFault, UnfitImagesError
from engines.package import ModelPackage
from engines.preprocessing.collecting import Item, average_item
from engines.preprocessing.running import assemble_in_order, items_input, prepare
from engines.preprocessing.values import Float32, Picture, StoredImage, StoredPixels

Outputs = dict[str, NDArray[np.float32]]
"""By tensor name; the first axis is that of the items."""


class Prepared(Protocol):
    """A picture, wherever it lies."""

    @property
    def nbytes(self) -> int:
        """Memory of its values."""
        ...


P = TypeVar("P", bound=Prepared)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRun(Generic[P]):
    """Items in a row, and the pictures that they are made of."""

    pictures: Mapping[int, P]
    """By the members of the items."""
    items: Sequence[Item]
    """Those wanted and their neighbours, in order; at the ends of a series only those that there
    are."""
    places: range
    """In ``items``, of those wanted."""


class Runner(Protocol[P]):
    """What a pipeline needs of a model. An unfit image is an ``UnfitImagesError``."""

    @property
    def engine(self) -> Engine:
        """What computes."""
        ...

    def place_for(self, image: StoredImage) -> StoredPixels | None:
        """Return where the pixels of an image are best read to.

        Args:
            image: Whose ``pixels`` have the size and type that they will have, and no content.

        Returns:
            (rows, columns), until the next call of this runner; None: memory of their own.

        Raises:
            UnfitImagesError: No step can make a picture of it.
            DeviceError: The device failed, or has not so much memory.
        """
        ...

    def prepare(self, image: StoredImage) -> P:
        """Do everything that needs one image only.

        Raises:
            UnfitImagesError: No step can make a picture of it.
            DeviceError: The device failed, or has not so much memory.
        """
        ...

    def run(self, runs: Sequence[ItemRun[P]]) -> Outputs:
        """Run the model on some items, of one series or of several.

        Returns:
            The outputs of all items wanted, in order.

        Raises:
            UnfitImagesError: Pictures differ in size, or make no item.
            EngineError: The engine failed.
        """
        ...

    def run_series(self, pictures: Iterable[P], items: Sequence[Item]) -> Outputs:
        """Run the model on a whole series.

        Args:
            pictures: In the order for which the items were planned; each is asked for when it is
                needed.
            items: All of them.

        Raises:
            UnfitImagesError: The pictures make no input.
            EngineError: The engine failed.
        """
        ...


AnyRunner = Runner[Any]
"""Whose pictures are its own affair: they only go back to it."""


class HostRunner:
    """Prepares by NumPy; for every package and every engine."""

    def __init__(self, package: ModelPackage, engine: Engine) -> None:
        self._package = package
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """What computes."""
        return self._engine

    def place_for(self, _image: StoredImage) -> StoredPixels | None:
        """See ``Runner``: nowhere in particular."""
        return None

    def prepare(self, image: StoredImage) -> Picture:
        """See ``Runner``."""
        return prepare(image, self._package.preprocess)

    def run(self, runs: Sequence[ItemRun[Picture]]) -> Outputs:
        """See ``Runner``."""
        tensors = [self._input_of(run) for run in runs]
        if len({tensor.shape[1:] for tensor in tensors}) > 1:
            raise UnfitImagesError(ImageFault.INCONSISTENT, "prepared images differ in size")
        together = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        return run_batches(self._engine, self._package.input, together)

    def run_series(self, pictures: Iterable[Picture], items: Sequence[Item]) -> Outputs:
        """See ``Runner``."""
        package = self._package
        tensor = assemble_in_order(pictures, items, package.preprocess, package.input.layout)
        return run_batches(self._engine, package.input, tensor)

    def _input_of(self, run: ItemRun[Picture]) -> Float32:
        averaged = [average_item(run.pictures, item) for item in run.items]
        if len({values.shape for values in averaged}) > 1:
            raise UnfitImagesError(ImageFault.INCONSISTENT, "prepared images differ in size")
        return items_input(
            averaged, run.places, self._package.preprocess, self._package.input.layout
        )


def batches_of(runs: Iterable[ItemRun[P]], size: int) -> Iterator[list[ItemRun[P]]]:
    """Divide runs into batches of so many items; the last one may have fewer."""
    batch: list[ItemRun[P]] = []
    room = size
    for run in runs:
        places = run.places
        while places:
            batch.append(replace(run, places=places[:room]))
            room -= len(places[:room])
            places = places[len(batch[-1].places) :]
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch
