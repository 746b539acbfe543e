"""What a lowered network is: tensors of codes and layers of integer weights, no geometry yet.

``lower`` makes it from a quantised ``torch.export`` graph; ``schedule`` and ``encode`` turn it into
an image for a geometry. Everything is exact integers; a real value is ``code * 2**exponent``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Mode = Literal["broadcast", "lanewise", "maximum", "gate"]
Ints = npt.NDArray[np.int64]


@dataclass(eq=False)
class Tensor:
    """An activation tensor (channels, height, width), 8-bit codes.

    A dense vector has height = width = 1. ``slices`` are the channel counts of the parts that
    different layers write (concatenation); one part for all others. Channels are logical: where
    they lie in memory is the scheduler's choice.
    """

    name: str
    channels: int
    height: int
    width: int
    exponent: int
    signed: bool
    slices: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.slices:
            self.slices = [self.channels]

    @property
    def all(self) -> Part:
        """All channels."""
        return Part(self, 0, self.channels)


@dataclass(frozen=True)
class Region:
    """A grid of pixels of a map: pixel (i, j) of ``height`` x ``width`` is that at row
    ``top + i * down[0] + j * right[0]`` and column ``left + i * down[1] + j * right[1]``.
    """

    top: int
    left: int
    height: int
    width: int
    down: tuple[int, int] = (1, 0)
    right: tuple[int, int] = (0, 1)

    @property
    def at(self) -> tuple[Ints, Ints]:
        """Rows and columns of the map, (height, width) each."""
        i, j = np.indices((self.height, self.width))
        rows = self.top + i * self.down[0] + j * self.right[0]
        return rows, self.left + i * self.down[1] + j * self.right[1]


@dataclass(eq=False)
class Source:
    """One operand of a layer: output += weight * input over a window.

    ``first`` and ``count`` select whole slices of the tensor's channels.

    ``weight``, int8 range:
      broadcast  (outputs, count, kh, kw)
      lanewise   (count, kh, kw); output channel c reads input channel c
      maximum    (count, kh, kw), all ones: the maximum of the window is the sum's one term
      gate       (count, 1, 1), all zeros; first of two sources, whose values multiply those of
                 the second, "lanewise" with ones. With a stride of 0 it is (count, 1, 1) itself.
    ``padding`` is (top, left, bottom, right). It reads as zero; for ``maximum`` as -128 if the
    tensor is signed (which never wins), as 0 otherwise (which cannot either). Negative padding
    leaves rows or columns of the tensor out.
    ``wshift``: the weights count 2**WSHIFT each.
    """

    tensor: Tensor
    mode: Mode
    weight: Ints
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    first: int = 0
    wshift: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weight.shape[-2]), int(self.weight.shape[-1])

    @property
    def count(self) -> int:
        return int(self.weight.shape[1 if self.mode == "broadcast" else 0])

    @property
    def part(self) -> Part:
        """What is read."""
        return Part(self.tensor, self.first, self.count)


@dataclass(frozen=True, eq=False)
class Table:
    """An activation function: ``entries`` (256,), the byte that each byte becomes; ``signed`` is
    what goes in."""

    entries: Ints
    signed: bool


@dataclass(eq=False)
class Layer:
    """out = clip(round_half_even(sum_sources / 2**shift + bias / 2**BIAS_FRACTION)), per channel.

    With a ``table`` this is what goes into it, and ``low`` and ``high`` are bounds of that.

    ``bias`` and ``shift`` have one entry an output channel. ``first`` is the channel of ``output``
    at which this layer's channels begin (a slice border), ``region`` the pixels of it that the
    layer computes, None for all. One or two sources; if two, they have
    the same output size and ``maximum`` is not among them. ``nodes`` names the graph nodes that
    the layer stands for; the last one's (dequantised) value is the layer's output. ``label``: what
    the model's file calls it, if it says.
    """

    name: str
    kind: str  # conv, depthwise, linear, add, avgpool, maxpool: for reports only
    sources: list[Source]
    output: Tensor
    bias: Ints
    shift: Ints
    low: int
    high: int
    first: int = 0
    nodes: list[str] = field(default_factory=list)
    table: Table | None = None
    label: str = ""
    region: Region | None = None

    @property
    def channels(self) -> int:
        return int(self.bias.shape[0])

    @property
    def pixels(self) -> Region:
        """The pixels of ``output`` that the layer computes."""
        return self.region or Region(0, 0, self.output.height, self.output.width)

    @property
    def whole(self) -> bool:
        """Whether the layer computes all of its output."""
        pixels = self.pixels
        size = (pixels.height, pixels.width) == (self.output.height, self.output.width)
        return size and self.part.whole

    @property
    def part(self) -> Part:
        """What is written."""
        return Part(self.output, self.first, self.channels)

    @property
    def signed(self) -> bool:
        """Whether the codes that ``low`` and ``high`` bound are signed."""
        return self.output.signed if self.table is None else self.table.signed


@dataclass(frozen=True)
class Part:
    """Channels ``first .. first + channels`` of a tensor, whole slices."""

    tensor: Tensor
    first: int
    channels: int

    @property
    def whole(self) -> bool:
        """Whether it is all of its tensor."""
        return self.channels == self.tensor.channels

    def meets(self, other: Part) -> bool:
        """Whether both have a channel in common."""
        ends = self.first + self.channels, other.first + other.channels
        return self.tensor is other.tensor and self.first < ends[1] and other.first < ends[0]


@dataclass(frozen=True, eq=False)
class State:
    """What an inference finds, zero at first, and what it leaves for the next. All states of a
    network change at once, when it ends; where both are the same part, the layers write it."""

    before: Part
    after: Part


@dataclass(eq=False)
class Network:
    """Layers in execution order. ``input`` is written by the host, ``output`` is the result.

    ``features`` is the shape of the user's output without the batch, e.g. (10,) or (8, 4, 4).
    ``source_hash`` is the SHA-256 of the quantised model's weights and graph. ``states``
    live from one inference, a step of a sequence, to the next; ``every_step`` says that the model
    returns the outputs of all steps, not only of the last.
    """

    input: Tensor
    output: Tensor
    layers: list[Layer]
    features: tuple[int, ...]
    source_hash: str = ""
    states: list[State] = field(default_factory=list)
    every_step: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """The input and the layers' outputs, each once, in order."""
        return list(dict.fromkeys([self.input, *(layer.output for layer in self.layers)]))
