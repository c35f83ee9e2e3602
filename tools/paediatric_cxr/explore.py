"""The figures beyond accuracy: robustness, where the network looks, shortcuts, input statistics.

Each function takes the scored test set and returns rows for ``evaluation.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.card import Curve, CurveKind, Estimate, Statistic
from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.cases import TestCases, estimate, point
from tools.paediatric_cxr.dataset import Radiograph, read_pixels
from tools.paediatric_cxr.disturb import COURSES, Disturbance, disturb
from tools.paediatric_cxr.metrics import area, counted, mean_of, share
from tools.paediatric_cxr.quality import measure_quality
from tools.paediatric_cxr.reference import (
    WINDOW,
    imitate_adult,
    measure_inputs,
    outside_reference,
    statistics_of,
    windows_outside,
)
from tools.paediatric_cxr.saliency import (
    Paint,
    occlusion_map,
    opaque_cells,
    rank_correlation,
    ring_share,
    shuffled_model,
)
from tools.paediatric_cxr.scoring import Scorer, scorer
from tools.paediatric_cxr.shortcuts import (
    border_features,
    hide_border,
    hide_middle,
    logistic_scores,
    middle_features,
    nearly_equal,
    quality_features,
)
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec

SHORTCUTS = "Shortcuts: what is known without the lungs"
SALIENCY = "Where the network looks (occlusion)"
DRIFT = "Input outside the reference window (any of four measures)"
LOOKED_AT = 150
"""Radiographs that get occlusion maps: the first of the test set in the order of a hash."""
SHUFFLE_SEED = 1
WINDOW_SEED = 2
POINTED_AT = 60
"""Drawn chests with a lobar opacity."""
FIRST_POINTING_SEED = 1000
POINTING_SCALE = 2
"""They are drawn this many times larger than the network's input."""


def robustness_curves(cases: TestCases, model: Scorer) -> list[Curve]:
    """Area under the ROC curve under each disturbance, by its strength."""
    curves = []
    for kind in Disturbance:
        course = COURSES[kind]
        points = []
        for strength in course.strengths:
            changed = [
                disturb(pixels, kind, strength, seed=number)
                for number, pixels in enumerate(cases.pixels)
            ]
            logits = model.of_radiographs(changed)
            found = cases.draws.interval(area(logits, cases.positive))
            points.append(point(strength, found))
            print(f"{course.label} {strength:g}: {found.value:.3f}", flush=True)
        curves.append(
            Curve(
                key=f"robustness_{kind.value}",
                kind=CurveKind.RESPONSE,
                label=course.label,
                x_label=f"{course.label} ({course.unit})",
                y_label="Area under the ROC curve",
                points=tuple(points),
            )
        )
    return curves


def saliency_estimates(cases: TestCases, model: Scorer, path: Path) -> list[Estimate]:
    """Does the outer ring matter more than its area, and are the maps of the learning at all?"""
    step = max(1, len(cases.pixels) // LOOKED_AT)
    looked_at = np.zeros(len(cases.pixels), np.bool_)
    looked_at[::step] = True
    ring = np.zeros(len(cases.pixels))
    alike = np.zeros(len(cases.pixels))
    with tempfile.TemporaryDirectory() as folder:
        shuffled = Path(folder) / "model.onnx"
        shuffled_model(path, shuffled, seed=SHUFFLE_SEED)
        with scorer(shuffled) as blank:
            for number in np.flatnonzero(looked_at):
                picture = recipe.picture(cases.pixels[number])
                learnt = occlusion_map(model, picture)
                ring[number] = ring_share(learnt)
                alike[number] = abs(rank_correlation(learnt, occlusion_map(blank, picture)))
    return [
        estimate(
            "occlusion_ring_share", "Effect in the outer ring of cells, which is 49 % of the area",
            cases.draws.interval(mean_of(ring), among=looked_at), SALIENCY,
        ),
        estimate(
            "occlusion_shuffled_likeness", "Rank correlation with maps of shuffled weights, size",
            cases.draws.interval(mean_of(alike), among=looked_at), SALIENCY,
        ),
    ]  # fmt: skip


def pointing_estimates(model: Scorer) -> list[Estimate]:
    """On drawn chests the truth is known: does the strongest cell lie in the opacity?"""
    hits: dict[Paint, list[bool]] = {paint: [] for paint in Paint}
    cells = []
    for seed in range(FIRST_POINTING_SEED, FIRST_POINTING_SEED + POINTED_AT):
        spec = draw_chest_spec(seed, opacity=OpacityKind.LOBAR)
        side = POINTING_SCALE * recipe.SIDE
        drawn = draw_chest(spec, rows=side, columns=side)
        picture = recipe.picture(np.rint(drawn.density * 255).astype(np.uint8))
        inside = opaque_cells(drawn.opacity)
        cells.append(float(inside.mean()))
        for paint, found in hits.items():
            strongest = int(occlusion_map(model, picture, paint).argmax())
            found.append(bool(inside.ravel()[strongest]))
    chance = f"{np.mean(cells):.2f}"
    return [
        estimate(
            f"occlusion_points_{paint.value}",
            f"Strongest cell in a drawn lobar opacity, painting the {paint.value} "
            f"(by chance {chance})",
            counted(sum(found), len(found)),
            SALIENCY,
        )
        for paint, found in hits.items()
    ]


def shortcut_estimates(
    cases: TestCases, model: Scorer, training: Sequence[Radiograph]
) -> list[Estimate]:
    """What plain regressions know of border, quality and middle; the network with parts hidden."""
    positive = cases.positive
    taught = np.array([item.positive for item in training])
    known_pixels = [read_pixels(item.path) for item in training]
    known, pictures = _pictures(known_pixels), _pictures(cases.pixels)
    quality = [
        quality_features([measure_quality(pixels) for pixels in group])
        for group in (known_pixels, cases.pixels)
    ]
    rows = (
        ("border", "regression on a coarse border alone", logistic_scores(
            border_features(known), taught, border_features(pictures))),
        ("quality", "regression on sharpness, contrast and brightness alone", logistic_scores(
            quality[0], taught, quality[1])),
        ("middle", "regression on a coarse middle alone", logistic_scores(
            middle_features(known), taught, middle_features(pictures))),
        ("network_middle_hidden", "this network, middle hidden",
            model.of_pictures(hide_middle(pictures))),
        ("network_border_hidden", "this network, border hidden",
            model.of_pictures(hide_border(pictures))),
    )  # fmt: skip
    copies = estimate(
        "copies_in_training",
        "Test radiographs that are nearly equal to a training radiograph",
        counted(int(nearly_equal(pictures, known).sum()), len(pictures)),
        SHORTCUTS,
    )
    found = [
        estimate(
            f"shortcut_{key}", f"Area under the ROC curve, {label}",
            cases.draws.interval(area(scores, positive)), SHORTCUTS,
        )
        for key, label, scores in rows
    ]  # fmt: skip
    return [*found, copies]


def input_statistics(
    cases: TestCases, model: Scorer, others: Sequence[NDArray[np.float32]]
) -> tuple[list[Statistic], list[Estimate]]:
    """The reference window, the imitated shift, and whatever radiographs of others there are.

    Args:
        cases: the test set, which is the reference.
        model: gives the scores.
        others: pictures from elsewhere, of people whom the model is not for; may be none.
    """
    reference = _measured(_pictures(cases.pixels), model)
    shifted = _measured(_pictures([imitate_adult(pixels) for pixels in cases.pixels]), model)
    inverted = _measured(_pictures([255 - pixels for pixels in cases.pixels]), model)
    found = statistics_of(reference, key="reference", population="Held-back children")
    found += statistics_of(
        shifted, key="imitated", population="The same, imitating adults (crop, width, curve)"
    )
    found += statistics_of(inverted, key="inverted", population="The same, inverted")
    shares = [
        ("reference", "held-back children themselves", outside_reference(reference, reference)),
        ("imitated", "imitated adults", outside_reference(reference, shifted)),
        ("inverted", "inverted radiographs", outside_reference(reference, inverted)),
    ]
    estimates = [
        estimate(f"outside_{key}", f"Share of {label}", cases.draws.interval(share(claims)), DRIFT)
        for key, label, claims in shares
    ]
    for key, label, measured in (
        ("reference", "held-back children themselves", reference),
        ("imitated", "imitated adults", shifted),
        ("inverted", "inverted radiographs", inverted),
    ):
        seen = windows_outside(reference, measured, seed=WINDOW_SEED)
        estimates.append(
            estimate(
                f"windows_{key}",
                f"Share of windows of {WINDOW} {label}",
                counted(int(seen.sum()), len(seen)),
                DRIFT,
            )
        )
    if others:
        measured = _measured(np.stack(others), model)
        found += statistics_of(measured, key="others", population="Radiographs from elsewhere")
    return found, estimates


def _pictures(radiographs: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack([recipe.picture(pixels) for pixels in radiographs])


def _measured(pictures: NDArray[np.float32], model: Scorer) -> dict[str, NDArray[np.float64]]:
    return measure_inputs(pictures, model.of_pictures(pictures))
