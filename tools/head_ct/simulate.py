"""Phantom sets: which phantoms belong to training, calibration and test, and their slabs.

Sets differ in their seeds, so that no head is in two of them. The slabs come out of the device's
own preprocessing; they are kept in HU, because windows and neighbours are cheap and are applied
when they are needed. Files are written to a folder of the caller's, never into the repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.preprocess import (
    PreparedSlice,
    assemble_input,
    prepare_slice,
    slab_faces,
)
from tools.head_ct import recipe
from tools.phantoms.frame import SliceGeometry
from tools.phantoms.head_ct import HeadPhantom
from tools.phantoms.spec import AcquisitionChoice, BleedKind, Filling, PhantomSpec, draw_spec

Float32 = NDArray[np.float32]

KINDS = tuple(BleedKind)
PERIOD = 20
"""Of twenty phantoms ten bleed, two of each type; one of the others is a plastic one."""
QA_PLACE = 1
PARTIAL_SHARE = 0.12
"""Of phantoms whose slices cover only a part of the head."""


class PhantomSet(str, Enum):
    """Sets of phantoms; the value is the name of their files."""

    TRAINING = "training"
    CALIBRATION = "calibration"
    TEST = "test"
    SMOKE = "smoke"

    @property
    def first_seed(self) -> int:
        """Seeds run from here; sets are a million apart."""
        return _FIRST_SEEDS[self]


_FIRST_SEEDS = {
    PhantomSet.TRAINING: 1_000_000,
    PhantomSet.CALIBRATION: 2_000_000,
    # 3,000,000: some were scored while the operating point's target was still open. Not used.
    PhantomSet.SMOKE: 4_000_000,
    PhantomSet.TEST: 5_000_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStudy:
    """One phantom as the network's preprocessing sees it."""

    seed: int
    kind: BleedKind | None
    plastic: bool
    volume_ml: float
    """Of the bleed that the slices show; 0 without one."""
    contrast_hu: float
    noise_hu: float
    spacing_mm: float
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
    slabs = [PreparedSlice(hu=hu, position_mm=None, thickness_mm=None) for hu in slab_hu]
    return assemble_input(slabs, recipe.CHANNEL_STEPS)


def phantom_of(phantoms: PhantomSet, number: int, *, matrix: int) -> PhantomSpec:
    """Specification of one phantom of a set; number and set decide everything."""
    seed = phantoms.first_seed + number
    place = number % PERIOD
    bleeds = place % 2 == 0
    return draw_spec(
        seed,
        bleed=KINDS[(place // 2) % len(KINDS)] if bleeds else None,
        choice=_acquisition(seed, matrix),
        filling=Filling.QA_INSERTS if place == QA_PLACE else Filling.BRAIN,
    )


def _acquisition(seed: int, matrix: int) -> AcquisitionChoice:
    """Thick slices mostly, thin ones now and then, a part of the head sometimes."""
    rng = np.random.default_rng([seed, 5])
    spacing = float(rng.choice((5.0, 5.0, 4.8, 4.0, 3.0, 2.5, 2.5, 1.25, 1.0)))
    extent = float(rng.uniform(70, 110) if rng.random() < PARTIAL_SHARE else rng.uniform(135, 165))
    return AcquisitionChoice(
        slices=round(extent / spacing), matrix=matrix, spacing_mm=spacing, thickness_mm=spacing
    )


def simulate(spec: PhantomSpec) -> SimulatedStudy:
    """Draw a phantom and preprocess it."""
    phantom = HeadPhantom(spec)
    slices: list[PreparedSlice] = []
    bleed_mm2: list[float] = []
    for index in range(spec.acquisition.slices):
        geometry = phantom.geometry(index)
        drawn = phantom.draw(geometry, noise_stream=index)
        slices.append(prepare_slice(drawn.hu, header_of(geometry), recipe.SLAB_STEPS))
        bleed_mm2.append(drawn.bleed_mm2)
    slab_hu = assemble_input(slices, recipe.SLAB_STEPS)[:, 0]
    slab_ml = _by_slab(slices, np.array(bleed_mm2))
    bleed = spec.bleeds[0] if spec.bleeds else None
    return SimulatedStudy(
        seed=spec.seed,
        kind=bleed.kind if bleed else None,
        plastic=spec.anatomy.filling is Filling.QA_INSERTS,
        volume_ml=float(slab_ml.sum()),
        contrast_hu=bleed.hu - spec.anatomy.grey_hu if bleed else 0.0,
        noise_hu=spec.acquisition.noise_hu,
        spacing_mm=spec.acquisition.spacing_mm,
        slab_hu=slab_hu,
        slab_ml=slab_ml,
    )


def header_of(geometry: SliceGeometry) -> InstanceHeader:
    """The header that the device would read of this slice, as far as preprocessing looks."""
    return InstanceHeader(
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        sop_instance_uid="2.25.3",
        sop_class_uid=CTImageStorage,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        modality="CT",
        rows=geometry.rows,
        columns=geometry.columns,
        rescale_slope=1.0,
        rescale_intercept=0.0,
        pixel_spacing_mm=(geometry.pixel_mm, geometry.pixel_mm),
        slice_thickness_mm=geometry.thickness_mm,
        image_position_mm=geometry.position_mm,
        image_orientation=(*geometry.row_cosines, *geometry.column_cosines),
    )


def _by_slab(slices: list[PreparedSlice], bleed_mm2: NDArray[np.float64]) -> Float32:
    """Millilitres of bleed in each slab, from the area in each slice."""
    faces, slab_edges = slab_faces(slices, recipe.SLAB_MM)
    below = np.concatenate(([0.0], np.cumsum(bleed_mm2 * np.diff(faces))))
    return np.diff(np.interp(slab_edges, faces, below) / 1000.0).astype(np.float32)


def simulate_set(
    phantoms: PhantomSet, count: int, *, matrix: int, folder: Path, processes: int
) -> Iterator[SimulatedStudy]:
    """The first ``count`` phantoms of a set, in order; drawn once, then read from ``folder``."""
    target = folder / f"{phantoms.value}-{matrix}"
    target.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(count) if not _file(target, number).exists()]
    jobs = [(phantoms, number, matrix, target) for number in missing]
    # Spawned, so that no worker inherits the threads of a parent's libraries.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_simulate_to_file, jobs, chunksize=8):
            pass
    for number in range(count):
        yield _read(_file(target, number))


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.npz"


def _simulate_to_file(job: tuple[PhantomSet, int, int, Path]) -> None:
    phantoms, number, matrix, folder = job
    study = simulate(phantom_of(phantoms, number, matrix=matrix))
    temporary = folder / f"{number:06d}.part.npz"
    np.savez(
        temporary,
        facts=np.array(
            [study.seed, study.volume_ml, study.contrast_hu, study.noise_hu, study.spacing_mm]
        ),
        kind=np.array(study.kind.value if study.kind else ""),
        plastic=np.array(study.plastic),
        slab_hu=study.slab_hu.astype(np.float16),
        slab_ml=study.slab_ml,
    )
    temporary.replace(_file(folder, number))


def _read(path: Path) -> SimulatedStudy:
    with np.load(path, allow_pickle=False) as stored:
        seed, volume_ml, contrast_hu, noise_hu, spacing_mm = (float(v) for v in stored["facts"])
        kind = str(stored["kind"])
        return SimulatedStudy(
            seed=int(seed),
            kind=BleedKind(kind) if kind else None,
            plastic=bool(stored["plastic"]),
            volume_ml=volume_ml,
            contrast_hu=contrast_hu,
            noise_hu=noise_hu,
            spacing_mm=spacing_mm,
            slab_hu=stored["slab_hu"].astype(np.float32),
            slab_ml=stored["slab_ml"],
        )
