"""Tables of activation functions: 256 codes, each computed by PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from secateur.fx.functions import Function
from secateur.fx.graph import refuse
from secateur.hw.spec import TABLE_ENTRIES
from secateur.ir import Table
from secateur.quantisation.scales import Scale


def table_of(function: Function, before: Scale, after: Scale) -> Table:
    """What PyTorch computes of every code, quantised as the node behind the function does it.

    Parameters
    ----------
    function : of one number
    before, after : scales of its argument and of its result

    Raises
    ------
    SecateurError : the function of a code is not a number
    """
    codes = np.arange(TABLE_ENTRIES)
    if before.signed:
        codes = codes.astype(np.uint8).view(np.int8)
    values = torch.from_numpy(codes.astype(np.float32)) * 2.0**before.exponent
    found = function(values)
    if bool(found.isnan().any()):
        reason = "is not a number for some of the values that its argument may have"
        remedy = "keep its argument where it is defined: clamp(min=...) before it, a ReLU for sqrt"
        raise refuse(function.nodes[-1], reason, remedy)
    scaled = (found * 2.0**-after.exponent).round().clamp(after.low, after.high)
    entries = scaled.numpy().astype(np.int64) & 0xFF
    return Table(entries, before.signed)
