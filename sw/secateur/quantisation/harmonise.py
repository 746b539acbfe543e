"""Raise exponents until every layer fits the drain, the accumulator and float32; round biases.

Everything is only ever raised (coarser scales), layer after layer, until nothing changes. What
holds afterwards, for output channel c of every layer, with e_acc[c] the exponent of its
accumulator and shift s[c] = e_out - e_acc[c]:

* all sources give the same e_acc[c]; one of two products may count 2**WSHIFT; a tensor added
  without weights needs a power of two that fits a signed byte, with one WSHIFT for the whole
  source;
* 0 <= s[c] <= 31, and the s of a layer span no more than SHIFT_DELTA_BITS;
* the largest sum of weight * code, of either sign, stays inside the accumulator;
* sum and bias stay below 2**24 on the finest of their grids: float32 is exact in any order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.fx import GraphModule

from secateur.errors import SecateurError
from secateur.fx.graph import name_of
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
from secateur.quantisation.bias import bias_codes
from secateur.quantisation.fake_quantise import ActivationFakeQuantize
from secateur.quantisation.observed import ObservedLayer, Product, read_layers

_ROUNDS = 400

_State = list[list[int]]


def harmonise(prepared: GraphModule) -> list[ObservedLayer]:
    """Make the exponents of a calibrated graph's fake quantisers coarser until all layers fit.

    See the module for what holds afterwards.

    Returns
    -------
    layers : as they are afterwards

    Raises
    ------
    SecateurError : no exponents fit a layer
    """
    layers = read_layers(prepared)
    chosen: dict[ObservedLayer, _State] = {}
    for _ in range(_ROUNDS):
        unsettled = [layer for layer in layers if _settle(layer, chosen)]
        if not unsettled:
            for product in (p for layer in layers for p in layer.products):
                exponents, best = product.exponents(), product.best
                product.w.fix(torch.from_numpy(exponents), torch.from_numpy(best))
            return layers
    raise SecateurError(
        f"{name_of(unsettled[0].match.result)}: no power-of-two scales fit its concatenated or "
        "residual tensors; insert a convolution between them"
    )


def fits(layer: ObservedLayer) -> bool:
    """Whether the exponents of a harmonised layer need no change; they are left as they are."""
    before, quantisers = _state(layer), layer.quantisers()
    kept = [(q.exponent.clone(), q.floor.clone()) for q in quantisers]
    floors = [(p, p.floor) for p in layer.products]
    _fit(layer)
    same = _state(layer) == before
    _restore(quantisers, kept, floors)
    return same


def _restore(
    quantisers: list[ActivationFakeQuantize],
    kept: list[tuple[torch.Tensor, torch.Tensor]],
    floors: list[tuple[Product, Ints]],
) -> None:
    for quantiser, (exponent, floor) in zip(quantisers, kept, strict=True):
        quantiser.exponent = exponent
        quantiser.floor.copy_(floor)
    for product, before in floors:
        product.floor = before


def _settle(layer: ObservedLayer, chosen: dict[ObservedLayer, _State]) -> bool:
    """Fit one layer once; whether an exponent changed."""
    before = _state(layer)
    if chosen.get(layer) != before:
        _choose_wshift(layer)
    _fit(layer)
    chosen[layer] = _state(layer)
    return chosen[layer] != before


def _fit(layer: ObservedLayer) -> None:
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


def _state(layer: ObservedLayer) -> _State:
    return [[int(t.exponent)] for t in layer.quantisers()] + [
        p.accumulator().tolist() for p in layer.products
    ]


def _choose_wshift(layer: ObservedLayer) -> None:
    """Which product of a sum, if any, counts 2**WSHIFT: the choice of least noise.

    Sources share one accumulator. Where the products of one are much coarser than those of the
    other, its weights would keep their bits at the cost of the other's.
    """
    if len(layer.match.operands) < 2 or not layer.products:
        return
    least = float("inf")
    wide: Product | None = None
    for choice in (None, *layer.products):
        noise = _noise_with(layer, choice)
        if noise < least:
            least, wide = noise, choice
    for product in layer.products:
        product.wshift = WSHIFT if product is wide else 0


def _noise_with(layer: ObservedLayer, wide: Product | None) -> float:
    """The layer's noise with WSHIFT for one product; all exponents stay as they are."""
    quantisers, products = layer.quantisers(), layer.products
    exponents = [(q.exponent.clone(), q.floor.clone()) for q in quantisers]
    floors = [(p, p.floor) for p in products]
    for product in products:
        product.wshift = WSHIFT if product is wide else 0
    before = None
    for _ in range(_ROUNDS):
        if before == (before := _state(layer)):
            break
        _fit(layer)
    noise = layer.noise()
    _restore(quantisers, exponents, floors)
    return noise


def _align_products(layer: ObservedLayer, least: Ints | int = -(1 << 20)) -> None:
    for product in layer.products:
        product.share()
        for call in product.calls:
            if any(call is other for other in layer.products):
                product.x.raise_to(int(call.x.exponent))
    target = np.maximum(layer.accumulator(), least)
    for product in layer.products:
        product.raise_to(target)


def _fit_tensor(layer: ObservedLayer) -> None:
    """A convolution and a tensor: 2**(e_r - e_acc[c]) within 0..6, or 4..10 with WSHIFT."""
    tensor = layer.tensors[0]
    top = int(tensor.exponent)
    _align_products(layer, top - UNIT_LIMIT - WSHIFT)
    ratio = top - layer.accumulator()
    least, most = int(ratio.min()), int(ratio.max())
    if least < 0:
        tensor.raise_to(top - least)
    elif most > UNIT_LIMIT and least < WSHIFT:
        if top + WSHIFT - least <= int(layer.out.exponent):
            tensor.raise_to(top + WSHIFT - least)
        else:
            _align_products(layer, top - UNIT_LIMIT)


def _fit_tensors(layer: ObservedLayer) -> None:
    """Two tensors: the accumulator has the finest exponent of both and of the output."""
    finest = min(int(t.exponent) for t in [*layer.tensors, layer.out])
    finest = max(finest, max(int(t.exponent) for t in layer.tensors) - UNIT_LIMIT - WSHIFT)
    for tensor in [*layer.tensors, layer.out]:
        tensor.raise_to(finest)
    if int(layer.out.exponent) - finest > SHIFT_LIMIT:
        for tensor in layer.tensors:
            tensor.raise_to(int(layer.out.exponent) - SHIFT_LIMIT)


def _fit_factors(layer: ObservedLayer) -> None:
    """A product of two tensors: its exponent is the sum of both."""
    product = sum(int(tensor.exponent) for tensor in layer.tensors)
    layer.out.raise_to(product)
    if int(layer.out.exponent) - product > SHIFT_LIMIT:
        layer.tensors[0].raise_to(
            int(layer.tensors[0].exponent) + int(layer.out.exponent) - product - SHIFT_LIMIT
        )


def _fit_shifts(layer: ObservedLayer) -> None:
    accumulator = layer.accumulator()
    layer.out.raise_to(int(accumulator.max()))
    shift = int(layer.out.exponent) - accumulator
    limit = min(int(shift.min()) + SHIFT_SPAN, SHIFT_LIMIT)
    _align_products(layer, int(layer.out.exponent) - limit)


def _fit_sums(layer: ObservedLayer) -> None:
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
    accumulator = layer.accumulator()
    out = int(layer.out.exponent)
    shift = out - accumulator
    sums = np.add.reduce([p.reach() for p in layer.products])
    for tensor in layer.tensors:
        ends = np.array([[-tensor.quant_min], [tensor.quant_max]])
        sums = sums + (ends << np.maximum(int(tensor.exponent) - accumulator, 0))
    bound = sums.max(0)
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
