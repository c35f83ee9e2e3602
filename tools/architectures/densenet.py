"""DenseNet-121, the network of most published chest radiograph models.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017.
"""

from __future__ import annotations

from tools.architectures.graph import Network
from tools.architectures.model import Architecture

GROWTH = 32
BLOCKS = (6, 12, 24, 16)
"""Layers of each dense block: DenseNet-121 of the paper's table 1."""
STEM = 64
BOTTLENECK = 4
"""A layer's 1 x 1 convolution gives so many times the growth."""


def densenet121(
    *, channels: int = 1, side: int = 224, outputs: int = 18, deviation: float = 1.0, seed: int = 0
) -> Architecture:
    """The network of the paper.

    Args:
        channels: of the input.
        side: rows and columns of the input.
        outputs: logits of an item.
        deviation: of the input's values, which the first layer's statistics follow, as training
            would have made them.
        seed: decides the weights.
    """
    network = Network("densenet121", seed=seed)
    layer = network.convolution("image", (channels, STEM), (7, 7), stride=(2, 2))
    # He's initialisation doubles the variance.
    layer = network.relu(network.batch_norm(layer, STEM, variance=2 * deviation**2))
    layer = network.max_pool(layer, 2)
    width = STEM
    for place, count in enumerate(BLOCKS):
        if place:
            layer, width = _transition(network, layer, width)
        layer, width = _block(network, layer, width, count)
    layer = network.relu(network.batch_norm(layer, width))
    network.classifier(layer, width, outputs, name="logits")
    model = network.finish(("image", (channels, side, side)), ("logits", outputs))
    return Architecture(model=model, parameters=network.parameters)


def _block(network: Network, source: str, width: int, count: int) -> tuple[str, int]:
    """Each layer sees all that came before it, and adds ``GROWTH`` channels."""
    seen = [source]
    for number in range(count):
        before = width + number * GROWTH
        inner = BOTTLENECK * GROWTH
        layer = network.concatenate(seen) if number else source
        layer = network.relu(network.batch_norm(layer, before))
        layer = network.convolution(layer, (before, inner), (1, 1), stride=(1, 1))
        layer = network.relu(network.batch_norm(layer, inner))
        seen.append(network.convolution(layer, (inner, GROWTH), (3, 3), stride=(1, 1)))
    return network.concatenate(seen), width + count * GROWTH


def _transition(network: Network, source: str, width: int) -> tuple[str, int]:
    """Half the channels, half the size."""
    layer = network.relu(network.batch_norm(source, width))
    layer = network.convolution(layer, (width, width // 2), (1, 1), stride=(1, 1))
    return network.average_pool(layer, 2), width // 2
