"""What a head phantom is made of: closed, frozen values, and how a seed draws them.

A specification is the ground truth: the renderer adds nothing that is not written here. Lengths
are millimetres in head coordinates (x to the patient's left, y to the back, z to the top, origin
in the middle of the cranium); densities are Hounsfield units (HU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from tools.phantoms.errors import PhantomUsageError

Point = tuple[float, float, float]

COVERAGE_MM = 150.0
"""From the foramen magnum to above the vertex of a large head."""
MAX_SPACING_MM = 5.0
MIN_SPACING_MM = 0.3
LOWEST_SLICE_MM = -58.0
"""Of the first slice, relative to the middle of the cranium."""
MAX_SLICES = 4_000
MAX_MATRIX = 1_024


class BleedKind(str, Enum):
    """The five types of intracranial bleed that the generator draws."""

    EPIDURAL = "epidural"
    SUBDURAL = "subdural"
    SUBARACHNOID = "subarachnoid"
    INTRAPARENCHYMAL = "intraparenchymal"
    INTRAVENTRICULAR = "intraventricular"


class Kernel(str, Enum):
    """Reconstruction kernel: how sharp the image and how coarse its noise."""

    SOFT = "soft"
    STANDARD = "standard"
    BONE = "bone"


class Filling(str, Enum):
    """What fills the skull."""

    BRAIN = "brain"
    QA_INSERTS = "qa_inserts"
    """Air with plastic cylinders and blocks, like a quality-assurance phantom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bleed:
    """One bleed. ``size_mm`` is the radius of a lump, or the thickness of a layer."""

    kind: BleedKind
    centre_mm: Point
    """Of a lump; a point towards which a layer on the brain's surface lies."""
    size_mm: float
    spread_deg: float
    """Half angle of a layer seen from the middle of the head; unused by lumps."""
    elongation: Point
    """Factors on ``size_mm`` along x, y and z."""
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """An ellipsoid that is no bleed: a calcification, an old infarct, a plastic rod."""

    centre_mm: Point
    radii_mm: Point
    hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One invented head."""

    half_width_mm: float
    half_length_mm: float
    height_mm: float
    egg: float
    """How much wider the back of the head is than its front, as a fraction."""
    scalp_mm: float
    skull_mm: float
    skull_hu: float
    grey_hu: float
    white_hu: float
    csf_hu: float
    atrophy: float
    """0 a young brain, 1 wide sulci and a gap below the skull."""
    ventricle_scale: float
    asymmetry: float
    """Left ventricle's size over the right's, minus one."""
    sinus_hu: float
    """Venous blood in the superior sagittal sinus: bright, and normal."""
    falx_hu: float
    midline_shift_mm: float
    inserts: tuple[Insert, ...]
    filling: Filling = Filling.BRAIN
    vessel_hu: float | None = None
    """Of contrast-filled vessels; None without contrast agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How the head lies in the scanner."""

    shift_mm: tuple[float, float]
    roll_deg: float
    """About the long axis; ``pitch`` nods, ``yaw`` leans to a shoulder."""
    pitch_deg: float
    yaw_deg: float
    motion_mm: float
    """Double contour of a head that moved; 0 for a quiet one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How the slices are taken."""

    slices: int
    spacing_mm: float
    thickness_mm: float
    first_mm: float
    matrix: int
    pixel_mm: float
    kernel: Kernel
    tube_mas: float
    noise_hu: float
    """Standard deviation in the middle of the head in a native 0.45 mm pixel."""
    cupping_hu: float
    """Beam hardening: brightening below the skull, darkening between the petrous bones."""
    kvp: int
    gantry_tilt_deg: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """All of one phantom; equal specifications give equal pixels."""

    seed: int
    anatomy: Anatomy
    placement: Placement
    acquisition: Acquisition
    bleeds: tuple[Bleed, ...]

    @property
    def positive(self) -> bool:
        """True when there is a bleed to be found."""
        return bool(self.bleeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquisitionChoice:
    """What a caller may fix; the seed draws the rest."""

    slices: int = 32
    matrix: int = 512
    spacing_mm: float | None = None
    thickness_mm: float | None = None
    gantry_tilt_deg: float = 0.0
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        """Refuse what no scanner makes.

        Raises:
            PhantomUsageError: a value is outside its bounds.
        """
        if not 1 <= self.slices <= MAX_SLICES:
            raise PhantomUsageError(f"slices: choose 1 to {MAX_SLICES}, not {self.slices}")
        if not 32 <= self.matrix <= MAX_MATRIX or self.matrix % 2:
            raise PhantomUsageError(
                f"matrix: choose an even number from 32 to {MAX_MATRIX}, not {self.matrix}"
            )


def draw_spec(
    seed: int,
    *,
    bleed: BleedKind | None = None,
    positive: bool = False,
    choice: AcquisitionChoice | None = None,
    filling: Filling = Filling.BRAIN,
    contrast: bool = False,
) -> PhantomSpec:
    """Draw one phantom.

    Args:
        seed: everything random comes from it; any integer ≥ 0.
        bleed: the type of bleed to draw; None lets the seed choose if ``positive``.
        positive: draw a bleed.
        choice: what the caller fixes of the acquisition.
        filling: brain, or the inserts of a quality-assurance phantom (which never bleeds).
        contrast: contrast-filled vessels.

    Raises:
        PhantomUsageError: the seed is negative, or a bleed is asked of a phantom without brain.
    """
    if seed < 0:
        raise PhantomUsageError(f"seed: choose 0 or more, not {seed}")
    wanted = positive or bleed is not None
    if wanted and filling is not Filling.BRAIN:
        raise PhantomUsageError("a quality-assurance phantom has no brain and cannot bleed")
    anatomy_rng, place_rng, scan_rng, bleed_rng = (
        np.random.default_rng([seed, stream]) for stream in range(4)
    )
    bleeds: tuple[Bleed, ...] = ()
    anatomy = _draw_anatomy(anatomy_rng, filling=filling, contrast=contrast)
    if wanted:
        kind = bleed or tuple(BleedKind)[int(bleed_rng.integers(len(BleedKind)))]
        bleeds = (_draw_bleed(bleed_rng, kind, anatomy),)
    return PhantomSpec(
        seed=seed,
        anatomy=anatomy,
        placement=_draw_placement(place_rng),
        acquisition=_draw_acquisition(scan_rng, choice or AcquisitionChoice(), bleeds),
        bleeds=bleeds,
    )


def _draw_anatomy(rng: np.random.Generator, *, filling: Filling, contrast: bool) -> Anatomy:
    atrophy = float(rng.beta(1.5, 2.0))
    calcifications = (
        _draw_calcifications(rng) if filling is Filling.BRAIN else _draw_plastic_inserts(rng)
    )
    return Anatomy(
        half_width_mm=float(rng.normal(77, 3)),
        half_length_mm=float(rng.normal(96, 4)),
        height_mm=float(rng.normal(89, 3)),
        egg=float(rng.uniform(0.02, 0.14)),
        scalp_mm=float(rng.uniform(4, 9)),
        skull_mm=float(rng.uniform(4.5, 9)),
        skull_hu=float(rng.uniform(900, 1500)),
        grey_hu=float(rng.normal(37.5, 1.2)),
        white_hu=float(rng.normal(29.0, 1.2)),
        csf_hu=float(rng.uniform(2, 9)),
        atrophy=atrophy,
        ventricle_scale=float(np.clip(0.75 + 0.6 * atrophy + rng.normal(0, 0.12), 0.6, 1.7)),
        asymmetry=float(rng.normal(0, 0.08)),
        sinus_hu=float(rng.uniform(44, 62)),
        falx_hu=float(rng.uniform(40, 58)),
        midline_shift_mm=0.0,
        inserts=calcifications,
        filling=filling,
        vessel_hu=float(rng.uniform(150, 350)) if contrast else None,
    )


def _draw_calcifications(rng: np.random.Generator) -> tuple[Insert, ...]:
    """Pineal gland, choroid plexus, falx, basal ganglia; and now and then an old infarct."""
    spots: list[Insert] = []

    def add(
        chance: float, centre: Point, radii: tuple[float, float], hu: tuple[float, float]
    ) -> None:
        if rng.random() < chance:
            place = tuple(float(c + rng.normal(0, 1.0)) for c in centre)
            size = tuple(float(r) for r in rng.uniform(*radii, size=3))
            density = float(rng.uniform(*hu))
            spots.append(
                Insert(
                    centre_mm=(place[0], place[1], place[2]),
                    radii_mm=(size[0], size[1], size[2]),
                    hu=density,
                )
            )

    add(0.7, (0, 22, 1), (1.2, 3.2), (110, 420))
    for side in (-1, 1):
        add(0.5, (side * 25, 34, 4), (1.5, 4.5), (100, 420))
        add(0.15, (side * 20, -8, 2), (1.5, 4.0), (90, 250))
        add(
            0.08,
            (side * float(rng.uniform(30, 45)), float(rng.uniform(-20, 40)), 20),
            (9, 20),
            (14, 22),
        )
    add(0.2, (0, -35, 48), (1.0, 3.0), (150, 600))
    return tuple(spots)


def _draw_plastic_inserts(rng: np.random.Generator) -> tuple[Insert, ...]:
    inserts = []
    for _ in range(int(rng.integers(2, 9))):
        height = float(rng.uniform(8, 60))
        radius = float(rng.uniform(2, 16))
        inserts.append(
            Insert(
                centre_mm=(
                    float(rng.uniform(-40, 40)),
                    float(rng.uniform(-55, 55)),
                    float(rng.uniform(-40, 40)),
                ),
                radii_mm=(radius, radius * float(rng.uniform(0.7, 1.4)), height),
                hu=float(rng.choice((20.0, 45.0, 65.0, 90.0, 120.0, 130.0, 340.0, 900.0))),
            )
        )
    return tuple(inserts)


def _draw_placement(rng: np.random.Generator) -> Placement:
    return Placement(
        shift_mm=(float(rng.normal(0, 4)), float(rng.normal(0, 5))),
        roll_deg=float(rng.normal(0, 4)),
        pitch_deg=float(rng.normal(0, 4)),
        yaw_deg=float(rng.normal(0, 2)),
        motion_mm=float(rng.uniform(0.8, 3.0)) if rng.random() < 0.12 else 0.0,
    )


def _draw_acquisition(
    rng: np.random.Generator, choice: AcquisitionChoice, bleeds: tuple[Bleed, ...]
) -> Acquisition:
    spacing = choice.spacing_mm or float(
        np.clip(round(COVERAGE_MM / choice.slices, 3), MIN_SPACING_MM, MAX_SPACING_MM)
    )
    thickness = choice.thickness_mm or spacing
    kernel = choice.kernel or (Kernel.SOFT if rng.random() < 0.5 else Kernel.STANDARD)
    tube_mas = float(rng.uniform(120, 380))
    return Acquisition(
        slices=choice.slices,
        spacing_mm=spacing,
        thickness_mm=thickness,
        first_mm=_first_slice(choice.slices, spacing, bleeds),
        matrix=choice.matrix,
        pixel_mm=round(float(rng.uniform(215, 245)) / choice.matrix, 6),
        kernel=kernel,
        tube_mas=round(tube_mas),
        noise_hu=_noise_hu(kernel, thickness, tube_mas),
        cupping_hu=float(rng.uniform(0, 7)),
        kvp=int(rng.choice((100, 120, 120, 120, 140))),
        gantry_tilt_deg=choice.gantry_tilt_deg,
    )


def _noise_hu(kernel: Kernel, thickness_mm: float, tube_mas: float) -> float:
    """Photon noise: falls with the square root of the dose and of the slice's thickness."""
    by_kernel = {Kernel.SOFT: 3.2, Kernel.STANDARD: 4.4, Kernel.BONE: 14.0}
    noise = by_kernel[kernel] * math.sqrt(5.0 / thickness_mm) * math.sqrt(250.0 / tube_mas)
    # Tube-current modulation keeps thin slices readable.
    return min(noise, 4.0 * by_kernel[kernel])


def _first_slice(slices: int, spacing_mm: float, bleeds: tuple[Bleed, ...]) -> float:
    """Height of the lowest slice; a stack too short for the head is laid around the bleed."""
    extent = slices * spacing_mm
    if extent >= 0.8 * COVERAGE_MM:
        return LOWEST_SLICE_MM
    middle = bleeds[0].centre_mm[2] if bleeds else 10.0
    lowest = middle - extent / 2
    return float(np.clip(lowest, LOWEST_SLICE_MM, LOWEST_SLICE_MM + COVERAGE_MM - extent))


def _draw_bleed(rng: np.random.Generator, kind: BleedKind, anatomy: Anatomy) -> Bleed:
    hu = float(rng.uniform(50, 85))
    if kind is BleedKind.INTRAPARENCHYMAL:
        return _draw_intraparenchymal(rng, hu)
    if kind is BleedKind.INTRAVENTRICULAR:
        return _draw_intraventricular(rng, hu, anatomy)
    return _draw_surface_bleed(rng, kind, hu)


def _draw_intraparenchymal(rng: np.random.Generator, hu: float) -> Bleed:
    side = float(rng.choice((-1, 1)))
    places: tuple[Point, ...] = (
        (side * 24, -4, 4),  # putamen
        (side * 12, 8, 4),  # thalamus
        (side * 35, -45, 20),  # frontal lobe
        (side * 40, 35, 25),  # parietal lobe
        (side * 45, 5, -18),  # temporal lobe
        (side * 20, 48, -42),  # cerebellum
    )
    place = places[int(rng.integers(len(places)))]
    # Volumes from about 0.3 to 60 ml, small ones as frequent as large ones.
    radius = float(np.exp(rng.uniform(math.log(4.0), math.log(24.0))))
    stretch = rng.uniform(0.8, 1.3, size=3)
    return Bleed(
        kind=BleedKind.INTRAPARENCHYMAL,
        centre_mm=_jitter(rng, place, 4.0),
        size_mm=radius,
        spread_deg=0.0,
        elongation=(float(stretch[0]), float(stretch[1]), float(stretch[2])),
        hu=hu,
    )


def _draw_intraventricular(rng: np.random.Generator, hu: float, anatomy: Anatomy) -> Bleed:
    side = float(rng.choice((-1, 1)))
    scale = anatomy.ventricle_scale
    place: Point = (side * 20 * scale, 42, 6) if rng.random() < 0.6 else (side * 12 * scale, -6, 14)
    return Bleed(
        kind=BleedKind.INTRAVENTRICULAR,
        centre_mm=_jitter(rng, place, 3.0),
        size_mm=float(rng.uniform(8, 34)),
        spread_deg=0.0,
        elongation=(1.0, 1.0, 1.0),
        hu=hu,
    )


def _draw_surface_bleed(rng: np.random.Generator, kind: BleedKind, hu: float) -> Bleed:
    """Bleeds between the skull and the brain: a direction, a thickness, an angle."""
    side = float(rng.choice((-1, 1)))
    azimuth = math.radians(float(rng.uniform(-55, 55)))
    height = math.radians(float(rng.uniform(-5, 50)))
    direction: Point = (
        side * 60 * math.cos(azimuth) * math.cos(height),
        75 * math.sin(azimuth) * math.cos(height),
        65 * math.sin(height),
    )
    sizes = {
        BleedKind.EPIDURAL: ((5.0, 24.0), (14.0, 34.0)),
        BleedKind.SUBDURAL: ((2.0, 13.0), (22.0, 60.0)),
        BleedKind.SUBARACHNOID: ((2.0, 4.5), (14.0, 50.0)),
    }
    thickness, spread = sizes[kind]
    if kind is BleedKind.SUBARACHNOID:
        # Blood thinned by cerebrospinal fluid is fainter than a clot; cisterns as often as sulci.
        hu = float(rng.uniform(50, 72))
        if rng.random() < 0.5:
            direction = (side * 8, -12, -24)
    return Bleed(
        kind=kind,
        centre_mm=direction,
        size_mm=float(rng.uniform(*thickness)),
        spread_deg=float(rng.uniform(*spread)),
        elongation=(1.0, 1.0, 1.0),
        hu=hu,
    )


def _jitter(rng: np.random.Generator, place: Point, sigma_mm: float) -> Point:
    x, y, z = (float(value + rng.normal(0, sigma_mm)) for value in place)
    return (x, y, z)
