"""Models with several inputs and outputs, in all forms."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scores(NamedTuple):
    boxes: Tensor
    classes: Tensor


class Heads(nn.Module):
    """Two scales with two heads each; the coarse ones in a named tuple, ``fine`` in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, 2, 1)
        self.boxes, self.classes = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(12, 5, 1)
        self.fine = nn.Conv2d(8, 6, 1)

    def forward(self, image: Tensor) -> dict[str, Any]:
        high = F.relu(self.stem(image))
        low = F.relu(self.down(high))
        coarse = Scores(self.boxes(low), self.classes(low))
        return {"coarse": coarse, "fine": [self.fine(high), None], "scale": 2}


class Siamese(nn.Module):
    """One trunk for two pictures: both embeddings, and what they have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 7)
        )

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b = self.trunk(left), self.trunk(right)
        return a, b, a * b


class Fused(nn.Module):
    """A picture and a vector of sensors, in a dictionary; a mask that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.sensors = nn.Conv2d(1, 4, 3, 2), nn.Linear(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor], mask: Tensor | None = None) -> Tensor:
        seen = self.picture(batch["picture"])
        seen = seen if mask is None else seen * mask
        sensed = self.sensors(batch["sensors"])[:, :, None, None]
        return self.out(F.relu(seen + sensed).mean((2, 3)))


class Odd(nn.Module):
    """An input that is an output, an input that is not read, one tensor in two places and in two
    shapes, an output that is read inside, a part of a concatenation, and a concatenation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor, unread: Tensor, maps: list[Tensor]) -> Any:
        a = F.relu(self.a(x)) + maps[0]
        both = torch.cat([a, self.a(maps[1])], 1)
        return a, a.flatten(1), (x, a), self.b(a), both, self.c(both), maps[1][:, :, ::2].flip(3)


def forms() -> dict[str, tuple[nn.Module, Any]]:
    """Models and some inputs of them."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, low: float = -1.0) -> Tensor:
        return torch.rand(12, *shape, generator=generator) * (1 - low) + low

    torch.manual_seed(0)
    maps = [drawn(4, 5, 6, low=0.0), drawn(3, 5, 6)]
    fused = {"picture": drawn(1, 9, 9), "sensors": drawn(5, low=0.0)}
    return {
        "heads": (Heads().eval(), drawn(3, 8, 8)),
        "siamese": (Siamese().eval(), (drawn(2, 8, 8), 2 * drawn(2, 8, 8))),
        "fused": (Fused().eval(), (fused,)),
        "masked": (Fused().eval(), {"batch": fused, "mask": drawn(1, 4, 4)}),
        "odd": (
            Odd().eval(),
            (drawn(3, 5, 6), drawn(2), maps),
        ),
    }
