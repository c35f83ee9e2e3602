"""``python -m tools.architectures NAME --out FILE`` writes a network with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.architectures.densenet import densenet121
from tools.architectures.model import Architecture
from tools.architectures.resnet3d import resnet18_3d

app = typer.Typer(help="Networks with random weights, as ONNX files.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option("--out", help="The file to write.")]
ChannelsOption = Annotated[int, typer.Option(min=1, max=64, help="Channels of the input.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Decides the weights.")]
OutputsOption = Annotated[int, typer.Option(min=1, max=4096, help="Logits that come out.")]


@app.command("densenet121")
def _densenet121(
    out: OutOption,
    *,
    channels: ChannelsOption = 1,
    side: Annotated[int, typer.Option(min=32, max=2048, help="Rows and columns.")] = 224,
    outputs: OutputsOption = 18,
    deviation: Annotated[float, typer.Option(min=1e-6, help="Of the input's values.")] = 1.0,
    seed: SeedOption = 0,
) -> None:
    """DenseNet-121, as for chest radiographs."""
    built = densenet121(
        channels=channels, side=side, outputs=outputs, deviation=deviation, seed=seed
    )
    _write(built, out)


@app.command("resnet18-3d")
def _resnet18_3d(
    out: OutOption,
    *,
    channels: ChannelsOption = 1,
    slices: Annotated[int, typer.Option(min=8, max=2048)] = 64,
    side: Annotated[int, typer.Option(min=32, max=2048, help="Rows and columns.")] = 112,
    outputs: OutputsOption = 1,
    seed: SeedOption = 0,
) -> None:
    """3D ResNet-18, as for CT volumes."""
    size = (slices, side, side)
    _write(resnet18_3d(channels=channels, size=size, outputs=outputs, seed=seed), out)


def _write(built: Architecture, out: Path) -> None:
    out.write_bytes(built.model.SerializeToString())
    print(f"{out}: {built.parameters:,} parameters, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    app()
