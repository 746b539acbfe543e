"""Integer weights, shifts and biases of one layer, with the proofs that the array needs."""

from __future__ import annotations

from typing import cast

import numpy as np
from torch.fx import GraphModule, Node

from secateur.fx.graph import Window, constant, conv_window, refuse
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
from secateur.lowering.draft import PLAIN, DraftLayer, DraftSource, is_linear, output_shape
from secateur.lowering.moved import gridded, trimmed
from secateur.lowering.store import Store, Value
from secateur.quantisation.match import Match, Operand, is_dequantise
from secateur.quantisation.scales import REQUANTISE, Scale, exponent_of, reach


def draft_layer(
    gm: GraphModule, match: Match, values: dict[Node, Value], scale: Scale
) -> DraftLayer:
    """A layer in integers.

    Parameters
    ----------
    gm : the converted graph
    match : nodes of the layer
    values : values by node, each a store or a grid
    scale : of the output

    Raises
    ------
    SecateurError : exponents, sums or biases do not fit
    """
    if match.multiplies:
        return _draft_product(match, values, scale)
    node = match.result
    sources: list[DraftSource] = []
    accumulators: list[Ints] = []
    for operand in match.operands:
        value = values[operand.value]
        if operand.product is None:
            if value.grid is not None:
                store, window = value.grid.store, trimmed(value.grid, value.shape)
            else:
                store, window = value.whole, Window((1, 1), (1, 1), operand.padding, (1, 1))
            ones = np.ones((store.channels, 1, 1), np.int64)
            source = DraftSource(store, "lanewise", ones, window)
        else:
            source, exponents = _product(gm, operand, value)
            accumulators.append(value.scale.exponent + exponents)
        sources.append(source)
    _same_shapes(node, sources)
    channels, height, width = output_shape(sources[0])

    accumulator = _accumulator(node, sources, accumulators, scale.exponent)
    shift = scale.exponent - accumulator
    if shift.min() < 0 or shift.max() > SHIFT_LIMIT or np.ptp(shift) > SHIFT_SPAN:
        raise refuse(
            node,
            f"shifts {shift.min()} to {shift.max()}, the array has 0 to {SHIFT_LIMIT} and a span "
            f"of {SHIFT_SPAN}",
            REQUANTISE,
        )
    bias = _bias(gm, match, scale.exponent, channels)
    _prove(node, sources, bias, shift)
    output = Store(node.name, channels, height, width, scale)
    low, high = _clip(match, scale)
    kind = _kind(match, sources, bias)
    return DraftLayer(kind, sources, output, bias, shift, low, high, match.nodes)


def _draft_product(match: Match, values: dict[Node, Value], scale: Scale) -> DraftLayer:
    """The product of two tensors, the first one (C, 1, 1) or of the shape of the second."""
    node, (gate, whole) = match.result, (values[o.value].whole for o in match.operands)
    shape = (whole.channels, whole.height, whole.width)
    small = (gate.channels, gate.height, gate.width)
    if small not in (shape, (shape[0], 1, 1)):
        raise refuse(
            node, f"multiplies shapes {small} and {shape}", "multiply tensors of one shape"
        )
    product = gate.scale.exponent + whole.scale.exponent
    shift = scale.exponent - product
    if not 0 <= shift <= SHIFT_LIMIT:
        raise refuse(node, f"a shift of {shift}, the array has 0 to {SHIFT_LIMIT}", REQUANTISE)
    stays = Window((1, 1), (0, 0) if small != shape else (1, 1), (0, 0, 0, 0), (1, 1))
    weight = np.zeros((shape[0], 1, 1), np.int64)
    sources = [
        DraftSource(gate, "gate", weight, stays),
        DraftSource(whole, "lanewise", weight + 1, PLAIN),
    ]
    none = np.zeros(shape[0], np.int64)
    low, high = _clip(match, scale)
    output = Store(node.name, *shape, scale)
    return DraftLayer("mul", sources, output, none, none + shift, low, high, match.nodes)


def _product(gm: GraphModule, operand: Operand, value: Value) -> tuple[DraftSource, Ints]:
    """A convolution or linear as source, and the exponents of its weights, (outputs,)."""
    node = cast(Node, operand.product)
    codes, exponents = _weight_codes(gm, operand.weight, node)
    if value.grid is not None:
        return gridded(operand, value.grid, codes, value.shape), exponents
    store = value.whole
    if is_linear(operand):
        shape = (store.channels, store.height, store.width)
        if any(operand.padding) or not value.flat:
            raise refuse(node, "Linear on maps", "flatten to (N, features) first")
        window = Window(shape[1:], (1, 1), (0, 0, 0, 0), (1, 1))
        return DraftSource(store, "broadcast", codes.reshape(-1, *shape), window), exponents
    window = conv_window(node, (codes.shape[2], codes.shape[3]))
    padding = tuple(a + b for a, b in zip(window.padding, operand.padding, strict=True))
    window = Window(
        window.kernel,
        window.stride,
        cast(tuple[int, int, int, int], padding),
        window.dilation,
    )
    if codes.shape[1] == 1 and codes.shape[0] == store.channels > 1:
        return DraftSource(store, "lanewise", codes[:, 0], window), exponents
    if codes.shape[1] != store.channels:
        raise refuse(node, "grouped convolution", "use groups=1 or a depthwise convolution")
    return DraftSource(store, "broadcast", codes, window), exponents


def _weight_codes(gm: GraphModule, weight: Node, product: Node) -> tuple[Ints, Ints]:
    if not is_dequantise(weight):
        raise refuse(product, "the weight is not quantised", REQUANTISE)
    codes = constant(gm, cast(Node, weight.args[0])).numpy().astype(np.int64)
    scales, zeros = weight.args[1], weight.args[2]
    if isinstance(scales, Node):
        found = constant(gm, scales).double().numpy()
        points = constant(gm, cast(Node, zeros)).numpy()
        if weight.args[3] != 0:
            raise refuse(product, "weight scales are not per output channel", REQUANTISE)
    else:
        found = np.full(codes.shape[0], float(cast(float, scales)))
        points = np.array([zeros])
    if points.any():
        raise refuse(product, "weights with a zero point", REQUANTISE)
    if codes.min() < -128 or codes.max() > 127:
        raise refuse(product, "weight codes beyond int8", REQUANTISE)
    exponents = [exponent_of(product, float(s)) for s in found]
    return codes, np.array(exponents, np.int64)


def _same_shapes(node: Node, sources: list[DraftSource]) -> None:
    shapes = [output_shape(s) for s in sources]
    if any(shape != shapes[0] for shape in shapes):
        raise refuse(node, f"adds shapes {shapes[0]} and {shapes[1]}", "add tensors of one shape")


def _accumulator(node: Node, sources: list[DraftSource], units: list[Ints], out: int) -> Ints:
    """(channels,) exponent of the accumulator; sets the wshift of all sources.

    Parameters
    ----------
    node : for messages
    sources : products first
    units : (channels,) exponents of weight * code, of each product
    out : exponent of the output
    """
    if not units:
        finest = min([s.store.scale.exponent for s in sources] + [out])
        accumulator = np.full(sources[0].store.channels, finest, np.int64)
        for source in sources:
            _add_tensor(node, source, accumulator)
        return accumulator
    accumulator = np.asarray(np.minimum.reduce(units))
    if len(units) < len(sources):
        ahead = sources[-1].store.scale.exponent - accumulator
        # The product counts more where the tensor or the output is finer than it.
        if ahead.min() < 0 or out < accumulator.max():
            accumulator = accumulator - WSHIFT
        _add_tensor(node, sources[-1], accumulator)
    for source, unit in zip(sources, units, strict=False):
        source.wshift = bool((unit != accumulator).any())
        if (unit - accumulator != WSHIFT * source.wshift).any():
            raise refuse(node, "adds convolutions of different scales", REQUANTISE)
    return accumulator


def _add_tensor(node: Node, source: DraftSource, accumulator: Ints) -> None:
    """Weights 2**k for a tensor that is added without weights."""
    ratio = source.store.scale.exponent - accumulator
    source.wshift = bool(ratio.max() > UNIT_LIMIT)
    powers = ratio - WSHIFT if source.wshift else ratio
    if powers.min() < 0 or powers.max() > UNIT_LIMIT:
        raise refuse(
            node,
            f"a tensor is added at 2**{ratio.min()} to 2**{ratio.max()} times the products, the "
            f"array has 0..{UNIT_LIMIT} or {WSHIFT}..{UNIT_LIMIT + WSHIFT}",
            REQUANTISE,
        )
    source.weight = (1 << powers).reshape(source.weight.shape)


def _bias(gm: GraphModule, match: Match, out: int, channels: int) -> Ints:
    total = np.zeros(channels)
    for operand in match.operands:
        if operand.bias is not None:
            total = total + constant(gm, operand.bias).double().numpy()
    codes = np.ldexp(total, BIAS_FRACTION - out)
    if (codes != np.rint(codes)).any() or np.abs(codes + 0.5).max() > BIAS_LIMIT:
        raise refuse(
            match.result,
            f"bias is not on the grid of 2**{out - BIAS_FRACTION} within 13 bits",
            REQUANTISE,
        )
    return codes.astype(np.int64)


def _prove(node: Node, sources: list[DraftSource], bias: Ints, shift: Ints) -> None:
    """No sum leaves the accumulator, and float32 holds all of them exactly."""
    sums = np.zeros((2, len(bias)), np.int64)
    for source in sources:
        scale = source.store.scale
        sums += reach(source.weight, scale.low, scale.high) << (WSHIFT * source.wshift)
    bound = sums.max(0)
    if bound.max() >= 1 << (ACC_BITS - 1):
        raise refuse(
            node,
            f"channel {int(bound.argmax())} can sum up to {int(bound.max())}, beyond the "
            f"{ACC_BITS}-bit accumulator",
            REQUANTISE,
        )
    fine, coarse = np.maximum(BIAS_FRACTION - shift, 0), np.maximum(shift - BIAS_FRACTION, 0)
    exact = (bound << fine) + (np.abs(bias) << coarse)
    if exact.max() > 1 << 24:
        raise refuse(
            node, f"channel {int(exact.argmax())} is not exact in PyTorch's float32", REQUANTISE
        )


def _clip(match: Match, scale: Scale) -> tuple[int, int]:
    """Code bounds: rounding is monotone, so clipping codes equals clipping values before it."""
    if not match.low <= match.high:
        raise refuse(match.result, f"clips to {match.low}..{match.high}", "clip to a range")
    codes = (value * 2.0**-scale.exponent for value in (match.low, match.high))
    low, high = (round(min(max(code, scale.low), scale.high)) for code in codes)
    return low, high


def _kind(match: Match, sources: list[DraftSource], bias: Ints) -> str:
    if all(o.product is None for o in match.operands):
        return "add"
    if is_linear(match.operands[0]):
        return "linear"
    first = sources[0]
    if first.mode == "broadcast":
        return "conv"
    same = (first.weight == first.weight.flat[0]).all() and not bias.any()
    return "avgpool" if same and first.window.kernel != (1, 1) else "depthwise"
