"""Runs a model on as many items as there are, whatever batch it was exported for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.contract import Engine
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
        rule: The package's; a fixed first size is the batch, and the last one is filled up.
        items: (items, ...) in the rule's layout, at least one.

    Returns:
        Each output by name, its first axis as long as that of ``items``.

    Raises:
        EngineError: The engine failed.
    """
    count = len(items)
    batch = min(count, MOST_ITEMS) if rule.shape[0] == FREE else rule.shape[0]
    parts = []
    for start in range(0, count, batch):
        part = items[start : start + batch]
        missing = batch - len(part) if rule.shape[0] != FREE else 0
        if missing:
            part = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])
        parts.append(engine.run({rule.name: part}))
    if len(parts) == 1:
        return {name: array[:count] for name, array in parts[0].items()}
    return {name: np.concatenate([each[name] for each in parts])[:count] for name in parts[0]}
