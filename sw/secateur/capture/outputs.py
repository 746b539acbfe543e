"""The result of a model: one tensor, alone or in a tuple, list or dictionary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from secateur.errors import SecateurError


def only_tensor(found: object) -> Tensor:
    """The only tensor in the result of a model.

    Raises
    ------
    SecateurError : there are several, or none
    """
    leaves = [leaf for leaf in pytree.tree_leaves(found) if leaf is not None]
    if len(leaves) == 1 and isinstance(leaves[0], Tensor):
        return leaves[0]
    several = f" of {len(leaves)} values" if len(leaves) > 1 else ""
    raise SecateurError(
        f"the model must return one tensor, not {type(found).__name__}{several}; return one, or "
        f"compile one model for each"
    )


def output_nodes(gm: GraphModule) -> list[Node]:
    """The nodes of the output and, in the graph of a step, of the states that it leaves.

    Raises
    ------
    SecateurError : one of them is not a tensor
    """
    held = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    found = [leaf for leaf in pytree.tree_leaves(held) if leaf is not None]
    if not found or not all(isinstance(node, Node) for node in found):
        raise SecateurError("the model does not return a tensor")
    return found


def output_node(gm: GraphModule) -> Node:
    """The node of the output; in the graph of a step, of the first one."""
    return output_nodes(gm)[0]


def return_one(gm: GraphModule) -> None:
    """Make a graph return its only tensor, without a tuple, list or dictionary around it.

    Raises
    ------
    SecateurError : there are several, or none
    """
    nodes = output_nodes(gm)
    if len(nodes) != 1:
        raise SecateurError(
            f"the model has {len(nodes)} outputs, the array returns one tensor; "
            "return one, or compile one model for each"
        )
    output, codegen = next(n for n in gm.graph.nodes if n.op == "output"), gm.graph._codegen
    output.args = (nodes[0],)
    if isinstance(codegen, _PyTreeCodeGen):  # it rebuilds the model's structure of a list of leaves
        output.args = ((nodes[0],),)
        leaf = pytree.tree_structure(torch.empty(0))
        codegen.pytree_info = codegen.pytree_info._replace(out_spec=leaf)
    gm.recompile()
