"""Paints one slice: air, scalp, skull and its base, brain, fluid, vessels, calcifications, bleeds.

The order matters: what is painted later covers what lies below it.
"""

from __future__ import annotations

import numpy as np

from tools.phantoms.bleeds import paint_bleeds
from tools.phantoms.frame import Ellipsoid, FloatArray, occupancy, paint
from tools.phantoms.scene import Scene
from tools.phantoms.spec import Filling

AIR_HU = -1000.0
SKIN_HU = 25.0
FAT_HU = -85.0
MUSCLE_HU = 58.0
EYE_HU = 12.0
BASE_BONE_HU = 780.0
FLOOR_MM = 5.0
"""Thickness of the skull's floor."""
SULCUS_REACH_MM = 20.0
"""How deep a sulcus goes below the skull."""
CORTEX_MM = 4.0


def draw_head(scene: Scene) -> FloatArray:
    """One slice without noise, HU, of the scene's shape; fills the scene's shares."""
    image = np.full(scene.frame.shape, AIR_HU, np.float32)
    _paint_head_rest(scene, image)
    _paint_scalp_and_skull(scene, image)
    _paint_below_floor(scene, image)
    inside = scene.inside_skull()
    if scene.spec.anatomy.filling is Filling.QA_INSERTS:
        paint(image, inside, AIR_HU)
        _paint_inserts(scene, image)
        return image
    paint(image, inside, _contents(scene))
    _paint_inserts(scene, image)
    paint_bleeds(scene, image, inside)
    _harden_beam(scene, image, inside)
    return image


def _paint_head_rest(scene: Scene, image: FloatArray) -> None:
    """The plastic cradle below the head."""
    frame = scene.frame
    radius = np.sqrt(frame.x**2 + (frame.y + 8) ** 2)
    arc = np.float32(1.2) - np.abs(radius - 114)
    share = occupancy(arc, frame.in_plane_blur_mm) * (frame.y > -15)
    paint(image, share, 60.0)


def _paint_scalp_and_skull(scene: Scene, image: FloatArray) -> None:
    anatomy = scene.spec.anatomy
    blur = scene.shell_blur
    paint(image, occupancy(scene.skin_depth, blur), SKIN_HU)
    fat = np.minimum(scene.skin_depth - 2.0, np.float32(anatomy.scalp_mm) - 0.5 - scene.skin_depth)
    paint(image, occupancy(fat, blur) * np.float32(0.7), FAT_HU)
    into_bone = scene.skin_depth - np.float32(anatomy.scalp_mm)
    # Two dense tables with the spongy diploe between them.
    middle = 1 - np.abs(into_bone / scene.bone_mm * 2 - 1)
    density = np.float32(anatomy.skull_hu) * (1 - np.float32(0.45) * np.clip(middle, 0, 1))
    above_base = occupancy(scene.floor_height + 12, scene.floor_blur)
    paint(image, occupancy(into_bone, blur) * above_base, density)


def _paint_below_floor(scene: Scene, image: FloatArray) -> None:
    """Face, ears and neck below the skull's floor, then the floor itself."""
    frame = scene.frame
    lowest = float(frame.z.min())
    if lowest > 20:
        return
    under = occupancy(-scene.floor_height - FLOOR_MM, scene.floor_blur)
    under = under * occupancy(scene.skin_depth - scene.spec.anatomy.scalp_mm, scene.shell_blur)
    tissue = np.where(frame.y > 30, np.float32(MUSCLE_HU), np.float32(30))
    tissue = np.where(scene.grain > 0.9, np.float32(FAT_HU), tissue)
    bony = (np.abs(scene.folds) < 0.5) & (frame.y < 40)
    tissue = np.where(bony, np.float32(650), tissue)
    airy = (np.abs(frame.x) < 16) & (frame.y < -15) & (frame.y > -75)
    mastoid = (np.abs(frame.x) > 42) & (np.abs(frame.y - 28) < 16)
    tissue = np.where((airy | mastoid) & ~bony, np.float32(-850), tissue)
    paint(image, under, tissue)
    for side in (-1.0, 1.0):
        _paint_ellipsoid(
            scene, image, Ellipsoid((side * 32, -62, -40), (17, 19, 14)), FAT_HU, under
        )
        _paint_ellipsoid(
            scene, image, Ellipsoid((side * 32, -68, -40), (12, 12, 12)), EYE_HU, under
        )
    floor = np.minimum(-scene.floor_height, scene.floor_height + FLOOR_MM)
    share = occupancy(floor, scene.floor_blur)
    share = share * occupancy(scene.skin_depth - scene.spec.anatomy.scalp_mm, scene.shell_blur)
    hole = ((frame.x / 15) ** 2 + ((frame.y - 34) / 17) ** 2) < 1
    paint(image, np.where(hole, np.float32(0), share), BASE_BONE_HU)


def _paint_ellipsoid(
    scene: Scene,
    image: FloatArray,
    shape: Ellipsoid,
    hu: float,
    within: FloatArray | None = None,
) -> None:
    found = shape.share(scene.frame)
    if found is None:
        return
    box, share = found
    paint(image[box], share if within is None else share * within[box], hu)


def _contents(scene: Scene) -> FloatArray:
    """Brain, fluid spaces, falx, tentorium and sinuses; fills ``ventricles`` and ``fluid``."""
    anatomy = scene.spec.anatomy
    frame = scene.frame
    gap_mm = np.float32(0.6 + 3.0 * anatomy.atrophy)
    shallow = scene.brain_depth - gap_mm
    image = _grey_and_white(scene, shallow)
    _paint_deep_grey(scene, image)
    scene.fluid = _fluid_spaces(scene, shallow)
    paint(image, scene.fluid, anatomy.csf_hu)
    scene.ventricles = _ventricles(scene)
    paint(image, scene.ventricles, anatomy.csf_hu)
    image += np.float32(0.9) * scene.grain
    _paint_dura(scene, image)
    if anatomy.vessel_hu is not None:
        vessels = occupancy(np.float32(0.12) - np.abs(scene.folds - 0.1), 0.1)
        near = vessels * (np.abs(scene.grain) < 0.25) * scene.fluid
        paint(image, near, anatomy.vessel_hu)
        sylvian = occupancy(2.0 - np.hypot(np.abs(frame.x) - 42, frame.y + 6), 1.5)
        paint(image, sylvian * (frame.z < 20), anatomy.vessel_hu)
    return image


def _sulcus_width(scene: Scene, shallow: FloatArray) -> FloatArray:
    """Half width of a sulcus in units of the fold field; none in the depth or the cerebellum."""
    reach = np.clip(1 - shallow / np.float32(SULCUS_REACH_MM), 0, 1)
    cerebrum = np.clip((scene.frame.z + 28 + 0.5 * (30 - scene.frame.y)) / 10, 0.25, 1)
    widest = np.float32(0.06 + 0.32 * scene.spec.anatomy.atrophy)
    width: FloatArray = widest * reach * cerebrum
    return width


def _grey_and_white(scene: Scene, shallow: FloatArray) -> FloatArray:
    anatomy = scene.spec.anatomy
    width = _sulcus_width(scene, shallow)
    surface = np.clip(1.5 - shallow / np.float32(CORTEX_MM), 0, 1)
    banks = np.clip((width + 0.45 - np.abs(scene.folds)) * 2.5, 0, 1)
    banks = banks * np.clip(1.4 - shallow / np.float32(SULCUS_REACH_MM), 0, 1)
    grey = np.maximum(surface, banks)
    image: FloatArray = anatomy.white_hu + (anatomy.grey_hu - anatomy.white_hu) * grey
    return image.astype(np.float32)


def _paint_deep_grey(scene: Scene, image: FloatArray) -> None:
    grey = scene.spec.anatomy.grey_hu
    for side in (-1.0, 1.0):
        _paint_ellipsoid(scene, image, Ellipsoid((side * 25, -4, 4), (7, 17, 11), side * 12), grey)
        _paint_ellipsoid(scene, image, Ellipsoid((side * 12, 10, 4), (8, 14, 9), -side * 20), grey)
        _paint_ellipsoid(scene, image, Ellipsoid((side * 14, -20, 8), (5, 8, 12)), grey)


def _fluid_spaces(scene: Scene, shallow: FloatArray) -> FloatArray:
    """Gap below the skull, sulci, the fissure between the hemispheres, cisterns."""
    frame = scene.frame
    gap = 1 - occupancy(shallow, scene.shell_blur)
    width = _sulcus_width(scene, shallow)
    sulci = np.clip((width - np.abs(scene.folds)) * 6 + 0.2, 0, 1) * (width > 0.01)
    atrophy = scene.spec.anatomy.atrophy
    wide = np.float32(1.0 + 1.6 * atrophy)
    fissure = occupancy(wide - np.abs(frame.x), frame.in_plane_blur_mm + 0.5)
    fissure = fissure * np.clip((38 - scene.brain_depth) / 6, 0, 1) * (frame.z > -20)
    fluid: FloatArray = np.maximum(np.maximum(gap, sulci), fissure)
    scale = 0.8 + 0.5 * atrophy
    for shape in _cisterns(scale):
        found = shape.share(frame)
        if found is not None:
            box, share = found
            np.maximum(fluid[box], share, out=fluid[box])
    return fluid


def _cisterns(scale: float) -> tuple[Ellipsoid, ...]:
    s = scale
    sylvian = tuple(
        Ellipsoid((side * 44, -8, -4), (13, 2.2 * s, 15), side * turn)
        for side in (-1.0, 1.0)
        for turn in (20.0,)
    )
    return (
        Ellipsoid((0, -10, -25), (13 * s, 9 * s, 6)),
        Ellipsoid((0, 27, -8), (13 * s, 4 * s, 7)),
        Ellipsoid((13, 16, -20), (3 * s, 9 * s, 7), 20),
        Ellipsoid((-13, 16, -20), (3 * s, 9 * s, 7), -20),
        Ellipsoid((0, 52, -62), (9 * s, 6 * s, 7)),
        *sylvian,
    )


def _ventricles(scene: Scene) -> FloatArray:
    anatomy = scene.spec.anatomy
    share = np.zeros(scene.frame.shape, np.float32)
    shapes = [
        Ellipsoid((0, 4, -4), (1.6 * anatomy.ventricle_scale, 13, 9)),
        Ellipsoid((0, 40, -42), (7, 5, 9)),
    ]
    for side in (-1.0, 1.0):
        shapes += _lateral_ventricle(scene, side)
    for shape in shapes:
        found = shape.share(scene.frame)
        if found is not None:
            box, part = found
            np.maximum(share[box], part, out=share[box])
    return share


def _lateral_ventricle(scene: Scene, side: float) -> list[Ellipsoid]:
    """Frontal horn, body, atrium with occipital horn, temporal horn."""
    anatomy = scene.spec.anatomy
    s = anatomy.ventricle_scale * (1 + side * anatomy.asymmetry / 2)
    shift = anatomy.midline_shift_mm
    return [
        Ellipsoid((side * 10 * s + shift, -22, 10), (4.0 * s, 13, 9), -side * 18),
        Ellipsoid((side * 12 * s + shift, 6, 19), (5.5 * s, 24, 6), side * 8),
        Ellipsoid((side * 23 * s + shift, 40, 6), (5.5 * s, 15 * s, 9), -side * 8),
        Ellipsoid((side * 32 + shift, 6, -22), (2.6 * s, 11, 3.5), side * 15),
    ]


def _paint_dura(scene: Scene, image: FloatArray) -> None:
    """Falx, tentorium, the sagittal and transverse sinuses: all brighter than brain."""
    frame = scene.frame
    anatomy = scene.spec.anatomy
    blur = frame.in_plane_blur_mm
    reach = np.clip((34 - scene.brain_depth) / 5, 0, 1) * (frame.z > -15)
    paint(image, occupancy(0.7 - np.abs(frame.x), blur) * reach, anatomy.falx_hu)
    # The tent rises from the petrous ridges to the midline behind.
    tent = frame.z - (4 - 0.55 * np.abs(frame.x) - 0.25 * (frame.y - 40))
    leaf = occupancy(0.8 - np.abs(tent), frame.blur_mm(0.85)) * (frame.y > 22)
    paint(image, leaf * (np.abs(frame.x) > 6), anatomy.falx_hu)
    outer = np.maximum(frame.y > 10, frame.z > 45)
    sagittal = np.minimum(5.5 - scene.brain_depth, (7 - scene.brain_depth) * 0.6 - np.abs(frame.x))
    paint(image, occupancy(sagittal, blur) * outer * (frame.z > -8), anatomy.sinus_hu)
    near_tent = 4.0 - np.hypot(tent, scene.brain_depth - 2)
    transverse = occupancy(near_tent, blur) * (frame.y > 30) * (np.abs(frame.x) > 8)
    paint(image, transverse, anatomy.sinus_hu)


def _paint_inserts(scene: Scene, image: FloatArray) -> None:
    for insert in scene.spec.anatomy.inserts:
        _paint_ellipsoid(scene, image, Ellipsoid(insert.centre_mm, insert.radii_mm), insert.hu)


def _harden_beam(scene: Scene, image: FloatArray, inside: FloatArray) -> None:
    """Cupping below the skull, and the dark bar between the petrous bones."""
    frame = scene.frame
    cupping = np.float32(scene.spec.acquisition.cupping_hu)
    rim = np.exp(np.float32(-0.09) * np.maximum(scene.brain_depth, 0))
    image += cupping * inside * rim
    if float(frame.z.min()) < -10:
        bar = np.exp(-(((frame.z + 42) / 10) ** 2) - ((frame.y - 12) / 7) ** 2)
        image -= np.float32(1.6) * cupping * inside * bar
