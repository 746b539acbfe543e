"""ONNX GRU, LSTM and RNN as PyTorch's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from secateur.capture.onnx.context import Context
from secateur.capture.onnx.node import MOST, OnnxNode, refuse
from secateur.capture.onnx.operators.call import tensor
from secateur.capture.onnx.values import Array

LAYERS: dict[str, Any] = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}
#: Where PyTorch's gates are among ONNX's.
_GATES = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1), "RNN": (0,)}
_FUNCTIONS = {"GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "RNN": ["Tanh"]}
_REMEDY = "export PyTorch's own layer, or compile the PyTorch module"


def recurrent(node: OnnxNode, context: Context) -> nn.Module:
    """The layer of a node; takes its first input alone.

    Raises
    ------
    SecateurError : the node computes what PyTorch's layer does not
    """
    weight, state = context.weight(node, 1), context.weight(node, 2)
    bias = context.constant(node, 3)
    direction = node.choice("direction", "forward", "reverse", "bidirectional")
    ways = 2 if direction == "bidirectional" else 1
    gates = len(_GATES[node.op_type])
    hidden = node.integer("hidden_size", state.shape[-1] if state.ndim == 3 else 0)
    inputs = weight.shape[-1] if weight.ndim == 3 else 0
    shapes = [(ways, gates * hidden, inputs), (ways, gates * hidden, hidden)]
    whole = bias is None or bias.shape == (ways, 2 * gates * hidden)
    if not 0 < hidden <= MOST or [weight.shape, state.shape] != shapes or not whole:
        found = f"weights of shapes {weight.shape} and {state.shape}"
        raise refuse(node, f"{found} for {hidden} states", "export the model again")
    names = _functions(node, ways)
    _check(node, context)
    extra = {"nonlinearity": names[0].lower()} if node.op_type == "RNN" else {}
    layer = LAYERS[node.op_type](
        inputs, hidden, bias=bias is not None, bidirectional=ways == 2, **extra
    )
    parts = {"weight_ih": weight, "weight_hh": state}
    if bias is not None:
        parts |= {"bias_ih": bias[:, : gates * hidden], "bias_hh": bias[:, gates * hidden :]}
    with torch.no_grad():
        for name, values in parts.items():
            for way in range(ways):
                suffix = "_l0" + "_reverse" * way
                getattr(layer, name + suffix).copy_(_ordered(node.op_type, values[way]))
    return _Layer(layer, bool(node.integer("layout", 0)), direction == "reverse")


def _functions(node: OnnxNode, ways: int) -> list[str]:
    """The activations, of one direction; refused if they are not PyTorch's."""
    usual = _FUNCTIONS[node.op_type]
    if not node.has("activations"):
        return usual
    given = [text.decode("ascii", "replace") for text in node.attributes["activations"].strings]
    allowed = [usual] + [["Relu"]] * (node.op_type == "RNN")
    names = next((names for names in allowed if given == names * ways), None)
    if names is None:
        raise refuse(node, f"activations {', '.join(given)}", f"use {', '.join(usual)}")
    return names


def _check(node: OnnxNode, context: Context) -> None:
    """Refuse what PyTorch's layers do not compute."""
    names = [*node.input, *[""] * 8]
    for index, what in ((4, "lengths of sequences"), (7, "peepholes")):
        if names[index] and not (index == 4 and _same(context.known.get(names[index]))):
            raise refuse(node, f"takes {what}", _REMEDY)
    for index in (5, 6):
        held = context.known.get(names[index])
        zero = not names[index] or names[index] in context.zeros
        if not zero and (held is None or held.any()):
            raise refuse(node, "is given a state to begin with", "begin with zeros")
    if node.has("clip") or node.integer("input_forget", 0):
        raise refuse(node, "clips its gates, or couples them", _REMEDY)
    if node.op_type == "GRU" and not node.integer("linear_before_reset", 0):
        remedy = "export with linear_before_reset=1 (Keras: reset_after=True)"
        raise refuse(node, "resets the state before its product", remedy)


def _same(lengths: Array | None) -> bool:
    """Whether all sequences have the same constant length, which is then the tensor's."""
    return lengths is not None and lengths.size > 0 and bool((lengths == lengths.flat[0]).all())


def _ordered(kind: str, values: Array) -> Tensor:
    """Rows of the gates in PyTorch's order."""
    parts = tensor(values).chunk(len(_GATES[kind]))
    return torch.cat([parts[index] for index in _GATES[kind]])


class _Layer(nn.Module):
    """A recurrent layer with ONNX's outputs: of all steps by direction, and the last states."""

    def __init__(self, layer: nn.RNNBase, batch_first: bool, reverse: bool) -> None:
        super().__init__()
        self.layer, self.batch_first, self.reverse = layer, batch_first, reverse
        self.both = layer.bidirectional

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x.transpose(0, 1) if self.batch_first else x
        y, states = self.layer(x.flip(0) if self.reverse else x)
        y = y.flip(0) if self.reverse else y
        last = states if isinstance(states, tuple) else (states,)
        y = y.unflatten(2, (2, -1)).transpose(1, 2) if self.both else y.unsqueeze(1)
        if self.batch_first:
            return y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)
        return y, *last
