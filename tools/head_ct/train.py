"""Train the slab-wise network and export it to ONNX.

``python -m tools.head_ct.train --out WORK --data CACHE``. With the same seed, library versions and
machine the weights come out the same, bit for bit. PyTorch (extra ``train``) is imported here only.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere
from numpy.typing import NDArray

from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.simulate import SimulatedStudy, channels, simulate_set
from tools.head_ct.training_result import MODEL_FILE, TRAINING_FILE, TrainingResult
from tools.training.loop import Course, begin, export, fit, weights_digest
from tools.training.network import residual_network

Float32 = NDArray[np.float32]

SLABS_PER_STUDY = 10
POSITIVE_SLABS = 6
STUDIES_PER_STEP = 12
POSITIVE_ML = 0.08
"""A slab with this much blood counts as bleeding ..."""
DOUBTFUL_ML = 0.005
"""... and one with less than this as clean; those between teach nothing."""
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
THREADS = 2
"""Fixed: sums depend on how they are split."""
SHIFT_HU = 1.5
SHIFT_PIXELS = 4


def train(studies: Sequence[SimulatedStudy], *, seed: int, epochs: int) -> torch.nn.Module:
    """Train on slabs drawn from the studies; prints one line an epoch."""
    course = Course(
        seed=seed,
        epochs=epochs,
        steps=-(-len(studies) // STUDIES_PER_STEP),
        peak_learning_rate=PEAK_LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        threads=THREADS,
    )
    begin(course)
    rng = np.random.default_rng(seed)
    network = residual_network(recipe.CHANNELS)
    fit(network, lambda: _batches(studies, rng), course)
    return network


def _batches(
    studies: Sequence[SimulatedStudy], rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    order = rng.permutation(len(studies))
    for start in range(0, len(order), STUDIES_PER_STEP):
        drawn = [
            _slabs_of(studies[int(number)], rng)
            for number in order[start : start + STUDIES_PER_STEP]
        ]
        yield (
            torch.from_numpy(np.concatenate([inputs for inputs, _ in drawn])),
            torch.from_numpy(np.concatenate([targets for _, targets in drawn])),
        )


def _slabs_of(study: SimulatedStudy, rng: np.random.Generator) -> tuple[Float32, Float32]:
    """Some slabs of one study, varied: mirrored, moved, a little brighter or darker."""
    bleeding = np.flatnonzero(study.slab_ml >= POSITIVE_ML)
    clean = np.flatnonzero(study.slab_ml < DOUBTFUL_ML)
    some = rng.permutation(bleeding)[:POSITIVE_SLABS]
    chosen = np.concatenate([some, rng.permutation(clean)[: SLABS_PER_STUDY - len(some)]])
    slab_hu = study.slab_hu + np.float32(rng.uniform(-SHIFT_HU, SHIFT_HU))
    if rng.integers(2):
        slab_hu = slab_hu[:, :, ::-1]
    rows, columns = (int(v) for v in rng.integers(-SHIFT_PIXELS, SHIFT_PIXELS + 1, size=2))
    slab_hu = np.roll(slab_hu, (rows, columns), axis=(1, 2))
    targets = (study.slab_ml[chosen] >= POSITIVE_ML).astype(np.float32)
    return channels(slab_hu)[chosen], targets


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the training."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    studies = list(
        simulate_set(
            PhantomSet.TRAINING,
            options.phantoms,
            matrix=options.matrix,
            folder=options.data,
            processes=options.processes,
        )
    )
    network = train(studies, seed=options.seed, epochs=options.epochs)
    result = TrainingResult(
        seed=options.seed,
        phantoms=options.phantoms,
        epochs=options.epochs,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_sha256=weights_digest(network),
    )
    export(
        network,
        options.out / MODEL_FILE,
        takes=recipe.INPUT,
        gives=recipe.OUTPUT,
        items="slabs",
    )
    (options.out / TRAINING_FILE).write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    print(result.model_dump_json())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for model and figures")
    parser.add_argument("--data", type=Path, required=True, help="folder that keeps the phantoms")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--phantoms", type=int, default=1400, help="for training")
    parser.add_argument("--matrix", type=int, default=256, help="rows of the simulated slices")
    parser.add_argument("--processes", type=int, default=2, help="that draw phantoms")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
