"""The layers of a calibrated graph with their fake quantisers, and the noise of their rounding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from secateur.fx.graph import constant, refuse
from secateur.ir import Ints
from secateur.quantisation.bias import bias_of
from secateur.quantisation.fake_quantise import (
    BINS,
    DEAD,
    ActivationFakeQuantize,
    PerChannelWeightFakeQuantize,
)
from secateur.quantisation.match import Match, Operand, observed_layers, stored_roots
from secateur.quantisation.scales import reach

Floats = npt.NDArray[np.float64]


@dataclass(eq=False)
class Product:
    """A convolution or linear of a layer.

    Attributes
    ----------
    node : of the graph
    x, w : fake quantisers of its input and of its weights
    rows : (O, K) float weights
    best : (O,) exponents of least error of the weights alone
    floor : (O,) lower bound of the unit's exponents, raised by the layer
    calls : all products with this weight, this one included
    inputs : channels of the input that a row reads
    wshift : log2 of the factor of all its weights in the array, 0 or WSHIFT
    """

    node: Node
    x: ActivationFakeQuantize
    w: PerChannelWeightFakeQuantize
    rows: Floats
    best: Ints
    floor: Ints
    calls: list[Product]
    inputs: int
    wshift: int = 0

    def unit(self) -> Ints:
        """(O,) exponents of a product of one code by another."""
        return np.maximum(self.best + int(self.x.exponent), self.floor)

    def accumulator(self) -> Ints:
        """(O,) exponents of the accumulator's unit, as far as this product determines it."""
        return self.unit() - self.wshift

    def exponents(self) -> Ints:
        """(O,) of the weights."""
        return self.unit() - int(self.x.exponent)

    def raise_to(self, target: Ints) -> None:
        """Make the accumulator's unit at least as coarse."""
        self.floor = np.maximum(self.floor, target + self.wshift)

    def share(self) -> None:
        """A weight has one exponent per channel, however often it is used."""
        if len(self.calls) > 1:
            shared = np.maximum.reduce([call.exponents() for call in self.calls])
            self.floor = np.maximum(self.floor, shared + int(self.x.exponent))

    def codes(self, exponents: Ints) -> Floats:
        """(O, K) weights in codes."""
        codes = np.rint(np.ldexp(self.rows, -exponents[:, None]))
        return np.clip(codes, self.w.quant_min, self.w.quant_max)

    def reach(self) -> Ints:
        """(2, O) how far below and above zero its sums can be, in units of the accumulator."""
        codes = self.codes(self.exponents())
        found = reach(codes, self.x.quant_min, self.x.quant_max)
        return np.asarray(found << self.wshift)

    def noise(self, exponents: Ints) -> Floats:
        """(O,) power that rounding the weights to these exponents adds to the sum."""
        error = np.ldexp(self.codes(exponents), exponents[:, None]) - self.rows
        return np.asarray(np.square(error).sum(1) * self.power)

    @cached_property
    def power(self) -> float:
        """Mean square of the input's values that are not zero."""
        counts = self.x.histogram.double().cpu().numpy()
        values = np.ldexp((np.arange(BINS) + 0.5) / BINS, int(self.x.range_exponent))
        return float((counts * values**2).sum() / max(counts.sum(), 1.0))


@dataclass(eq=False)
class ObservedLayer:
    """A layer with its fake quantisers: of the output, the products and the tensors added."""

    match: Match
    out: ActivationFakeQuantize
    products: list[Product]
    tensors: list[ActivationFakeQuantize]
    bias: Floats

    def accumulator(self) -> Ints:
        """(O,) exponents of the accumulator's unit."""
        return np.asarray(np.maximum.reduce([p.accumulator() for p in self.products]))

    def quantisers(self) -> list[ActivationFakeQuantize]:
        """Of all that it reads and writes."""
        return [self.out, *self.tensors, *(p.x for p in self.products)]

    def noise(self) -> float:
        """Mean power of the noise that rounding of weights, tensors and the output adds."""
        weights = sum(float(p.noise(p.exponents()).mean()) for p in self.products)
        return weights + sum(rounding(int(t.exponent)) for t in [self.out, *self.tensors])


def rounding(exponent: int) -> float:
    """Power of the noise of rounding to multiples of 2**exponent."""
    return float(np.ldexp(1 / 12, 2 * min(exponent, 400)))


def read_layers(prepared: GraphModule) -> list[ObservedLayer]:
    """The layers of a calibrated graph, in order.

    Raises
    ------
    SecateurError : weights are not finite
    """
    calls: dict[str, list[Product]] = {}
    layers = [_read(prepared, match, node, calls) for match, node in observed_layers(prepared)]
    for module in prepared.modules():
        if isinstance(module, ActivationFakeQuantize) and int(module.exponent) == DEAD:
            _wake(module, layers)
    return layers


def _fake_quantize(gm: GraphModule, node: Node) -> torch.nn.Module:
    return gm.get_submodule(str(node.target))


def _read(
    gm: GraphModule, match: Match, node: Node, calls: dict[str, list[Product]]
) -> ObservedLayer:
    def tensor(operand: Operand) -> ActivationFakeQuantize:
        found = _fake_quantize(gm, stored_roots(operand.value)[0])
        return cast(ActivationFakeQuantize, found)

    products, tensors = [], []
    for operand in match.operands:
        if operand.product is None:
            tensors.append(tensor(operand))
            continue
        weight = cast(PerChannelWeightFakeQuantize, _fake_quantize(gm, operand.weight))
        value = constant(gm, operand.weight)
        if not bool(torch.isfinite(value).all()):
            raise refuse(operand.product, "a weight is infinite or NaN", "train with a lower rate")
        best = weight.best(value).numpy().astype(np.int64)
        rows = value.flatten(1).double().numpy()
        same = calls.setdefault(str(operand.weight.target), [])
        floor = np.full_like(best, -1000)
        inputs, x = int(value.shape[1]), tensor(operand)
        same.append(Product(operand.product, x, weight, rows, best, floor, same, inputs))
        products.append(same[-1])
    out = cast(ActivationFakeQuantize, _fake_quantize(gm, node))
    return ObservedLayer(match, out, products, tensors, bias_of(gm, match))


def _wake(dead: ActivationFakeQuantize, layers: list[ObservedLayer]) -> None:
    """A tensor that was zero in all of the calibration gets a scale: that of its sources."""
    writers = [layer for layer in layers if layer.out is dead]
    sources = [s for w in writers for s in (*w.tensors, *(p.x for p in w.products))]
    dead.raise_to(max((int(source.exponent) for source in sources), default=0))
