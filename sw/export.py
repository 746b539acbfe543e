"""Capture a model as a graph: ``torch.export`` with a dynamic batch where the model allows it."""

from __future__ import annotations

import copy
import hashlib
import warnings

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e import allow_exported_model_train_eval  # registers the q/dq ops

from secateur.errors import SecateurError, SecateurWarning
from secateur.graph import attribute

__all__ = [
    "allow_exported_model_train_eval",
    "export",
    "is_converted",
    "leave_to_host",
    "module_of",
]


def export(model: torch.nn.Module | ExportedProgram, example: torch.Tensor) -> GraphModule:
    """The graph of ``model`` in evaluation mode, a copy: the caller's model is left alone.

    ``example`` is one input batch, (N, C, H, W) or (N, C) floats. The batch becomes dynamic unless
    the model fixes it or an ExportedProgram was made without it.
    Raises SecateurError if the model cannot be captured or has several inputs or outputs.
    """
    if isinstance(model, ExportedProgram):
        return module_of(model)
    if isinstance(model, GraphModule):
        return copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise SecateurError(
                f"parameter {name!r} is {parameter.dtype}; convert by model.float()"
            )
    was_training = model.training
    model.eval()
    # Two samples: torch.export would take a batch of one for a constant.
    example = torch.cat([example, example])[:2] if example.shape[0] < 2 else example
    try:
        program = torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
        )
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise SecateurError(
            f"torch.export cannot capture {type(model).__name__}: "
            f"{lines[0] if lines else type(error).__name__}; the model must take one tensor and "
            "have no data-dependent control flow"
        ) from error
    finally:
        model.train(was_training)
    return module_of(program)


def module_of(program: ExportedProgram) -> GraphModule:
    """The program as a callable graph without guards, its weights copied.

    Raises SecateurError unless it has one tensor as input and one as output.
    """
    try:
        gm = copy.deepcopy(program.module(check_guards=False))
    except SyntaxError:
        raise SecateurError(
            "the model has a submodule whose name torch.export cannot write as code (a quote, a "
            "backslash, a keyword of Python); rename it"
        ) from None
    assert isinstance(gm, GraphModule)
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder"]
    if len(inputs) != 1:
        raise SecateurError(f"the model has {len(inputs)} inputs, the array takes one tensor")
    output_node(gm)
    return gm


#: Operations that the host does better: of all logits at once.
_HOST = {
    torch.ops.aten.softmax.int: "softmax",
    torch.ops.aten.log_softmax.int: "log_softmax",
}


def leave_to_host(gm: GraphModule) -> None:
    """Take a softmax at the very end off a graph, with a warning that says so."""
    output = next(n for n in gm.graph.nodes if n.op == "output")
    last = output_node(gm)
    if last.target not in _HOST or len(last.users) != 1:
        return
    name = _HOST[last.target]
    warnings.warn(
        f"node {last.name} ({name}): the last {name} is left to the host; the array returns what "
        f"goes into it",
        SecateurWarning,
        stacklevel=2,
    )
    output.replace_input_with(last, last.all_input_nodes[0])
    gm.graph.erase_node(last)
    gm.recompile()


def output_node(gm: GraphModule) -> torch.fx.Node:
    """The node of the single output; raises SecateurError if there are several."""
    result = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    while isinstance(result, tuple | list):
        if len(result) != 1:
            raise SecateurError(
                f"the model has {len(result)} outputs, the array returns one tensor; "
                "return one, or compile one model for each"
            )
        result = result[0]
    if not isinstance(result, torch.fx.Node):
        raise SecateurError("the model does not return a tensor")
    return result


def needed_nodes(gm: GraphModule) -> set[torch.fx.Node]:
    """The nodes on which the output depends."""
    needed = {output_node(gm)}
    for node in reversed(gm.graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def is_converted(model: torch.nn.Module | ExportedProgram) -> bool:
    """Whether the model is a graph quantised already (holds quantise operations of PT2E)."""
    if not isinstance(model, ExportedProgram | GraphModule):
        return False
    return any(
        n.op == "call_function" and "quantized_decomposed.quantize_per_tensor" in str(n.target)
        for n in model.graph.nodes
    )


def source_hash(gm: GraphModule) -> str:
    """SHA-256 over all that the output depends on: operations, their arguments and all tensors."""
    wanted = needed_nodes(gm)
    digest = hashlib.sha256()
    for node in gm.graph.nodes:
        if node not in wanted:
            continue
        digest.update(f"{node.op} {node.target} {node.args} {node.kwargs}".encode())
        if node.op == "get_attr":
            tensor = attribute(gm, str(node.target)).detach()
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
