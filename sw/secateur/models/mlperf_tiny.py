"""The four reference networks of MLPerf Tiny in PyTorch.

The layers are those of mlcommons/tiny. 'same' padding is TensorFlow's: at stride 2 it is uneven.
Batch norms have eps 1e-3. `load_weights` loads weights of the reference models.

References
----------
Banbury et al., "MLPerf Tiny Benchmark", NeurIPS 2021 Datasets and Benchmarks (arXiv:2106.07597).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from secateur.disk.weights import read_weights
from secateur.errors import SecateurError

EPS = 1e-3
_BOTTOM_RIGHT = (0, 1, 0, 1)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file of the module's state dict.

    Raises
    ------
    SecateurError : no such file, not a safetensors file, or names or shapes that are not the
        module's
    """
    try:
        model.load_state_dict(read_weights(path))
    except RuntimeError as error:
        reason = str(error).split("\n\t")[1]
        raise SecateurError(f"{path}: not the weights of this model: {reason}") from None


class ResNet8(nn.Module):
    """Image classification: images (batch, 3, 32, 32), 0 to 255 -> logits (batch, classes).

    Parameters
    ----------
    channels : of the three stacks; the reference has (16, 32, 64)
    classes : of images
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        a, b, c = channels
        plan = [(3, a, 3, 1), (a, a, 3, 1), (a, a, 3, 1), (a, b, 3, 2), (b, b, 3, 1)]
        plan += [(a, b, 1, 2), (b, c, 3, 2), (c, c, 3, 1), (b, c, 1, 2)]
        self.c = nn.ModuleList(
            nn.Conv2d(i, o, k, s, padding=k // 2 if s == 1 else 0) for i, o, k, s in plan
        )
        self.b = nn.ModuleList(nn.BatchNorm2d(width, eps=EPS) for width in (a, a, a, b, b, c, c))
        self.fc = nn.Linear(c, classes)

    def forward(self, x: Tensor) -> Tensor:
        c, b = self.c, self.b
        x = F.relu(b[0](c[0](x)))
        y = F.relu(b[1](c[1](x)))
        x = F.relu(x + b[2](c[2](y)))
        y = F.relu(b[3](c[3](F.pad(x, _BOTTOM_RIGHT))))
        x = F.relu(c[5](x) + b[4](c[4](y)))
        y = F.relu(b[5](c[6](F.pad(x, _BOTTOM_RIGHT))))
        x = F.relu(c[8](x) + b[6](c[7](y)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class DSCNN(nn.Module):
    """Keyword spotting: MFCC (batch, 1, 49, 10) -> logits (batch, 12).

    Parameters
    ----------
    channels : of all layers; the reference has 64
    classes : of keywords
    """

    def __init__(self, channels: int = 64, classes: int = 12) -> None:
        super().__init__()
        self.c0 = nn.Conv2d(1, channels, (10, 4), 2)
        self.dw = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(4)
        )
        self.pw = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.b = nn.ModuleList(nn.BatchNorm2d(channels, eps=EPS) for _ in range(9))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b[0](self.c0(F.pad(x, (1, 1, 4, 5)))))
        for index, (depthwise, pointwise) in enumerate(zip(self.dw, self.pw, strict=True)):
            x = F.relu(self.b[2 * index + 1](depthwise(x)))
            x = F.relu(self.b[2 * index + 2](pointwise(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class MobileNetV1(nn.Module):
    """Visual wake words: images (batch, 3, 96, 96), 0 to 1 -> logits (batch, 2).

    MobileNet at width 0.25.

    References
    ----------
    Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision
    applications", arXiv:1704.04861, 2017.
    """

    CHANNELS = (8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256)
    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = self.CHANNELS
        self.c0 = nn.Conv2d(3, widths[0], 3, 2)
        self.b0 = nn.BatchNorm2d(widths[0], eps=EPS)
        self.dw = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, padding=1 if stride == 1 else 0, groups=width)
            for width, stride in zip(widths[:-1], self.STRIDES, strict=True)
        )
        self.pw = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in pairwise(widths))
        self.bd = nn.ModuleList(nn.BatchNorm2d(width, eps=EPS) for width in widths[:-1])
        self.bp = nn.ModuleList(nn.BatchNorm2d(width, eps=EPS) for width in widths[1:])
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b0(self.c0(F.pad(x, _BOTTOM_RIGHT))))
        for index, stride in enumerate(self.STRIDES):
            x = x if stride == 1 else F.pad(x, _BOTTOM_RIGHT)
            x = F.relu(self.bd[index](self.dw[index](x)))
            x = F.relu(self.bp[index](self.pw[index](x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Autoencoder(nn.Module):
    """Anomaly detection: five frames of 128 mel bands (batch, 640) -> the same, rebuilt."""

    WIDTHS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)

    def __init__(self) -> None:
        super().__init__()
        widths = self.WIDTHS
        self.f = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.b = nn.ModuleList(nn.BatchNorm1d(width, eps=EPS) for width in widths[1:-1])

    def forward(self, x: Tensor) -> Tensor:
        for dense, norm in zip(self.f[:-1], self.b, strict=True):
            x = F.relu(norm(dense(x)))
        rebuilt: Tensor = self.f[-1](x)
        return rebuilt
