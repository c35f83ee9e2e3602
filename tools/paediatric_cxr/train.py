"""Train the network and export it to ONNX.

``python -m tools.paediatric_cxr.train --data DATA --out WORK``. With the same seed, library
versions and machine the weights come out the same, bit for bit. PyTorch (extra ``train``) is
imported here and in ``augment`` only.
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

Float32 = NDArray[np.float32]

PER_PATIENT = 4
"""Radiographs of one patient in an epoch, at most: the largest has 31 and must not rule."""
BATCH = 32
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3
SMOOTHING = 0.02
"""Labels were read off radiographs by people; none of them is taken as certain."""
OPSET = 17
THREADS = 1
"""Fixed: sums depend on how they are split. One, because on a machine that has other work two
wait for each other more than they help."""


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
                *down(1, 16),
                *down(16, 28),
                Residual(28),
                *down(28, 48),
                Residual(48),
                *down(48, 72),
                Residual(72),
            )
            self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 72, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.features(images)
            pooled = torch.cat([maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))], dim=1)
            logits: torch.Tensor = self.head(pooled)[:, 0]
            return logits

    return Network()


def train(radiographs: Sequence[Radiograph], *, seed: int, epochs: int) -> torch.nn.Module:
    """Train on varied pictures of ``radiographs``; prints one line an epoch."""
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pictures = np.stack([recipe.picture(read_pixels(item.path)) for item in radiographs])
    network = build_network()
    _lay_out(network, torch.channels_last)
    steps = epochs * -(-len(_draw_epoch(radiographs, np.random.default_rng(0))) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=PEAK_LEARNING_RATE, total_steps=steps
    )
    for epoch in range(epochs):
        started, total, batches = time.monotonic(), 0.0, 0
        network.train()
        for inputs, targets in _batches(pictures, radiographs, rng):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch's own
            torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
            batches += 1
        took = time.monotonic() - started
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.4f}, {took:.0f} s", flush=True)
    network.eval()
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


def export(network: torch.nn.Module, target: Path) -> None:
    """Write ``network`` as ONNX with a free number of images."""
    sample = torch.zeros(2, *recipe.INPUT.shape[1:])
    torch.onnx.export(
        network,
        (sample,),
        str(target),
        input_names=[recipe.INPUT.name],
        output_names=[recipe.OUTPUT.name],
        dynamic_axes={recipe.INPUT.name: {0: "images"}, recipe.OUTPUT.name: {0: "images"}},
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
    export(network, options.out / MODEL_FILE)
    (options.out / TRAINING_FILE).write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    print(result.model_dump_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
