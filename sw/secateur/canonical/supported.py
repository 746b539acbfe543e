"""The operators that the array can run, and one-line refusals of all others."""

from __future__ import annotations

from typing import cast

import torch
from torch.fx import GraphModule, Node

from secateur.errors import SecateurError
from secateur.fx.functions import functions_of
from secateur.fx.graph import (
    ADD,
    CONV,
    HARDTANH,
    LINEAR,
    MAX_POOL,
    MUL,
    RELU,
    Window,
    active_nodes,
    aten,
    conv_window,
    operation_of,
    pool_window,
    rank_of,
    refuse,
    shape_of,
)
from secateur.fx.inputs import in_units, is_looked_up, is_scaled_input
from secateur.fx.moves import is_move, is_size

_REMEDIES = {
    "softmax": "only at the very end, where it is left to the host",
    "log_softmax": "only at the very end, where it is left to the host",
    "argmax": "only at the very end, where it is left to the host",
    "group_norm": "use BatchNorm2d, which folds into the convolution",
    "layer_norm": "use BatchNorm2d, which folds into the convolution",
    "instance_norm": "use BatchNorm2d, which folds into the convolution",
    "convolution": "export with torch.export.export, without run_decompositions()",
    "addmm": "export with torch.export.export, without run_decompositions()",
}


#: Recurrent layers as torch.export keeps them.
_RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")
#: Modules and an operation that are attention.
_ATTENTION = ("MultiheadAttention", "TransformerEncoderLayer", "TransformerDecoderLayer")
_NO_ATTENTION = "use convolutions, Linear or recurrent layers"
_ATTENDS = ("scaled_dot_product_attention", "_native_multi_head_attention")


def check_layers(gm: GraphModule) -> None:
    """Refuse recurrent layers, attention, and layers of maps or signals without samples first.

    Recurrent layers are decomposed before a model is exported, so none should be left.

    Raises
    ------
    SecateurError : the graph has one of these
    """
    for node in gm.graph.nodes:
        if node.op != "call_function":
            continue
        op = operation_of(node)
        if op.removesuffix("_cell") in _RECURRENT:
            cell = "wrap the model of one step in secateur.Steps"
            layer = "compile the PyTorch module, in Python or by package.module:callable"
            reason = "a recurrent layer in an exported graph"
            raise refuse(node, reason, cell if op.endswith("_cell") else layer)
        stack = (node.meta.get("nn_module_stack") or {}).values()
        for path, kind in stack:
            name = getattr(kind, "__name__", str(kind).rpartition(".")[2])
            if name in _ATTENTION:
                where = f"layer {path!r} ({name})" if path else name
                raise SecateurError(f"{where}: attention is not supported; {_NO_ATTENTION}")
        dims = {"1d": 1, "2d": 2}.get(op[-2:], 0)
        x = node.args[0] if node.args else None
        if dims and isinstance(x, Node) and "val" in x.meta and rank_of(x) == dims + 1:
            shape = ", ".join(map(str, ("N", *shape_of(x))))
            wanted = "(N, C, H, W)" if dims == 2 else "(N, C, L)"
            remedy = f"give {wanted}, samples first: x[None] for one"
            raise refuse(node, f"has an input of shape ({shape})", remedy)
        if op in _ATTENDS:
            raise refuse(node, "attention is not supported", _NO_ATTENTION)


def check_supported(gm: GraphModule) -> None:
    """Refuse the first node of a canonical graph that the array cannot run.

    Raises
    ------
    SecateurError : there is one
    """
    active, functions = active_nodes(gm), functions_of(gm.graph)
    inside = {node for function in functions.values() for node in function.nodes}
    end = next(node for node in gm.graph.nodes if node.op == "output")
    hosts = {node for node in end.all_input_nodes if in_units(node)[0] is not node}
    for node in gm.graph.nodes:
        if node not in active or node in hosts or node.op == "output":
            continue
        if node.op == "placeholder":
            if rank_of(node) < 2 and not all(map(is_looked_up, node.users)):
                raise refuse(node, "input of one dimension", "give samples first, (N, C)")
        elif str(node.target).startswith("quantized_decomposed."):
            continue  # a graph that is quantised already
        elif is_size(node) or is_scaled_input(node) or is_looked_up(node):
            continue
        elif is_move(node):
            if isinstance(node.meta.get("val"), torch.Tensor):
                _check_type(node)
        elif node in inside:
            if node in functions:
                _check_type(node)
        elif node.op == "call_function" and node.target in _CHECKS:
            _check_type(node)
            _CHECKS[node.target](node)
        else:
            raise unsupported(node)


def unsupported(node: Node) -> Exception:
    """The refusal of an operation that the array does not have."""
    while node.target is aten.sym_size.int:  # the operation to blame is the one that needs a size
        node = next(iter(node.users))
    usual = "use Conv2d, Linear, activations, add, mul, cat, pooling, BatchNorm and flatten"
    return refuse(node, "the array has no such operation", remedy_of(node, usual))


def remedy_of(node: Node, usual: str) -> str:
    """What to use instead of the node's operation; ``usual`` if it is not in the table."""
    op = operation_of(node)
    found = (text for name, text in _REMEDIES.items() if op == name or op.startswith(name + "_"))
    return next(found, usual)


def _check_type(node: Node) -> None:
    dtype = str(node.meta["val"].dtype) if "val" in node.meta else "torch.float32"
    if dtype != "torch.float32":
        raise refuse(node, f"computes in {dtype}", "use float32")


def _check_conv(node: Node) -> None:
    x, weight = cast(Node, node.args[0]), cast(Node, node.args[1])
    outputs, per_group, *kernel = (int(n) for n in weight.meta["val"].shape)
    window = conv_window(node, (kernel[0], kernel[1]))
    if window.groups != 1 and not (per_group == 1 and outputs == window.groups):
        raise refuse(
            node,
            f"groups={window.groups} with {shape_of(x)[0]} inputs and {outputs} outputs",
            "use groups=1, or a depthwise convolution with as many outputs as inputs",
        )


def _check_linear(node: Node) -> None:
    if rank_of(cast(Node, node.args[0])) != 2:
        raise refuse(
            node,
            f"Linear on a {rank_of(cast(Node, node.args[0]))}-D tensor",
            "flatten to (N, features) first, or use a 1x1 Conv2d",
        )


def _check_add(node: Node) -> None:
    a, b = node.args[:2]
    if not isinstance(a, Node) or not isinstance(b, Node):
        raise refuse(node, "add of a constant", "put the constant into a bias")
    if float(node.kwargs.get("alpha", 1)) != 1:  # type: ignore[arg-type]
        raise refuse(node, "add with alpha", "scale a weight instead")
    if a.op == "get_attr" or b.op == "get_attr":
        raise refuse(node, "add of a parameter", "put the constant into a bias")
    if shape_of(a) != shape_of(b):
        raise refuse(node, "add that broadcasts", "add tensors of one shape")


def _check_mul(node: Node) -> None:
    a, b = node.args[:2]
    if not isinstance(a, Node) or not isinstance(b, Node):
        raise refuse(node, "a product with a constant", "scale a weight instead")
    gate, whole = shape_of(a), shape_of(b)
    if gate != whole and not (len(whole) == 3 and gate == (whole[0], 1, 1)):
        raise refuse(
            node,
            f"a product of shapes {gate} and {whole}",
            "multiply tensors of one shape, or (N, C, 1, 1) with (N, C, H, W)",
        )


def _check_max_pool(node: Node) -> None:
    _, height, width = shape_of(cast(Node, node.args[0]))
    check_pool_windows(node, pool_window(node, (height, width)), (height, width))


def check_pool_windows(node: Node, window: Window, size: tuple[int, int]) -> None:
    """Refuse max pooling of which a window lies in the padding alone: PyTorch gives -inf there.

    Parameters
    ----------
    node : for messages
    window : of the pooling
    size : (height, width) of the map
    """
    for axis in (0, 1):
        kernel, dilation, extent = window.kernel[axis], window.dilation[axis], size[axis]
        before, after = window.padding[axis], window.padding[axis + 2]
        outputs = extent + before + after - dilation * (kernel - 1)
        for start in range(-before, outputs - before, window.stride[axis]):
            if not any(0 <= start + dilation * tap < extent for tap in range(kernel)):
                raise refuse(
                    node, "a window that lies in the padding alone", "use less padding or dilation"
                )


def _check_bounds(node: Node) -> None:
    if any(isinstance(a, Node) for a in node.args[1:]):
        raise refuse(node, "bounds that are tensors", "use numbers")


_CHECKS = {
    CONV: _check_conv,
    LINEAR: _check_linear,
    RELU: _check_bounds,
    HARDTANH: _check_bounds,
    ADD: _check_add,
    MUL: _check_mul,
    MAX_POOL: _check_max_pool,
}
