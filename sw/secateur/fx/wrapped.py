"""Modules around a model that compute what it computes."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

#: By the name of the type: torch.compile's is in a private module.
_INNER = {
    "OptimizedModule": "_orig_mod",
    nn.DataParallel.__name__: "module",
    DistributedDataParallel.__name__: "module",
    AveragedModel.__name__: "module",
}


def inner(model: Any) -> Any:
    """The model inside of torch.compile, DataParallel, DistributedDataParallel or AveragedModel.

    They share their parameters. Anything else is returned as it is.
    """
    while isinstance(model, nn.Module) and type(model).__name__ in _INNER:
        model = getattr(model, _INNER[type(model).__name__])
    return model
