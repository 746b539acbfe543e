"""Averages and maxima of whole maps: every lane takes a part, and the result is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.api import simulate
from secateur.canonical import rewrite
from secateur.canonical.partial import window_of
from secateur.ir import Network
from secateur.target import PRESETS
from tests.support.pipeline import build, check_image, compile_for, simulated, target

SIZES = [(32, 32), (31, 31), (17, 29), (1, 997), (7, 97), (120, 3)]


class Whole(nn.Module):
    """The mean, sum or maximum of every channel of ReLU(Conv2d)."""

    def __init__(self, kind: str, channels: int = 16) -> None:
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(3, channels, 1)
        self.last = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        if self.kind == "mean":
            return self.last(x.mean((2, 3)))
        if self.kind == "sum":
            return self.last(x.sum((2, 3)) / 64)
        return self.last(x.amax((2, 3)))


class Excited(nn.Module):
    """Squeeze and excitation: the map is averaged, and is multiplied by what comes of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        gate = self.excite(torch.relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1))))
        return x * nn.functional.hardsigmoid(gate)


def reducing(network: Network) -> list[tuple[int, int]]:
    """Kernels of the pooling layers."""
    kinds = ("avgpool", "maxpool")
    return [layer.sources[0].kernel for layer in network.layers if layer.kind in kinds]


@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
@pytest.mark.parametrize("size", SIZES)
def test_two_steps_compute_what_one_does(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model, x = Whole(kind).eval(), torch.randn(8, 3, *size)
    built = build(model, x)
    assert len(reducing(built.network)) == 2
    image = compile_for(built, target(8, 8, bank_words=2048))
    check_image(built, image, target(8, 8, bank_words=2048).geometry)
    with torch.no_grad():
        wanted = model(x).numpy()
    noise = secateur.run(image, x.numpy()).values - wanted
    assert (noise**2).sum() < 1e-3 * (wanted**2).sum()  # 30 dB


def test_the_map_is_in_the_banks_once() -> None:
    """16 x 32 x 32 bytes on every preset that has room for them; not in each of P banks."""
    torch.manual_seed(0)
    built = build(Whole("mean").eval(), torch.randn(8, 3, 32, 32))
    compiled = 0
    for to in PRESETS.values():
        geometry = to.geometry
        share = 16 * 32 * 32 // geometry.n // geometry.p
        if share > geometry.bank_words * 3 // 4:
            continue
        image = compile_for(built, to)
        words = {entry["tensor"]: entry["words"] for entry in image.metadata["memory"]}
        assert max(words.values()) <= 1.4 * share
        compiled += 1
    assert compiled >= 6


def test_squeeze_and_excitation_takes_fewer_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = Excited(48).eval(), torch.randn(8, 3, 16, 16)
    built, to = build(model, x), target(8, 8, bank_words=4096)
    image = compile_for(built, to)
    check_image(built, image, to.geometry)
    monkeypatch.setattr(rewrite, "share_maps", lambda editor: None)
    one = compile_for(build(model, x), to)
    cycles = [
        sum(layer["cycles"] for layer in i.metadata["layers"] if layer["kind"] == "avgpool")
        for i in (image, one)
    ]
    assert cycles[1] > 6 * 16 * 16  # a lane for all six blocks of channels
    assert cycles[0] < cycles[1] / 3


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_verilog_takes_two_steps_as_well(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Whole(kind, 12).eval(), torch.randn(4, 3, 15, 23)
    image = secateur.compile(model, target=simulated(4, 2), calibration=x)
    assert len([n for n in image.metadata["layers"] if n["kind"] in ("avgpool", "maxpool")]) == 2
    assert simulate(image, x[:2].numpy(), stalls=0.2).mismatches == []


def test_small_maps_are_taken_at_once() -> None:
    """A second layer takes 60 cycles: those of the MLPerf Tiny networks are not worth them."""
    for channels, size in ((64, (8, 8)), (64, (25, 5)), (256, (3, 3)), (1280, (3, 3)), (8, (2, 2))):
        assert window_of(channels, size, shared=False) is None
    assert window_of(64, (8, 8), shared=True) is not None
    assert window_of(1280, (7, 7), shared=False) is not None  # 7,840 words in every bank
    for channels in (8, 64, 256):
        for height, width in SIZES:
            window = window_of(channels, (height, width), shared=False)
            if window is not None:
                parts = np.ceil(height / window[0]) * np.ceil(width / window[1])
                assert height * width > parts >= min(16, height * width // 8)
