"""Draws the five types of bleed; each is a share of every voxel, painted over what was there."""

from __future__ import annotations

import math

import numpy as np

from tools.phantoms.frame import Ellipsoid, FloatArray, occupancy, paint
from tools.phantoms.scene import Scene
from tools.phantoms.spec import Bleed, BleedKind, Point

OEDEMA_HU = 21.0
OEDEMA_MM = 5.0
RAGGED_MM = 1.6
"""How far the edge of a clot strays from its ellipsoid."""
CLOT_UNEVEN_HU = 2.5
SAH_FADE_MM = 12.0


def paint_bleeds(scene: Scene, image: FloatArray, inside: FloatArray) -> None:
    """Paint every bleed of the specification and leave its share in ``scene.bleed_shares``."""
    for bleed in scene.spec.bleeds:
        share = _SHARES[bleed.kind](scene, bleed) * inside
        if bleed.kind is BleedKind.INTRAPARENCHYMAL:
            _paint_oedema(scene, image, bleed)
        if share.any():
            paint(image, share, bleed.hu + np.float32(CLOT_UNEVEN_HU) * scene.grain)
        scene.bleed_shares.append(share)


def _lump(bleed: Bleed, extra_mm: float = 0.0) -> Ellipsoid:
    a, b, c = (bleed.size_mm * factor + extra_mm for factor in bleed.elongation)
    return Ellipsoid(bleed.centre_mm, (a, b, c))


def _whole(scene: Scene, shape: Ellipsoid, *, ragged: bool) -> FloatArray:
    share = np.zeros(scene.frame.shape, np.float32)
    bend = np.float32(RAGGED_MM) * scene.grain if ragged else None
    found = shape.share(scene.frame, bend)
    if found is not None:
        share[found[0]] = found[1]
    return share


def _intraparenchymal(scene: Scene, bleed: Bleed) -> FloatArray:
    return _whole(scene, _lump(bleed), ragged=True)


def _paint_oedema(scene: Scene, image: FloatArray, bleed: Bleed) -> None:
    found = _lump(bleed, OEDEMA_MM * min(1.0, bleed.size_mm / 12)).share(scene.frame)
    if found is not None:
        box, share = found
        soft = share * np.float32(0.6) * (image[box] < 45) * (scene.brain_depth[box] > 2)
        paint(image[box], soft, OEDEMA_HU)


def _intraventricular(scene: Scene, bleed: Bleed) -> FloatArray:
    """Blood in one part of the ventricles; it settles at the back of a lying patient."""
    region = _whole(scene, _lump(bleed), ragged=False)
    level = occupancy(scene.frame.y - np.float32(bleed.centre_mm[1] - 8), 4.0)
    return region * level * scene.ventricles


def _epidural(scene: Scene, bleed: Bleed) -> FloatArray:
    """A lens: what a ball that bulges from outside the skull cuts off inside it.

    The sphere's radius follows from the lens's depth t and half width h: R = (h^2 + t^2) / 2t.
    """
    direction = _unit(bleed.centre_mm)
    reach = _inner_table(scene, direction)
    width = reach * math.sin(math.radians(bleed.spread_deg))
    radius = max((width**2 + bleed.size_mm**2) / (2 * bleed.size_mm), bleed.size_mm)
    distance = reach - bleed.size_mm + radius
    x, y, z = (component * distance for component in direction)
    return _whole(scene, Ellipsoid((x, y, z), (radius, radius, radius)), ragged=False)


def _subdural(scene: Scene, bleed: Bleed) -> FloatArray:
    """A crescent along the inner table of one side, thinning towards its ends."""
    window = _window(scene, bleed)
    thickness = np.float32(bleed.size_mm) * np.sqrt(window)
    inner = scene.skin_depth - np.float32(scene.spec.anatomy.scalp_mm) - scene.bone_mm
    layer = occupancy(thickness - inner, scene.shell_blur) * (window > 0)
    side = np.float32(math.copysign(1.0, bleed.centre_mm[0]))
    return layer * occupancy(side * scene.frame.x - 2, 1.5)


def _subarachnoid(scene: Scene, bleed: Bleed) -> FloatArray:
    """Blood instead of fluid in the sulci and cisterns around a place."""
    frame = scene.frame
    x, y, z = (np.float32(v) for v in bleed.centre_mm)
    distance = np.sqrt((frame.x - x) ** 2 + (frame.y - y) ** 2 + (frame.z - z) ** 2)
    reach = np.float32(bleed.spread_deg)
    near = np.clip((reach - distance) / np.float32(SAH_FADE_MM) + 0.5, 0, 1)
    # Blood also swells the space that it fills: thin sulci would else vanish.
    swollen = np.clip(scene.fluid * np.float32(bleed.size_mm / 2.2), 0, 1)
    share: FloatArray = near * swollen
    return share


def _window(scene: Scene, bleed: Bleed) -> FloatArray:
    """1 in the direction of the bleed, 0 at its spread, seen from the middle of the head."""
    frame = scene.frame
    dx, dy, dz = (np.float32(v) for v in _unit(bleed.centre_mm))
    length = np.sqrt(frame.x**2 + frame.y**2 + frame.z**2) + np.float32(1e-3)
    cosine = (frame.x * dx + frame.y * dy + frame.z * dz) / length
    limit = np.float32(math.cos(math.radians(bleed.spread_deg)))
    window: FloatArray = np.clip((cosine - limit) / (1 - limit), 0, 1)
    return window


def _inner_table(scene: Scene, direction: Point) -> float:
    """Distance from the middle of the head to the inner table in one direction, mm."""
    anatomy = scene.spec.anatomy
    dx, dy, dz = direction
    width = anatomy.half_width_mm * (1 + anatomy.egg * dy * 0.8)
    skin = 1 / math.sqrt(
        (dx / width) ** 2 + (dy / anatomy.half_length_mm) ** 2 + (dz / anatomy.height_mm) ** 2
    )
    return skin - anatomy.scalp_mm - anatomy.skull_mm


def _unit(point: Point) -> Point:
    length = math.sqrt(sum(v * v for v in point))
    x, y, z = (v / length for v in point)
    return (x, y, z)


_SHARES = {
    BleedKind.EPIDURAL: _epidural,
    BleedKind.SUBDURAL: _subdural,
    BleedKind.SUBARACHNOID: _subarachnoid,
    BleedKind.INTRAPARENCHYMAL: _intraparenchymal,
    BleedKind.INTRAVENTRICULAR: _intraventricular,
}
