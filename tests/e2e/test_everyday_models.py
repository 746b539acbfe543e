"""Whole networks as they are published, small: exact on every layer, near the float model, also as
ONNX files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

import secateur
from secateur.capture.export import quiet
from secateur.capture.onnx.convert import convert_onnx
from secateur.compiler.compiler import compile_network
from secateur.errors import SecateurError
from tests.support.long import long, quick
from tests.support.pipeline import build, check_image, simulated, target


class Model(nn.Module):
    """``forward`` of inputs, which uses ``parts`` as attributes of the module."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def conv(inputs: int, outputs: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


def unit(inputs: int, outputs: int, activation: nn.Module, **options: Any) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, **options), nn.BatchNorm2d(outputs), activation)


class Siamese(nn.Module):
    """How far two pictures are apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), nn.Linear(8, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.b((self.a(left) - self.a(right)).abs().mean((2, 3)))  # type: ignore[no-any-return]


class Chomp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-4].contiguous()


def causal(inputs: int) -> nn.Sequential:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(inputs, 8, 3, padding=4, dilation=2))
    return nn.Sequential(layer, Chomp(), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))


def temporal(m: Any, x: Tensor) -> Tensor:
    """A temporal convolutional network on (N, T, F)."""
    x = m.first(x.permute(0, 2, 1))
    x = F.relu(m.second(x) + F.max_pool1d(x, 3, 1, 1))
    return m.head(x)[:, :, -1]


def inverted(m: Any, x: Tensor) -> Tensor:
    """An inverted bottleneck with squeeze and excitation; h-swish and h-sigmoid by hand."""
    y = m.wide(x)
    y = y * (F.relu6(y + 3) / 6)
    y = F.relu(m.deep(y))
    gate = m.excite(F.relu(m.squeeze(y.mean(3).mean(2)))).clamp(-3, 3) / 6 + 0.5
    y = y * gate.view(x.size(0), -1, 1, 1).expand_as(y)
    return F.normalize(m.out(m.narrow(y) + x).flatten(1))


def shuffle(m: Any, x: Tensor) -> Tensor:
    """Grouped convolutions with a channel shuffle, a split, and channels made from others."""
    x = F.relu(m.first(x))
    n, c, h, w = x.size()
    x = m.second(x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))
    left, right = x.chunk(2, dim=1)
    x = torch.cat((left, m.third(right)), dim=1)
    return torch.cat([x, m.cheap(x)], 1)[:, :20].amax((2, 3))


def detect(m: Any, x: Tensor) -> Tensor:
    """Boxes in pixels beside scores in 0..1, from two scales, in one tensor."""
    fine = F.leaky_relu(m.stem(x), 0.1)
    coarse = m.down(F.max_pool2d(F.pad(fine, (0, 1, 0, 1), mode="replicate"), 2, stride=1))
    found = []
    for y in (torch.cat([F.interpolate(coarse, scale_factor=2.0), fine], 1), m.widen(coarse)):
        found.append(torch.cat([m.boxes(y) * 16, m.scores(y).sigmoid()], 1).flatten(2))
    return torch.cat(found, 2).permute(0, 2, 1)


def heads(m: Any, x: Tensor) -> dict[str, Tensor]:
    """Classes and boxes per place, as single-shot detectors return them."""
    maps = [F.relu(m.a(x))]
    maps.append(F.relu(m.b(maps[0])))
    classes = [
        h(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for h, y in zip(m.c, maps, strict=True)
    ]
    boxes = [
        h(y).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for h, y in zip(m.d, maps, strict=True)
    ]
    return {"classes": torch.cat(classes, 1), "boxes": torch.cat(boxes, 1)}


def unet(up: nn.Module) -> Model:
    def forward(m: Any, x: Tensor) -> Tensor:
        high = F.relu(m.a(x))
        low = F.relu(m.b(F.max_pool2d(high, 2)))
        return m.c(torch.cat([m.up(low), high], 1))  # type: ignore[no-any-return]

    return Model(forward, a=conv(3, 6), b=conv(6, 8), c=conv(14, 2), up=up)


def broadcast(m: Any, x: Tensor) -> Tensor:
    """A residual that is computed of the mean over frequencies, and added to all of them."""
    y = m.norm(m.two(x))
    return F.relu(x + y + m.one(y.mean(2, keepdim=True)))


def masked(m: Any, x: Tensor) -> Tensor:
    """Places outside a mask take no part in max pooling; a learned token is one more place."""
    y = F.max_pool2d(torch.where(m.mask, m.a(x), float("-inf")), 2).flatten(2)
    return m.b(torch.cat([y, m.token.expand(x.shape[0], -1, -1)], 2)).mean(2)


def frames(m: Any, x: Tensor) -> Tensor:
    """Convolutions of every frame, then a recurrent layer over frames; x is (N, T, C, H, W)."""
    y = F.relu(m.norm(m.a(x.flatten(0, 1)))).mean((2, 3))
    return m.out(m.over(y.view(x.shape[0], x.shape[1], 8))[0][:, -1])


EEG = nn.Sequential(
    nn.Conv2d(1, 4, (1, 9), padding=(0, 4), bias=False), nn.BatchNorm2d(4),
    nn.Conv2d(4, 8, (6, 1), groups=4, bias=False), nn.BatchNorm2d(8), nn.ELU(),
    nn.AvgPool2d((1, 4)), nn.Dropout(0.25), nn.Conv2d(8, 8, (1, 5), padding=(0, 2), groups=8),
    nn.Conv2d(8, 8, 1), nn.ELU(), nn.Flatten(), nn.Linear(64, 3),
)  # fmt: skip
MASK = torch.arange(64).view(1, 1, 8, 8) % 5 > 0
MAPS, STEPS = (3, 8, 8), (5, 6)
#: Name: the model, and the shapes of its inputs without samples.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "temporal": (
        lambda: Model(temporal, first=causal(6), second=causal(8), head=nn.Conv1d(8, 4, 1)),
        ((12, 6),),
    ),
    "inverted bottleneck": (
        lambda: Model(
            inverted, wide=unit(8, 24, nn.Identity(), size=1), squeeze=nn.Linear(24, 6),
            deep=unit(24, 24, nn.Identity(), groups=24), excite=nn.Linear(6, 24),
            narrow=conv(24, 8, 1), out=nn.Conv2d(8, 5, 6),
        ),
        ((8, 6, 6),),
    ),
    "shuffle": (
        lambda: Model(
            shuffle, first=conv(3, 16), second=conv(16, 16, groups=4),
            third=unit(8, 8, nn.ReLU(), groups=8), cheap=conv(16, 16, groups=16),
        ),
        (MAPS,),
    ),
    "detector": (
        lambda: Model(
            detect, stem=conv(3, 8), down=conv(8, 8, stride=2), widen=conv(8, 16, 1),
            boxes=conv(16, 4, 1), scores=conv(16, 3, 1),
        ),
        (MAPS,),
    ),
    "heads": (
        lambda: Model(
            heads, a=conv(3, 8), b=conv(8, 8, stride=2),
            c=nn.ModuleList([conv(8, 6), conv(8, 3)]), d=nn.ModuleList([conv(8, 8), conv(8, 4)]),
        ),
        (MAPS,),
    ),
    "U-Net, nearest": (lambda: unet(nn.Upsample(scale_factor=2)), (MAPS,)),
    "U-Net, bilinear": (lambda: unet(nn.UpsamplingBilinear2d(scale_factor=2)), (MAPS,)),
    "U-Net, transposed": (lambda: unet(nn.ConvTranspose2d(8, 8, 2, 2)), (MAPS,)),
    "super resolution": (
        lambda: nn.Sequential(conv(1, 8, 5), nn.Tanh(), conv(8, 4), nn.PixelShuffle(2)),
        ((1, 6, 6),),
    ),
    "autoencoder": (
        lambda: nn.Sequential(
            conv(3, 8, stride=2), nn.ReLU(), conv(8, 16, stride=2), nn.GELU(),
            nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1),
            nn.Sigmoid(),
        ),
        (MAPS,),
    ),
    "EEG": (lambda: EEG, ((1, 6, 32),)),
    "broadcast residual": (
        lambda: Model(
            broadcast, two=conv(3, 3, groups=3), norm=nn.BatchNorm2d(3),
            one=nn.Sequential(nn.Conv2d(3, 3, (1, 3), padding=(0, 1), groups=3), nn.SiLU()),
        ),
        (MAPS,),
    ),
    "masked": (
        lambda: Model(
            masked, a=conv(3, 8), b=nn.Conv1d(8, 4, 1), mask=nn.Buffer(MASK),
            token=nn.Parameter(torch.linspace(-1, 1, 8).view(1, 8, 1)),
        ),
        (MAPS,),
    ),
    "siamese": (
        Siamese,
        (MAPS, MAPS),
    ),
    "mixer": (
        lambda: Model(
            lambda m, x: m.c((x + m.b(x.transpose(1, 2)).transpose(1, 2)).mean(1)),
            b=nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 5)), c=nn.Linear(6, 4),
        ),
        (STEPS,),
    ),
    "both directions": (
        lambda: Model(
            lambda m, x: m.b(m.a(x)[0]), b=nn.Linear(16, 3),
            a=nn.GRU(6, 8, bidirectional=True, batch_first=True),
        ),
        (STEPS,),
    ),
    "results and states": (lambda: nn.LSTM(6, 8, 2, batch_first=True), (STEPS,)),
    "frames": (
        lambda: Model(
            frames, a=conv(2, 8), norm=nn.BatchNorm2d(8), over=nn.GRU(8, 6, batch_first=True),
            out=nn.Linear(6, 3),
        ),
        ((3, 2, 5, 5),),
    ),
    "one value": (  # of each sample, (N,)
        lambda: Model(lambda m, x: F.relu(m.a(x)).squeeze(1) * 2 + 0.5, a=nn.Linear(9, 1)),
        ((9,),),
    ),
    "steps taken together": (
        lambda: Model(
            lambda m, x: m.b(F.relu(m.norm(m.a(x.reshape(-1, 6)))).view(x.size(0), -1, 8)).sum(1),
            a=nn.Linear(6, 8), norm=nn.BatchNorm1d(8), b=nn.Linear(8, 3),
        ),
        (STEPS,),
    ),
}  # fmt: skip
#: Written by torch.onnx's exporter of torch.export here; the others in the long tests.
EXPORTED = ("detector", "masked")
FROM_A_FILE = ("heads", "siamese", "temporal", "U-Net, nearest")
#: Recurrent models of many layers: in the long tests.
STEPPED = ("both directions", "results and states")
LARGE = target(8, 8, bank_words=8192)


def made(name: str) -> tuple[nn.Module, Any]:
    """A model with the statistics of its inputs, and these."""
    torch.manual_seed(0)
    make, shapes = MODELS[name]
    model, x = make(), tuple(torch.randn(12, *shape) for shape in shapes)
    for norm in [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(*x)
    return model.eval(), x if len(x) > 1 else x[0]


def check(model: nn.Module, x: Any, wanted: Any) -> None:
    """Exact on every layer; 20 dB or more between the results and what is wanted."""
    built = build(model, x)
    image = compile_network(built.network, LARGE)
    assert check_image(built, image, LARGE.geometry) > 0
    found = secateur.run(image, tree_map(lambda tensor: tensor.numpy(), x)).values
    for value, leaf in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        error = np.square(value - leaf.numpy()).sum()
        assert 100 * error < leaf.square().sum()


def called(model: nn.Module, x: Any) -> Any:
    with torch.no_grad():
        return model(*x) if isinstance(x, tuple) else model(x)


@pytest.mark.parametrize("name", quick(MODELS, MODELS.keys() - STEPPED))
def test_exact_and_near_the_float_model(name: str) -> None:
    model, x = made(name)
    check(model, x, called(model, x))


def check_file(name: str, *, dynamo: bool) -> None:
    """The same of an ONNX file that takes any number of samples."""
    model, x = made(name)
    file, inputs = io.BytesIO(), x if isinstance(x, tuple) else (x,)
    names = [f"x{index}" for index in range(len(inputs))]
    sizes: dict[str, Any] = {"dynamic_axes": {key: {0: "batch"} for key in names}}
    if dynamo:
        shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
        sizes = {"dynamic_shapes": (shapes,) if isinstance(model, Model) else shapes}
    with torch.no_grad(), quiet():
        torch.onnx.export(
            model, inputs, file, input_names=names, dynamo=dynamo, verbose=False, **sizes
        )
    wanted = called(model, x)
    loaded = convert_onnx(onnx.load_from_string(file.getvalue()))
    check(loaded, x, list(wanted.values()) if isinstance(wanted, dict) else wanted)


@pytest.mark.filterwarnings("ignore")  # the exporter's, about itself
@pytest.mark.parametrize("name", quick(MODELS, FROM_A_FILE))
def test_the_same_from_an_onnx_file(name: str) -> None:
    check_file(name, dynamo=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", quick(MODELS, EXPORTED))
def test_the_same_from_an_onnx_file_of_torch_export(name: str) -> None:
    check_file(name, dynamo=True)


@pytest.mark.parametrize(
    "name",
    [long("inverted bottleneck"), long("shuffle"), long("frames"), "detector", "masked"],
)
def test_verilator(name: str) -> None:
    model, x = made(name)
    image = secateur.compile(model, target=simulated(8, 8), calibration=x)
    result = secateur.simulate(image, x[:2].numpy(), stalls=0.2)
    assert result.mismatches == []
    assert result.layers_compared == 2 * len(image.metadata["layers"])


@pytest.mark.parametrize("model", [nn.Linear(4, 3), nn.Identity()])
def test_argmax_is_refused_where_something_reads_it(model: nn.Module) -> None:
    x = torch.randn(8, 4)
    with pytest.raises(SecateurError, match=r"\(argmax\): .* only at the very end"):
        build(Model(lambda m, x: m.a(x).argmax(1) * 2, a=model), x)


def test_inputs_of_more_dimensions_have_one_exponent() -> None:
    """Channels of unlike ranges, of frames, of which an image has no exponents."""
    torch.manual_seed(0)
    x = torch.randn(12, 3, 2, 2, 2) * torch.tensor([1.0, 200.0]).view(2, 1, 1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    check(model, x, called(model, x))
