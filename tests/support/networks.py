"""Seeded random CNNs over all supported operations, and ResNet-8, for tests of every layer."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateur.models import DSCNN, Autoencoder, MobileNetV1, ResNet8
from secateur.pruning import prune
from tests.support.network_blocks import Add, Builder, activation

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


def _map_network(rng: random.Random, shape: Shape) -> nn.Module:
    layers: list[nn.Module] = []
    builder = Builder(rng, *shape)
    for _ in range(rng.randint(2, 5)):
        layers.append(builder.block(first=not layers))
    layers.extend(builder.head())
    return nn.Sequential(*layers)


def _vector_network(rng: random.Random, inputs: int) -> nn.Module:
    width = rng.choice([8, 13, 24])
    middle = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
    plain = nn.Linear(width, width)
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        Add(rng.choice([middle, plain]), nn.Identity(), activation(rng), False),
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


#: The four networks of MLPerf Tiny: input shape, and what is not worth pruning beside depthwise.
MLPERF_TINY: dict[type[nn.Module], tuple[Shape, list[str]]] = {
    ResNet8: ((3, 32, 32), ["c.0", "fc"]),
    DSCNN: ((1, 49, 10), ["c0", "fc"]),
    MobileNetV1: ((3, 96, 96), ["c0", "fc"]),
    Autoencoder: ((640,), []),
}


def mlperf_tiny(kind: type[nn.Module], density: float) -> tuple[nn.Module, Shape]:
    """One of the four with random weights, at this density of the blocks of its larger layers."""
    shape = MLPERF_TINY[kind][0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.running_mean, std=0.3)
    if density < 1:
        prune(model, density=density, n=8, skip=skipped(model))
    return model, shape


def skipped(model: nn.Module) -> list[str]:
    """Layers of one of the four that are not worth pruning."""
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    return [*MLPERF_TINY[type(model)][1], *(n for n, conv in convs.items() if conv.groups > 1)]
