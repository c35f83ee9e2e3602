"""Train the network and export it to ONNX.

``python -m tools.paediatric_cxr.train --data DATA --out WORK``. With the same seed, library
versions and machine the weights come out the same, bit for bit. PyTorch (extra ``train``) is
imported here and in ``augment`` only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere
from numpy.typing import NDArray

from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.augment import vary
from tools.paediatric_cxr.dataset import (
    DataSplit,
    Radiograph,
    find_radiographs,
    of_split,
    read_pixels,
)
from tools.paediatric_cxr.training_result import MODEL_FILE, TRAINING_FILE, TrainingResult
from tools.training.loop import Course, begin, export, fit, weights_digest
from tools.training.network import residual_network

Float32 = NDArray[np.float32]

PER_PATIENT = 4
"""Radiographs of one patient in an epoch, at most: the largest has 31 and must not rule."""
BATCH = 32
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
SMOOTHING = 0.02
"""Labels were read off radiographs by people; none of them is taken as certain."""
DROPOUT = 0.2
THREADS = 1
"""Fixed: sums depend on how they are split. One, because on a machine that has other work two
wait for each other more than they help."""


def train(radiographs: Sequence[Radiograph], *, seed: int, epochs: int) -> torch.nn.Module:
    """Train on varied pictures of ``radiographs``; prints one line an epoch."""
    course = Course(
        seed=seed,
        epochs=epochs,
        steps=-(-len(_draw_epoch(radiographs, np.random.default_rng(0))) // BATCH),
        peak_learning_rate=PEAK_LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        threads=THREADS,
    )
    begin(course)
    rng = np.random.default_rng(seed)
    pictures = np.stack([recipe.picture(read_pixels(item.path)) for item in radiographs])
    network = residual_network(1, dropout=DROPOUT)
    _lay_out(network, torch.channels_last)
    fit(network, lambda: _batches(pictures, radiographs, rng), course)
    _lay_out(network, torch.contiguous_format)
    return network


def _lay_out(network: torch.nn.Module, form: torch.memory_format) -> None:
    """Weights in memory as the convolutions like them: channels last takes two thirds the time."""
    network.to(memory_format=form)  # type: ignore[call-overload,unused-ignore]  # a stub lacks it


def _draw_epoch(radiographs: Sequence[Radiograph], rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of the radiographs of one epoch, shuffled; as many in every epoch."""
    by_patient: dict[str, list[int]] = {}
    for number, item in enumerate(radiographs):
        by_patient.setdefault(item.patient, []).append(number)
    drawn = [rng.permutation(numbers)[:PER_PATIENT] for numbers in by_patient.values()]
    return rng.permutation(np.concatenate(drawn))


def _batches(
    pictures: Float32, radiographs: Sequence[Radiograph], rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    positive = np.array([item.positive for item in radiographs], np.float32)
    order = _draw_epoch(radiographs, rng)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        inputs = vary(torch.from_numpy(pictures[chosen]), rng)
        inputs = (inputs - recipe.MEAN) / recipe.DEVIATION
        targets = positive[chosen] * (1 - 2 * SMOOTHING) + SMOOTHING
        yield (
            inputs[:, None].contiguous(memory_format=torch.channels_last),
            torch.from_numpy(targets.astype(np.float32)),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and figures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    radiographs = of_split(find_radiographs(options.data), DataSplit.TRAINING)
    network = train(radiographs, seed=options.seed, epochs=options.epochs)
    result = TrainingResult(
        seed=options.seed,
        radiographs=len(radiographs),
        patients=len({item.patient for item in radiographs}),
        epochs=options.epochs,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_sha256=weights_digest(network),
    )
    export(
        network,
        options.out / MODEL_FILE,
        takes=recipe.INPUT,
        gives=recipe.OUTPUT,
        items="images",
    )
    (options.out / TRAINING_FILE).write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    print(result.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
