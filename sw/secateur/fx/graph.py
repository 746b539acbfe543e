"""Helpers on ``torch.fx`` graphs that the PyTorch passes share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from secateur.errors import SecateurError
from secateur.text import name

aten = torch.ops.aten

CONV, LINEAR = aten.conv2d.default, aten.linear.default
RELU, HARDTANH = aten.relu.default, aten.hardtanh.default
ADD, MUL = aten.add.Tensor, aten.mul.Tensor
MAX_POOL, CAT, PAD = aten.max_pool2d.default, aten.cat.default, aten.pad.default
FLATTEN, VIEW = aten.flatten.using_ints, aten.view.default
PRODUCTS = (CONV, LINEAR)
ACTIVATIONS = (RELU, HARDTANH)
#: Key of a graph module's ``meta``: `labels_of` the model that it was captured from.
LABELS = "secateur_labels"


def path_of(node: Node) -> str:
    """Path of the innermost module that the node is part of; "" where it is not known."""
    stack = node.meta.get("nn_module_stack") or {}
    # torch.export gives sizes of a dynamic batch a module of its own making.
    paths = [str(path) for key, (path, _) in stack.items() if not key.startswith("_empty_nn")]
    return next((path for path in reversed(paths) if path), "")


def labels_of(model: torch.nn.Module) -> dict[str, str]:
    """Labels, by module path, that the file of a model gives its modules."""
    found = {path: getattr(module, "onnx_label", None) for path, module in model.named_modules()}
    return {path: label for path, label in found.items() if isinstance(label, str)}


def label_of(node: Node) -> str:
    """The label that the model's file gives the node's module; "" if it is not known.

    It is text of the file, escaped: for messages and reports, never a name.
    """
    labels = getattr(node.graph.owning_module, "meta", {}).get(LABELS, {})
    path = path_of(node)
    while path and path not in labels:
        path = path.rpartition(".")[0]
    return str(labels.get(path, ""))


def operation_of(node: Node) -> str:
    """Name of the node's operation, without overload."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def name_of(node: Node) -> str:
    """The node as a message names it: module path if known, node name and operation."""
    path, label = path_of(node), label_of(node)
    op = operation_of(node)
    said = f", '{label}' in the file" if label else ""
    node_name = name(node.name)
    if not path:
        return f"node {node_name} ({op})"
    return f"layer {name(path)!r} (node {node_name}, {op}{said})"


def refuse(node: Node, reason: str, remedy: str) -> SecateurError:
    """The one-line error for a node that cannot run on the array.

    Parameters
    ----------
    node : the message begins with its layer and operation
    reason : what is wrong
    remedy : what to do instead
    """
    return SecateurError(f"{name_of(node)}: {reason}; {remedy}")


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape without the batch dimension."""
    return tuple(int(n) for n in node.meta["val"].shape[1:])


def rank_of(node: Node) -> int:
    """Number of dimensions, the batch included."""
    return len(node.meta["val"].shape)


def known(size: object) -> int | None:
    """A size as a number; None if it may be any."""
    if isinstance(size, torch.SymInt):
        return cast("int | None", size.node.maybe_as_int())
    return size if isinstance(size, int) else None


def is_call(node: object, *targets: object) -> bool:
    """Whether the object is a node that calls one of the functions."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def attribute(gm: GraphModule, target: str) -> torch.Tensor:
    """The tensor behind a ``get_attr`` target, e.g. ``layer1.conv.weight``."""
    value: Any = gm
    for part in target.split("."):
        value = getattr(value, part)
    return cast(torch.Tensor, value)


def is_trained(gm: GraphModule, node: Node) -> bool:
    """Whether a constant is a parameter, or computed of one."""
    if node.op == "get_attr":
        return isinstance(attribute(gm, str(node.target)), torch.nn.Parameter)
    return any(is_trained(gm, source) for source in node.all_input_nodes)


def active_nodes(gm: GraphModule) -> set[Node]:
    """Nodes that depend on the network's input."""
    active: set[Node] = set()
    for node in gm.graph.nodes:
        if node.op == "placeholder" or any(n in active for n in node.all_input_nodes):
            active.add(node)
    return active


def leaves(value: Node, parts: Callable[[Node], list[Node]]) -> list[Node]:
    """The nodes that a value consists of, each once, in order.

    ``parts`` gives those that a node is made of, none for a leaf. However deep, and however often
    a node is used, each is looked at once.
    """
    found, seen, waiting = [], set[Node](), [value]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        inner = parts(node)
        waiting += reversed(inner)
        if not inner:
            found.append(node)
    return found


def constant(gm: GraphModule, node: Node) -> torch.Tensor:
    """Value of a node that does not depend on the input; observers are looked through."""
    if node.op == "get_attr":
        return attribute(gm, str(node.target)).detach()
    if node.op == "call_module":
        return constant(gm, cast(Node, node.args[0]))
    if node.op != "call_function":
        raise refuse(node, "a weight or bias depends on the input", "make it a parameter")
    args = map_arg(node.args, lambda n: constant(gm, n))
    kwargs = map_arg(node.kwargs, lambda n: constant(gm, n))
    with torch.no_grad():
        return cast(torch.Tensor, cast(Callable[..., Any], node.target)(*args, **kwargs))


class Editor:
    """Adds nodes to a graph and keeps ``meta['val']`` (fake tensors) complete."""

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        self.mode = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["val"].fake_mode

    def batch(self) -> Node:
        """The number of samples, a size that every node may use."""
        inputs = self.gm.graph.find_nodes(op="placeholder")
        for user in inputs[0].users:
            if is_call(user, aten.sym_size.int) and user.args[1] == 0:
                inputs[-1].append(user)  # before all that may use it
                return cast(Node, user)
        with self.gm.graph.inserting_after(inputs[-1]):
            return self.call(aten.sym_size.int, inputs[0], 0, like=inputs[0])

    def call(self, target: Callable[..., Any], *args: Any, like: Node) -> Node:
        """A call at the graph's insertion point.

        Parameters
        ----------
        target : the function
        args : its positional arguments; nodes stand for their values
        like : a node whose module path the call inherits
        """
        node = self.gm.graph.call_function(target, args)
        values = map_arg(args, lambda n: n.meta["val"])
        sizes = self.mode.shape_env  # torch's questions must not make a number of the batch
        with self.mode, torch.no_grad(), sizes.suppress_guards() if sizes else nullcontext():
            node.meta["val"] = target(*values)
        if "nn_module_stack" in like.meta:
            node.meta["nn_module_stack"] = like.meta["nn_module_stack"]
        return node

    def attach(
        self,
        name: str,
        value: torch.Tensor,
        *,
        trained: bool,
        dtype: torch.dtype = torch.float32,
    ) -> Node:
        """A new parameter (``trained``) or buffer and the node that reads it.

        Parameters
        ----------
        name : a number is put behind it
        value : a copy is attached
        trained : a parameter, else a buffer
        dtype : of the copy
        """
        value = value.detach().to(dtype).contiguous().clone()
        index = 0
        while hasattr(self.gm, f"{name}_{index}"):
            index += 1
        name = f"{name}_{index}"
        if trained:
            self.gm.register_parameter(name, torch.nn.Parameter(value))
        else:
            self.gm.register_buffer(name, value)
        node = self.gm.graph.get_attr(name)
        node.meta["val"] = self.mode.from_tensor(value, static_shapes=True)
        return node

    def alias(self, tensor: Node) -> Node:
        """A node that reads the same parameter or buffer by another name."""
        target, index = str(tensor.target), 1
        value, name = attribute(self.gm, target), target.replace(".", "_")
        while hasattr(self.gm, f"{name}_{index}"):
            index += 1
        name = f"{name}_{index}"
        if isinstance(value, torch.nn.Parameter):
            self.gm.register_parameter(name, value)
        else:
            self.gm.register_buffer(name, value)
        node = self.gm.graph.get_attr(name)
        node.meta.update(tensor.meta)
        return node


@dataclass(frozen=True)
class Window:
    """Arguments of a convolution or pooling.

    Attributes
    ----------
    kernel, stride, dilation : (vertical, horizontal)
    padding : (top, left, bottom, right)
    groups : of channels
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int = 1


def pair(value: Any) -> tuple[int, int]:
    """A size of both dimensions as (vertical, horizontal)."""
    if isinstance(value, int):
        return value, value
    items = [int(v) for v in value]
    return (items[0], items[0]) if len(items) == 1 else (items[0], items[1])


def argument(node: Node, index: int, default: Any) -> Any:
    """A positional argument of a call.

    Parameters
    ----------
    node : the call
    index : of the argument
    default : its value if it is absent, None or []
    """
    value = node.args[index] if len(node.args) > index else None
    return default if value is None or value == [] else value


def conv_window(node: Node, kernel: tuple[int, int]) -> Window:
    """Window of an ``aten.conv2d.default`` node."""
    py, px = pair(argument(node, 4, 0))
    return Window(
        kernel,
        pair(argument(node, 3, 1)),
        (py, px, py, px),
        pair(argument(node, 5, 1)),
        int(argument(node, 6, 1)),
    )


def pool_window(node: Node, size: tuple[int, int]) -> Window:
    """Window of an ``aten.max_pool2d.default`` or ``aten.avg_pool2d.default`` node on maps of
    ``size``.

    With ceil_mode, padding at the bottom and on the right is as wide as the last windows need; the
    last of them begins within the map or the padding before it, as in PyTorch.
    """
    kernel = pair(node.args[1])
    padding = pair(argument(node, 3, 0))
    maximum = is_call(node, MAX_POOL)
    dilation = pair(argument(node, 4, 1)) if maximum else (1, 1)
    stride = pair(argument(node, 2, kernel))
    after = list(padding)
    if argument(node, 5 if maximum else 4, False):
        for axis in (0, 1):
            span = dilation[axis] * (kernel[axis] - 1) + 1
            last = -(-(size[axis] + 2 * padding[axis] - span) // stride[axis]) * stride[axis]
            if last >= size[axis] + padding[axis]:
                last -= stride[axis]
            after[axis] = max(after[axis], last + span - size[axis] - padding[axis])
    return Window(kernel, stride, (padding[0], padding[1], after[0], after[1]), dilation)


def pad_amounts(node: Node) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of an ``aten.pad.default`` node with zeros on H and W.

    Raises
    ------
    SecateurError : it pads with other values, pads other dimensions, or crops
    """
    amounts = [int(a) for a in cast(list[int], node.args[1])]
    if argument(node, 2, "constant") != "constant" or float(argument(node, 3, 0.0)) != 0.0:
        raise refuse(node, "padding other than with zeros", "use ZeroPad2d")
    amounts += [0] * (8 - len(amounts))
    if any(amounts[4:]) or min(amounts) < 0:
        raise refuse(
            node, "padding of channels or cropping", "pad height and width by amounts >= 0"
        )
    left, right, top, bottom = amounts[:4]
    return top, left, bottom, right


def is_zero_pad(node: object) -> bool:
    """Whether a node pads the last two dimensions with zeros, as a convolution does."""
    if not isinstance(node, Node) or not is_call(node, PAD):
        return False
    amounts = [int(a) for a in cast(list[int], node.args[1])]
    zeros = argument(node, 2, "constant") == "constant" and float(argument(node, 3, 0.0)) == 0
    return zeros and min(amounts) >= 0 and not any(amounts[4:])


def activation_bounds(node: Node) -> tuple[float, float]:
    """Lower and upper bound of a relu or hardtanh node, in real values."""
    if is_call(node, RELU):
        return 0.0, float("inf")
    return float(argument(node, 1, -1.0)), float(argument(node, 2, 1.0))
