"""Biases on the array's grid, in the graph itself: PyTorch then adds the same biases."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from secateur.fx.graph import constant
from secateur.hw.spec import BIAS_FRACTION, BIAS_LIMIT
from secateur.ir import Ints
from secateur.quantisation.fake_quantise import ActivationFakeQuantize
from secateur.quantisation.match import Match, observed_layers


def bias_of(gm: GraphModule, match: Match) -> npt.NDArray[np.float64]:
    """Sum of the biases of a layer's products, real values; one zero if there are none."""
    found = [constant(gm, o.bias).double().numpy() for o in match.operands if o.bias is not None]
    return np.asarray(sum(found)) if found else np.zeros(1)


def bias_codes(bias: npt.NDArray[np.float64], out: int) -> Ints:
    """Biases as the array has them: in units of 2**(out - BIAS_FRACTION), 13 bits."""
    codes = np.rint(np.ldexp(bias, BIAS_FRACTION - out))
    return np.clip(codes, -BIAS_LIMIT, BIAS_LIMIT - 1).astype(np.int64)


def write_biases(prepared: GraphModule) -> None:
    """Put each layer's bias on the grid 2**(e_out - BIAS_FRACTION), as one buffer in the graph."""
    for index, (match, node) in enumerate(observed_layers(prepared)):
        operands = [o for o in match.operands if o.product is not None]
        if all(o.bias is None for o in operands):
            continue
        exponent = int(
            cast(ActivationFakeQuantize, prepared.get_submodule(str(node.target))).exponent
        )
        codes = bias_codes(bias_of(prepared, match), exponent)
        name = f"_grid_bias_{index}"
        prepared.register_buffer(
            name, torch.from_numpy(np.ldexp(codes, exponent - BIAS_FRACTION)).float()
        )
        for operand in operands:
            product = cast(Node, operand.product)
            args = list(product.args) + [None] * (3 - len(product.args))
            args[2] = None
            if operand is operands[0]:
                with prepared.graph.inserting_before(product):
                    args[2] = prepared.graph.get_attr(name)
            product.args = tuple(args)
    prepared.graph.eliminate_dead_code()
    prepared.recompile()
