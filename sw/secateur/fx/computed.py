"""Tensors of a layer that something computes before each call, and copies of models with them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import torch.nn.utils
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from secateur.errors import SecateurError, SecateurWarning
from secateur.text import first_line

Model = TypeVar("Model", bound=nn.Module)
#: Name of a tensor, what computes it, and a call that makes it a parameter.
Found = tuple[str, str, Callable[[], Any]]


def _found(layer: nn.Module, but: type | None) -> Iterator[Found]:
    if parametrize.is_parametrized(layer):
        chains: Any = layer.parametrizations
        for name, chain in chains.items():
            others = [type(entry).__name__ for entry in chain if type(entry) is not but]
            if others:
                undo = partial(parametrize.remove_parametrizations, layer, name)
                yield name, ", ".join(others), undo
    for hook in layer._forward_pre_hooks.values():
        kind = type(hook).__name__
        if isinstance(hook, BasePruningMethod):
            name = str(hook._tensor_name)
            yield name, kind, partial(torch_prune.remove, layer, name)
        elif isinstance(hook, WeightNorm):
            yield hook.name, kind, partial(torch.nn.utils.remove_weight_norm, layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            yield hook.name, kind, partial(_remove_spectral_norm, layer, hook.name)


def _remove_spectral_norm(layer: nn.Module, name: str) -> None:
    """As PyTorch does it, and the hook that it leaves, which would refuse every state dict."""
    torch.nn.utils.remove_spectral_norm(layer, name)
    for key, hook in list(layer._load_state_dict_pre_hooks.items()):
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del layer._load_state_dict_pre_hooks[key]


def make_permanent(name: str, layer: nn.Module, but: type | None = None) -> None:
    """Make what something computes before each call of a layer a parameter; outputs do not change.

    Warns of it: an optimizer that was made before trains what is no longer used.

    Parameters
    ----------
    name : of the layer
    layer : changed in place
    but : a type of parametrisation that stays
    """
    for tensor, by, undo in list(_found(layer, but)):
        undo()
        warnings.warn(
            f"layer '{name}': its {tensor}, computed by {by}, is a plain parameter now; make the "
            f"optimizer afterwards",
            SecateurWarning,
            stacklevel=4,
        )


def copied(model: Model) -> Model:
    """A deep copy of a model.

    Raises
    ------
    SecateurError : PyTorch cannot copy it
    """
    try:
        return copy.deepcopy(model, _results(model))
    except RuntimeError as error:
        raise SecateurError(f"PyTorch cannot copy the model: {first_line(error)}") from None


def _results(model: nn.Module) -> dict[int, Any]:
    """Copies of the tensors that hooks have left in modules: they have gradients, so that
    ``deepcopy`` refuses them. The hooks of the copy compute its own."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            for tensor in value if isinstance(value, list) else [value]:
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    return memo
