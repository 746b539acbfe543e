"""What a recurrent model begins with: the states that it gives its layers, found by running it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from secateur.capture.recurrent import Recurrent
from secateur.errors import SecateurError
from secateur.text import first_line

SUPPORTED = (
    "supported are recurrent layers, each called once, Linear, activations, + and * of the same "
    "step, and the last step or every step as result, e.g. output[:, -1]"
)


def settle_initial(model: nn.Module, example: Tensor) -> None:
    """Find the states that the model itself gives its layers to begin with, if they are constants.

    Parameters
    ----------
    model : its recurrent layers are ``Recurrent``
    example : two inputs
    """
    given: dict[Recurrent, list[Tensor]] = {}

    def watch(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        hx: Any = args[1] if len(args) > 1 else kwargs.get("hx")
        parts = hx if isinstance(hx, tuple | list) else [hx]
        found = [p[i] for i in range(len(parts[0])) for p in parts] if hx is not None else []
        before = given.setdefault(cast(Recurrent, module), found)
        before[:] = [torch.cat([a, b]) for a, b in zip(before, found, strict=True)]

    layers = [module for module in model.modules() if isinstance(module, Recurrent)]
    hooks = [layer.register_forward_pre_hook(watch, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            ran("sequences", model, example)
            other = example.flip(0)
            ran("sequences", model, other * 0.5 if other.is_floating_point() else other)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, states in given.items():
        first = [state[:1].clone() for state in states]
        same = all(torch.equal(s, one.expand_as(s)) for s, one in zip(states, first, strict=True))
        if states and same:
            layer.initial = first if any(bool(one.any()) for one in first) else []


def ran(what: str, model: nn.Module, *inputs: Tensor) -> Any:
    """The model's result.

    Parameters
    ----------
    what : is run, for the message
    model : is called with ``inputs``

    Raises
    ------
    SecateurError : the model raises an exception
    """
    try:
        return model(*inputs)
    except SecateurError:
        raise
    except Exception as error:
        shape = tuple(inputs[0].shape)
        raise SecateurError(
            f"the model fails on {what}, {shape}: {first_line(error)}; {SUPPORTED}"
        ) from None
