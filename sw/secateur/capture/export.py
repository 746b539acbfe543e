"""Capture a model as a graph: ``torch.export`` with a dynamic batch where the model allows it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torchao.quantization.pt2e import allow_exported_model_train_eval  # registers the q/dq ops

from secateur.capture.outputs import output_node, output_nodes, return_one
from secateur.capture.script import from_script
from secateur.errors import SecateurError, SecateurWarning
from secateur.fx.graph import LABELS, active_nodes, aten, attribute, is_call, labels_of, refuse
from secateur.text import first_line, printable

__all__ = [
    "allow_exported_model_train_eval",
    "export",
    "is_converted",
    "leave_to_host",
    "module_of",
]


#: Modules around modules that torch.export does not see through, and where the inner one is.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def check_model(model: object) -> None:
    """Check that ``model`` is a module or an ExportedProgram.

    Raises
    ------
    SecateurError : it is neither, or a wrapper around a module (DataParallel, torch.compile)
    """
    if not isinstance(model, torch.nn.Module | ExportedProgram):
        given = repr(model) if isinstance(model, str | Path) else type(model).__name__
        raise SecateurError(
            f"the model must be a torch.nn.Module or ExportedProgram, not {given}; read files by "
            f"secateur.load_archive or secateur.load_onnx"
        )
    for kind, inner in _WRAPPERS.items():
        if type(model).__name__ == kind:
            raise SecateurError(
                f"the model is wrapped by {kind}; give the module in it, model.{inner}"
            )


def check_tensors(model: torch.nn.Module | ExportedProgram) -> None:
    """Check that parameters and buffers have values, and that floats have 32 bits.

    Counters, and other tensors that hold no floats, may be in buffers.

    Raises
    ------
    SecateurError : a tensor on the meta device, or of another type of float
    """
    kinds = {"parameter": model.named_parameters, "buffer": model.named_buffers}
    for kind, tensors in kinds.items():
        for name, tensor in tensors():
            if tensor.is_meta:
                raise SecateurError(
                    f"{kind} {name!r} is on the meta device, it has no values; load them: "
                    f"model.to_empty(device='cpu'), then model.load_state_dict(...)"
                )
            floats = kind == "parameter" or tensor.is_floating_point()
            if floats and tensor.dtype != torch.float32:
                raise SecateurError(f"{kind} {name!r} is {tensor.dtype}; convert by model.float()")


def export(model: torch.nn.Module | ExportedProgram, example: torch.Tensor) -> GraphModule:
    """The graph of ``model`` in evaluation mode, a copy: the caller's model is left alone.

    The batch becomes dynamic unless the model fixes it or an ExportedProgram was made without it.

    Parameters
    ----------
    model : the model
    example : one input batch of floats, (N, C, H, W), (N, C, L) or (N, C)

    Raises
    ------
    SecateurError : the model cannot be captured, or has several inputs or outputs
    """
    if isinstance(model, ExportedProgram):
        return module_of(model)
    if isinstance(model, GraphModule) and _is_exported(model):
        gm = _unguarded(copy.deepcopy(model))
        return_one(gm)
        return gm
    was_training = model.training
    model.eval()
    # Two samples: torch.export would take a batch of one for a constant.
    example = torch.cat([example, example])[:2] if example.shape[0] < 2 else example
    try:
        gm = capture(model, (example,))
    finally:
        model.train(was_training)
    return_one(gm)
    return gm


def capture(model: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> GraphModule:
    """The graph of a module in evaluation mode, its batch dynamic unless the model fixes it.

    Raises
    ------
    SecateurError : the module cannot be captured
    """
    try:
        batch = tuple({0: torch.export.Dim.AUTO} for _ in arguments)
        shapes = batch if len(arguments) == 1 else (batch[0], batch[1:])
        with quiet():
            program = torch.export.export(
                from_script(model, arguments), arguments, dynamic_shapes=shapes
            )
    except SecateurError:
        raise
    except Exception as error:
        raise SecateurError(
            f"torch.export cannot capture {type(model).__name__} for {tuple(arguments[0].shape)}, "
            f"samples first: {first_line(error)}; the model must take "
            "one tensor and have no data-dependent control flow"
        ) from error
    gm = _callable(program)
    gm.meta[LABELS] = labels_of(model)
    return gm


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's logs and graphs off stderr: a failure is one error message."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def module_of(program: ExportedProgram) -> GraphModule:
    """The program as a callable graph without guards, its weights copied.

    Raises
    ------
    SecateurError : the program has several inputs or outputs
    """
    gm = _callable(program)
    inputs = [n for n in gm.graph.nodes if n.op == "placeholder"]
    if len(inputs) != 1:
        raise SecateurError(
            f"the model has {len(inputs)} inputs, the array takes one tensor; compile a model "
            f"with states as a module: secateur.Steps"
        )
    return_one(gm)
    return gm


def _callable(program: ExportedProgram) -> GraphModule:
    try:
        gm = copy.deepcopy(program.module(check_guards=False))
    except SyntaxError:
        raise SecateurError(
            "the model has a submodule whose name torch.export cannot write as code (a quote, a "
            "backslash, a keyword of Python); rename it"
        ) from None
    except Exception as error:  # torch raises all kinds on inconsistent programs
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SecateurError(
            f"torch cannot make a module of the exported program: {printable(lines[-1], 300)}; "
            f"export the model again"
        ) from error
    assert isinstance(gm, GraphModule)
    _drop_casts(gm)
    return gm


def _is_exported(gm: GraphModule) -> bool:
    """Whether the graph knows the shapes of its values, as those of torch.export do."""
    return all("val" in node.meta for node in gm.graph.nodes if node.op == "placeholder")


def _unguarded(gm: GraphModule) -> GraphModule:
    """Without the call that checks the shapes of the inputs."""
    for node in list(gm.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            gm.graph.erase_node(node)
    gm.recompile()
    return gm


_CASTS = (
    aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other,
    aten.type_as.default,
)  # fmt: skip


def _drop_casts(gm: GraphModule) -> None:
    """Remove casts of activations to the type that they have.

    Raises
    ------
    SecateurError : a cast to another type
    """
    active = active_nodes(gm)
    for node in list(gm.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            gm.graph.erase_node(node)
        elif node in active and is_call(node, *_CASTS):
            before, after = (n.meta["val"].dtype for n in (node.args[0], node))
            if before != after:
                raise refuse(node, f"casts {before} to {after}", "compute in float32, cast nothing")
            node.replace_all_uses_with(node.args[0])
            gm.graph.erase_node(node)
    gm.recompile()


#: Operations that need all logits at once: the host computes them.
_HOST = {
    torch.ops.aten.softmax.int: "softmax",
    torch.ops.aten.log_softmax.int: "log_softmax",
}


def leave_to_host(gm: GraphModule) -> None:
    """Remove a softmax at the very end of a graph, with a SecateurWarning."""
    output = next(n for n in gm.graph.nodes if n.op == "output")
    last = output_node(gm)
    if last.target not in _HOST or len(last.users) != 1:
        return
    name = _HOST[last.target]
    warnings.warn(
        f"node {last.name} ({name}): the last {name} is left to the host; the array returns its "
        f"input",
        SecateurWarning,
        stacklevel=2,
    )
    output.replace_input_with(last, last.all_input_nodes[0])
    gm.graph.erase_node(last)
    gm.recompile()


def input_node(gm: GraphModule) -> torch.fx.Node:
    """The node of the input; in the graph of a step, of the step's."""
    found: torch.fx.Node = next(node for node in gm.graph.nodes if node.op == "placeholder")
    return found


def needed_nodes(gm: GraphModule) -> set[torch.fx.Node]:
    """The nodes on which the outputs depend."""
    needed = set(output_nodes(gm))
    for node in reversed(gm.graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return needed


def is_converted(model: torch.nn.Module | ExportedProgram) -> bool:
    """Whether the model is a graph quantised already (holds quantise operations of PT2E), or runs
    one over sequences."""
    graph = getattr(model, "graph", None)
    model = graph if isinstance(graph, GraphModule) else model
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
