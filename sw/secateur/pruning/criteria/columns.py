"""What the weights of a layer are multiplied by, as a matrix, and the products of such matrices.

A layer is Y = X W^T: a row of X holds the inputs of one output pixel, a column those of one weight
of a filter. A depthwise convolution has such a matrix for each channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.pruning.criteria.probe import Batch, Inputs, called, evaluating, wide

Hook = Callable[[str, nn.Module, Tensor, Tensor], None]


def columns(layer: nn.Module, x: Tensor) -> Tensor:
    """X of a layer's input: (groups, output pixels, weights of a filter).

    Parameters
    ----------
    layer : Conv1d, Conv2d or Linear
    x : its input, samples first
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    conv = cast(nn.Conv2d, layer)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    sizes: dict[str, Any] = {name: getattr(conv, name) for name in ("dilation", "stride")}
    kernel = conv.kernel_size
    if isinstance(layer, nn.Conv1d):  # an image of one row
        x, kernel = x.unsqueeze(2), (1, *kernel)
        sizes = {name: (1, *size) for name, size in sizes.items()}
    unfolded = F.unfold(x, kernel, **sizes)
    batch, _, pixels = unfolded.shape
    by_group = unfolded.reshape(batch, conv.groups, -1, pixels)
    return by_group.permute(1, 0, 3, 2).reshape(conv.groups, batch * pixels, -1)


def rows(layer: nn.Module, y: Tensor) -> Tensor:
    """Y of a layer's output: (groups, output pixels, filters of a group)."""
    last = y if isinstance(layer, nn.Linear) else y.movedim(1, -1)
    groups = int(getattr(layer, "groups", 1))
    return last.reshape(-1, groups, last.shape[-1] // groups).transpose(0, 1)


@contextmanager
def watched(layers: Mapping[str, nn.Module], hook: Hook) -> Iterator[None]:
    """Call ``hook(name, layer, input, output)`` behind every call of these layers."""

    def watch(name: str) -> Callable[..., None]:
        return lambda layer, args, output: hook(name, layer, args[0], output)

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def inputs_of(batches: Sequence[Tensor | Batch]) -> list[Inputs]:
    """The inputs of batches: tensors alone, or inputs of any kind with targets."""
    return [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]


def grams(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Sequence[Inputs]
) -> dict[str, Tensor]:
    """X^T X of every layer: float64 (groups, weights of a filter, weights of a filter), by name.

    Parameters
    ----------
    model : left as it is
    layers : of the model, by name
    inputs : batches

    Raises
    ------
    SecateurError : a layer is not reached by the inputs
    """
    found: dict[str, Tensor] = {}

    def add(name: str, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        matrix = columns(layer, x)
        gram = wide(matrix.transpose(1, 2) @ matrix)
        found[name] = found[name] + gram if name in found else gram

    with watched(layers, add), evaluating(model), torch.no_grad():
        for x in inputs:
            called(model, x)
    for name in layers:
        if name not in found:
            raise SecateurError(
                f"layer '{name}': the given inputs do not reach it; name the layer in skip"
            )
    return found
