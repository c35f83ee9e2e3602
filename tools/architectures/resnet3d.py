"""3D ResNet-18, the usual start for models of CT volumes.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016; with the third
dimension of Hara, Kataoka, Satoh: Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?, CVPR 2018.
"""

from __future__ import annotations

from tools.architectures.graph import Network
from tools.architectures.model import Architecture

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2
"""Basic blocks of each width: 18 layers with the first and the last."""


def resnet18_3d(
    *,
    channels: int = 1,
    size: tuple[int, int, int] = (64, 112, 112),
    outputs: int = 1,
    stem_depth: int = 7,
    seed: int = 0,
) -> Architecture:
    """The network of the papers, shortcuts by projection.

    Args:
        channels: of the input.
        size: slices, rows and columns of the input.
        outputs: logits of a volume.
        stem_depth: slices that the first convolution spans: 7 as Hara has it, 3 in its leaner kin.
        seed: decides the weights.
    """
    network = Network("resnet18_3d", seed=seed)
    width = WIDTHS[0]
    layer = network.convolution("volume", (channels, width), (stem_depth, 7, 7), stride=(1, 2, 2))
    layer = network.max_pool(network.relu(network.batch_norm(layer, width)), 3)
    for wider in WIDTHS:
        for number in range(BLOCKS):
            stride = 2 if wider != WIDTHS[0] and number == 0 else 1
            layer = _basic_block(network, layer, (width, wider), stride)
            width = wider
    network.classifier(layer, width, outputs, name="logit")
    model = network.finish(("volume", (channels, *size)), ("logit", outputs))
    return Architecture(model=model, parameters=network.parameters)


def _basic_block(network: Network, source: str, channels: tuple[int, int], stride: int) -> str:
    before, after = channels
    strides = (stride, stride, stride)
    layer = network.convolution(source, (before, after), (3, 3, 3), stride=strides)
    layer = network.relu(network.batch_norm(layer, after))
    layer = network.convolution(layer, (after, after), (3, 3, 3), stride=(1, 1, 1))
    layer = network.batch_norm(layer, after)
    shortcut = source
    if before != after:
        shortcut = network.convolution(source, channels, (1, 1, 1), stride=strides)
        shortcut = network.batch_norm(shortcut, after)
    return network.relu(network.add(layer, shortcut))
