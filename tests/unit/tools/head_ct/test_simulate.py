from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dicom_node.headers import read_headers
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.preprocess import prepare_image
from engines.preprocessing.running import assemble
from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.simulate import channels, simulate, simulate_set
from tools.phantoms.head_ct import HeadPhantom
from tools.phantoms.headers import Style, style_for
from tools.phantoms.spec import AcquisitionChoice, BleedKind, PhantomSpec, draw_spec
from tools.phantoms.variants import PhantomName, make_study, write_study

MATRIX = 64


def still(spec: PhantomSpec) -> PhantomSpec:
    """The same head, quiet."""
    placement = dataclasses.replace(spec.placement, motion_mm=0.0)
    return dataclasses.replace(spec, placement=placement)


@pytest.mark.parametrize("table", [0.0, -13.7])
def test_slabs_hold_the_bleed_that_was_drawn(table: float) -> None:
    spec = still(
        draw_spec(
            8,
            bleed=BleedKind.INTRAPARENCHYMAL,
            choice=AcquisitionChoice(slices=75, spacing_mm=2.0, thickness_mm=2.0, matrix=128),
        )
    )
    study = simulate(spec, table=table)
    (truth,) = HeadPhantom(spec).truth()

    assert study.positive
    assert study.slab_ml.sum() == pytest.approx(study.volume_ml)
    assert study.volume_ml == pytest.approx(truth.volume_ml, rel=0.1, abs=0.1)
    brightest = int(study.slab_ml.argmax())
    height = spec.acquisition.first_mm + brightest * recipe.SLAB_MM
    assert abs(height - truth.centre_mm[2]) < 2 * recipe.SLAB_MM


def test_where_slabs_begin_does_not_change_what_they_hold_together() -> None:
    spec = draw_spec(
        8, bleed=BleedKind.SUBDURAL, choice=AcquisitionChoice(slices=30, matrix=MATRIX)
    )
    volumes = [
        simulate(spec, slabs=slabs, table=table).volume_ml
        for slabs, table in (
            (recipe.TRAINING_SLABS, 0.0),
            (recipe.SLABS, 0.0),
            (recipe.SLABS, 2.2),
        )
    ]

    assert volumes == pytest.approx([volumes[0]] * 3, rel=1e-5)


def test_a_healthy_phantom_has_no_bleed_in_any_slab() -> None:
    study = simulate(
        draw_spec(8, choice=AcquisitionChoice(slices=30, matrix=MATRIX)),
        slabs=recipe.TRAINING_SLABS,
    )

    assert not study.positive
    assert not study.slab_ml.any()
    assert study.slab_hu.shape == (30, recipe.GRID, recipe.GRID)


def test_slabs_at_fixed_places_are_one_more_when_the_head_lies_across_them() -> None:
    spec = draw_spec(8, choice=AcquisitionChoice(slices=10, spacing_mm=5.0, matrix=MATRIX))
    outer_face = spec.acquisition.first_mm - 2.5
    counts = [len(simulate(spec, table=table - outer_face).slab_hu) for table in (0.0, 2.5)]

    assert counts == [10, 11]


def test_channels_are_what_the_package_promises() -> None:
    study = simulate(draw_spec(8, choice=AcquisitionChoice(slices=15, matrix=MATRIX)))
    tensor = channels(study.slab_hu)

    assert tensor.shape == (len(study.slab_hu), *recipe.INPUT.shape[1:])
    assert tensor.dtype == np.float32
    assert tensor.min() >= 0
    assert tensor.max() <= 1


def test_a_simulated_study_is_what_the_device_makes_of_its_files(tmp_path: Path) -> None:
    seed = next(n for n in range(100) if style_for(n) is Style.CANON)
    study = make_study(PhantomName.HEAD_CT, seed=seed, slices=12, matrix=MATRIX)
    silent = dataclasses.replace(study.spec.acquisition, noise_hu=0.0)
    study = dataclasses.replace(study, spec=dataclasses.replace(study.spec, acquisition=silent))
    pictures = []
    for path in write_study(study, tmp_path):
        header, _ = read_headers(path)
        pictures.append(prepare_image(read_pixels(path, header), header, recipe.STEPS))
    lowest = min(picture.position_mm or 0.0 for picture in pictures)
    simulated = simulate(study.spec, table=lowest - study.spec.acquisition.first_mm)

    np.testing.assert_allclose(
        assemble(pictures, recipe.STEPS, recipe.INPUT.layout),
        channels(simulated.slab_hu),
        atol=1e-4,
    )


def test_a_set_is_drawn_once_and_then_read(tmp_path: Path) -> None:
    first, again = (
        list(simulate_set(PhantomSet.SMOKE, 3, matrix=32, folder=tmp_path, processes=1))
        for _ in range(2)
    )

    assert [study.kind for study in first] == [BleedKind.EPIDURAL, None, BleedKind.SUBDURAL]
    assert [study.plastic for study in first] == [False, True, False]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.slab_hu, other.slab_hu)
        assert one.tilt_deg == other.tilt_deg
