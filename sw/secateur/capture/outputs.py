"""The result of a model: tensors, alone or in tuples, lists and dictionaries."""

from __future__ import annotations

from typing import Any

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


def tensors_in(found: object) -> list[Tensor]:
    """The tensors in the result of a model, in order.

    Raises
    ------
    SecateurError : there is none
    """
    tensors = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor)]
    if not tensors:
        raise SecateurError(f"the model must return tensors, not {type(found).__name__}")
    return tensors


def output_value(gm: GraphModule) -> Any:
    """What a graph returns, with nodes in place of tensors."""
    held = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    codegen = gm.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen) and codegen.pytree_info.out_spec is not None:
        # It rebuilds the model's structure of a list of leaves.
        return pytree.tree_unflatten(pytree.tree_leaves(held), codegen.pytree_info.out_spec)
    return held


def output_nodes(gm: GraphModule) -> list[Node]:
    """The nodes of the outputs and, in the graph of a step, of the states that it leaves.

    Raises
    ------
    SecateurError : there is none
    """
    held = next(n for n in gm.graph.nodes if n.op == "output").args[0]
    found = [leaf for leaf in pytree.tree_leaves(held) if isinstance(leaf, Node)]
    if not found:
        raise SecateurError("the model does not return a tensor")
    return found


def unwrap(gm: GraphModule) -> None:
    """Make a graph whose result has one tensor return it without a container around it.

    Raises
    ------
    SecateurError : there is none
    """
    nodes = output_nodes(gm)
    if len(nodes) != 1:
        return
    output, codegen = next(n for n in gm.graph.nodes if n.op == "output"), gm.graph._codegen
    output.args = (nodes[0],)
    if isinstance(codegen, _PyTreeCodeGen):
        output.args = ((nodes[0],),)
        leaf = pytree.tree_structure(torch.empty(0))
        codegen.pytree_info = codegen.pytree_info._replace(out_spec=leaf)
    gm.recompile()
