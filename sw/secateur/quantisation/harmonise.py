"""Raise exponents until every layer fits the drain, the accumulator and float32; round biases.

Everything is only ever raised (coarser scales), layer after layer, until nothing changes. What
holds afterwards, for output channel c of every layer, with e_acc[c] the exponent of its
accumulator and shift s[c] = e_out - e_acc[c]:

* all sources give the same e_acc[c]; a tensor added without weights needs a power of two that
  fits a signed byte, with one WSHIFT for the whole source;
* 0 <= s[c] <= 31, and the s of a layer span no more than SHIFT_DELTA_BITS;
* the sum of |weight| * max|code| stays inside the accumulator;
* sum and bias stay below 2**24 on the finest of their grids: float32 is exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from secateur.errors import SecateurError
from secateur.fx.graph import constant, name_of, refuse
from secateur.hw.spec import (
    ACC_BITS,
    BIAS_FRACTION,
    BIAS_LIMIT,
    SHIFT_LIMIT,
    SHIFT_SPAN,
    UNIT_LIMIT,
    WSHIFT,
)
from secateur.ir import Ints
from secateur.quantisation.bias import bias_codes, bias_of
from secateur.quantisation.fake_quantise import (
    DEAD,
    ActivationFakeQuantize,
    PerChannelWeightFakeQuantize,
)
from secateur.quantisation.match import Match, Operand, observed_layers, stored_roots

_ROUNDS = 400


@dataclass
class _Product:
    """A convolution or linear of a layer.

    Attributes
    ----------
    x, w : fake quantisers of its input and of its weights
    rows : (O, K) float weights
    best : (O,) exponents of least error of the weights alone
    floor : (O,) lower bound of the accumulator's exponents, raised by the layer
    calls : all products with this weight, this one included
    """

    x: ActivationFakeQuantize
    w: PerChannelWeightFakeQuantize
    rows: npt.NDArray[np.float64]
    best: Ints
    floor: Ints
    calls: list[_Product]

    def accumulator(self) -> Ints:
        return np.maximum(self.best + int(self.x.exponent), self.floor)

    def exponents(self) -> Ints:
        return self.accumulator() - int(self.x.exponent)

    def raise_to(self, target: Ints) -> None:
        self.floor = np.maximum(self.floor, target)

    def share(self) -> None:
        """A weight has one exponent per channel, however often it is used."""
        if len(self.calls) > 1:
            shared = np.maximum.reduce([call.exponents() for call in self.calls])
            self.raise_to(shared + int(self.x.exponent))

    def magnitude(self) -> Ints:
        """Per channel, the largest |sum| that weights and input codes allow."""
        codes = np.rint(np.ldexp(self.rows, -self.exponents()[:, None]))
        codes = np.clip(codes, self.w.quant_min, self.w.quant_max)
        return np.asarray(np.abs(codes).sum(1).astype(np.int64) * self.x.largest)


@dataclass
class _Layer:
    """A layer with its fake quantisers: of the output, the products and the tensors added."""

    match: Match
    out: ActivationFakeQuantize
    products: list[_Product]
    tensors: list[ActivationFakeQuantize]
    bias: npt.NDArray[np.float64]


def harmonise(prepared: GraphModule) -> None:
    """Make the exponents of a calibrated graph's fake quantisers coarser until all layers fit.

    See the module for what holds afterwards.

    Raises
    ------
    SecateurError : no exponents fit a layer
    """
    calls: dict[str, list[_Product]] = {}
    layers = [_read(prepared, match, node, calls) for match, node in observed_layers(prepared)]
    for module in prepared.modules():
        if isinstance(module, ActivationFakeQuantize) and int(module.exponent) == DEAD:
            _wake(module, layers)
    for _ in range(_ROUNDS):
        unsettled = [layer for layer in layers if _settle(layer)]
        if not unsettled:
            for product in (p for layer in layers for p in layer.products):
                exponents, best = product.exponents(), product.best
                product.w.fix(torch.from_numpy(exponents), torch.from_numpy(best))
            return
    raise SecateurError(
        f"{name_of(unsettled[0].match.result)}: no power-of-two scales fit its concatenated or "
        "residual tensors; insert a convolution between them"
    )


def _fake_quantize(gm: GraphModule, node: Node) -> torch.nn.Module:
    return gm.get_submodule(str(node.target))


def _read(gm: GraphModule, match: Match, node: Node, calls: dict[str, list[_Product]]) -> _Layer:
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
        same.append(_Product(tensor(operand), weight, rows, best, floor, same))
        products.append(same[-1])
    out = cast(ActivationFakeQuantize, _fake_quantize(gm, node))
    return _Layer(match, out, products, tensors, bias_of(gm, match))


def _wake(dead: ActivationFakeQuantize, layers: list[_Layer]) -> None:
    """A tensor that was zero in all of the calibration gets a scale: that of its sources."""
    writers = [layer for layer in layers if layer.out is dead]
    sources = [s for w in writers for s in (*w.tensors, *(p.x for p in w.products))]
    dead.raise_to(max((int(source.exponent) for source in sources), default=0))


def _settle(layer: _Layer) -> bool:
    """Fit one layer once; whether an exponent changed."""
    before = _state(layer)
    if layer.products:
        _align_products(layer)
        if layer.tensors:
            _fit_tensor(layer)
        _fit_shifts(layer)
        _fit_sums(layer)
    elif layer.match.multiplies:
        _fit_factors(layer)
    else:
        _fit_tensors(layer)
    return _state(layer) != before


def _state(layer: _Layer) -> list[list[int]]:
    tensors = [layer.out, *layer.tensors, *(p.x for p in layer.products)]
    state = [[int(t.exponent)] for t in tensors]
    return state + [p.accumulator().tolist() for p in layer.products]


def _accumulator(layer: _Layer) -> Ints:
    return np.asarray(np.maximum.reduce([p.accumulator() for p in layer.products]))


def _align_products(layer: _Layer, least: Ints | int = -(1 << 20)) -> None:
    for product in layer.products:
        product.share()
        for call in product.calls:
            if any(call is other for other in layer.products):
                product.x.raise_to(int(call.x.exponent))
    target = np.maximum(_accumulator(layer), least)
    for product in layer.products:
        product.raise_to(target)


def _fit_tensor(layer: _Layer) -> None:
    """A convolution and a tensor: 2**(e_r - e_acc[c]) within 0..6, or 4..10 with WSHIFT."""
    tensor = layer.tensors[0]
    top = int(tensor.exponent)
    _align_products(layer, top - UNIT_LIMIT - WSHIFT)
    ratio = top - _accumulator(layer)
    least, most = int(ratio.min()), int(ratio.max())
    if least < 0:
        tensor.raise_to(top - least)
    elif most > UNIT_LIMIT and least < WSHIFT:
        if top + WSHIFT - least <= int(layer.out.exponent):
            tensor.raise_to(top + WSHIFT - least)
        else:
            _align_products(layer, top - UNIT_LIMIT)


def _fit_tensors(layer: _Layer) -> None:
    """Two tensors: the accumulator has the finest exponent of both and of the output."""
    finest = min(int(t.exponent) for t in [*layer.tensors, layer.out])
    finest = max(finest, max(int(t.exponent) for t in layer.tensors) - UNIT_LIMIT - WSHIFT)
    for tensor in [*layer.tensors, layer.out]:
        tensor.raise_to(finest)
    if int(layer.out.exponent) - finest > SHIFT_LIMIT:
        for tensor in layer.tensors:
            tensor.raise_to(int(layer.out.exponent) - SHIFT_LIMIT)


def _fit_factors(layer: _Layer) -> None:
    """A product of two tensors: its exponent is the sum of both."""
    product = sum(int(tensor.exponent) for tensor in layer.tensors)
    layer.out.raise_to(product)
    if int(layer.out.exponent) - product > SHIFT_LIMIT:
        layer.tensors[0].raise_to(
            int(layer.tensors[0].exponent) + int(layer.out.exponent) - product - SHIFT_LIMIT
        )


def _fit_shifts(layer: _Layer) -> None:
    accumulator = _accumulator(layer)
    layer.out.raise_to(int(accumulator.max()))
    shift = int(layer.out.exponent) - accumulator
    limit = min(int(shift.min()) + SHIFT_SPAN, SHIFT_LIMIT)
    _align_products(layer, int(layer.out.exponent) - limit)


def _fit_sums(layer: _Layer) -> None:
    """Worst-case sums stay within the accumulator and within float32's 24 exact bits.

    PyTorch adds sum and bias in float32, which is exact up to 2**24 steps of the finer of their two
    grids: 2**accumulator, and 2**(out - BIAS_FRACTION). Where the accumulator has the finer one, a
    coarser accumulator cures a sum that is too large. Where the bias has the finer one, it does
    not: the sum has half the steps, each twice as many steps of the bias. Only a coarser output
    helps then, because it makes the grid of the bias coarser.

    Example: with out = -4 the bias has the grid 2**-7. A sum of 6,000,000 steps of 2**-5 is
    24,000,000 steps of it, more than 2**24. With an accumulator of 2**-4 these are 3,000,000 steps,
    and still 24,000,000 of the bias's; with out = -3 they are 12,000,000.
    """
    accumulator = _accumulator(layer)
    out = int(layer.out.exponent)
    shift = out - accumulator
    bound = np.add.reduce([p.magnitude() for p in layer.products])
    for tensor in layer.tensors:
        bound = bound + (tensor.largest << np.maximum(int(tensor.exponent) - accumulator, 0))
    codes = np.abs(bias_codes(layer.bias, out))

    # One of the two is 0: all is counted in steps of the finer grid.
    coarse = np.maximum(shift - BIAS_FRACTION, 0)
    fine = np.maximum(BIAS_FRACTION - shift, 0)
    inexact = (bound << fine) + (codes << coarse) > 1 << 24
    too_large = bound >= 1 << (ACC_BITS - 1)
    _align_products(layer, accumulator + (too_large | (inexact & (fine == 0))))

    # A bias beyond its 13 bits may only be clamped where the output saturates all the same.
    exact = np.abs(np.rint(np.ldexp(layer.bias, BIAS_FRACTION - out)))
    swing = np.ldexp(bound.astype(np.float64), -shift)
    clamped = (exact > BIAS_LIMIT) & (swing > (BIAS_LIMIT >> BIAS_FRACTION) - 256)
    if bool(np.any(clamped | (inexact & (fine > 0)))):
        layer.out.raise_to(out + 1)
