"""Where the network looks: occlusion maps, and three checks of whether they mean anything.

A map holds, for each cell of a grid, by how much the logit falls when the cell is painted over.
Three questions are asked of the maps.

- *Are they of the network's learning?* The same maps of the network with its weights shuffled
  within each layer must be others (model randomisation; Adebayo et al. 2018, "Sanity checks for
  saliency maps"). Rank correlation near 0 is as it should be.
- *Do they point at what is there?* On drawn chests the place of an opacity is known.
- *Do they lie where lungs are?* The outer ring of cells holds arms, letters, collimation and
  belly. If the network used all places alike, the ring would hold its share of the area.
"""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tools.paediatric_cxr.scoring import Scorer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CELLS = 7
"""A side: cells of 16 pixels, some 3 cm of a child's chest."""
SOFTNESS = 6
"""Passes of the mean filter that makes the background."""
RING_SHARE = 1 - (CELLS - 2) ** 2 / CELLS**2
"""Of the area: that of the outer ring of cells."""


class Paint(str, Enum):
    """What a cell is painted over with."""

    BACKGROUND = "background"
    """The picture without anything finer than a cell: takes ribs and vessels away, and leaves a
    smooth opacity as it is."""
    MEAN = "mean"
    """The picture's mean: takes the density away as well, and puts an edge where none was."""


def occlusion_map(model: Scorer, picture: Float32, paint: Paint = Paint.BACKGROUND) -> Float64:
    """Falls of the logit (CELLS, CELLS); above 0: the cell speaks for pneumonia.

    Args:
        model: the network.
        picture: (rows, columns), normalised to 0 to 1.
        paint: over each cell.
    """
    flat = np.full_like(picture, picture.mean())
    soft = background(picture) if paint is Paint.BACKGROUND else flat
    edges = np.linspace(0, picture.shape[0], CELLS + 1).astype(int)
    covered = [picture]
    for top, bottom in pairwise(edges):
        for left, right in pairwise(edges):
            painted = picture.copy()
            painted[top:bottom, left:right] = soft[top:bottom, left:right]
            covered.append(painted)
    logits = model.of_pictures(np.stack(covered))
    falls: Float64 = (logits[0] - logits[1:]).reshape(CELLS, CELLS)
    return falls


def background(picture: Float32) -> Float32:
    """The picture without anything finer than a cell."""
    reach = picture.shape[0] // (2 * CELLS)
    soft = picture
    for _ in range(SOFTNESS):
        for axis in (0, 1):
            padding = [(0, 0), (0, 0)]
            padding[axis] = (reach + 1, reach)
            total = np.cumsum(np.pad(soft, padding, mode="edge"), axis=axis, dtype=np.float64)
            upper = np.take(total, range(2 * reach + 1, total.shape[axis]), axis=axis)
            lower = np.take(total, range(total.shape[axis] - 2 * reach - 1), axis=axis)
            soft = ((upper - lower) / (2 * reach + 1)).astype(np.float32)
    return soft


def ring_share(falls: Float64) -> float:
    """Share of the map's whole effect, of either sign, that lies in the outer ring of cells."""
    effect = np.abs(falls)
    total = float(effect.sum())
    return float(1 - effect[1:-1, 1:-1].sum() / total) if total > 0 else RING_SHARE


def opaque_cells(opacity: Float32) -> NDArray[np.bool_]:
    """The cells (CELLS, CELLS) that a drawn opacity touches with half its greatest density.

    Args:
        opacity: (rows, columns), both multiples of CELLS.
    """
    rows, columns = (side // CELLS for side in opacity.shape)
    peaks = opacity.reshape(CELLS, rows, CELLS, columns).max(axis=(1, 3))
    return np.asarray(peaks >= peaks.max() / 2)


def rank_correlation(one: Float64, other: Float64) -> float:
    """Spearman's, of two maps of the same shape; 0 when one of them is flat."""
    first, second = (
        np.argsort(np.argsort(values.ravel())).astype(float) for values in (one, other)
    )
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def shuffled_model(model: Path, target: Path, *, seed: int) -> None:
    """Write the model with each layer's weights shuffled: as wide, as large, nothing learnt."""
    proto = onnx.load(str(model))
    rng = np.random.default_rng([seed, 41])
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1:
            mixed = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
    onnx.save(proto, str(target))
