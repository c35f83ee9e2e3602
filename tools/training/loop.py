"""Trains a network to tell suspected items from others, and writes it as ONNX.

With the same seed, library versions, machine and number of threads the weights come out the same,
bit for bit. PyTorch comes with the extra ``train``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere

from engines.package import InputRule, TensorRule

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Inputs, and for each item a target from 0 to 1."""

OPSET = 17
_FIRST_LEARNING_RATE = 1e-3
_LARGEST_GRADIENT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a network is trained."""

    seed: int
    epochs: int
    steps: int
    """Of one epoch."""
    peak_learning_rate: float
    weight_decay: float
    threads: int
    """Sums depend on how they are split: another number makes other weights."""


def begin(course: Course) -> None:
    """Make all that follows depend on the seed alone; before the network is built."""
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(course.threads)
    torch.manual_seed(course.seed)


def fit(network: torch.nn.Module, batches: Callable[[], Batches], course: Course) -> None:
    """Train; prints one line an epoch.

    Args:
        network: built after ``begin``; one logit for each item.
        batches: called at the beginning of each epoch.
        course: as given to ``begin``.
    """
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=_FIRST_LEARNING_RATE, weight_decay=course.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=course.peak_learning_rate, total_steps=course.epochs * course.steps
    )
    for epoch in range(course.epochs):
        started, total, count = time.monotonic(), 0.0, 0
        network.train()
        for inputs, targets in batches():
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]  # torch's own
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
            count += 1
        took = time.monotonic() - started
        print(
            f"epoch {epoch + 1}/{course.epochs}: loss {total / count:.4f}, {took:.0f} s", flush=True
        )
    network.eval()


def export(
    network: torch.nn.Module, target: Path, *, takes: InputRule, gives: TensorRule, items: str
) -> None:
    """Write a network as ONNX with a free number of items.

    Args:
        network: trained.
        target: the file.
        takes: what the model takes.
        gives: what it returns.
        items: what the first axis counts.
    """
    torch.onnx.export(
        network,
        (torch.zeros(2, *takes.shape[1:]),),
        str(target),
        input_names=[takes.name],
        output_names=[gives.name],
        dynamic_axes={takes.name: {0: items}, gives.name: {0: items}},
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
