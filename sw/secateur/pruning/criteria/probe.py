"""Measurements on a model for criteria: gradients, inputs of layers, norms behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from secateur.errors import SecateurError
from secateur.pruning.units.blocks import weight_of
from secateur.pruning.units.mask import parameter_of

#: A tensor; of a model with several inputs, a tuple or list in order, or a dictionary by name.
Inputs = Tensor | tuple[Any, ...] | list[Any] | dict[str, Any]
#: Inputs and targets. Outputs and targets may be what the loss takes of both.
Batch = tuple[Any, Any]
Layers = Mapping[str, nn.Module]


@dataclass(frozen=True)
class ModelLoss:
    """A loss that calls the model itself, for criteria; others take its outputs.

    Attributes
    ----------
    of : (model, (inputs, targets)) -> scalar, the mean over the batch
    """

    of: Callable[[nn.Module, Batch], Tensor]


#: (outputs, targets) -> scalar, the mean over the batch; or one that calls the model.
Loss = Callable[[Any, Any], Tensor] | ModelLoss

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def called(model: nn.Module, inputs: Inputs) -> Any:
    """What a model returns of one tensor, of several in order, or by name, on its own device."""
    inputs = placed(inputs, model)
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def placed(values: Any, model: nn.Module) -> Any:
    """The same tensors on the device of a model."""
    device = next((parameter.device for parameter in model.parameters()), None)
    return tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, values)


def loss_of(loss: Loss, model: nn.Module, batch: Batch) -> Tensor:
    """The loss of a batch, on the device of a model.

    Parameters
    ----------
    loss : (outputs, targets) -> scalar, or one that calls the model
    model : in the mode that it is in
    batch : inputs and targets, on any device
    """
    x, y = placed(batch, model)
    if isinstance(loss, ModelLoss):
        return loss.of(model, (x, y))
    return loss(called(model, x), y)


def wide(values: Tensor) -> Tensor:
    """In float64, without gradient, on the CPU: not every device has float64."""
    return values.detach().cpu().double()


def wide_weight(layer: nn.Module) -> Tensor:
    """The weight that the layer computes with, as `wide` has it."""
    return wide(weight_of(layer))


def check_batches(name: str, batches: Sequence[Any]) -> None:
    """Refuse an empty list, and iterators, which a second ranking would find empty."""
    if not hasattr(batches, "__len__") or not hasattr(batches, "__iter__"):
        raise SecateurError(f"{name}: batches must be a list, not {type(batches).__name__}")
    if len(batches) == 0:
        raise SecateurError(f"{name}: batches is empty; give at least one batch")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and gradients inside; every module's own mode comes back after it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def parameters(layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The trained parameter of each layer.

    Raises
    ------
    SecateurError : a parameter is frozen, so that it has no gradient
    """
    found = {name: parameter_of(layer) for name, layer in layers.items()}
    for name, parameter in found.items():
        if not parameter.requires_grad:
            raise SecateurError(
                f"layer '{name}': the weight is frozen and has no gradient; "
                "set requires_grad or name the layer in skip"
            )
    return found


def gradients(
    value: Tensor,
    of: Mapping[str, Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Gradients of a scalar, zero where it does not depend on the parameter.

    Parameters
    ----------
    value : one element
    of : parameters by name
    create_graph, retain_graph : as for ``torch.autograd.grad``

    Returns
    -------
    list : in the order of ``of``

    Raises
    ------
    SecateurError : the value is not a scalar, or not finite
    """
    if value.numel() != 1 or not bool(torch.isfinite(value)):
        raise SecateurError(
            "the loss must be one finite number, the mean over the batch; "
            f"it has shape {tuple(value.shape)}"
        )
    found = torch.autograd.grad(
        value.reshape(()),
        list(of.values()),
        create_graph=create_graph,
        retain_graph=retain_graph,
        materialize_grads=True,
    )
    return list(found) if create_graph else [g.detach() for g in found]


def input_squares(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Inputs]
) -> dict[str, Tensor]:
    """Sum of squares of all values that each weight is multiplied by: float64, weight's shape.

    The gradient of the sum of a layer's outputs by a weight is the sum of its inputs; fed with
    squared inputs, the layer itself so accounts for stride, padding, dilation and groups.

    Parameters
    ----------
    model : left as it is
    layers : of the model, by name
    inputs : batches of `Inputs`

    Raises
    ------
    SecateurError : a layer is not reached by the inputs
    """
    total: dict[str, Tensor] = {}
    names = {layer: name for name, layer in layers.items()}

    def hook(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        squared = wide(args[0]) ** 2
        weight = torch.zeros(weight_of(layer).shape, dtype=torch.float64).requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(_output(layer, squared, weight).sum(), [weight])
        name = names[layer]
        total[name] = total[name] + found if name in total else found

    handles = [layer.register_forward_pre_hook(hook) for layer in layers.values()]
    try:
        with evaluating(model), torch.no_grad():
            for x in inputs:
                called(model, x)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if name not in total:
            raise SecateurError(
                f"layer '{name}': the given inputs do not reach it; name the layer in skip"
            )
    return total


def _output(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's output with another weight and no bias."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        output: Tensor = layer._conv_forward(x, weight, None)
        return output
    return nn.functional.linear(x, weight)


def norms_behind(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Inputs
) -> dict[str, nn.Module]:
    """The batch norm that reads each layer's output tensor itself, by name of the layer.

    Parameters
    ----------
    model : left as it is
    layers : of the model, by name
    example : inputs, batch included

    Raises
    ------
    SecateurError : a layer has none
    """
    outputs: list[tuple[str, Tensor]] = []
    found: dict[str, nn.Module] = {}
    names = {layer: name for name, layer in layers.items()}

    def remember(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append((names[layer], output))

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        for name, output in outputs:
            if output is args[0]:
                found[name] = norm

    handles = [layer.register_forward_hook(remember) for layer in layers.values()]
    handles += [
        module.register_forward_pre_hook(look)
        for module in model.modules()
        if isinstance(module, NORMS)
    ]
    try:
        with evaluating(model), torch.no_grad():
            called(model, example)
    finally:
        for handle in handles:
            handle.remove()
    for name in layers:
        if name not in found:
            raise SecateurError(
                f"layer '{name}': no batch norm reads its output; "
                "choose another criterion or name the layer in skip"
            )
    return found
