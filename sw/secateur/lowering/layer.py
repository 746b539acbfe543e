"""Integer weights, shifts and biases of one layer, with the proofs that the array needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from torch.fx import GraphModule, Node

from secateur.fx.graph import CONV, Window, constant, conv_window, is_call, refuse
from secateur.hw.spec import (
    ACC_BITS,
    BIAS_FRACTION,
    BIAS_LIMIT,
    SHIFT_LIMIT,
    SHIFT_SPAN,
    UNIT_LIMIT,
    WSHIFT,
)
from secateur.ir import Ints, Mode, Region, Table
from secateur.lowering.store import Grid, Store, Value
from secateur.lowering.views import Copy
from secateur.quantisation.match import Match, Operand, is_dequantise
from secateur.quantisation.scales import REQUANTISE, Scale, exponent_of

PLAIN = Window((1, 1), (1, 1), (0, 0, 0, 0), (1, 1))


@dataclass(eq=False)
class DraftSource:
    """An ir.Source before its tensor's place is known."""

    store: Store
    mode: Mode
    weight: Ints
    window: Window
    wshift: bool = False


@dataclass(eq=False)
class DraftLayer:
    """An ir.Layer before its tensors' places are known."""

    kind: str
    sources: list[DraftSource]
    output: Store
    bias: Ints
    shift: Ints
    low: int
    high: int
    nodes: list[Node]
    table: Table | None = None
    region: Region | None = None


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
            shape = (value.whole.channels, 1, 1)
            window = Window((1, 1), (1, 1), operand.padding, (1, 1))
            source = DraftSource(value.whole, "lanewise", np.ones(shape, np.int64), window)
        else:
            source, exponents = _product(gm, operand, value)
            accumulators.append(value.scale.exponent + exponents)
        sources.append(source)
    _same_shapes(node, sources)
    channels, height, width = output_shape(sources[0])

    accumulator = _accumulator(node, sources, accumulators, scale.exponent)
    for operand, source in zip(match.operands, sources, strict=True):
        if operand.product is None:
            _scale_tensor(node, source, accumulator)
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


def copy_layer(copy: Copy, output: Store, spare: Store) -> DraftLayer:
    """The layer of a copy of some pixels to ``output``; ``spare`` is read where nothing is."""
    store, region = copy.store or spare, copy.region
    used = copy.channels >= 0
    rows, columns = copy.rows[used], copy.columns[used]
    top, left = int(rows.min(initial=store.height)), int(columns.min(initial=store.width))
    if not used.any():
        top = left = 0
    kernel = (int(rows.max(initial=top)) - top + 1, int(columns.max(initial=left)) - left + 1)
    bottom, right = (
        first + (count - 1) * step + size - extent
        for first, count, step, size, extent in zip(
            (top, left), (region.height, region.width), copy.steps, kernel,
            (store.height, store.width), strict=True,
        )
    )  # fmt: skip
    window = Window(kernel, copy.steps, (-top, -left, bottom, right), (1, 1))
    every = np.arange(store.channels)
    if kernel == (1, 1) and np.array_equal(copy.channels, every):
        source = DraftSource(store, "lanewise", np.ones((len(every), 1, 1), np.int64), window)
    else:
        weight = np.zeros((len(copy.channels), store.channels, *kernel), np.int64)
        (outputs,) = np.nonzero(used)
        weight[outputs, copy.channels[used], rows - top, columns - left] = 1
        source = DraftSource(store, "broadcast", weight, window)
    bias = np.where(used, 0, copy.constants << BIAS_FRACTION)
    scale = output.scale
    none = np.zeros(len(copy.channels), np.int64)
    return DraftLayer("copy", [source], output, bias, none, scale.low, scale.high, [], None, region)


def is_linear(operand: Operand) -> bool:
    """Whether the operand is the product of a linear node."""
    return operand.product is not None and not is_call(operand.product, CONV)


def output_shape(source: DraftSource) -> tuple[int, int, int]:
    """(channels, height, width) of the sum to which a source contributes."""
    window, store = source.window, source.store
    top, left, bottom, right = window.padding
    size = []
    for extent, k, s, d in (
        (store.height + top + bottom, window.kernel[0], window.stride[0], window.dilation[0]),
        (store.width + left + right, window.kernel[1], window.stride[1], window.dilation[1]),
    ):
        size.append((extent - d * (k - 1) - 1) // s + 1)
    return int(source.weight.shape[0]), size[0], size[1]


def _product(gm: GraphModule, operand: Operand, value: Value) -> tuple[DraftSource, Ints]:
    """A convolution or linear as source, and the exponents of its weights, (outputs,)."""
    node = cast(Node, operand.product)
    codes, exponents = _weight_codes(gm, operand.weight, node)
    if value.grid is not None:
        return _gridded(operand, value.grid, codes, value.shape), exponents
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


def _gridded(operand: Operand, grid: Grid, codes: Ints, shape: tuple[int, ...]) -> DraftSource:
    """A convolution or linear that reads a grid: channels by the columns of its weights."""
    store = grid.store
    if is_linear(operand):
        weight = np.zeros((len(codes), *store.size), np.int64)
        weight[:, grid.channels, grid.rows, grid.columns] = codes
        window = Window((store.height, store.width), (1, 1), (0, 0, 0, 0), (1, 1))
        return DraftSource(store, "broadcast", weight, window)
    own = conv_window(cast(Node, operand.product), (codes.shape[2], codes.shape[3]))
    weight = np.zeros((len(codes), store.channels, *codes.shape[2:]), np.int64)
    weight[:, grid.channels] = codes
    padding = [a + b for a, b in zip(own.padding, operand.padding, strict=True)]
    before, after = [], []
    for axis, (first, size) in enumerate(
        ((int(grid.rows[0]), store.height), (int(grid.columns[0]), store.width))
    ):
        step, extent = grid.steps[axis], shape[-2 + axis]
        before.append(padding[axis] * step - first)
        # So that there are as many outputs: the last window ends where it is cut.
        span = own.dilation[axis] * (own.kernel[axis] - 1)
        count = (extent + padding[axis] + padding[axis + 2] - span - 1) // own.stride[axis]
        last = (count * own.stride[axis] + span) * step - before[axis]
        after.append(last - (size - 1))
    stride, dilation = (
        (pair[0] * grid.steps[0], pair[1] * grid.steps[1]) for pair in (own.stride, own.dilation)
    )
    window = Window(own.kernel, stride, (before[0], before[1], after[0], after[1]), dilation)
    return DraftSource(store, "broadcast", weight, window)


def written_in_place(layers: list[DraftLayer], kept: set[Store]) -> list[DraftLayer]:
    """The layers without copies of what one layer makes and nobody else reads: it writes there.

    ``kept`` are stores that must stay what they are.
    """
    layers = list(layers)
    for copy in [layer for layer in layers if layer.kind == "copy"]:
        source, region = copy.sources[0], copy.region
        store = source.store
        size = None if region is None else (region.height, region.width)
        whole = source.mode == "lanewise" and source.window.stride == (1, 1)
        whole = whole and size in (None, (store.height, store.width))
        makers = [layer for layer in layers if layer.output is store]
        readers = [s for layer in layers for s in layer.sources if s.store in (store, *store.parts)]
        alone = len(makers) == 1 and len(readers) == 1 and store.parent is None
        if whole and alone and store not in kept and makers[0].region is None:
            makers[0].output, makers[0].region = copy.output, region
            layers.remove(copy)
    return layers


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


def _accumulator(
    node: Node, sources: list[DraftSource], accumulators: list[Ints], out: int
) -> Ints:
    """(channels,) exponent of the accumulator."""
    if not accumulators:
        finest = min([s.store.scale.exponent for s in sources] + [out])
        return np.full(sources[0].store.channels, finest, np.int64)
    if any((a != accumulators[0]).any() for a in accumulators):
        raise refuse(node, "adds convolutions of different scales", REQUANTISE)
    return accumulators[0]


def _scale_tensor(node: Node, source: DraftSource, accumulator: Ints) -> None:
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
    bound = np.zeros(len(bias), np.int64)
    for source in sources:
        scale = source.store.scale
        absolute = np.abs(source.weight).reshape(len(bias), -1).sum(1) << (WSHIFT * source.wshift)
        bound += absolute * max(-scale.low, scale.high)
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
