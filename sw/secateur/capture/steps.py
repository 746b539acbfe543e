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
from secateur.capture.initial import SUPPORTED, ran, settle_initial
from secateur.capture.outputs import only_tensor, output_nodes
from secateur.capture.ports import Call
from secateur.capture.recurrent import NoSequences, Stateful, Steps, decompose
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

#: Key of a graph's ``meta``: it is that of a step, and takes states behind its input.
_STEP = "secateur_step"
#: A step may differ from the sequence by rounding only.
TOLERANCE = 1e-3
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
_PLAIN = (
    LINEAR,
    aten.embedding.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.prelu.default,
)


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
        return _zeros(x, shapes)

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

    Attributes
    ----------
    steps : of the longest sequence in the calibration data, 0 before these are known
    """

    def __init__(self, graph: GraphModule, shapes: list[tuple[int, ...]], every_step: bool) -> None:
        super().__init__()
        graph.meta[_STEP] = True
        self.graph, self.shapes, self.every_step, self.steps = graph, shapes, every_step, 0

    def forward(self, x: Tensor) -> Tensor:
        """Run all steps of sequences (N, T, F)."""
        states, outputs = self.zeros(x), []
        for step in x.unbind(1):
            y, *states = self.graph(step, *states)
            outputs.append(y)
        return torch.stack(outputs, 1) if self.every_step else outputs[-1]

    def zeros(self, x: Tensor) -> list[Tensor]:
        """States at the start of sequences (N, ...)."""
        return _zeros(x, self.shapes)

    def with_graph(self, graph: GraphModule) -> Sequence:
        """The same for another graph of the step."""
        found = Sequence(graph, self.shapes, self.every_step)
        found.steps = self.steps
        return found


def _zeros(x: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """States of a batch; its numbers may be integers that are looked up."""
    return [torch.zeros(len(x), *shape, device=x.device) for shape in shapes]


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
    least = 3 if example.is_floating_point() else 2
    if example.dim() < least and any(isinstance(module, Stateful) for module in model.modules()):
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


def _capture_step(model: nn.Module, example: Tensor) -> Sequence:
    if example.dim() != (3 if example.is_floating_point() else 2):
        raise SecateurError(f"a step takes (N, T, F), not {tuple(example.shape)}")
    if example.shape[1] < 3:
        example = torch.cat([example] * 3, 1)
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
        whole = only_tensor(ran("sequences", model, example))
        if whole.dim() not in (2, 3):
            raise SecateurError("the model must return one tensor, (N, K) or (N, T, K)")
        states, outputs = step.zeros(example[:, 0]), []
        for t in range(example.shape[1]):
            y, *states = ran("one time step", step, example[:, t], *states)
            outputs.append(y)
    steps = torch.stack(outputs, 1) if whole.dim() == 3 else outputs[-1]
    scale = float(whole.abs().max()) + 1.0
    if steps.shape != whole.shape or float((steps - whole).abs().max()) > TOLERANCE * scale:
        raise SecateurError(
            f"step by step the model gives another result than over whole sequences; {SUPPORTED}"
        )
    return whole.dim() == 3


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
            value = node.meta["val"]
            if value.dim() != (2 if value.is_floating_point() else 1):
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
