"""What could be known without looking at lungs, and how much of it the network uses.

A data set in which one class comes from other rooms, other machines or other crops lets a network
be right for the wrong reason. Two kinds of numbers show how far that goes here:

- *what there is to know*: a plain logistic regression, taught on the training patients, that sees
  only the border, only the measures of picture quality, or only the thumbnail of the middle;
- *what the network makes of it*: its own area under the curve when the middle, or the border, of
  each test picture is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tools.paediatric_cxr.quality import Quality

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

THUMBNAIL = 14
"""A side of the coarse picture that the regressions see."""
FRAME = 2
"""Outer rings of the thumbnail that count as border: a seventh of each side."""
COMPARED = 28
"""A side of the pictures that are compared for being nearly equal ..."""
NEARLY_EQUAL = 0.99
"""... which is a correlation of at least this."""
RIDGE = 3.0
STEPS = 30


def border_features(pictures: Float32) -> Float64:
    """Coarse values of the outer rings: (N, F)."""
    small = thumbnails(pictures)
    return small[:, _frame_mask()].astype(np.float64)


def middle_features(pictures: Float32) -> Float64:
    """Coarse values of what lies within the rings: (N, F)."""
    small = thumbnails(pictures)
    return small[:, ~_frame_mask()].astype(np.float64)


def quality_features(measured: Sequence[Quality]) -> Float64:
    """The measures of quality, their squares and products: (N, F)."""
    plain = np.array([[item.sharpness, item.contrast, item.exposure] for item in measured])
    pairs = [plain[:, [i]] * plain[:, [j]] for i in range(3) for j in range(i, 3)]
    return np.concatenate([plain, *pairs], axis=1)


def thumbnails(pictures: Float32) -> Float32:
    """Means over blocks: (N, THUMBNAIL, THUMBNAIL)."""
    count, rows, columns = pictures.shape
    shape = (count, THUMBNAIL, rows // THUMBNAIL, THUMBNAIL, columns // THUMBNAIL)
    return np.asarray(pictures.reshape(shape).mean(axis=(2, 4)), np.float32)


def nearly_equal(pictures: Float32, others: Float32) -> NDArray[np.bool_]:
    """Which pictures are, but for small changes, one of ``others``: both (N, rows, columns).

    By the correlation of pictures of 28 x 28. Neighbours in a series of one child, and different
    children of one posture, stay below the bound.
    """
    closeness = _directions(pictures) @ _directions(others).T
    return np.asarray(closeness.max(axis=1) >= NEARLY_EQUAL)


def _directions(pictures: Float32) -> Float32:
    count, rows, columns = pictures.shape
    shape = (count, COMPARED, rows // COMPARED, COMPARED, columns // COMPARED)
    flat = pictures.reshape(shape).mean(axis=(2, 4)).reshape(count, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return np.asarray(flat / lengths, np.float32)


def hide_middle(pictures: Float32) -> Float32:
    """Everything but the border painted with the picture's own mean."""
    return _painted(pictures, inside=True)


def hide_border(pictures: Float32) -> Float32:
    """The border painted with the picture's own mean."""
    return _painted(pictures, inside=False)


def _frame_mask() -> NDArray[np.bool_]:
    frame = np.ones((THUMBNAIL, THUMBNAIL), np.bool_)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    return frame


def _painted(pictures: Float32, *, inside: bool) -> Float32:
    edge = pictures.shape[1] * FRAME // THUMBNAIL
    middle = np.zeros(pictures.shape[1:], np.bool_)
    middle[edge:-edge, edge:-edge] = True
    means = pictures.mean(axis=(1, 2), keepdims=True)
    return np.where(middle == inside, means, pictures).astype(np.float32)


def logistic_scores(features: Float64, positive: NDArray[np.bool_], others: Float64) -> Float64:
    """Scores of ``others`` by a ridge logistic regression taught on ``features``."""
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    known = _with_constant((features - mean) / spread)
    weights = np.zeros(known.shape[1])
    penalty = np.full(known.shape[1], RIDGE)
    penalty[-1] = 0.0
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(known @ weights, -30, 30)))
        gradient = known.T @ (chance - positive) + penalty * weights
        curvature = (known * (chance * (1 - chance))[:, None]).T @ known
        weights -= np.linalg.solve(curvature + np.diag(penalty + 1e-6), gradient)
    scores: Float64 = _with_constant((others - mean) / spread) @ weights
    return scores


def _with_constant(features: Float64) -> Float64:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)
