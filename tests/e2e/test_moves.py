"""Models that move values in all ways: PyTorch = golden on every layer, and Verilator."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from secateur import api
from secateur.errors import SecateurError
from secateur.image.image import Image
from tests.support.move_models import Moves, models
from tests.support.network_blocks import Call
from tests.support.pipeline import simulated, target

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "moves.md"
Move = Callable[[Tensor], Tensor]
#: The rows of the page's table: moves of maps (N, 8, 6, 6), read by a convolution.
ROWS: dict[str, list[Move]] = {
    "slice, step, flip, transpose, `chunk`, channel shuffle": [
        lambda x: x[:, 1:5, 1:, ::2],
        lambda x: x.flip(2, 3),
        lambda x: x.transpose(2, 3),
        lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
        nn.ChannelShuffle(2),
    ],
    "`PixelUnshuffle(2)`": [nn.PixelUnshuffle(2)],
    "`roll`": [lambda x: x.roll(1, 2)],
    "nearest upsampling or `PixelShuffle(2)`": [
        nn.Upsample(scale_factor=2),
        nn.PixelShuffle(2),
    ],
    "reflecting padding by 1": [lambda x: F.pad(x, (1, 1, 1, 1), "reflect")],
}
NO_SHRINK = [Phase.explicit, Phase.reuse, Phase.generate]


def outcome(model: Moves) -> str:
    """Compile, which compares every layer with PyTorch, and run: "" or why it is refused."""
    x = model.inputs
    large = target(4, 2, bank_words=8192, weight_words=1 << 17)
    try:
        image = api.compile(model, target=large, calibration=x)
    except SecateurError as error:
        return str(error)
    outputs = api.run(image, tree_map(lambda tensor: tensor.numpy(), x))
    assert outputs.cycles == image.metadata["cycles"]
    assert len(tree_leaves(outputs.values)) == 1 + len(model.returned)
    return ""


def check(model: Moves) -> None:
    found = outcome(model)
    assert not found or "copies" in found or "do not fit" in found, (model.names, found)


def between(move: Move) -> nn.Module:
    """A move between convolutions, the second of which takes as many channels as there are."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Call(move))
    channels = first(torch.zeros(1, 3, 6, 6)).shape[1]
    return nn.Sequential(first, nn.Conv2d(channels, 4, 3)).eval()


def copies_of(image: Image) -> int:
    return sum(layer["kind"] == "copy" for layer in image.metadata["layers"])


def test_the_pages_copies() -> None:
    x, found = torch.randn(4, 3, 6, 6), {}
    for row, moves in ROWS.items():
        images = [api.compile(between(m), target="8x8", calibration=x) for m in moves]
        counts = {copies_of(image) for image in images}
        assert len(counts) == 1, row
        found[row] = counts.pop()
    shown = re.findall(r"^\| (.*) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {row: int(count) for row, count in shown} == found


class Constants(nn.Module):
    """Parameters beside values: in a concatenation, and expanded to them."""

    def __init__(self) -> None:
        super().__init__()
        self.channel = nn.Parameter(torch.randn(1, 1, 6, 6) - 0.3)
        self.bias = nn.Parameter(torch.randn(9, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wider = torch.cat([x, (1.5 * self.channel).expand(x.size(0), -1, -1, -1)], 1)
        return wider + self.bias.expand_as(wider)


def test_constants_are_rounded_as_the_model_rounds_them() -> None:
    torch.manual_seed(0)
    model, x = between(Constants()), torch.randn(8, 3, 6, 6)
    image = api.compile(model, target="8x8", calibration=x)  # compares every layer with PyTorch
    found = torch.from_numpy(api.run(image, x.numpy()).values)
    with torch.no_grad():
        error = (found - model(x)).square().mean().sqrt()
    assert error < 0.05 * found.abs().max()


class Reshaped(nn.Module):
    """A map in another shape, which two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 8, 4, 9)
        return torch.sigmoid(self.gate(x).mean((2, 3), keepdim=True)) * x


def test_a_shape_that_two_layers_read_is_copied_once() -> None:
    x = torch.randn(4, 3, 6, 6)
    image = api.compile(between(Reshaped()), target="8x8", calibration=x)
    names = [tensor["name"] for tensor in image.metadata["tensors"]]
    assert len(set(names)) == len(names)
    written = [layer["output"] for layer in image.metadata["layers"] if layer["kind"] == "copy"]
    assert len(set(written)) == 1


def test_a_convolution_of_one_channel_of_several_reads_that_one() -> None:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 1, 2)
    model = nn.Sequential(first, nn.ReLU(), Call(lambda x: x[:, 2:3]), last).eval()
    x = torch.randn(4, 3, 6, 6)
    image = api.compile(model, target="8x8", calibration=x)  # compares every layer with PyTorch
    assert copies_of(image) == 0


@pytest.mark.parametrize(
    "move",
    [
        nn.PixelShuffle(2),
        lambda x: F.pad(x.flip(3).transpose(2, 3), (1, 0, 0, 1), value=0.5),
        lambda x: torch.cat([x[:, ::2, 1:], x.roll(2, 3)[:, :4, :-1]], 3),
        nn.ConvTranspose2d(8, 5, 3, 2, 1, 1),
        lambda x: x.flip(2) * x.sigmoid(),  # the flipped map must not take the place of the other
    ],
)
def test_moves_in_verilator(move: Move) -> None:
    torch.manual_seed(0)
    model, x = between(move), torch.randn(4, 3, 6, 6)
    image = api.compile(model, target=simulated(4, 2), calibration=x)
    result = api.simulate(image, x[:2].numpy(), stalls=0.2)
    assert result.mismatches == []
    assert result.layers_compared == 2 * len(image.metadata["layers"])


@settings(max_examples=40, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_random_moves(model: Moves) -> None:
    check(model)


@pytest.mark.long
@settings(max_examples=1000, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_many_random_moves(model: Moves) -> None:
    check(model)


@pytest.mark.long
@settings(max_examples=50, phases=NO_SHRINK, suppress_health_check=list(HealthCheck))
@given(models())
def test_random_moves_in_verilator(model: Moves) -> None:
    x, image = model.inputs, None
    with contextlib.suppress(SecateurError):  # of more memory or copies than there may be
        image = api.compile(model, target=simulated(4, 2), calibration=x)
    if image is None:
        return check(model)
    result = api.simulate(image, tree_map(lambda tensor: tensor[:2].numpy(), x), stalls=0.1)
    assert result.mismatches == []
    assert result.layers_compared == 2 * len(image.metadata["layers"])
