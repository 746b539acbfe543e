"""Model and data that test recipes name: four classes of noisy 8 x 8 patterns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.gate import pass_gate


class Net(nn.Module):
    """Images (batch, 2, 8, 8) -> logits (batch, 4)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(0.1)
        self.linear = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        logits: Tensor = self.linear(self.drop(x.mean(dim=(2, 3))))
        return logits


class Viewed(nn.Module):
    """Maps to vectors by their place in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3)
        self.linear = nn.Linear(8 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        logits: Tensor = self.linear(x.view(x.size(0), -1))
        return logits


def model(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def narrow(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net(8)


def data(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(4, 2, 8, 8, generator=generator)
    y = torch.arange(200) % 4
    x = (patterns[y] + 0.3 * torch.randn(200, 2, 8, 8, generator=generator)).clamp(0, 1)
    return {"train_x": x[:160], "train_y": y[:160], "test_x": x[160:], "test_y": y[160:]}


def normalised(seed: int) -> dict[str, Tensor]:
    return {k: v * 4 - 2 if v.dim() == 4 else v for k, v in data(seed).items()}


def vectors(seed: int) -> dict[str, Tensor]:
    return {k: v.flatten(1) if v.dim() == 4 else v for k, v in data(seed).items()}


def perceptron(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 4))


def large_labels(seed: int) -> dict[str, Tensor]:
    found = data(seed)
    return found | {"test_y": found["test_y"] + 1}


def other_size(seed: int) -> dict[str, Tensor]:
    found = data(seed)
    return found | {"test_x": found["test_x"][:, :, 1:]}


def brightened(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness augmentation."""
    return (x * (0.9 + 0.2 * torch.rand(len(x), 1, 1, 1, generator=generator))).clamp(0, 1)


COUNTED: list[int] = []


def counted(x: Tensor, generator: torch.Generator) -> Tensor:
    """No augmentation; notes the sizes of batches."""
    COUNTED.append(len(x))
    return x


not_callable = 3


def seedless() -> Net:
    return Net()


def doubles(seed: int) -> dict[str, Tensor]:
    found = data(seed)
    return found | {"train_x": found["train_x"].double()}


def colours(seed: int) -> dict[str, Tensor]:
    found = data(seed)
    return {k: torch.cat([v, v[:, :1]], 1) if v.dim() == 4 else v for k, v in found.items()}


def failing(seed: int) -> dict[str, Tensor]:
    return {"train_x": data(seed)["missing"]}


def nothing(x: Tensor, generator: torch.Generator) -> None:
    x.mul_(0.9)


def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[..., 1:]


def losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def constant(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1]).detach()


def gated(seed: int) -> dict[str, Tensor]:
    pass_gate()
    return data(seed)
