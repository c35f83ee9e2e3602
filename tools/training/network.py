"""The network that the shipped models share. PyTorch comes with the extra ``train``."""

from __future__ import annotations

import torch  # type: ignore[import-not-found,unused-ignore]  # extra 'train', absent elsewhere

_WIDTHS = (16, 28, 48, 72)


def residual_network(channels: int, *, dropout: float = 0.0) -> torch.nn.Module:
    """A small residual network; global maximum and mean, then one logit.

    Args:
        channels: of the input (items, channels, rows, columns).
        dropout: before the last layer; 0 for none.
    """
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
            first, second, third, last = _WIDTHS
            self.features = nn.Sequential(
                *down(channels, first),
                *down(first, second),
                Residual(second),
                *down(second, third),
                Residual(third),
                *down(third, last),
                Residual(last),
            )
            decide = nn.Linear(2 * last, 1)
            self.head = nn.Sequential(nn.Dropout(dropout), decide) if dropout else decide

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            maps = self.features(items)
            pooled = torch.cat([maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))], dim=1)
            logits: torch.Tensor = self.head(pooled)[:, 0]
            return logits

    return Network()
