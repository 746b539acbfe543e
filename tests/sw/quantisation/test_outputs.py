"""Parts of one output with unlike ranges: each has a factor, by which the host multiplies it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur import api
from secateur.errors import SecateurError
from secateur.image import image as images
from secateur.quantisation.prepare import quantize
from tests.support.pipeline import simulated


class Detector(nn.Module):
    """Boxes of hundreds and scores below one, together in one output.

    Parameters
    ----------
    axis : along which they follow each other
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.axis = axis
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return torch.cat([300 * self.boxes(x), torch.sigmoid(self.scores(x)) - 0.4], self.axis)


class Anchors(Detector):
    """As lists of places: (N, H * W, 8)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(2).transpose(1, 2)


def split(values: Any, axis: int) -> list[np.ndarray]:
    return np.split(np.asarray(values, np.float64), 2, axis)


@pytest.mark.parametrize(
    ("model", "axis"),
    [(Detector(1), 1), (Detector(2), 2), (Detector(3), 3), (Anchors(1), 2)],
    ids=["channels", "rows", "columns", "anchors"],
)
def test_every_part_keeps_its_bits(model: Detector, axis: int, tmp_path: Path) -> None:
    model, x = model.eval(), torch.randn(32, 3, 6, 6)
    graph = quantize(model, x)
    image = api.compile(graph, target="8x8")
    found = api.run(image, x.numpy()).values
    with torch.no_grad():
        assert np.array_equal(found, graph(x))
        wanted = model(x)
    for exact, rounded in zip(split(wanted, axis), split(found, axis), strict=True):
        noise = np.square(exact - rounded).sum() / np.square(exact).sum()
        assert 10 * np.log10(noise) < -30
    path = tmp_path / "model.sec"
    image.save(path)
    assert np.array_equal(api.run(images.load(path), x.numpy()).values, found)


def test_a_saved_graph_has_the_factors(tmp_path: Path) -> None:
    x = torch.randn(8, 3, 6, 6)
    graph = quantize(Detector(1).eval(), x)
    torch.export.save(torch.export.export(graph, (x[:2],)), tmp_path / "graph.pt2")
    loaded = torch.export.load(tmp_path / "graph.pt2")
    images = [api.compile(found, target="8x8") for found in (graph, loaded)]
    first, second = (image.metadata["outputs"][0]["factors"] for image in images)
    assert first == second
    assert len(set(first)) == 2


class Head(nn.Module):
    """Boxes and scores of one convolution, perhaps with more around it.

    Parameters
    ----------
    behind : what is done with them
    size : of the boxes beside the scores
    """

    def __init__(self, behind: Callable[[Tensor], Any], size: float = 300.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.more, self.behind = nn.Conv2d(8, 2, 1), behind
        with torch.no_grad():
            self.last.weight[:4] *= size
            self.last.bias[:4] *= size

    def forward(self, x: Tensor) -> Any:
        return self.behind(self.last(torch.relu(self.first(x))))


def kept(x: Tensor) -> Tensor:
    return x


HEADS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "channels": (kept, 1),
    "relu": (torch.relu, 1),
    "anchors": (lambda x: x.flatten(2).transpose(1, 2), 2),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), 3),
}


@pytest.mark.parametrize("name", HEADS)
def test_channels_of_one_layer_keep_their_bits(name: str) -> None:
    """Also in Verilator, whose bytes are those of the graph."""
    behind, axis = HEADS[name]
    model, x = Head(behind).eval(), torch.randn(32, 3, 6, 6)
    graph = quantize(model, x)
    image = api.compile(graph, target=simulated(4, 2))
    result = api.simulate(image, x[:2].numpy())
    assert result.mismatches == []
    assert result.outputs is not None
    with torch.no_grad():
        wanted, found = model(x), graph(x)
    assert np.array_equal(result.outputs.values, found[:2])
    (port,) = image.metadata["outputs"]
    assert len(port["factors"]) == 8
    assert {
        np.frexp(first / second)[0] for first in port["factors"] for second in port["factors"]
    } == {0.5}
    for exact, rounded in zip(split(wanted, axis), split(found, axis), strict=True):
        noise = np.square(exact - rounded).sum() / np.square(exact).sum()
        assert 10 * np.log10(noise) < -28


def factors_of(model: nn.Module) -> list[int]:
    """How many factors each output has."""
    graph = quantize(model.eval(), torch.randn(16, 3, 6, 6))
    outputs = api.compile(graph, target="8x8").metadata["outputs"]
    return [len(port.get("factors", [1])) for port in outputs]


class Read(Head):
    """A layer reads them, too."""

    def forward(self, x: Tensor) -> Any:
        x = self.last(torch.relu(self.first(x)))
        return x, self.more(x)


def test_outputs_that_have_one_factor() -> None:
    """Of like ranges, for their codes can be compared; or where more than the host reads them."""
    assert factors_of(Head(kept)) == [8]
    assert factors_of(Head(kept, size=3.0)) == [1]
    assert factors_of(Head(lambda x: x[:, :, 0, 0])) == [1]
    assert factors_of(Read(kept))[0] == 1
    assert factors_of(Head(torch.nn.functional.relu6)) == [1]
    assert factors_of(Head(lambda x: torch.nn.functional.avg_pool2d(x, 2))) == [1]
    assert factors_of(Head(lambda x: (x, x.flatten(1)))) == [1, 1]
    assert factors_of(Head(lambda x: x.reshape(len(x), 2, 2, 2, 36))) == [1]


class Between(nn.Module):
    """A constant among the values, which no layer computes: one factor for all."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Detector(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.part(x)
        return torch.cat([x, torch.full_like(x[:, :1], 2.0)], 1)


def test_constants_among_the_values() -> None:
    x = torch.randn(8, 3, 6, 6)
    graph = quantize(Between().eval(), x)
    found = api.run(api.compile(graph, target="8x8"), x.numpy()).values
    with torch.no_grad():
        assert np.array_equal(found, graph(x))


def test_in_verilator() -> None:
    model, x = Detector(1).eval(), torch.randn(8, 3, 6, 6)
    image = api.compile(model, target=simulated(4, 2), calibration=x)
    result = api.simulate(image, x[:2].numpy(), stalls=0.2)
    assert result.mismatches == []
    assert result.outputs is not None
    assert np.array_equal(result.outputs.values, api.run(image, x[:2].numpy()).values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"along": 3}, "along is 3, expected an integer from 0 to 2"),
        ({"along": 1}, "factors has 8 entries, expected 6"),
        ({"factors": [1.0] * 7 + [-1.0]}, r"factors\[7\] is -1.0"),
        ({"factors": 2.0}, "factors is 2.0, expected a list"),
        ({"samples": 1}, "samples is 1, expected 0 with factors"),
    ],
)
def test_damaged_factors_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    x = torch.randn(8, 3, 6, 6)
    image = api.compile(Detector(1).eval(), target="8x8", calibration=x)
    image.metadata["outputs"][0] |= change
    image.save(tmp_path / "model.sec")
    with pytest.raises(SecateurError, match=rf"outputs\[0\]\.{message}"):
        images.load(tmp_path / "model.sec")
