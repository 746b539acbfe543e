"""What the converters of ONNX operators share: what is known of a graph, and refusals by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError

Attributes = dict[str, Any]
Run = Callable[..., Tensor]
Product = nn.Conv1d | nn.Conv2d | nn.Linear


@dataclass
class Context:
    """What is known of a graph while it is converted.

    ``known``: constants by tensor name; ``shapes``: as inferred, 0 where unknown; ``readers``:
    how often a tensor is read; ``opsets``: as the model imports them; ``products``: modules by the
    tensor that they make; ``notes``: what the user is to be told; ``keep``: scales of activations
    are kept, ``scales`` are those of tensors that hold codes, (exponent, signed).
    """

    known: dict[str, npt.NDArray[Any]]
    shapes: dict[str, list[int]]
    readers: dict[str, int]
    opsets: list[Any]
    products: dict[str, Product] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keep: bool = False
    scales: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def constant(self, node: Any, index: int) -> npt.NDArray[Any] | None:
        """Input ``index``, which must be constant; None if it is not given."""
        if index >= len(node.input) or not node.input[index]:
            return None
        if node.input[index] not in self.known:
            what = f"input {node.input[index]!r} that is not constant"
            raise refuse(node, what, "export it as an initializer")
        return self.known[node.input[index]]

    def shape(self, node: Any, *ranks: int) -> list[int]:
        """Shape of the first input; refused if its rank is unknown or none of ``ranks``."""
        shape = self.shapes.get(node.input[0])
        if shape is None or (ranks and len(shape) not in ranks):
            found = "unknown" if shape is None else len(shape)
            wanted = " or ".join(map(str, ranks)) or "a fixed one"
            raise refuse(node, f"input of rank {found}, expected {wanted}", "use layers of maps, "
                         "signals or vectors: (N, C, H, W), (N, C, L), (N, C)")  # fmt: skip
        return shape

    def version(self) -> int:
        """The version of ONNX's own operators that the model imports."""
        own = [item.version for item in self.opsets if item.domain in ("", "ai.onnx")]
        return max(own, default=13)

    def only_reader(self, name: str) -> bool:
        """Whether the tensor is read once."""
        return self.readers.get(name, 0) == 1


def refuse(node: Any, reason: str, remedy: str) -> SecateurError:
    """The one-line error for a node."""
    name = node.name or (node.output[0] if node.output else "")
    return SecateurError(f"node {name!r} ({node.op_type}): {reason}; {remedy}")


def tensor(values: npt.NDArray[Any]) -> Tensor:
    """A copy in float32."""
    return torch.from_numpy(np.array(values, dtype=np.float32))


def by_channel(node: Any, values: npt.NDArray[Any], rank: int, channels: int) -> Tensor:
    """A constant that meets a tensor (N, channels, ...) of ``rank`` dimensions, one value a channel
    (channels) or one for all (1).

    Raises SecateurError if it is another one.
    """
    shape = (1,) * (rank - values.ndim) + values.shape
    others = [size for axis, size in enumerate(shape) if axis != 1]
    if rank < 2 or len(shape) != rank or any(size != 1 for size in others):
        raise refuse(
            node,
            f"a constant of shape {values.shape} with a tensor of {rank} dimensions",
            "give one value, or one a channel, which come second",
        )
    if channels and values.size not in (1, channels):
        raise refuse(
            node, f"{values.size} values for {channels} channels", "give one value a channel"
        )
    return tensor(values).flatten()
