"""A network that is quantised already, with its own power-of-two scales, as a converted graph.

Quantise operations move to where the array stores codes; weights, read from their float values,
get codes and exponents that hold them exactly, or the network is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from secateur.canonical.pool import depthwise
from secateur.canonical.rewrite import canonicalise
from secateur.capture.export import export, leave_to_host
from secateur.capture.outputs import output_nodes
from secateur.errors import SecateurError
from secateur.fx.functions import functions_of
from secateur.fx.graph import MAX_POOL, Editor, constant, is_call, refuse
from secateur.fx.moves import is_move, sources_of
from secateur.hw.spec import SHIFT_LIMIT, SHIFT_SPAN, UNIT_LIMIT, WSHIFT
from secateur.ir import Ints
from secateur.quantisation.match import (
    Match,
    Operand,
    is_dequantise,
    is_quantise,
    match_layer,
    stored_roots,
)
from secateur.quantisation.scales import Scale, scale_of

_REMEDY = "requantise with calibration data"
#: Magnitude of exponents that only a channel of zeros can have.
_ANY = 200


def keep_scales(model: torch.nn.Module, shape: tuple[int, ...]) -> GraphModule:
    """The converted graph of a module that quantises and dequantises its activations.

    Parameters
    ----------
    model : its forward calls ``quantized_decomposed`` operations; weights are floats
    shape : of one sample

    Raises
    ------
    SecateurError : the array cannot run a node, or not exactly
    """
    if not shape or 0 in shape:
        raise SecateurError(f"samples of shape {shape}; export the model with fixed sizes")
    gm = export(model, torch.zeros(2, *shape))
    leave_to_host(gm)
    gm = canonicalise(gm)
    editor = Editor(gm)
    _store_before_moves(editor)
    _rescale(editor)
    _store_before_moves(editor)
    functions = functions_of(gm.graph)
    for node in list(gm.graph.nodes):
        result = cast(Node, node.args[0]) if is_quantise(node) else None
        if result is not None and result not in functions and _is_layer(result):
            _quantise_weights(editor, match_layer(result), scale_of(node))
    for output in output_nodes(gm):
        for root in stored_roots(output):
            if not is_dequantise(root):
                raise refuse(root, "the output is not quantised", "quantise the output, too")
    gm.graph.eliminate_dead_code()
    gm.graph.lint()
    gm.recompile()
    return gm


def _is_layer(node: Node) -> bool:
    return not (
        node.op == "placeholder" or is_dequantise(node) or is_call(node, MAX_POOL) or is_move(node)
    )


def _store_before_moves(editor: Editor) -> None:
    """quantise(move(x)) becomes move(quantise(x)): pooling, views and the like move codes."""
    waiting = [node for node in editor.gm.graph.nodes if is_quantise(node)]
    left = len(editor.gm.graph.nodes)
    while waiting:
        node = waiting.pop(0)  # in order: a node behind it may stand behind a move then
        move = cast(Node, node.args[0])
        if not (is_call(move, MAX_POOL) or is_move(move)):
            continue
        left -= 1
        if left < 0:
            raise refuse(
                node, "quantises again and again behind views and poolings", "quantise once before"
            )
        dequantise = next(user for user in node.users if is_dequantise(user))
        stored: dict[Node, Node] = {}
        with editor.gm.graph.inserting_before(node):
            for part in move.all_input_nodes if is_call(move, MAX_POOL) else sources_of(move):
                codes = editor.call(_target(node), part, *node.args[1:], like=move)
                stored[part] = editor.call(
                    _target(dequantise), codes, *dequantise.args[1:], like=move
                )
                waiting.insert(0, codes)
            args = map_arg(move.args, partial(_either, stored))
            again = editor.call(_target(move), *args, like=move)
        for user in list(node.users):
            user.replace_all_uses_with(again)
            editor.gm.graph.erase_node(user)
        editor.gm.graph.erase_node(node)


def _either(stored: dict[Node, Node], part: Node) -> Node:
    return stored.get(part, part)


def _target(node: Node) -> Callable[..., Any]:
    return cast(Callable[..., Any], node.target)


def _rescale(editor: Editor) -> None:
    """Codes that are quantised again to another scale pass a layer that copies them."""
    for node in list(editor.gm.graph.nodes):
        source = node.args[0] if is_quantise(node) else None
        if not is_dequantise(source) or scale_of(node) == scale_of(cast(Node, source)):
            continue
        source = cast(Node, source)
        with editor.gm.graph.inserting_before(node):
            ones = torch.ones(source.meta["val"].shape[1])
            weight = editor.attach("_identity_weight", ones, trained=False)
            copy = depthwise(editor, source, weight, None, like=node)
            node.replace_input_with(source, copy)


@dataclass
class _Weights:
    """The weights of a product.

    Attributes
    ----------
    operand : the product
    values : (O, ...) floats
    input : exponent of the input
    coarsest, finest : (O,) exponents at which all codes of a row are integers of 8 bits
    """

    operand: Operand
    values: np.ndarray[Any, np.dtype[np.float64]]
    input: int
    coarsest: Ints
    finest: Ints


def _quantise_weights(editor: Editor, match: Match, out: Scale) -> None:
    """Codes and exponents for the weights of a layer, such that the array's shifts fit."""
    products = [_weights(editor.gm, o) for o in match.operands if o.product is not None]
    if not products:
        return
    # (O,) bounds of the shift from the accumulator to the output.
    least = np.maximum.reduce([out.exponent - p.input - p.coarsest for p in products])
    most = np.minimum.reduce([out.exponent - p.input - p.finest for p in products])
    least, windows = np.maximum(least, 0), [(0, SHIFT_LIMIT)]
    for operand in match.operands:
        if operand.product is None:  # a tensor that is added, by a power of two
            ahead = out.exponent - _scale(operand).exponent
            windows = [(ahead, ahead + UNIT_LIMIT), (ahead + WSHIFT, ahead + WSHIFT + UNIT_LIMIT)]
    asked = f"{least.min()} to {least.max()} and at most {most.min()} to {most.max()}"
    for low, high in windows:
        below, above = np.maximum(least, low), np.minimum(most, high)
        shift = np.maximum(below, np.minimum(above, below.max() - SHIFT_SPAN))
        if (below <= above).all() and np.ptp(shift) <= SHIFT_SPAN:
            break
    else:
        raise refuse(
            match.result,
            f"its scales and weights need shifts of at least {asked}, the array has "
            f"{max(windows[0][0], 0)} to {min(windows[-1][1], SHIFT_LIMIT)} and a span of "
            f"{SHIFT_SPAN}",
            _REMEDY,
        )
    for product in products:
        _write(editor, product, out.exponent - product.input - shift)


def _scale(operand: Operand) -> Scale:
    root = stored_roots(operand.value)[0]
    return scale_of(root)


def _weights(gm: GraphModule, operand: Operand) -> _Weights:
    """The weights of a product with the exponents that hold every row exactly in 8 bits."""
    node = cast(Node, operand.product)
    values = constant(gm, operand.weight).double().numpy()
    rows = values.reshape(len(values), -1)
    top = np.abs(rows).max(1)
    live = top > 0
    # In units of the last bit of float32 values, rows are integers.
    _, size = np.frexp(np.where(live, top, 1.0))
    units = np.rint(np.ldexp(rows, 40 - size[:, None])).astype(np.int64)
    if (np.ldexp(units.astype(np.float64), size[:, None] - 40) != rows).any():
        raise refuse(node, "weights that are not 8-bit codes times a power of two", _REMEDY)
    joined = np.bitwise_or.reduce(np.abs(units), axis=1)
    zeros = np.log2(np.where(live, joined & -joined, 1)).astype(np.int64)
    coarsest = size - 40 + zeros
    # The finest exponent with all codes in -127..127, or -128 where the row has it.
    codes = np.ldexp(rows, -coarsest[:, None])
    largest = np.abs(codes).max(1)
    beyond = np.flatnonzero((codes.max(1) > 127) | (codes.min(1) < -128))
    if beyond.size:
        raise refuse(
            node,
            f"weights of channel {beyond[0]} are not 8-bit codes times a power of two",
            _REMEDY,
        )
    room = np.floor(np.log2(np.maximum(127 / np.maximum(largest, 1), 1))).astype(np.int64)
    coarsest, finest = np.where(live, coarsest, _ANY), np.where(live, coarsest - room, -_ANY)
    return _Weights(operand, values, _scale(operand).exponent, coarsest, finest)


def _write(editor: Editor, product: _Weights, exponents: Ints) -> None:
    """Replace the float weight by codes and their dequantisation."""
    gm, node = editor.gm, cast(Node, product.operand.product)
    columns = exponents.reshape(-1, *[1] * (product.values.ndim - 1))
    codes = torch.from_numpy(np.ldexp(product.values, -columns)).to(torch.int8)
    scales = torch.exp2(torch.from_numpy(exponents).float())
    held = (codes, scales, torch.zeros_like(scales, dtype=torch.int64))
    index = sum(name.startswith("_codes_") for name, _ in gm.named_buffers())
    with gm.graph.inserting_before(node):
        reads = []
        for name, value in zip(("_codes", "_scales", "_zeros"), held, strict=True):
            gm.register_buffer(f"{name}_{index}", value)
            read = gm.graph.get_attr(f"{name}_{index}")
            read.meta["val"] = editor.mode.from_tensor(value, static_shapes=True)
            reads.append(read)
        weight = editor.call(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            *reads, 0, -128, 127, torch.int8, like=node,
        )  # fmt: skip
    node.update_arg(1, weight)
