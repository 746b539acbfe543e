"""Blocks of random networks: small modules, and a builder that keeps track of shapes."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pad(nn.Module):
    """Zero padding (left, right, top, bottom)."""

    def __init__(self, amounts: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts)


class Add(nn.Module):
    """activation(a(x) + b(x)), in place if asked to."""

    def __init__(self, a: nn.Module, b: nn.Module, activation: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.a, self.b, self.activation, self.in_place = a, b, activation, in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.in_place:
            y += self.b(x)
        else:
            y = y + self.b(x)
        return self.activation(y)  # type: ignore[no-any-return]


class Cat(nn.Module):
    """Channels of all branches, one after the other."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Mean(nn.Module):
    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def activation(rng: random.Random) -> nn.Module:
    return rng.choice(
        [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.ReLU6(),
            nn.ReLU6(inplace=True),
            nn.Hardtanh(-1.45, 1.87),
            nn.Identity(),
            nn.ReLU(),
            nn.SiLU(),
            nn.Hardswish(inplace=True),
            nn.LeakyReLU(0.1),
            nn.PReLU(),
        ]
    )


class Gate(nn.Module):
    """Squeeze and excitation: every channel times a value between 0 and 1."""

    def __init__(self, channels: int, last: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, channels, 1),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.inner(x)


class Highway(nn.Module):
    """s * a(x) + (1 - s) * t, with s the sigmoid of t."""

    def __init__(self, a: nn.Module, t: nn.Module) -> None:
        super().__init__()
        self.a, self.t = a, t

    def forward(self, x: Tensor) -> Tensor:
        t = self.t(x)
        s = torch.sigmoid(t)
        return s * self.a(x) + (1 - s) * t  # type: ignore[no-any-return]


class Builder:
    """Adds blocks and keeps track of the shape of the map."""

    def __init__(self, rng: random.Random, channels: int, height: int, width: int) -> None:
        self.rng, self.channels, self.height, self.width = rng, channels, height, width

    def block(self, *, first: bool) -> nn.Module:
        kinds = [self.conv, self.depthwise, self.residual, self.projection, self.cat]
        if not first:
            kinds += [self.max_pool, self.average_pool, self.dense, self.lanes, self.lone]
            kinds += [self.gate, self.highway, self.slopes]
        return self.rng.choice(kinds)()

    def window(self, extent: int, strides: list[int]) -> tuple[int, int, int, int, int]:
        """(kernel, stride, dilation, pad before, pad after) along one dimension."""
        kernel = self.rng.choice([1, 2, 3, 3, 3, 5])
        dilation = self.rng.choice([1, 1, 1, 2])
        stride = self.rng.choice(strides)
        before, after = self.rng.randint(0, 2), self.rng.randint(0, 2)
        if extent + before + after < dilation * (kernel - 1) + 1:
            kernel = 1
        return kernel, stride, dilation, before, after

    def conv(self, outputs: int | None = None) -> nn.Module:
        rng = self.rng
        outputs = outputs or rng.choice([1, 3, 8, 12, 16, 20])
        ky, sy, dy, top, bottom = self.window(self.height, [1, 1, 1, 2, 3])
        kx, sx, dx, left, right = self.window(self.width, [1, 1, 1, 2, 4])
        layers: list[nn.Module] = []
        padding: tuple[int, int] = (0, 0)
        if top == bottom and left == right:
            padding = (top, left)
        else:
            layers.append(Pad((left, right, top, bottom)))
        layers.append(
            nn.Conv2d(
                self.channels,
                outputs,
                (ky, kx),
                (sy, sx),
                padding,
                (dy, dx),
                bias=rng.random() < 0.6,
            )
        )
        if rng.random() < 0.5:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(activation(rng))
        self.channels = outputs
        self.height = (self.height + top + bottom - dy * (ky - 1) - 1) // sy + 1
        self.width = (self.width + left + right - dx * (kx - 1) - 1) // sx + 1
        return nn.Sequential(*layers)

    def same(self, inputs: int, outputs: int, act: nn.Module | None = None) -> nn.Sequential:
        """A convolution that keeps the size of the map."""
        kernel = self.rng.choice([1, 3])
        padding: str | int = self.rng.choice(["same", kernel // 2])
        conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=self.rng.random() < 0.5)
        layers: list[nn.Module] = [conv]
        if self.rng.random() < 0.5:
            layers.append(nn.BatchNorm2d(outputs))
        return nn.Sequential(*layers, act or nn.Identity())

    def depthwise(self) -> nn.Module:
        conv = nn.Conv2d(
            self.channels, self.channels, 3, padding=1, groups=self.channels, bias=False
        )
        return nn.Sequential(conv, nn.BatchNorm2d(self.channels), activation(self.rng))

    def residual(self) -> nn.Module:
        body = nn.Sequential(
            self.same(self.channels, self.channels, nn.ReLU()),
            self.same(self.channels, self.channels),
        )
        branches = [body, nn.Identity()]
        self.rng.shuffle(branches)
        in_place = branches[0] is body and self.rng.random() < 0.5
        return Add(branches[0], branches[1], activation(self.rng), in_place)

    def projection(self) -> nn.Module:
        outputs, stride = self.rng.choice([4, 8, 9]), self.rng.choice([1, 2])
        body = nn.Sequential(
            self.same(self.channels, outputs, nn.ReLU(inplace=True)),
            nn.Conv2d(outputs, outputs, 3, stride, 1),
            nn.BatchNorm2d(outputs),
        )
        shortcut = nn.Conv2d(self.channels, outputs, 1, stride, bias=self.rng.random() < 0.5)
        self.channels = outputs
        self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        return Add(body, shortcut, activation(self.rng), self.rng.random() < 0.5)

    def lanes(self) -> nn.Module:
        """Sum of two stored tensors."""
        pool = nn.MaxPool2d(3, 1, 1)
        other = self.rng.choice(
            [nn.Identity(), self.same(self.channels, self.channels, nn.ReLU6())]
        )
        return Add(pool, other, activation(self.rng), False)

    def cat(self) -> nn.Module:
        widths = [self.rng.choice([1, 4, 8, 11]) for _ in range(self.rng.choice([2, 2, 3]))]
        branches = [self.same(self.channels, n, activation(self.rng)) for n in widths]
        self.channels = sum(widths)
        return Cat(*branches)

    def dense(self) -> nn.Module:
        """Concatenation of the input with what is computed from it (DenseNet)."""
        growth = self.rng.choice([3, 8])
        branch = self.same(self.channels, growth, nn.ReLU())
        pool = self.rng.random() < 0.3
        kept: nn.Module = nn.MaxPool2d(3, 1, 1) if pool else nn.Identity()
        self.channels += growth
        return Cat(kept, branch) if self.rng.random() < 0.5 else Cat(branch, kept)

    def max_pool(self) -> nn.Module:
        kernel = self.rng.choice([2, 3])
        padding = self.rng.choice([0, 1])
        dilation = self.rng.choice([1, 1, 2])
        stride = self.rng.choice([1, 2])
        span = dilation * (kernel - 1) + 1
        if min(self.height, self.width) < span:
            return self.depthwise()
        self.height = (self.height + 2 * padding - span) // stride + 1
        self.width = (self.width + 2 * padding - span) // stride + 1
        pool = nn.MaxPool2d(kernel, stride, padding, dilation)
        return nn.Sequential(pool, nn.ReLU()) if self.rng.random() < 0.3 else pool

    def average_pool(self) -> nn.Module:
        kernel = self.rng.choice([2, 3])
        if min(self.height, self.width) < kernel:
            return self.lone()
        padding = self.rng.choice([0, 1])
        self.height = (self.height + 2 * padding - kernel) // 2 + 1
        self.width = (self.width + 2 * padding - kernel) // 2 + 1
        return nn.AvgPool2d(kernel, 2, padding)

    def lone(self) -> nn.Module:
        """Operations with no convolution before them."""
        return self.rng.choice([nn.Sequential(nn.BatchNorm2d(self.channels), nn.ReLU()), nn.ReLU()])

    def gate(self) -> nn.Module:
        return Gate(self.channels, self.rng.choice([nn.Sigmoid(), nn.Hardsigmoid(), nn.ReLU6()]))

    def highway(self) -> nn.Module:
        return Highway(
            self.same(self.channels, self.channels, nn.Tanh()),
            self.same(self.channels, self.channels),
        )

    def slopes(self) -> nn.Module:
        """A slope a channel, or arithmetic with constants."""
        if self.rng.random() < 0.5:
            return nn.PReLU(self.channels, init=0.3)
        return Call(lambda x: -(0.5 * x - 0.25) / 2 + x * x)

    def head(self) -> list[nn.Module]:
        rng = self.rng
        kind = rng.choice(["none", "mean", "pool", "flatten", "mlp"])
        size = self.channels * self.height * self.width
        if kind == "none":
            return [nn.Conv2d(self.channels, rng.choice([2, 8, 10]), 1)]
        if kind == "mean":
            keep = rng.random() < 0.5
            rest = [nn.Flatten()] if keep else []
            return [Mean(keep), *rest, nn.Dropout(), nn.Linear(self.channels, 10)]
        if kind == "pool":
            squeeze = rng.choice(
                [lambda x: x.squeeze(-1).squeeze(-1), lambda x: x.view(x.size(0), -1)]
            )
            return [nn.AdaptiveAvgPool2d(1), Call(squeeze), nn.Linear(self.channels, 7)]
        if kind == "flatten":
            return [nn.Flatten(), nn.Linear(size, 10)]
        return [
            Call(lambda x: x.reshape(x.shape[0], -1)),
            nn.Linear(size, 12, bias=False),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Linear(12, 5),
        ]
