"""The layers of a network or an engine: which there are, and which a DLA does not take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.errors import EngineLoadError
from engines.tensorrt.interface import BuilderConfig, CudaEngine, Network, TensorRtModule


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """A layer as the engine runs it: several of the model's may have become one.

    Attributes:
        name: Made of the names in the model.
        kind: The vendor's word; empty where the engine was built without details.
        formats: Number formats and layouts of its outputs, in the vendor's words.
    """

    name: str
    kind: str
    formats: tuple[str, ...]


def fallen_back(config: BuilderConfig, network: Network) -> tuple[str, ...]:
    """Returns the names of the layers that the DLA does not take, in order."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def inspect_layers(module: TensorRtModule, engine: CudaEngine) -> tuple[EngineLayer, ...]:
    """Asks an engine for its layers, in the order in which they run.

    Raises:
        EngineLoadError: The engine's answer is none.
    """
    inspector = engine.create_engine_inspector()
    return parse_layers(inspector.get_engine_information(module.LayerInformationFormat.JSON))


def parse_layers(text: str) -> tuple[EngineLayer, ...]:
    """Reads the inspector's JSON: objects where details were kept, else names.

    Raises:
        EngineLoadError: It is not of that form.
    """
    try:
        return tuple(_layer(entry) for entry in json.loads(text)["Layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise EngineLoadError(
            f"the engine does not say what its layers are ({type(error).__name__}: {error}); "
            "build it again with `edge-triage engines build`"
        ) from error


def _layer(entry: str | Mapping[str, Any]) -> EngineLayer:
    if isinstance(entry, str):
        return EngineLayer(name=entry, kind="", formats=())
    return EngineLayer(
        name=str(entry["Name"]),
        kind=str(entry.get("LayerType", "")),
        formats=tuple(str(each.get("Format/Datatype", "")) for each in entry.get("Outputs", ())),
    )
