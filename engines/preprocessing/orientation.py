"""Images are turned to how a radiologist expects them; no pixel is copied."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engines.preprocessing.values import Picture, Turn
from engines.steps import CanonicalOrientation

Scalar = TypeVar("Scalar", bound=np.generic)


def canonical_orientation(picture: Picture, _step: CanonicalOrientation) -> Picture:
    """Turns values, padding and spacing; an image without orientation stays as it is."""
    turn = picture.turn
    if turn is None:
        return picture
    spacing = picture.spacing_mm
    if spacing is not None and turn.transpose:
        spacing = (spacing[1], spacing[0])
    return replace(
        picture,
        values=_turned(picture.values, turn),
        padding=None if picture.padding is None else _turned(picture.padding, turn),
        spacing_mm=spacing,
        turn=None,
    )


def _turned(image: npt.NDArray[Scalar], turn: Turn) -> npt.NDArray[Scalar]:
    if turn.transpose:
        image = image.T
    return image[:: -1 if turn.flip_rows else 1, :: -1 if turn.flip_columns else 1]
