"""Runs a model on as many items as there are, whatever batch it was exported for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.contract import Engine
from engines.errors import EngineOutputError
from engines.package import InputRule
from engines.steps import FREE

MOST_ITEMS = 32
"""At once, of a model whose batch is free: bounds the memory of what lies between the layers."""


def run_batches(
    engine: Engine, rule: InputRule, items: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Runs a loaded engine over all items.

    Args:
        engine: Whose every output has the items along its first axis.
        rule: The package's; a batch of fixed size is filled up.
        items: (items, ...) in the rule's layout, at least one.

    Returns:
        Each output by name, its first axis as long as that of ``items``.

    Raises:
        EngineError: The engine failed.
    """
    count = len(items)
    # An engine may be built for one batch only, though the model takes any.
    built = next((spec.shape[0] for spec in engine.inputs if spec.name == rule.name), FREE)
    size = rule.shape[0] if rule.shape[0] != FREE else built
    most = min(engine.most_items or MOST_ITEMS, MOST_ITEMS)
    batch = min(count, most) if size == FREE else size
    batches = [items[start : start + batch] for start in range(0, count, batch)]
    missing = batch - len(batches[-1]) if size != FREE else 0
    if missing:
        batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], missing, axis=0)])
    if len(batches) == 1:
        answers = iter([engine.run({rule.name: batches[0]})])
    else:
        answers = engine.stream({rule.name: part} for part in batches)
    parts = []
    for part, outputs in zip(batches, answers, strict=True):
        for name, array in outputs.items():
            if array.shape[:1] != (len(part),):
                raise EngineOutputError(
                    f"output {name!r} has shape {array.shape} for an input of {len(part)} items"
                )
        parts.append(outputs)
    if len(parts) == 1:
        return {name: array[:count] for name, array in parts[0].items()}
    return {name: np.concatenate([each[name] for each in parts])[:count] for name in parts[0]}
