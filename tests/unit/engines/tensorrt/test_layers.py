"""What an engine, or a DLA, says of the layers."""

from __future__ import annotations

import json

import pytest

from engines.errors import EngineLoadError
from engines.tensorrt.layers import EngineLayer, parse_layers


def test_layers_are_read_with_their_kind_and_their_formats() -> None:
    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "conv1 + relu1",
                    "LayerType": "CaskConvolution",
                    "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
                    "Outputs": [{"Name": "y", "Format/Datatype": "Half"}],
                },
                {"Name": "head", "LayerType": "gemm", "Outputs": []},
            ],
            "Bindings": ["x", "y"],
        }
    )
    assert parse_layers(text) == (
        EngineLayer(name="conv1 + relu1", kind="CaskConvolution", formats=("Half",)),
        EngineLayer(name="head", kind="gemm", formats=()),
    )


def test_layers_of_an_engine_without_details_have_names_alone() -> None:
    assert parse_layers('{"Layers": ["a", "b"]}') == (
        EngineLayer(name="a", kind="", formats=()),
        EngineLayer(name="b", kind="", formats=()),
    )


@pytest.mark.parametrize(
    "text", ["", "no JSON", "{}", "[]", '{"Layers": 3}', '{"Layers": [{"Kind": "x"}]}', "null"]
)
def test_an_answer_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(EngineLoadError, match="does not say what its layers are"):
        parse_layers(text)
