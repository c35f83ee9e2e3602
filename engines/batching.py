"""Runs a model on as many items as there are, whatever batch it was exported for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.contract import Engine
from engines.errors import EngineOutputError
from engines.package import InputRule
from engines.steps import FREE

MOST_ITEMS = 32
"""At once, of a model whose batch is free: bounds the memory of what lies between the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How many items go together."""

    size: int
    is_fixed: bool
    """Fewer are filled up."""


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
    batch = batch_of(engine, rule, count)
    batches = [items[start : start + batch.size] for start in range(0, count, batch.size)]
    missing = batch.size - len(batches[-1]) if batch.is_fixed else 0
    if missing:
        batches[-1] = np.concatenate([batches[-1], np.repeat(batches[-1][-1:], missing, axis=0)])
    if len(batches) == 1:
        answers = iter([engine.run({rule.name: batches[0]})])
    else:
        answers = engine.stream({rule.name: part} for part in batches)
    return joined(zip(map(len, batches), answers, strict=True), count)


def batch_of(engine: Engine, rule: InputRule, count: int) -> Batch:
    """Returns how many of so many items go together."""
    # An engine may be built for one batch only, though the model takes any.
    built = next((spec.shape[0] for spec in engine.inputs if spec.name == rule.name), FREE)
    size = rule.shape[0] if rule.shape[0] != FREE else built
    if size != FREE:
        return Batch(size=size, is_fixed=True)
    most = min(engine.most_items or MOST_ITEMS, MOST_ITEMS)
    return Batch(size=min(count, most), is_fixed=False)


def joined(
    parts: Iterable[tuple[int, dict[str, NDArray[np.float32]]]], count: int
) -> dict[str, NDArray[np.float32]]:
    """Puts the outputs of batches together.

    Args:
        parts: For each batch how many items it had, and its outputs.
        count: How many items there are; what lies behind them filled up a batch.

    Raises:
        EngineOutputError: An output has not a row for each item.
    """
    answers = []
    for items, outputs in parts:
        for name, array in outputs.items():
            if array.shape[:1] != (items,):
                raise EngineOutputError(
                    f"output {name!r} has shape {array.shape} for an input of {items} items"
                )
        answers.append(outputs)
    if len(answers) == 1:
        return {name: array[:count] for name, array in answers[0].items()}
    return {name: np.concatenate([each[name] for each in answers])[:count] for name in answers[0]}
