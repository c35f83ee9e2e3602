"""Phantoms as the network sees them: drawn, and taken through the device's own preprocessing.

The slabs are kept in HU, because windows and neighbours are cheap and are applied when they are
needed. Files are written to a folder of the caller's, never into the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.preprocessing.collecting import average_item, slice_faces
from engines.preprocessing.running import channels_of, plan_items, prepare
from engines.preprocessing.values import Picture, StoredImage, Turn
from engines.steps import AverageSlabs
from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet, phantom_of, table_mm
from tools.phantoms.frame import SliceGeometry
from tools.phantoms.head_ct import HeadPhantom
from tools.phantoms.spec import BleedKind, Filling, PhantomSpec
from tools.phantoms.workers import drawing_processes

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStudy:
    """One phantom as the network's preprocessing sees it."""

    seed: int
    kind: BleedKind | None
    plastic: bool
    volume_ml: float
    """Of the bleed that the slices show; 0 without one."""
    contrast_hu: float
    """Of the bleed above grey matter; 0 without one."""
    noise_hu: float
    spacing_mm: float
    """Of the slices, which are as thick as they are apart."""
    tilt_deg: float
    slab_hu: Float32
    """(N, rows, columns) of the recipe's grid."""
    slab_ml: Float32
    """(N,) bleed in each slab."""

    @property
    def positive(self) -> bool:
        """True when a bleed was drawn."""
        return self.kind is not None


def channels(slab_hu: Float32) -> Float32:
    """The network's input (N, C, H, W) of slabs in HU (N, H, W)."""
    return np.ascontiguousarray(channels_of(slab_hu, recipe.STEPS))


def simulate(
    spec: PhantomSpec, *, slabs: AverageSlabs = recipe.SLABS, table: float = 0.0
) -> SimulatedStudy:
    """Draw a phantom and preprocess it.

    Args:
        spec: what to draw.
        slabs: where slabs begin.
        table: the head's origin along the table, mm.
    """
    phantom = HeadPhantom(spec)
    pictures: list[Picture] = []
    bleed_mm2: list[float] = []
    for index in range(spec.acquisition.slices):
        geometry = phantom.geometry(index)
        drawn = phantom.draw(geometry, noise_stream=index)
        image = stored_image(drawn.hu, geometry, table)
        pictures.append(prepare(image, recipe.STEPS))
        bleed_mm2.append(drawn.bleed_mm2)
    slab_hu, slab_ml = make_slabs(pictures, np.array(bleed_mm2), slabs)
    bleed = spec.bleeds[0] if spec.bleeds else None
    return SimulatedStudy(
        seed=spec.seed,
        kind=bleed.kind if bleed else None,
        plastic=spec.anatomy.filling is Filling.QA_INSERTS,
        volume_ml=float(slab_ml.sum()),
        contrast_hu=bleed.hu - spec.anatomy.grey_hu if bleed else 0.0,
        noise_hu=spec.acquisition.noise_hu,
        spacing_mm=spec.acquisition.spacing_mm,
        tilt_deg=spec.acquisition.gantry_tilt_deg,
        slab_hu=slab_hu,
        slab_ml=slab_ml,
    )


def stored_image(hu: NDArray[np.int16], geometry: SliceGeometry, table: float) -> StoredImage:
    """The slice as the device reads it from a file that stores HU."""
    x, y, z = geometry.position_mm
    return StoredImage(
        pixels=hu,
        is_signed=True,
        spacing_mm=(geometry.pixel_mm, geometry.pixel_mm),
        turn=Turn(),
        position_mm=float(np.dot((x, y, z + table), geometry.normal)),
        thickness_mm=geometry.thickness_mm,
    )


def make_slabs(
    pictures: list[Picture], bleed_mm2: Float64, slabs: AverageSlabs
) -> tuple[Float32, Float32]:
    """Slabs in HU (N, rows, columns), and the millilitres of bleed in each (N,).

    Args:
        pictures: of all slices, from the feet to the head.
        bleed_mm2: area of bleed in each slice.
        slabs: where slabs begin.
    """
    positions = [picture.position_mm for picture in pictures]
    items = plan_items(positions, [picture.thickness_mm for picture in pictures], slabs)
    slab_hu = np.stack([average_item(pictures, item) for item in items])
    faces = slice_faces(
        np.array(positions, dtype=np.float64), pictures[0].thickness_mm or 0.0, slabs.thickness_mm
    )
    start = faces[0] if slabs.origin == "first_slice" else 0.0
    edges = start + slabs.thickness_mm * np.arange(items[0].index, items[-1].index + 2)
    edges[0], edges[-1] = min(edges[0], faces[0]), max(edges[-1], faces[-1])
    below = np.concatenate(([0.0], np.cumsum(bleed_mm2 * np.diff(faces))))
    return slab_hu, np.diff(np.interp(edges, faces, below) / 1000.0).astype(np.float32)


def simulate_set(
    phantoms: PhantomSet, count: int, *, matrix: int, folder: Path, processes: int
) -> Iterator[SimulatedStudy]:
    """The first ``count`` phantoms of a set, in order; drawn once, then read from ``folder``."""
    slabs = recipe.SLABS if phantoms.measures else recipe.TRAINING_SLABS
    target = folder / f"{phantoms.value}-{matrix}-{slabs.origin}"
    target.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(count) if not _file(target, number).exists()]
    jobs = [(phantoms, number, matrix, target) for number in missing]
    with drawing_processes(processes) as pool:
        for _ in pool.map(_simulate_to_file, jobs, chunksize=8):
            pass
    for number in range(count):
        yield _read(_file(target, number))


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _simulate_to_file(job: tuple[PhantomSet, int, int, Path]) -> None:
    phantoms, number, matrix, folder = job
    spec = phantom_of(phantoms, number, matrix=matrix)
    slabs = recipe.SLABS if phantoms.measures else recipe.TRAINING_SLABS
    write_study(simulate(spec, slabs=slabs, table=table_mm(phantoms, spec)), _file(folder, number))


def write_study(study: SimulatedStudy, path: Path) -> None:
    """Keep a simulated study."""
    temporary = path.with_suffix(".part.npz")
    facts = (
        study.seed,
        study.volume_ml,
        study.contrast_hu,
        study.noise_hu,
        study.spacing_mm,
        study.tilt_deg,
    )
    np.savez(
        temporary,
        facts=np.array(facts),
        kind=np.array(study.kind.value if study.kind else ""),
        plastic=np.array(study.plastic),
        slab_hu=study.slab_hu.astype(np.float16),
        slab_ml=study.slab_ml,
    )
    temporary.replace(path)


def _read(path: Path) -> SimulatedStudy:
    with np.load(path, allow_pickle=False) as stored:
        seed, volume_ml, contrast_hu, noise_hu, spacing_mm, tilt_deg = (
            float(fact) for fact in stored["facts"]
        )
        kind = str(stored["kind"])
        return SimulatedStudy(
            seed=int(seed),
            kind=BleedKind(kind) if kind else None,
            plastic=bool(stored["plastic"]),
            volume_ml=volume_ml,
            contrast_hu=contrast_hu,
            noise_hu=noise_hu,
            spacing_mm=spacing_mm,
            tilt_deg=tilt_deg,
            slab_hu=stored["slab_hu"].astype(np.float32),
            slab_ml=stored["slab_ml"],
        )
