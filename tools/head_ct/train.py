"""Train the slab-wise network and export it to ONNX.

``python -m tools.head_ct.train --out WORK --data CACHE``. With the same seed, library versions and
machine the weights come out the same, bit for bit. PyTorch (extra ``train``) is imported here only.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere
from numpy.typing import NDArray

from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PhantomSet
from tools.head_ct.simulate import SimulatedStudy, channels, simulate_set
from tools.head_ct.training_result import MODEL_FILE, TRAINING_FILE, TrainingResult

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
OPSET = 17
THREADS = 2
"""Fixed: sums depend on how they are split."""
SHIFT_HU = 1.5
SHIFT_PIXELS = 4


def build_network() -> torch.nn.Module:
    """A small residual network; global maximum and mean, then one logit."""
    nn = torch.nn

    class Residual(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # torch is Any
        def __init__(self, width: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(x + self.body(x))

    def down(wide: int, width: int) -> list[torch.nn.Module]:
        return [
            nn.Conv2d(wide, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]

    class Network(nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # torch is Any
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                *down(recipe.CHANNELS, 16),
                *down(16, 28),
                Residual(28),
                *down(28, 48),
                Residual(48),
                *down(48, 72),
                Residual(72),
            )
            self.head = nn.Linear(2 * 72, 1)

        def forward(self, slabs: torch.Tensor) -> torch.Tensor:
            maps = self.features(slabs)
            pooled = torch.cat([maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))], dim=1)
            logits: torch.Tensor = self.head(pooled)[:, 0]
            return logits

    return Network()


def train(studies: Sequence[SimulatedStudy], *, seed: int, epochs: int) -> torch.nn.Module:
    """Train on slabs drawn from the studies; prints one line an epoch."""
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = build_network()
    steps = epochs * -(-len(studies) // STUDIES_PER_STEP)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_LEARNING_RATE, total_steps=steps
    )
    for epoch in range(epochs):
        started, total, batches = time.monotonic(), 0.0, 0
        network.train()
        for inputs, targets in _batches(studies, rng):
            optimiser.zero_grad()
            logits = network(torch.from_numpy(inputs))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, torch.from_numpy(targets)
            )
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch has no types
            torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
            batches += 1
        took = time.monotonic() - started
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.4f}, {took:.0f} s", flush=True)
    network.eval()
    return network


def _batches(
    studies: Sequence[SimulatedStudy], rng: np.random.Generator
) -> Iterator[tuple[Float32, Float32]]:
    order = rng.permutation(len(studies))
    for start in range(0, len(order), STUDIES_PER_STEP):
        drawn = [
            _slabs_of(studies[int(number)], rng)
            for number in order[start : start + STUDIES_PER_STEP]
        ]
        yield (
            np.concatenate([inputs for inputs, _ in drawn]),
            np.concatenate([targets for _, targets in drawn]),
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


def export(network: torch.nn.Module, target: Path) -> None:
    """Write ``network`` as ONNX with a free number of slabs."""
    sample = torch.zeros(2, *recipe.INPUT.shape[1:])
    torch.onnx.export(
        network,
        (sample,),
        str(target),
        input_names=[recipe.INPUT.name],
        output_names=[recipe.OUTPUT.name],
        dynamic_axes={recipe.INPUT.name: {0: "slabs"}, recipe.OUTPUT.name: {0: "slabs"}},
        opset_version=OPSET,
        dynamo=False,
    )


def weights_digest(network: torch.nn.Module) -> str:
    """SHA-256 over all parameters and running means in order."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
    export(network, options.out / MODEL_FILE)
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
