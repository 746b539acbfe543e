"""Layers that compute some pixels of a map, and sources that leave rows or columns out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secateur import api
from secateur.compiler import dataflow
from secateur.compiler.compiler import compile_network
from secateur.compiler.prepare import runnable
from secateur.compiler.schedule import plan
from secateur.errors import SecateurError
from secateur.image.image import Image
from secateur.inference import traced
from secateur.ir import Form, Ints, Layer, Network, Port, Region, Source, Tensor
from tests.support.pipeline import simulated, target

SIZES = [(2, 1), (4, 2), (8, 8)]


def naive(network: Network, codes: Ints) -> dict[str, Ints]:
    """(batch, channels, H, W) of every layer's own pixels, by loops over the definition of ir."""
    maps = {network.given[0]: codes}
    found = {}
    for layer in network.layers:
        pixels, output = layer.pixels, layer.output
        out = maps.setdefault(
            output, np.zeros((len(codes), output.channels, output.height, output.width), np.int64)
        )
        total = np.zeros((len(codes), layer.channels, pixels.height, pixels.width), np.int64)
        for source in layer.sources:
            read = maps[source.tensor][:, source.first : source.first + source.count]
            top, left, bottom, right = source.padding
            grown = np.pad(read, ((0, 0), (0, 0), *((max(0, a), max(0, b)) for a, b in (
                (top, bottom), (left, right)))))  # fmt: skip
            grown = grown[:, :, max(0, -top) :, max(0, -left) :]
            for y in range(source.kernel[0]):
                for x in range(source.kernel[1]):
                    rows = y * source.dilation[0] + np.arange(pixels.height) * source.stride[0]
                    columns = x * source.dilation[1] + np.arange(pixels.width) * source.stride[1]
                    tap, weight = grown[:, :, rows][:, :, :, columns], source.weight[..., y, x]
                    if source.mode == "broadcast":
                        total += np.einsum("oc,bchw->bohw", weight, tap)
                    else:
                        total += weight[:, None, None] * tap
        exact = total / 2.0 ** layer.shift[:, None, None] + layer.bias[:, None, None] / 8
        result = np.clip(np.rint(exact), layer.low, layer.high).astype(np.int64)
        found[layer.name] = result
        out[:, layer.first : layer.first + layer.channels, *pixels.at] = result
    return found


def copy_of(tensor: Tensor, name: str, to: Tensor, region: Region | None, **source: Any) -> Layer:
    """A layer that copies all channels of what its source reads."""
    ones = np.ones((tensor.channels, 1, 1), np.int64)
    none = np.zeros(tensor.channels, np.int64)
    sources = [Source(tensor, "lanewise", ones, **source)]
    return Layer(name, "copy", sources, to, none, none, -128, 127, region=region)


def network_of(seed: int) -> Network:
    """Phases of a larger map, parts side by side, a crop of them all, and a sum over that."""
    rng = np.random.default_rng(seed)
    channels, height, width = (int(rng.integers(1, limit)) for limit in (12, 9, 9))
    sy, sx = (int(rng.integers(1, 4)) for _ in range(2))
    x = Tensor("x", channels, height, width, 0, True)
    large = Tensor("large", channels, height * sy, width * sx, 0, True)
    layers = [
        copy_of(x, f"phase{i}{j}", large, Region(i, j, height, width, (sy, 0), (0, sx)))
        for i in range(sy)
        for j in range(sx)
    ]
    outputs = int(rng.integers(1, 12))
    both = Tensor("both", outputs, large.height, large.width + 2 * width, 0, True)

    def convolution(name: str, source: Tensor, region: Region | None, to: Tensor) -> Layer:
        weight = rng.integers(-30, 31, (outputs, source.channels, 3, 3))
        weight[rng.random(weight.shape) < 0.5] = 0
        bias, shift = rng.integers(-300, 300, outputs), rng.integers(4, 8, outputs)
        sources = [Source(source, "broadcast", weight, padding=(1, 1, 1, 1))]
        return Layer(name, "conv", sources, to, bias, shift, -128, 127, region=region)

    layers.append(convolution("left", large, Region(0, 0, large.height, large.width), both))
    for index in range(2):  # two narrow maps to the right, each filled row by row
        at = large.width + index * width
        for row in range(large.height):
            region = Region(row, at, 1, width)
            narrow = (0, 0, 1 - height, 0) if height > 1 else (0, 0, 0, 0)
            layer = convolution(f"right{index}{row}", x, region, both)
            weight = layer.sources[0].weight[:, :, :1, :]
            layer.sources = [Source(x, "broadcast", weight, padding=(narrow[0], 1, narrow[2], 1))]
            layers.append(layer)
    top, left = int(rng.integers(0, both.height)), int(rng.integers(0, both.width))
    cropped = Tensor("cropped", outputs, both.height - top, both.width - left, 0, True)
    layers.append(copy_of(both, "crop", cropped, None, padding=(-top, -left, 0, 0)))
    height, width = cropped.height, cropped.width
    turned = Tensor("turned", outputs, width, height, 0, True)
    ways = [
        Region(0, 0, height, width, (0, 1), (1, 0)),
        Region(width - 1, 0, height, width, (0, 1), (-1, 0)),
        Region(0, height - 1, height, width, (0, -1), (1, 0)),
        Region(width - 1, height - 1, height, width, (0, -1), (-1, 0)),
    ]
    layers.append(copy_of(cropped, "turn", turned, ways[seed % 4]))
    out = Tensor("out", outputs, width, height, 0, True)
    layers.append(convolution("last", turned, None, out))
    return network_from(x, out, layers)


def network_from(x: Tensor, out: Tensor, layers: list[Layer]) -> Network:
    ports = [Port(t.name, t, (t.channels, t.height, t.width)) for t in (x, out)]
    return Network(ports[:1], ports[1:], layers, Form((x.name,), out.name))


def compiled(network: Network, n: int, p: int) -> Image:
    return compile_network(network, target(n, p, bank_words=1 << 13 if n < 8 else 1 << 12))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("n", "p"), SIZES)
def test_golden_computes_each_region(seed: int, n: int, p: int) -> None:
    network = network_of(seed)
    image = compiled(network, n, p)
    rng = np.random.default_rng(seed)
    x = network.given[0]
    codes = rng.integers(-128, 128, (3, x.channels, x.height, x.width))
    expected = naive(network, codes)
    outputs, layers = traced(image, codes.astype(np.int8))
    compared = 0
    for name, found in layers:
        if name in expected:
            np.testing.assert_array_equal(found, expected[name], err_msg=name)
            compared += 1
    assert compared == len(network.layers)
    np.testing.assert_array_equal(outputs.codes, expected["last"])
    assert outputs.cycles == image.metadata["cycles"]


@pytest.mark.parametrize("seed", range(2))
def test_verilog_computes_each_region(seed: int) -> None:
    network = network_of(seed)
    image = compile_network(network, simulated(4, 2))
    x = network.given[0]
    codes = np.random.default_rng(seed).integers(-128, 128, (2, x.channels, x.height, x.width))
    assert api.simulate(image, codes.astype(np.int8), stalls=0.2).mismatches == []


def test_a_region_that_is_not_written_is_noticed() -> None:
    network = network_of(3)
    placed = plan(runnable(network, target(4, 2).geometry), target(4, 2).geometry)
    placed.network.layers.pop(0)
    with pytest.raises(SecateurError, match="would not get 'large', which is overwritten before"):
        dataflow.check(network, placed)


def test_an_output_in_regions_comes_out_whole() -> None:
    """The last layer writes a part only, so a copy streams the whole."""
    network = network_of(5)
    phases = [layer for layer in network.layers if layer.output.name == "large"]
    large = phases[0].output
    x = network.given[0]
    image = compiled(network_from(x, large, phases), 4, 2)
    codes = np.random.default_rng(0).integers(-128, 128, (2, x.channels, x.height, x.width))
    sy, sx = large.height // x.height, large.width // x.width
    wanted = codes.repeat(sy, axis=2).repeat(sx, axis=3)
    np.testing.assert_array_equal(traced(image, codes.astype(np.int8))[0].codes, wanted)
