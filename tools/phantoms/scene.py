"""One slice while it is drawn: coordinates, and the depth maps that its parts share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tools.phantoms.frame import FloatArray, Frame, occupancy
from tools.phantoms.spec import Anatomy, PhantomSpec

NECK_SQUEEZE = 0.45
"""Below its middle the head narrows more slowly than an ellipsoid."""


@dataclass(slots=True, kw_only=True)
class Scene:
    """Maps of one slice, each of the slice's shape; filled in the order of drawing."""

    spec: PhantomSpec
    frame: Frame
    folds: FloatArray
    """Cortical folds: sulci where it is near zero; unit variance."""
    grain: FloatArray
    """Unevenness of tissue; unit variance."""
    skin_depth: FloatArray = field(init=False)
    """Depth below the skin, mm."""
    shell_blur: FloatArray = field(init=False)
    """Width over which surfaces parallel to the skin fade, mm."""
    bone_mm: FloatArray = field(init=False)
    """Local thickness of the skull."""
    brain_depth: FloatArray = field(init=False)
    """Depth below the inner table or above the skull's floor, whichever is nearer, mm."""
    floor_height: FloatArray = field(init=False)
    """Height above the skull's floor, mm."""
    ventricles: FloatArray = field(init=False)
    """Share of ventricle in each voxel."""
    fluid: FloatArray = field(init=False)
    """Share of sulci, cisterns and the gap below the skull in each voxel."""
    bleed_shares: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Measure the depths that everything else hangs on."""
        anatomy = self.spec.anatomy
        self.skin_depth, self.shell_blur = _skin_depth(self.frame, anatomy)
        self.bone_mm = np.float32(anatomy.skull_mm) * (1 + np.float32(0.12) * self.grain)
        inner = self.skin_depth - np.float32(anatomy.scalp_mm) - self.bone_mm
        self.floor_height = self.frame.z - floor_mm(self.frame.x, self.frame.y)
        self.brain_depth = np.minimum(inner, self.floor_height)
        self.ventricles = np.zeros(self.frame.shape, np.float32)
        self.fluid = np.zeros(self.frame.shape, np.float32)

    @property
    def floor_blur(self) -> FloatArray:
        """Width over which the skull's floor fades: it lies nearly along the slice."""
        return self.frame.blur_mm(0.8)

    def inside_skull(self) -> FloatArray:
        """Share of each voxel inside the inner table and above the skull's floor."""
        anatomy = self.spec.anatomy
        inner = self.skin_depth - np.float32(anatomy.scalp_mm) - self.bone_mm
        return occupancy(inner, self.shell_blur) * occupancy(self.floor_height, self.floor_blur)


def _skin_depth(frame: Frame, anatomy: Anatomy) -> tuple[FloatArray, FloatArray]:
    """Depth below an egg-shaped skin, and the blur of surfaces parallel to it."""
    a, b, c = (
        np.float32(v) for v in (anatomy.half_width_mm, anatomy.half_length_mm, anatomy.height_mm)
    )
    width = a * (1 + np.float32(anatomy.egg) * np.clip(frame.y / b, -1.2, 1.2))
    u = frame.x / width
    v = frame.y / b
    squeeze = np.where(frame.z > 0, np.float32(1), np.float32(NECK_SQUEEZE))
    w = frame.z * squeeze / c
    level = np.sqrt(u * u + v * v + w * w) + np.float32(1e-6)
    rise = w * squeeze / c
    slope = np.sqrt((u / width) ** 2 + (v / b) ** 2 + rise**2) + np.float32(1e-6)
    return (1 - level) * level / slope, frame.blur_mm(np.abs(rise) / slope)


def floor_mm(x: FloatArray, y: FloatArray) -> FloatArray:
    """Height of the skull's floor: three steps down to the back, petrous ridges, a hole.

    Anterior fossa at -24 mm, middle fossa at -44, posterior fossa at -68.
    """
    side = np.abs(x)
    floor = -24 - 20 * _step((y + 34) / 5) - 24 * _step((y - 12 - 0.35 * side) / 5)
    clivus = 13 * np.exp(-((x / 13) ** 2) - ((y + 4) / 12) ** 2)
    ridge = 20 * np.exp(-(((y - 6 - 0.4 * side) / 6) ** 2)) * _step((side - 16) / 4)
    foramen = -45 * np.exp(-(((x / 15) ** 2 + ((y - 34) / 17) ** 2) ** 2))
    floor_height: FloatArray = (floor + clivus + ridge + foramen).astype(np.float32)
    return floor_height


def _step(value: FloatArray) -> FloatArray:
    """A smooth step from 0 to 1 over about four units."""
    result: FloatArray = np.float32(0.5) + np.float32(0.5) * np.tanh(value)
    return result
