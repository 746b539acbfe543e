"""Seeded random CNNs over all supported operations, and ResNet-8, for tests of every layer."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

MAP_SIZES = [(25, 5), (3, 3), (9, 7), (12, 12), (16, 10), (8, 8), (5, 11), (1, 20), (14, 14)]
Shape = tuple[int, ...]


def random_network(seed: int) -> tuple[nn.Module, Shape]:
    """A small network in evaluation mode and its input shape without the batch, (C, H, W) or (C,).

    One in eight is a stack of linear layers. Weights are pruned by blocks of output channels.
    """
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module
        if seed % 8 == 7:
            shape: Shape = (rng.choice([5, 16, 33]),)
            model = _vector_network(rng, shape[0])
        else:
            height, width = rng.choice(MAP_SIZES)
            shape = (rng.choice([1, 2, 3, 3, 5, 8]), height, width)
            model = _map_network(rng, shape)
        for module in model.modules():
            _randomise(rng, module)
    return model.eval(), shape


def random_input(seed: int, shape: Shape, batch: int) -> Tensor:
    """Float samples (batch, *shape): never negative for even seeds, of either sign for odd ones."""
    generator = torch.Generator().manual_seed(seed)
    if seed % 2 == 0:
        return torch.rand(batch, *shape, generator=generator) * (255 if seed % 4 else 1)
    return torch.randn(batch, *shape, generator=generator)


class Mask(nn.Module):
    """weight -> weight * mask, as a parametrisation."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


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


def _map_network(rng: random.Random, shape: Shape) -> nn.Module:
    layers: list[nn.Module] = []
    builder = _Builder(rng, *shape)
    for _ in range(rng.randint(2, 5)):
        layers.append(builder.block(first=not layers))
    layers.extend(builder.head())
    return nn.Sequential(*layers)


def _activation(rng: random.Random) -> nn.Module:
    return rng.choice(
        [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.ReLU6(),
            nn.ReLU6(inplace=True),
            nn.Hardtanh(-1.5, 2.0),
            nn.Identity(),
            nn.ReLU(),
        ]
    )


class _Builder:
    """Adds blocks and keeps track of the shape of the map."""

    def __init__(self, rng: random.Random, channels: int, height: int, width: int) -> None:
        self.rng, self.channels, self.height, self.width = rng, channels, height, width

    def block(self, *, first: bool) -> nn.Module:
        kinds = [self.conv, self.depthwise, self.residual, self.projection, self.cat]
        if not first:
            kinds += [self.max_pool, self.average_pool, self.dense, self.lanes, self.lone]
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
        layers.append(_activation(rng))
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
        return nn.Sequential(conv, nn.BatchNorm2d(self.channels), _activation(self.rng))

    def residual(self) -> nn.Module:
        body = nn.Sequential(
            self.same(self.channels, self.channels, nn.ReLU()),
            self.same(self.channels, self.channels),
        )
        branches = [body, nn.Identity()]
        self.rng.shuffle(branches)
        in_place = branches[0] is body and self.rng.random() < 0.5
        return Add(branches[0], branches[1], _activation(self.rng), in_place)

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
        return Add(body, shortcut, _activation(self.rng), self.rng.random() < 0.5)

    def lanes(self) -> nn.Module:
        """Sum of two stored tensors."""
        pool = nn.MaxPool2d(3, 1, 1)
        other = self.rng.choice(
            [nn.Identity(), self.same(self.channels, self.channels, nn.ReLU6())]
        )
        return Add(pool, other, _activation(self.rng), False)

    def cat(self) -> nn.Module:
        widths = [self.rng.choice([1, 4, 8, 11]) for _ in range(self.rng.choice([2, 2, 3]))]
        branches = [self.same(self.channels, n, _activation(self.rng)) for n in widths]
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


def _vector_network(rng: random.Random, inputs: int) -> nn.Module:
    width = rng.choice([8, 13, 24])
    middle = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
    plain = nn.Linear(width, width)
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        Add(rng.choice([middle, plain]), nn.Identity(), _activation(rng), False),
        nn.Linear(width, inputs),
    )


def _randomise(rng: random.Random, module: nn.Module) -> None:
    """Trained-looking statistics, uneven channels, and blocks of zeros."""
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        nn.init.normal_(module.running_mean, std=0.3)
        nn.init.uniform_(module.running_var, 0.3, 2.0)
        nn.init.uniform_(module.weight, 0.3, 2.0)
        nn.init.normal_(module.bias, std=0.3)
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return
    with torch.no_grad():
        outputs = module.weight.shape[0]
        columns = module.weight.view(outputs, -1).shape[1]
        spread = torch.exp2(torch.empty(outputs).uniform_(-1.5, 1.5))
        module.weight.mul_(spread.view(-1, *[1] * (module.weight.dim() - 1)))
        block, kept = rng.choice([4, 8]), rng.choice([0.3, 0.6, 1.0])
        keep = (torch.rand(-(-outputs // block), columns) < kept).float()
        mask = keep.repeat_interleave(block, 0)[:outputs].reshape(module.weight.shape)
        if rng.random() < 0.2:
            mask[rng.randrange(outputs)] = 0
        if rng.random() < 0.5:
            module.weight.mul_(mask)
        else:
            parametrize.register_parametrization(module, "weight", Mask(mask))


class ResNet8(nn.Module):
    """The ResNet-8 of MLPerf Tiny (mlcommons/tiny) for images (N, 3, 32, 32), 0 to 255.

    Returns logits (N, 10). 'same' padding is TensorFlow's: at stride 2 only bottom and right.
    """

    def __init__(self) -> None:
        super().__init__()
        plan = [(3, 16, 3, 1), (16, 16, 3, 1), (16, 16, 3, 1), (16, 32, 3, 2), (32, 32, 3, 1)]
        plan += [(16, 32, 1, 2), (32, 64, 3, 2), (64, 64, 3, 1), (32, 64, 1, 2)]
        self.c = nn.ModuleList(
            nn.Conv2d(i, o, k, s, padding=k // 2 if s == 1 else 0) for i, o, k, s in plan
        )
        self.b = nn.ModuleList(nn.BatchNorm2d(n, eps=1e-3) for n in (16, 16, 16, 32, 32, 64, 64))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        c, b = self.c, self.b
        x = F.relu(b[0](c[0](x)))
        y = F.relu(b[1](c[1](x)))
        x = F.relu(x + b[2](c[2](y)))
        y = F.relu(b[3](c[3](F.pad(x, (0, 1, 0, 1)))))
        x = F.relu(c[5](x) + b[4](c[4](y)))
        y = F.relu(b[5](c[6](F.pad(x, (0, 1, 0, 1)))))
        x = F.relu(c[8](x) + b[6](c[7](y)))
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def resnet8(seed: int) -> tuple[nn.Module, Shape]:
    """ResNet-8 with random weights, in evaluation mode, and its input shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResNet8()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.3, 2.0)
                nn.init.normal_(module.running_mean, std=0.3)
    return model.eval(), (3, 32, 32)
