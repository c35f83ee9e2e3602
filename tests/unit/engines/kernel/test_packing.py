"""What Python lays out for the kernel lies where the compiler looks for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.fused import plan_of
from simulators.reference_images import steps_of

from engines.errors import EngineMisuseError, ImageFault, UnfitImagesError
from engines.kernel.compiling import HEADERS, sources
from engines.kernel.layout import CHANNEL, MAP, MEMBER, OP, RECIPE, SLICE, TILE
from engines.kernel.packing import fits, pack_order, pack_recipe, pack_slice
from engines.package import Layout
from engines.preprocessing.collecting import Item
from engines.preprocessing.running import prepare
from engines.preprocessing.values import StoredImage, Turn

STRUCTS = {
    "Slice": SLICE,
    "Map": MAP,
    "Op": OP,
    "Channel": CHANNEL,
    "Recipe": RECIPE,
    "Member": MEMBER,
}
RESCALE = {"step": "rescale", "padding": -1000.0}
INVERT = {"step": "invert_monochrome1"}
TURN = {"step": "canonical_orientation"}
GRID = {"step": "resample_in_plane", "rows": 12, "columns": 10, "pixel_mm": 1.7, "fill": -1000.0}
IMAGES = {"step": "each_image"}


def stored(**fields: Any) -> StoredImage:
    known: dict[str, Any] = {
        "pixels": np.arange(35, dtype=np.int16).reshape(5, 7),
        "spacing_mm": (0.8, 0.4),
    }
    return StoredImage(**{**known, **fields})


def test_every_member_lies_where_the_compiler_has_it(host_image: bytes, tmp_path: Path) -> None:
    assert host_image  # there is a compiler
    for name in HEADERS:
        (tmp_path / name).write_text(sources()[name])
    lines = [
        f'printf("{struct}.{member} %zu\\n", offsetof(edge::{struct}, {member}));'
        for struct, dtype in STRUCTS.items()
        for member in dtype.names or ()
    ]
    lines += [f'printf("{struct} %zu\\n", sizeof(edge::{struct}));' for struct in STRUCTS]
    lines.append('printf("tile %d\\n", (int)edge::TILE);')
    text = '#include <cstddef>\n#include <cstdio>\n#include "arithmetic.h"\nint main()\n{'
    (tmp_path / "print.cpp").write_text(text + "\n".join(lines) + "}\n")
    command = ("c++", "-std=c++17", "-w", "-o", "print", "print.cpp")
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    printed = subprocess.run(
        [tmp_path / "print"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    theirs = {name: int(size) for name, size in map(str.split, printed.splitlines())}
    ours = {
        f"{struct}.{member}": dtype.fields[member][1]
        for struct, dtype in STRUCTS.items()
        for member in dtype.names or ()
        if dtype.fields is not None
    }
    ours |= {struct: dtype.itemsize for struct, dtype in STRUCTS.items()}
    assert theirs == {**ours, "tile": TILE}


@pytest.mark.parametrize("tables", [[], [TURN], [INVERT], [INVERT, TURN]])
@pytest.mark.parametrize(
    "grid",
    [
        GRID,
        {"step": "resize", "rows": 9, "columns": 14},
        {"step": "letterbox", "rows": 9, "columns": 14, "fill": 0},
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"turn": Turn(transpose=True, flip_rows=True), "position_mm": -3.5, "thickness_mm": 2.0},
        {"is_monochrome1": True, "spacing_mm": (0.8, 0.81), "position_mm": float("nan")},
    ],
)
def test_what_is_known_of_a_picture_is_what_prepare_says(
    tables: list[dict[str, Any]], grid: dict[str, Any], fields: dict[str, Any]
) -> None:
    steps = steps_of(RESCALE, *tables, grid, IMAGES)
    ours = pack_slice(stored(**fields), plan_of(steps)).picture
    theirs = prepare(stored(**fields), steps)
    assert ours.values.shape == theirs.values.shape
    assert not any(ours.values.strides)
    for name in ("extremes", "is_monochrome1", "spacing_mm", "turn", "position_mm", "thickness_mm"):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"spacing_mm": None}, ImageFault.GEOMETRY_MISSING),
        ({"spacing_mm": (0.0, 0.4)}, ImageFault.GEOMETRY_MISSING),
        ({"slope": 0.0}, ImageFault.PIXEL_FORMAT),
        ({"slope": 1e300}, ImageFault.PIXEL_FORMAT),
        ({"bits_stored": 17}, ImageFault.PIXEL_FORMAT),
        ({"pixels": np.zeros((0, 4), dtype=np.int16)}, ImageFault.PIXEL_FORMAT),
        (
            {"padding": 0, "padding_limit": 65535, "pixels": np.zeros((4, 4), dtype=np.uint16)},
            ImageFault.PIXEL_FORMAT,
        ),
    ],
)
def test_what_prepare_refuses_is_refused(fields: dict[str, Any], fault: ImageFault) -> None:
    steps = steps_of(RESCALE, TURN, GRID, IMAGES)
    with pytest.raises(UnfitImagesError) as theirs:
        prepare(stored(**fields), steps)
    with pytest.raises(UnfitImagesError) as ours:
        pack_slice(stored(**fields), plan_of(steps))
    assert ours.value.fault is theirs.value.fault is fault
    assert str(ours.value) == str(theirs.value)


def test_pixels_of_more_than_two_bytes_are_not_the_kernels() -> None:
    image = stored(pixels=np.zeros((4, 4), dtype=np.int32))
    assert not fits(image)
    with pytest.raises(EngineMisuseError):
        pack_slice(image, plan_of(steps_of(RESCALE, GRID, IMAGES)))


def test_pixels_are_read_wherever_they_lie_in_memory() -> None:
    plan = plan_of(steps_of(RESCALE, GRID, IMAGES))
    plain = stored()
    slots = []
    for pixels in (
        plain.pixels,
        np.asfortranarray(plain.pixels),
        np.repeat(plain.pixels, 2, axis=1)[:, ::2],
        plain.pixels.astype(np.int8),
        plain.pixels.astype(">i2"),
    ):
        packed = pack_slice(stored(pixels=pixels, bits_stored=8), plan)
        slot = np.full(packed.nbytes + 64, 0xA5, dtype=np.uint8)
        packed.write(slot[: packed.nbytes], 4096)
        assert (slot[packed.nbytes :] == 0xA5).all()
        slots.append(slot[int(packed.header["pixels"][0]) :][:70].view(np.int16).tolist())
    assert all(each == list(range(35)) for each in slots)


def test_weights_take_no_more_room_than_the_image_and_its_grid() -> None:
    grid = {**GRID, "rows": 1024, "columns": 1024, "pixel_mm": 0.1}
    pixels = np.zeros((40_000, 1), dtype=np.int16)
    image = stored(pixels=pixels, spacing_mm=(0.001, 0.001))
    for method in ("area", "linear", "nearest"):
        plan = plan_of(steps_of(RESCALE, {**grid, "method": method}, IMAGES))
        packed = pack_slice(image, plan)
        assert packed.nbytes < 2 * pixels.size + 4 * (40_001 + 8 * 1024) + 8 * 1024 + 256


@pytest.mark.parametrize("layout", list(Layout))
def test_recipes_have_the_steps_of_a_contiguous_input(layout: Layout) -> None:
    plan = plan_of(steps_of(RESCALE, GRID, IMAGES, {"step": "neighbours", "radius": 1}), layout)
    recipe = pack_recipe(plan, 5)[: RECIPE.itemsize].view(RECIPE)[0]
    strides = np.empty(plan.input_shape(5), dtype=np.float32).strides
    steps = dict(zip(layout.value, (stride // 4 for stride in strides), strict=True))
    assert recipe["channel_step"] == steps["C"]
    assert recipe["item_step"] == steps["D" if layout.is_volume else "N"]
    assert recipe["pixel_step"] == steps["W"] == steps["H"] // plan.grid.columns


def test_orders_name_the_pictures_by_their_addresses() -> None:
    items = [
        Item(index=3, members=(0, 2), weights=(0.25, 0.75)),
        Item(index=4, members=(2,), weights=(1.0,)),
    ]
    order = pack_order(items, lambda member: 100 * (member + 1))
    assert order[:12].view(np.int32).tolist() == [0, 2, 3]
    members = order[16 : 16 + 3 * MEMBER.itemsize].view(MEMBER)
    assert members["picture"].tolist() == [100, 300, 300]
    assert members["weight"].tolist() == [0.25, 0.75, 1.0]
