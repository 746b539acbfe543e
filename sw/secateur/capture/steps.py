"""A model of sequences as the graph of one time step, and back: a step graph run over sequences."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from secateur.capture.export import capture
from secateur.capture.outputs import only_tensor, output_nodes
from secateur.capture.ports import Call
from secateur.capture.recurrent import NoSequences, Recurrent, Stateful, Steps, decompose
from secateur.errors import SecateurError
from secateur.fx.functional import functionalise
from secateur.fx.functions import elementwise
from secateur.fx.graph import (
    CAT,
    LINEAR,
    Editor,
    active_nodes,
    argument,
    aten,
    is_call,
    rank_of,
    refuse,
)
from secateur.text import first_line

#: Key of a graph's ``meta``: it is that of a step, and takes states behind its input.
_STEP = "secateur_step"
#: A step may differ from the sequence by rounding only.
TOLERANCE = 1e-3
_SUPPORTED = (
    "supported are recurrent layers, each called once, Linear, activations, + and * of the same "
    "step, and the last step or every step as result, e.g. output[:, -1]"
)
_RESHAPES = {
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.transpose.int,
    aten.permute.default,
    aten.t.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.unbind.int,
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.stack.default,
}
#: Operations on the last dimension alone, that are not element by element to torch.
_PLAIN = (LINEAR, aten.dropout.default, aten.feature_dropout.default, aten.prelu.default)


class Step(nn.Module):
    """(x, *states) -> (y, *states) of one time step of a model; x is (N, F).

    Parameters
    ----------
    model : takes (N, T, F); its recurrent layers are ``Stateful``
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def stateful(self) -> list[Stateful]:
        """The recurrent layers, in order."""
        return [module for module in self.model.modules() if isinstance(module, Stateful)]

    def zeros(self, x: Tensor) -> list[Tensor]:
        """States at the start of a sequence."""
        shapes = [shape for module in self.stateful for shape in module.state_shapes]
        return [x.new_zeros(x.shape[0], *shape) for shape in shapes]

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Run one time step."""
        left = list(states)
        for module in self.stateful:
            count = len(module.state_shapes)
            module.tape.before, left = left[:count], left[count:]
            module.tape.after = None
        try:
            y = only_tensor(self.model(x.unsqueeze(1)))
            after = [module.tape.after for module in self.stateful]
        finally:
            for module in self.stateful:
                module.tape.before = module.tape.after = None
        if any(states is None for states in after):
            raise SecateurError("a recurrent layer is not used; remove it")
        y = y[:, 0] if y.dim() == 3 else y
        return (y, *(state for states in after for state in cast(list[Tensor], states)))


class Sequence(nn.Module):
    """A step graph, run over sequences: (N, T, F) to (N, K), or (N, T, K) with ``every_step``.

    Parameters
    ----------
    graph : takes (x, *states) and returns (y, *states)
    shapes : of the states, without the batch
    every_step : return the outputs of all steps, not only of the last
    """

    def __init__(self, graph: GraphModule, shapes: list[tuple[int, ...]], every_step: bool) -> None:
        super().__init__()
        graph.meta[_STEP] = True
        self.graph, self.shapes, self.every_step = graph, shapes, every_step

    def forward(self, x: Tensor) -> Tensor:
        """Run all steps of sequences (N, T, F)."""
        states = [x.new_zeros(x.shape[0], *shape) for shape in self.shapes]
        outputs = []
        for step in x.unbind(1):
            y, *states = self.graph(step, *states)
            outputs.append(y)
        return torch.stack(outputs, 1) if self.every_step else outputs[-1]

    def with_graph(self, graph: GraphModule) -> Sequence:
        """The same for another graph of the step."""
        return Sequence(graph, self.shapes, self.every_step)


def capture_sequences(model: nn.Module, example: Tensor) -> Sequence | nn.Module:
    """A recurrent model as the graph of one time step, in a module that runs it over sequences; or
    the model itself, made of Linear layers, if a step does not give what a whole sequence gives.

    Parameters
    ----------
    model : takes (N, T, F), returns (N, K) of the last step, or (N, T, K) of all steps; a model
        that is not run step by step takes and returns anything
    example : a batch (N, T, F)

    Raises
    ------
    SecateurError : the model fails; or it is a ``Steps`` that cannot run step by step
    """
    model = decompose(model)
    for path, module in model.named_modules():
        if isinstance(module, Stateful):
            module.path = path
    if example.dim() < 3 and any(isinstance(module, Stateful) for module in model.modules()):
        raise SecateurError(
            f"the model is recurrent: it takes (N, T, F), not {tuple(example.shape)}"
        )
    was_training = model.training
    model.eval()
    try:
        two = torch.cat([example, example])[:2].detach()
        settle_initial(model, two)
        try:
            return _capture_step(model, two)
        except NoSequences:
            raise
        except SecateurError:
            if any(isinstance(module, Steps) for module in model.modules()):
                raise
            return model
    finally:
        model.train(was_training)


def settle_initial(model: nn.Module, example: Tensor) -> None:
    """Find the states that the model itself gives its layers to begin with, if they are constants.

    Parameters
    ----------
    model : its recurrent layers are ``Recurrent``
    example : two inputs
    """
    given: dict[Recurrent, list[Tensor]] = {}

    def watch(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        hx: Any = args[1] if len(args) > 1 else kwargs.get("hx")
        parts = hx if isinstance(hx, tuple | list) else [hx]
        found = [p[i] for i in range(len(parts[0])) for p in parts] if hx is not None else []
        before = given.setdefault(cast(Recurrent, module), found)
        before[:] = [torch.cat([a, b]) for a, b in zip(before, found, strict=True)]

    layers = [module for module in model.modules() if isinstance(module, Recurrent)]
    hooks = [layer.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            _ran("sequences", model, example)
            _ran("sequences", model, example.flip(0) * 0.5)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, states in given.items():
        first = [state[:1].clone() for state in states]
        same = all(torch.equal(s, one.expand_as(s)) for s, one in zip(states, first, strict=True))
        if states and same:
            layer.initial = first if any(bool(one.any()) for one in first) else []


def _capture_step(model: nn.Module, example: Tensor) -> Sequence:
    if example.dim() != 3:
        raise SecateurError(f"a step takes (N, T, F), not {tuple(example.shape)}")
    if example.shape[1] < 3:
        example = example.repeat(1, 3, 1)
    step = Step(model)
    every_step = _check_steps(model, step, example)
    arguments = (example[:, 0], *step.zeros(example[:, 0]))
    shapes = [tuple(state.shape[1:]) for state in arguments[1:]]
    return Sequence(_without_time(capture(step, Call(arguments))), shapes, every_step)


def _check_steps(model: nn.Module, step: Step, example: Tensor) -> bool:
    """Whether the model returns all steps, not only the last.

    Raises
    ------
    SecateurError : the steps give another result than the whole sequence
    """
    with torch.no_grad():
        whole = only_tensor(_ran("sequences", model, example))
        if whole.dim() not in (2, 3):
            raise SecateurError("the model must return one tensor, (N, K) or (N, T, K)")
        states, outputs = step.zeros(example[:, 0]), []
        for t in range(example.shape[1]):
            y, *states = _ran("one time step", step, example[:, t], *states)
            outputs.append(y)
    steps = torch.stack(outputs, 1) if whole.dim() == 3 else outputs[-1]
    scale = float(whole.abs().max()) + 1.0
    if steps.shape != whole.shape or float((steps - whole).abs().max()) > TOLERANCE * scale:
        raise SecateurError(
            f"step by step the model gives another result than over whole sequences; {_SUPPORTED}"
        )
    return whole.dim() == 3


def _ran(what: str, model: nn.Module, *inputs: Tensor) -> Any:
    """The model's result; an exception of the model becomes a SecateurError."""
    try:
        return model(*inputs)
    except SecateurError:
        raise
    except Exception as error:
        shape = tuple(inputs[0].shape)
        raise SecateurError(
            f"the model fails on {what}, {shape}: {first_line(error)}; {_SUPPORTED}"
        ) from None


def _without_time(gm: GraphModule) -> GraphModule:
    """The same graph with (N, F) tensors only: the dimension of one step is removed."""
    functionalise(gm)
    gm.graph.eliminate_dead_code()
    editor, flat, stacks = Editor(gm), dict[Node, Node](), dict[Node, list[Node]]()
    active = active_nodes(gm)

    def width(node: Node) -> int:
        value = node.meta["val"]
        value = value[0] if isinstance(value, list | tuple) else value
        sizes = (s if isinstance(s, int) else s.node.maybe_as_int() for s in value.shape)
        return prod(size for size in sizes if size is not None)  # without a batch of any size

    for node in list(gm.graph.nodes):
        node.meta["nn_module_stack"] = _unwrapped(node)
        if node.op == "placeholder" and node in active:
            if node.meta["val"].dim() != 2:
                raise refuse(node, "a state of several dimensions", "use vectors")
            flat[node] = node
        if node.op != "call_function" or node not in active:
            continue
        sources = [flat[n] for n in node.all_input_nodes if n in flat]
        if str(node.target).endswith("getitem>") and len(sources) == 1 and node.args[1] == 0:
            flat[node] = sources[0]
            continue
        if node.target is aten.sym_size.int:
            continue
        listed = cast(list[Node], node.args[0]) if is_call(node, CAT, aten.stack.default) else []
        if is_call(node, aten.stack.default) and len(listed) > 1:  # the states of several layers
            stacks[node] = [flat[part] for part in listed]
            continue
        if is_call(node, aten.select.int) and node.args[0] in stacks and node.args[1] == 0:
            flat[node] = stacks[node.args[0]][node.args[2]]
            continue
        of_features = is_call(node, aten.slice.Tensor) and _dim(node) == -1
        if of_features or (is_call(node, CAT) and len(listed) > 1):
            pass
        elif node.target in _RESHAPES or is_call(node, CAT):
            if len(sources) != 1 or width(node) != width(node.all_input_nodes[0]):
                raise refuse(node, "mixes time steps or features", "work on one time step")
            flat[node] = sources[0]
            continue
        with gm.graph.inserting_before(node):
            flat[node] = _flat_call(editor, node, flat)
    output = next(n for n in gm.graph.nodes if n.op == "output")
    output.args = (tuple(flat[node] for node in output_nodes(gm)),)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


def _flat_call(editor: Editor, node: Node, flat: dict[Node, Node]) -> Node:
    """The node's operation on (N, F) tensors."""
    args = list(map_arg(node.args, lambda n: flat.get(n, n)))
    rank = node.meta["val"].dim()
    if is_call(node, CAT, aten.slice.Tensor):
        if _dim(node) != -1:
            raise refuse(node, "concatenates time steps", "concatenate features")
        args[1:2] = [1]
    elif rank > 2 and not (elementwise(node.target) or is_call(node, *_PLAIN)):
        raise refuse(
            node, "in a recurrent model", "use Linear and recurrent layers, activations, + and *"
        )
    function = cast(Callable[..., Any], node.target)
    call = editor.gm.graph.call_function(function, tuple(args), dict(node.kwargs))
    call.meta = dict(node.meta)
    values = map_arg(call.args, lambda n: n.meta["val"])
    with editor.mode, torch.no_grad():
        call.meta["val"] = function(*values, **node.kwargs)
    if call.meta["val"].dim() != 2:
        raise refuse(node, "in a recurrent model", "give tensors of (N, T, features)")
    return call


def _dim(node: Node) -> int:
    """The dimension of a concatenation or slice, from the last one, which is -1."""
    rank = rank_of(node)
    return int(argument(node, 1, 0)) % rank - rank


def _unwrapped(node: Node) -> dict[str, tuple[str, object]]:
    """The modules that the node is part of, without ``Step``, which holds them as ``model``."""
    stack = (node.meta.get("nn_module_stack") or {}).items()
    paths = {key: (path.partition("model")[2].lstrip("."), kind) for key, (path, kind) in stack}
    return {key: value for key, value in paths.items() if value[0]}


def state_pairs(gm: GraphModule) -> list[tuple[Node, Node]]:
    """In the graph of a step, each state's placeholder and the node that it becomes."""
    if not gm.meta.get(_STEP):
        return []
    inputs = [node for node in gm.graph.nodes if node.op == "placeholder"]
    return list(zip(inputs[1:], output_nodes(gm)[1:], strict=True))
