"""Capture a model as a graph: ``torch.export`` with a dynamic batch where the model allows it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torchao.quantization.pt2e import allow_exported_model_train_eval  # registers the q/dq ops

from secateur.capture.outputs import output_nodes, unwrap
from secateur.capture.ports import Call
from secateur.capture.script import from_script
from secateur.errors import SecateurError, SecateurWarning
from secateur.fx.computed import copied
from secateur.fx.functional import writes_to_views
from secateur.fx.graph import LABELS, active_nodes, aten, attribute, is_call, known, labels_of
from secateur.fx.wrapped import inner
from secateur.text import first_line, printable

__all__ = [
    "allow_exported_model_train_eval",
    "export",
    "is_converted",
    "leave_to_host",
    "module_of",
]


def checked(model: object) -> torch.nn.Module | ExportedProgram:
    """The module or ExportedProgram itself, without what is wrapped around it.

    Raises
    ------
    SecateurError : it is neither
    """
    model = inner(model)
    if not isinstance(model, torch.nn.Module | ExportedProgram):
        given = repr(model) if isinstance(model, str | Path) else type(model).__name__
        raise SecateurError(
            f"the model must be a torch.nn.Module or ExportedProgram, not {given}; read files by "
            f"secateur.load_archive or secateur.load_onnx"
        )
    return model


def in_float32(
    model: torch.nn.Module | ExportedProgram, call: Call | None = None
) -> torch.nn.Module | ExportedProgram:
    """The model on the CPU, with values in all tensors, and floats of 32 bits: itself, or a copy.

    Counters, and other tensors that hold no floats, may be in buffers.

    Parameters
    ----------
    model : module or program
    call : gives lazy modules their shapes; None: they are refused

    Raises
    ------
    SecateurError : a tensor on the meta device, a program in other floats, or a lazy module
    """
    if isinstance(model, torch.nn.Module) and any(map(is_lazy, model.parameters())):
        if call is None:
            raise SecateurError("a layer is lazy and has no shape; run the model once before")
        model = copied(model)
        with torch.no_grad():
            call.of(model)
    kinds = {"parameter": model.named_parameters, "buffer": model.named_buffers}
    elsewhere = False
    for kind, tensors in kinds.items():
        for name, tensor in tensors():
            elsewhere |= tensor.device.type not in ("cpu", "meta")
            if tensor.is_meta:
                raise SecateurError(
                    f"{kind} {name!r} is on the meta device, it has no values; load them: "
                    f"model.to_empty(device='cpu'), then model.load_state_dict(...)"
                )
            if not tensor.is_floating_point() or tensor.dtype == torch.float32:
                continue
            if isinstance(model, ExportedProgram):
                raise SecateurError(
                    f"{kind} {name!r} is {tensor.dtype}; convert the module by model.float(), and "
                    f"export it again"
                )
            warnings.warn(
                f"{kind} {name!r} is {tensor.dtype}: a copy of the model in float32 is taken",
                SecateurWarning,
                stacklevel=3,
            )
            return copied(model).cpu().float()
    if elsewhere and isinstance(model, torch.nn.Module):
        return copied(model).cpu()
    return model


def export(model: torch.nn.Module | ExportedProgram, example: torch.Tensor | Call) -> GraphModule:
    """The graph of ``model`` in evaluation mode, a copy: the caller's model is left alone.

    The batch becomes dynamic unless the model fixes it or an ExportedProgram was made without it.

    Parameters
    ----------
    model : the model
    example : one batch of floats, (N, C, H, W), (N, C, L) or (N, C), or of several inputs a call

    Raises
    ------
    SecateurError : the model cannot be captured
    """
    if isinstance(model, ExportedProgram):
        return module_of(model)
    if isinstance(model, GraphModule) and _is_exported(model):
        gm = _unguarded(copy.deepcopy(model))
        unwrap(gm)
        return gm
    was_training = model.training
    model.eval()
    call = example if isinstance(example, Call) else Call((example,))
    # Two samples: torch.export would take a batch of one for a constant.
    # Copies: it would take the same tensor twice for one argument.
    call = call.map(lambda x: torch.cat([x, x])[: max(len(x), 2)])
    try:
        gm = capture(model, call)
    finally:
        model.train(was_training)
    unwrap(gm)
    return gm


def capture(model: torch.nn.Module, call: Call) -> GraphModule:
    """The graph of a module in evaluation mode, its batch dynamic unless the model fixes it.

    Raises
    ------
    SecateurError : the module cannot be captured
    """
    try:
        model = from_script(model, call.args)
        bound = inspect.signature(model.forward).bind(*call.args, **call.kwargs).arguments
        shapes = pytree.tree_map(lambda _: {0: torch.export.Dim.AUTO}, dict(bound))
        with quiet():
            program = torch.export.export(model, call.args, call.kwargs, dynamic_shapes=shapes)
    except SecateurError:
        raise
    except Exception as error:
        raise SecateurError(
            f"torch.export cannot capture {type(model).__name__} for "
            f"{', '.join(str(tuple(x.shape)) for x in call.tensors)}, samples first: "
            f"{first_line(error)}; the model must take tensors and have no data-dependent control "
            f"flow"
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
    SecateurError : torch cannot make a module of the program
    """
    gm = _callable(program)
    unwrap(gm)
    return gm


def _callable(program: ExportedProgram) -> GraphModule:
    try:
        if writes_to_views(program.graph):
            program = program.run_decompositions({})  # gives every write a result of its own
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
    _whole_norms(gm)
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


def _whole_norms(gm: GraphModule) -> None:
    """BatchNorms in the form that modules have, without statistics as results."""
    for node in gm.graph.nodes:
        if node.target is aten._native_batch_norm_legit_no_training.default:
            user = next(iter(node.users))
            node.target = aten.batch_norm.default
            node.args = (*node.args[:5], False, *node.args[5:7], True)
            node.meta["val"] = node.meta["val"][0]
            user.replace_all_uses_with(node)
    gm.graph.eliminate_dead_code()


def _drop_casts(gm: GraphModule) -> None:
    """Remove casts of activations to the type that they have."""
    active = active_nodes(gm)
    for node in list(gm.graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            gm.graph.erase_node(node)
        elif node in active and is_call(node, *_CASTS):
            before, after = (n.meta["val"].dtype for n in (node.args[0], node))
            if before == after:
                node.replace_all_uses_with(node.args[0])
                gm.graph.erase_node(node)
    gm.recompile()


#: Operations that need all logits at once: the host computes them.
_HOST = {
    torch.ops.aten.softmax.int: "softmax",
    torch.ops.aten.log_softmax.int: "log_softmax",
    torch.ops.aten.argmax.default: "argmax",
}


def leave_to_host(gm: GraphModule) -> None:
    """Remove softmax and argmax at the very end of a graph, each with a SecateurWarning."""
    output = next(n for n in gm.graph.nodes if n.op == "output")
    waiting = list(dict.fromkeys(output_nodes(gm)))
    for last in waiting:
        if last.target not in _HOST or len(last.users) != 1:
            continue
        waiting.append(last.all_input_nodes[0])
        name = _HOST[last.target]
        warnings.warn(
            f"node {last.name} ({name}): the last {name} is left to the host; the array returns "
            f"its input",
            SecateurWarning,
            stacklevel=2,
        )
        output.replace_input_with(last, last.all_input_nodes[0])
        gm.graph.erase_node(last)
    gm.recompile()


def batch_of(gm: GraphModule) -> int | None:
    """The samples that a graph is fixed to, None if it takes any number."""
    values = [
        node.meta["val"] for node in gm.graph.nodes if node.op == "placeholder" and node.users
    ]
    sizes = (known(value.shape[0]) for value in values)
    return next((size for size in sizes if size is not None), None)


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
