"""TorchScript modules as graphs that torch.export takes."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.fx import GraphModule, Node

from secateur.errors import SecateurError
from secateur.fx.graph import argument, aten
from secateur.text import first_line

_CONVOLUTIONS = {3: aten.conv1d.default, 4: aten.conv2d.default}
_TRANSPOSED = {3: aten.conv_transpose1d.default, 4: aten.conv_transpose2d.input}


def from_script(model: nn.Module, arguments: tuple[torch.Tensor, ...]) -> nn.Module:
    """A scripted or traced module as a module of ATen operators; any other as it is.

    Parameters
    ----------
    model : the module
    arguments : example inputs

    Raises
    ------
    SecateurError : PyTorch's converter does not know an operation of it
    """
    if not isinstance(model, torch.jit.ScriptModule):
        return model
    from torch._export.converter import TS2EPConverter

    try:
        made = TS2EPConverter(model, arguments).convert().module(check_guards=False)
    except Exception as error:  # of all kinds
        raise SecateurError(
            f"PyTorch cannot convert the TorchScript module: {first_line(error)}; give the "
            f"torch.nn.Module that it was made of, or write it by torch.onnx.export(..., "
            f"dynamo=False) and read that by secateur.load_onnx"
        ) from error
    assert isinstance(made, GraphModule)
    for node in made.graph.find_nodes(op="call_function", target=aten.convolution.default):
        _name_convolution(node)
    made.recompile()
    return made


def _name_convolution(node: Node) -> None:
    """A convolution as its own operator: a traced module has one for all kinds."""
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = (
        argument(node, index, None) for index in range(9)
    )
    rank = len(cast(Node, weight).meta["val"].shape)
    if transposed:
        node.target = _TRANSPOSED[rank]
        node.args = (x, weight, bias, stride, padding, extra or 0, groups or 1, dilation)
    else:
        node.target = _CONVOLUTIONS[rank]
        node.args = (x, weight, bias, stride, padding, dilation, groups or 1)
