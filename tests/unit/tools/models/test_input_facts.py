"""What an ONNX file's boundary says, and which boundaries no package can hold."""

from __future__ import annotations

import pytest

from engines.onnx_checks import Boundary, BoundaryTensor
from engines.package import Layout
from tools.models.errors import UnfitModelError
from tools.models.input_facts import input_facts, output_facts


def boundary(*outputs: tuple[int, ...], inputs: int = 1, shape: tuple[int, ...]) -> Boundary:
    def tensor(name: str, shape: tuple[int, ...]) -> BoundaryTensor:
        return BoundaryTensor(name=name, dtype="float32", shape=shape)

    return Boundary(
        inputs=tuple(tensor(f"in{number}", shape) for number in range(inputs)),
        outputs=tuple(tensor(f"out{number}", each) for number, each in enumerate(outputs)),
    )


def test_sizes_follow_the_layout() -> None:
    facts = input_facts(boundary((-1,), shape=(-1, 9, 96, 80, -1)))
    assert (facts.layout, facts.channels, facts.columns) == (Layout.NCDHW, 9, -1)
    facts = input_facts(boundary((-1,), shape=(-1, 48, 112, 80, 2)))
    assert (facts.layout, facts.channels) == (Layout.NDHWC, 2)
    assert (facts.slices, facts.rows, facts.columns) == (48, 112, 80)


def test_each_output_tells_how_many_numbers_an_item_has() -> None:
    facts = output_facts(boundary((-1,), (-1, 18), (-1, 7, 3), shape=(-1, 1, 8, 8)))
    assert [output.elements for output in facts] == [1, 18, 3]


@pytest.mark.parametrize(("inputs", "words"), [(0, "this one has none"), (2, "has in0, in1")])
def test_a_model_has_one_input(inputs: int, words: str) -> None:
    with pytest.raises(UnfitModelError, match=words):
        input_facts(boundary((-1,), inputs=inputs, shape=(-1, 1, 8, 8)))


@pytest.mark.parametrize(
    ("shape", "words"),
    [((), "first axis"), ((1,), "first axis"), ((-1, -1), "a fixed number of numbers")],
)
def test_outputs_have_the_items_first_and_a_fixed_last_axis(
    shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(UnfitModelError, match=words):
        output_facts(boundary(shape, shape=(-1, 1, 8, 8)))
