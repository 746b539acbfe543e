"""Tensors of a layer that something computes before each call, and copies of models with them."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateur.errors import SecateurError
from secateur.text import first_line

Model = TypeVar("Model", bound=nn.Module)


def computed(layer: nn.Module, but: type | None = None) -> tuple[str, str] | None:
    """What computes a tensor of ``layer``, and the call that makes the tensor a parameter.

    Parameters
    ----------
    layer : the layer
    but : a type of parametrisation that does not count

    Returns
    -------
    what, how : texts for a message; None if all tensors are parameters
    """
    utils = "torch.nn.utils"
    if parametrize.is_parametrized(layer):
        for name, chain in layer.parametrizations.items():  # type: ignore[operator, union-attr]
            others = [
                type(entry).__name__ for entry in chain if but is None or not isinstance(entry, but)
            ]
            if others:
                how = f"{utils}.parametrize.remove_parametrizations(layer, {name!r})"
                return f"the {name} is already parametrised by {', '.join(others)}", how
    for hook in layer._forward_pre_hooks.values():
        by = type(hook).__name__
        if isinstance(hook, BasePruningMethod):
            tensor = hook._tensor_name
            how = f"{utils}.prune.remove(layer, {tensor!r})"
        elif isinstance(hook, WeightNorm | SpectralNorm):
            tensor = hook.name
            kind = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
            how = f"{utils}.remove_{kind}(layer, {tensor!r})"
        else:
            continue
        return f"the {tensor} is not a parameter of the layer, a hook computes it ({by})", how
    return None


def copied(model: Model) -> Model:
    """A deep copy of a model.

    Raises
    ------
    SecateurError : PyTorch cannot copy it: a hook computes a tensor of a layer
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        for name, layer in model.named_modules():
            if (found := computed(layer)) is not None:
                what, how = found
                raise SecateurError(
                    f"layer {name!r}: {what}, and PyTorch cannot copy it; make it permanent: {how}"
                ) from None
        raise SecateurError(f"PyTorch cannot copy the model: {first_line(error)}") from None
