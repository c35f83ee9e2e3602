"""Draw the pictures of the documentation from ``evaluation.json`` and from drawn chests.

``python -m tools.paediatric_cxr.draw --package PACKAGE --out docs/models/paediatric_cxr``. Examples
are phantoms: no picture of the data set, nor a part of one, is ever written.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engines.card import Curve, Evaluation
from engines.loading import EVALUATION_FILE
from tools.paediatric_cxr.svg import Panel, draw_panels
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec

EXAMPLE_SIDE = 224
EXAMPLES: tuple[tuple[int, OpacityKind | None], ...] = (
    (1, None),
    (2, OpacityKind.LOBAR),
    (3, OpacityKind.PATCHY),
    (4, OpacityKind.INTERSTITIAL),
)
ROBUSTNESS_RANGE = (0.0, 1.0)


def example_picture() -> bytes:
    """Four drawn chests side by side as PNG: clear, lobar, patchy, interstitial."""
    tiles = []
    for seed, kind in EXAMPLES:
        drawn = draw_chest(draw_chest_spec(seed, opacity=kind), rows=448, columns=448).density
        small = drawn.reshape(EXAMPLE_SIDE, 2, EXAMPLE_SIDE, 2).mean(axis=(1, 3))
        low, high = np.percentile(small, (1, 99))
        tiles.append(np.clip((small - low) / (high - low), 0, 1))
    # Six bits are enough for the eye and pack to half the size.
    grey = (np.rint(np.concatenate(tiles, axis=1) * 63) * 4).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def roc_picture(evaluation: Evaluation) -> str:
    """ROC curve with its band and the operating point."""
    values = {item.key: item.value for item in evaluation.estimates}
    curve = _curve(evaluation, "roc")
    panel = _panel(
        curve,
        (0.0, 1.0),
        (0.0, 1.0),
        title="ROC, band: 95 %",
        diagonal=True,
        marks=((1 - values["specificity"], values["sensitivity"]),),
    )
    words = f"ROC curve, area {values['auc']:.3f}; the dot is the operating point"
    return draw_panels([panel], columns=1, title=words)


def reliability_picture(evaluation: Evaluation) -> str:
    """Observed against predicted frequency."""
    curve = _curve(evaluation, "reliability")
    panel = _panel(
        curve, (0.0, 1.0), (0.0, 1.0), title="Reliability, tenths of the test set", diagonal=True
    )
    return draw_panels([panel], columns=1, title="Reliability diagram with 95 % intervals")


def robustness_picture(evaluation: Evaluation) -> str:
    """All robustness curves on one scale."""
    curves = [curve for curve in evaluation.curves if curve.key.startswith("robustness_")]
    panels = []
    for curve in curves:
        ends = curve.points[0].x, curve.points[-1].x
        panels.append(_panel(curve, ends, ROBUSTNESS_RANGE, title=curve.label))
    words = "Area under the ROC curve by strength of nine disturbances, with 95 % intervals"
    return draw_panels(panels, columns=3, title=words)


def _curve(evaluation: Evaluation, key: str) -> Curve:
    return next(curve for curve in evaluation.curves if curve.key == key)


def _panel(
    curve: Curve,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    *,
    title: str,
    diagonal: bool = False,
    marks: tuple[tuple[float, float], ...] = (),
) -> Panel:
    return Panel(
        title=title,
        x_label=curve.x_label,
        y_label=curve.y_label,
        x_range=x_range,
        y_range=y_range,
        points=curve.points,
        diagonal=diagonal,
        marks=marks,
    )


def write_pictures(evaluation: Evaluation, folder: Path) -> None:
    """Write all pictures into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "examples.png").write_bytes(example_picture())
    for name, text in (
        ("roc.svg", roc_picture(evaluation)),
        ("reliability.svg", reliability_picture(evaluation)),
        ("robustness.svg", robustness_picture(evaluation)),
    ):
        (folder / name).write_text(text, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--package", type=Path, required=True, help="folder that holds evaluation.json"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    options = parser.parse_args(arguments)
    text = (options.package / EVALUATION_FILE).read_text("utf-8")
    write_pictures(Evaluation.model_validate_json(text), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
