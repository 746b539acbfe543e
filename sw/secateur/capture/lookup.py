"""Embeddings of inputs: the host looks integers up in a table, and the array gets what it finds.

While a graph is quantised its inputs are what the host finds. Afterwards they are integers again,
``embedding(table, placeholder)``, and that is what is quantised.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import GraphModule

from secateur.capture.ports import Call, call_with, inputs_of, tensors_of
from secateur.errors import SecateurError
from secateur.fx.graph import Editor, aten, attribute, is_call, refuse

#: Parameters of tables in a graph, by the name of the input.
Tables = dict[str, Tensor]


def take_tables(gm: GraphModule) -> Tables:
    """Make what is looked up the inputs of a graph, in place, instead of the integers.

    Returns
    -------
    tables : (V, D) by the name of the input

    Raises
    ------
    SecateurError : integers are read otherwise
    """
    tables = Tables()
    for name, node in inputs_of(gm).items():
        if node.meta["val"].is_floating_point() or not node.users:
            continue
        looked_up = [user for user in node.users if is_call(user, aten.embedding.default)]
        if len(looked_up) != 1 or len(node.users) > 1 or looked_up[0].args[1] is not node:
            raise refuse(
                next(iter(node.users)),
                f"reads the integers of input {name!r}",
                "give them to one nn.Embedding, and nothing else, or give floats",
            )
        (found,) = looked_up
        tables[name] = attribute(gm, str(found.all_input_nodes[0].target))
        found.replace_all_uses_with(node)
        node.meta["val"] = found.meta["val"]
        gm.graph.erase_node(found)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return tables


def give_tables(gm: GraphModule, tables: Tables) -> None:
    """Make the inputs of a graph integers again, in place."""
    nodes = inputs_of(gm)
    for name, values in tables.items():
        node, editor = nodes[name], Editor(gm)
        with gm.graph.inserting_after(node):
            table = editor.attach(f"_table_{node.name}", values, trained=True)
        with gm.graph.inserting_after(table):
            found = gm.graph.call_function(aten.embedding.default, (table, node))
        for user in [user for user in node.users if user is not found]:
            user.replace_input_with(node, found)
        found.meta.update(node.meta)
        with editor.mode:
            node.meta["val"] = torch.zeros_like(found.meta["val"][..., 0], dtype=torch.int64)
    gm.recompile()


def looked_up(graph: GraphModule, call: Call, tables: Tables) -> Call:
    """A call with what the host finds in place of integers.

    Parameters
    ----------
    graph : takes what is found
    call : of the model
    tables : of the graph

    Raises
    ------
    SecateurError : floats are given, or an integer that is not a row of its table
    """
    names = list(inputs_of(graph))[: len(call.tensors)]
    found = call.tensors if len(names) == 1 else tensors_of(graph, call)
    tensors = [
        _found(name, x, tables[name]) if name in tables else x
        for name, x in zip(names, found, strict=True)
    ]
    changed = Call((tensors[0],)) if len(names) == 1 else call_with(graph, tensors)
    return replace(changed, names=tuple(names))


def _found(name: str, x: Tensor, table: Tensor) -> Tensor:
    if x.is_floating_point():
        raise SecateurError(
            f"calibration: input {name!r} is {x.dtype}; its embedding takes integers, torch.int64"
        )
    least, most = int(x.min()), int(x.max())
    if least < 0 or most >= len(table):
        raise SecateurError(
            f"calibration: input {name!r} has integers from {least} to {most}; its embedding has "
            f"rows 0 to {len(table) - 1}"
        )
    return table.detach().float()[x.long()]
