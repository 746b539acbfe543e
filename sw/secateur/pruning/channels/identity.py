"""Removal of whole layers: an identity replaces a layer that keeps the shape."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import Inputs, called, evaluating


def replace_by_identity(model: nn.Module, example: Inputs, names: Iterable[str]) -> int:
    """Replace submodules by identities, in place; returns the number of parameters removed.

    Parameters
    ----------
    model : changed in place
    example : inputs, batch included
    names : of submodules, layers or whole branches, each with one tensor in and one of the same
        shape out. What follows stays, such as a batch norm behind a removed convolution

    Raises
    ------
    SecateurError : no such submodule, one that does not run, or one that changes the shape. The
        model is then unchanged
    """
    if isinstance(names, str):
        raise SecateurError(f"names must be a list of submodule names, not the string {names!r}")
    modules = dict(model.named_modules())
    chosen = list(names)
    for name in chosen:
        if not name or name not in modules:
            raise SecateurError(f"the model has no submodule {name!r}; it has {', '.join(modules)}")
    shapes: dict[str, tuple[object, object]] = {}

    def record(name: str) -> object:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            given = inputs[0].shape if len(inputs) == 1 and isinstance(inputs[0], Tensor) else None
            shapes[name] = (given, output.shape if isinstance(output, Tensor) else None)

        return modules[name].register_forward_hook(hook)

    handles = [record(name) for name in chosen]
    try:
        with evaluating(model), torch.no_grad():
            called(model, example)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    for name in chosen:
        given, made = shapes.get(name, (None, None))
        if given is None or given != made:
            reason = "does not run" if name not in shapes else f"turns {given} into {made}"
            raise SecateurError(
                f"submodule {name!r} {reason}: an identity replaces only what keeps its shape"
            )
    before = sum(parameter.numel() for parameter in model.parameters())
    for name in chosen:
        model.set_submodule(name, nn.Identity())
    return before - sum(parameter.numel() for parameter in model.parameters())
