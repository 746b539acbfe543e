"""The arguments and results of a model: names, tensors, nodes, and the structure around them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from secateur.capture.outputs import output_value
from secateur.errors import SecateurError
from secateur.image.form import Form, named_leaves


@dataclass(frozen=True)
class Call:
    """The arguments of a call of a model: tensors, samples first, perhaps in containers.

    ``names`` are those of the tensors, for messages.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in order."""
        return list(pytree.tree_leaves((self.args, self.kwargs)))

    @property
    def one(self) -> Tensor:
        """The only tensor.

        Raises
        ------
        SecateurError : there are several
        """
        if len(self.tensors) != 1:
            raise SecateurError(f"the model must take one tensor, not {len(self.tensors)}")
        return self.tensors[0]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def map(self, change: Callable[[Tensor], Any]) -> Call:
        """The call with every tensor changed."""
        args, kwargs = pytree.tree_map(change, (self.args, self.kwargs))
        return Call(args, kwargs, self.names)

    def of(self, model: Callable[..., Any]) -> Any:
        """What the model returns."""
        return model(*self.args, **self.kwargs)


def signature_of(model: torch.nn.Module) -> inspect.Signature:
    """The signature of a model's ``forward``."""
    if not isinstance(model, torch.jit.ScriptModule):
        return inspect.signature(model.forward)
    forward: Any = model.forward
    names = [argument.name for argument in forward.schema.arguments[1:]]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(name, kind) for name in names])


def call_of(model: torch.nn.Module, given: Any) -> Call:
    """The call of a model with a tensor, with arguments in a tuple or list, or with named ones.

    Arguments that are None, as they are by default, are left out.

    Raises
    ------
    SecateurError : the model takes other arguments, or they are not tensors
    """
    if isinstance(given, Tensor):
        if arguments_needed(model) > 1:
            names = ", ".join(signature_of(model).parameters)
            raise SecateurError(
                f"the model takes {arguments_needed(model)} inputs, not one tensor: give "
                f"({names}) in a tuple, or by name in a dictionary"
            )
        return Call((given,))
    signature = signature_of(model)
    named = isinstance(given, Mapping) and set(given) <= set(signature.parameters)
    args, kwargs = ((), dict(given)) if named else ((given,), {})
    if isinstance(given, tuple | list):
        args = tuple(given)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SecateurError(
            f"the model does not take these inputs ({error}): give batches of inputs alone, such "
            f"as [x for x, y in loader], not {type(given).__name__}; several inputs in a tuple, or "
            f"by name in a dictionary"
        ) from None
    for name, value in list(bound.arguments.items()):
        if value is None and signature.parameters[name].default is None:
            del bound.arguments[name]
    call = Call(bound.args, bound.kwargs, tuple(_leaf_names(bound.arguments)))
    for name, leaf in zip(call.names, call.tensors, strict=True):
        if not isinstance(leaf, Tensor):
            raise SecateurError(
                f"input {name!r} is {type(leaf).__name__}, not a tensor; give it in a module "
                f"around the model"
            )
    return call


def input_keys(model: torch.nn.Module | ExportedProgram, keys: list[str]) -> list[str]:
    """Those of the names of arrays that are a model's inputs; "x" if it has one.

    An array may be one of several in an argument: ``maps.0``, or ``batch.image``.
    """
    module = model.module(check_guards=False) if isinstance(model, ExportedProgram) else model
    parameters = signature_of(module).parameters
    found = [key for key in keys if key.partition(".")[0] in parameters]
    return found if arguments_needed(module) > 1 or len(found) > 1 else ["x"]


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, of values by names with dots: ``maps.0`` is the first of a list."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        first, _, rest = key.partition(".")
        if rest:
            found.setdefault(first, {})[rest] = value
        else:
            found[first] = value
    made = {}
    for key, value in found.items():
        inner = nested(value) if isinstance(value, dict) else value
        numbered = isinstance(value, dict) and set(inner) == {str(i) for i in range(len(inner))}
        made[key] = [inner[str(i)] for i in range(len(inner))] if numbered else inner
    return made


def arguments_needed(model: torch.nn.Module) -> int:
    """How many arguments a model needs."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = signature_of(model).parameters.values()
    several = [p for p in found if p.kind in kinds and p.default is p.empty]
    return len(several)


def without(model: torch.nn.Module, call: Call, names: Collection[str]) -> Call:
    """A call of a model without some arguments.

    Parameters
    ----------
    model : the model
    call : of it
    names : of arguments that have a default
    """
    bound = signature_of(model).bind(*call.args, **call.kwargs)
    for name in names:
        bound.arguments.pop(name, None)
    return Call(bound.args, bound.kwargs)


def idle(model: torch.nn.Module, graph: GraphModule) -> list[str]:
    """Arguments of a model that have a default, and that its graph does not have or read."""
    read = {name.partition(".")[0] for name, node in inputs_of(graph).items() if node.users}
    return [
        name
        for name, parameter in signature_of(model).parameters.items()
        if name not in read and parameter.default is not parameter.empty
    ]


def _leaf_names(arguments: Mapping[str, Any]) -> list[str]:
    """Names of the tensors in arguments: those of arguments and of keys, joined by dots."""
    found, _ = pytree.tree_flatten_with_path(list(arguments.values()))
    names = list(arguments)
    paths = [[_key(step) for step in path] for path, _ in found]
    return [".".join([names[int(first)], *rest]) for first, *rest in paths]


def _key(step: Any) -> str:
    """A key on the way to a leaf, as text."""
    name = next(getattr(step, kind) for kind in ("idx", "key", "name") if hasattr(step, kind))
    return str(name)


def inputs_of(gm: GraphModule) -> dict[str, Node]:
    """The graph's inputs by name, in the order of its arguments."""
    nodes = [node for node in gm.graph.nodes if node.op == "placeholder"]
    names = [str(node.target) for node in nodes]
    codegen = gm.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        info = codegen.pytree_info
        args, kwargs = pytree.tree_unflatten(range(len(nodes)), info.in_spec)
        names = _leaf_names(dict(zip(info.orig_args, [*args, *kwargs.values()], strict=True)))
    return dict(zip(names, nodes, strict=True))


def tensors_of(gm: GraphModule, call: Call) -> list[Tensor]:
    """The tensors of a call in the order of the graph's inputs.

    Raises
    ------
    SecateurError : the graph takes others
    """
    bound = signature_of(gm).bind(*call.args, **call.kwargs)
    tensors = list(pytree.tree_leaves(list(bound.arguments.values())))
    if len(tensors) != len(inputs_of(gm)):
        raise SecateurError(f"the model takes {len(inputs_of(gm))} inputs, not {len(tensors)}")
    return tensors


def call_with(gm: GraphModule, tensors: list[Tensor]) -> Call:
    """The call of a graph with tensors in the order of its inputs."""
    codegen = gm.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        return Call(*pytree.tree_unflatten(tensors, codegen.pytree_info.in_spec))
    return Call(tuple(tensors))


def results_of(gm: GraphModule) -> tuple[Form, dict[str, Node]]:
    """What the graph returns, and the nodes in it by name.

    Raises
    ------
    SecateurError : there is something that is neither a tensor nor a number
    """
    found = output_value(gm)
    nodes = list(dict.fromkeys(x for x in pytree.tree_leaves(found) if isinstance(x, Node)))
    numbered = _form(found, {node: str(index) for index, node in enumerate(nodes)})
    names: dict[str, str] = {}
    for name, index in named_leaves(numbered):
        names.setdefault(index, name)
    form = _renamed(numbered, names)
    return form, {names[str(index)]: node for index, node in enumerate(nodes)}


def _renamed(form: Form, names: dict[str, str]) -> Form:
    if isinstance(form, str):
        return names[form]
    if form is None or "items" not in form:
        return form
    return form | {"items": [_renamed(item, names) for item in form["items"]]}


def _form(found: Any, names: dict[Node, str]) -> Form:
    if isinstance(found, Node):
        return names[found]
    if found is None:
        return None
    if isinstance(found, bool | int | float | str):
        return {"value": found}
    if isinstance(found, Mapping):
        items = [_form(item, names) for item in found.values()]
        return {"kind": "dict", "keys": list(map(str, found)), "items": items}
    if isinstance(found, tuple | list):
        items = [_form(item, names) for item in found]
        if hasattr(found, "_fields"):
            return {"kind": "named", "keys": list(found._fields), "items": items}
        return {"kind": "tuple" if isinstance(found, tuple) else "list", "items": items}
    raise SecateurError(
        f"the model returns a {type(found).__name__}; return tensors, in tuples, lists, "
        f"dictionaries or named tuples"
    )
