"""Models as losses and metrics see them: something that can be called, and nothing more."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur import api
from secateur.image.image import Image


class Seen(nn.Module):
    """A model in the precision and memory format of a training.

    Parameters
    ----------
    model : is called
    narrow : in bfloat16, by torch's autocast; what it returns is float32 all the same
    format : of inputs (samples, C, H, W)

    Attributes
    ----------
    calls : positional and named arguments, and outputs, of all calls so far
    """

    def __init__(
        self,
        model: nn.Module,
        narrow: bool = False,
        format: torch.memory_format = torch.preserve_format,
    ) -> None:
        super().__init__()
        self._model = [model]  # no submodule: nobody can look into it
        self.narrow, self.format = narrow, format
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns."""
        args, kwargs = pytree.tree_map(self._formatted, (args, kwargs))
        with self._precision():
            found = self._model[0](*args, **kwargs)
        outputs = pytree.tree_map(_in_float32, found)
        self.calls.append((args, kwargs, outputs))
        return outputs

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.narrow:
            return nullcontext()
        kind = next((p.device.type for p in self._model[0].parameters()), "cpu")
        return torch.autocast(kind, dtype=torch.bfloat16)

    def _formatted(self, x: Any) -> Any:
        kept = self.format == torch.preserve_format
        fits = isinstance(x, Tensor) and x.dim() == 4 and not kept
        return x.contiguous(memory_format=self.format) if fits else x


def _in_float32(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.is_floating_point() else x


class OnArray(nn.Module):
    """An image in the golden interpreter: the results of the array, bit for bit.

    Parameters
    ----------
    image : takes and returns what the model takes and returns
    """

    def __init__(self, image: Image) -> None:
        super().__init__()
        self.image = image

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Outputs of a batch, in the model's units, on the device of the inputs."""
        given = kwargs or (args[0] if len(args) == 1 else args)
        device = pytree.tree_leaves(given)[0].device
        found = api.run(self.image, pytree.tree_map(lambda x: x.detach().cpu().numpy(), given))
        return pytree.tree_map(lambda x: torch.as_tensor(x).to(device), found.values)
