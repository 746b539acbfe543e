"""The lowered network: tensors of codes and layers of integer weights, no geometry yet.

``lower`` makes it from a quantised ``torch.export`` graph; ``schedule`` and ``encode`` turn it into
an image for a geometry. Everything is exact integers; a real value is ``code * 2**exponent``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Mode = Literal["broadcast", "lanewise", "maximum", "gate"]
Ints = npt.NDArray[np.int64]


@dataclass(eq=False)
class Tensor:
    """An activation tensor (channels, height, width), 8-bit codes.

    Channels are logical: the scheduler chooses their places in memory.

    Attributes
    ----------
    name : unique
    channels, height, width : a dense vector has height = width = 1
    exponent : a real value is ``code * 2**exponent``
    signed : codes -128..127, otherwise 0..255
    slices : channel counts of the parts that different layers write (concatenation); one part for
        all other tensors
    joined : if its parts have scales of their own, tensors that have them
    """

    name: str
    channels: int
    height: int
    width: int
    exponent: int
    signed: bool
    slices: list[int] = field(default_factory=list)
    joined: list[Tensor] = field(default_factory=list)

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

    Attributes
    ----------
    tensor : is read
    mode : how weights and channels meet, see ``weight``
    weight : int8 range. broadcast: (outputs, count, kh, kw). lanewise: (count, kh, kw); output
        channel c reads input channel c. maximum: (count, kh, kw), all ones; the maximum of the
        window is the only term of the sum. gate: (count, 1, 1), all zeros; the first of two
        sources, whose values multiply those of the second, which is lanewise with ones
    stride : (vertical, horizontal); 0 of a gate that is a single pixel
    padding : (top, left, bottom, right). It reads as zero; for ``maximum`` as -128 if the tensor is
        signed, else as 0, so that it never is the maximum. Negative padding leaves rows or columns
        out
    dilation : (vertical, horizontal)
    first : first channel that is read
    wshift : the weights count 2**WSHIFT each
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
        """(height, width) of the window."""
        return int(self.weight.shape[-2]), int(self.weight.shape[-1])

    @property
    def count(self) -> int:
        """Channels that are read."""
        return int(self.weight.shape[1 if self.mode == "broadcast" else 0])

    @property
    def part(self) -> Part:
        """The channels that are read."""
        return Part(self.tensor, self.first, self.count)


@dataclass(frozen=True)
class Strip:
    """Rows (axis 0) or columns of the output of a layer, by its name: those from ``first`` on."""

    layer: str
    axis: int
    first: int


@dataclass(frozen=True, eq=False)
class Table:
    """An activation function.

    Attributes
    ----------
    entries : (256,) result of each byte, as a byte
    signed : whether the argument is signed
    """

    entries: Ints
    signed: bool


@dataclass(eq=False)
class Layer:
    """out = clip(round_half_even(sum_sources / 2**shift + bias / 2**BIAS_FRACTION)), per channel.

    Attributes
    ----------
    name : unique
    kind : conv, depthwise, linear, add, mul, avgpool, maxpool, table or copy; for reports only
    sources : one or two; two have the same output size, and neither is ``maximum``
    output : is written
    bias, shift : (channels,)
    low, high : bounds of the codes, before the table
    first : channel of ``output`` at which this layer's channels begin (a slice border)
    nodes : names of the graph nodes that the layer stands for; the (dequantised) value of the last
        one is the layer's output
    table : looked up behind all else
    members : layers that read the same, of which it is made; their channels follow each other
    region : the pixels of ``output`` that the layer computes, None for all
    label : name of the layer in the model's file, if it has one
    sqnr : signal to quantisation noise of its output, in dB, and with codes of any scale, if known
    strip : the layer of which this one computes a part
    """

    name: str
    kind: str
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
    sqnr: tuple[float, float] | None = None
    members: list[Layer] = field(default_factory=list)
    strip: Strip | None = None

    @property
    def channels(self) -> int:
        """Output channels."""
        return int(self.bias.shape[0])

    @property
    def pixels(self) -> Region:
        """The pixels of ``output`` that the layer computes."""
        return self.region or Region(0, 0, self.output.height, self.output.width)

    @property
    def whole(self) -> bool:
        """Whether the layer computes all of its output."""
        size = (self.pixels.height, self.pixels.width)
        return size == (self.output.height, self.output.width) and self.part.whole

    @property
    def straight(self) -> bool:
        """Whether it computes all pixels of its output, and in their order."""
        return self.pixels == Region(0, 0, self.output.height, self.output.width)

    @property
    def part(self) -> Part:
        """The channels that are written."""
        return Part(self.output, self.first, self.channels)

    @property
    def tables(self) -> list[Table]:
        """Tables that codes go through: none, one, or one for each member."""
        return [table for each in self.members or [self] if (table := each.table) is not None]

    @property
    def signed(self) -> bool:
        """Whether the codes that ``low`` and ``high`` bound are signed."""
        return self.tables[0].signed if self.tables else self.part.signed


@dataclass(frozen=True)
class Part:
    """Some channels of a tensor, whole slices: ``channels`` of them, from ``first`` on."""

    tensor: Tensor
    first: int
    channels: int

    @property
    def whole(self) -> bool:
        """Whether it is all of its tensor."""
        return self.channels == self.tensor.channels

    @property
    def signed(self) -> bool:
        """Whether its codes are signed."""
        ends = zip(np.cumsum(self.tensor.slices), self.tensor.joined, strict=False)
        return next((one.signed for end, one in ends if self.first < end), self.tensor.signed)

    def meets(self, other: Part) -> bool:
        """Whether both have a channel in common."""
        ends = self.first + self.channels, other.first + other.channels
        return self.tensor is other.tensor and self.first < ends[1] and other.first < ends[0]


@dataclass(frozen=True, eq=False)
class State:
    """A value that one inference leaves for the next, zero at first.

    All states of a network change at once, at the end of an inference.

    Attributes
    ----------
    before : the old value
    after : the new value; the same part if layers write it in place
    """

    before: Part
    after: Part


@dataclass(frozen=True, eq=False)
class Port:
    """An input or an output of a network.

    Attributes
    ----------
    name : unique among the inputs, or the outputs; the user's
    tensor : all of it
    shape : the user's, without the batch, e.g. (10,) or (8, 4, 4)
    finer : of an input, added to the tensor's exponent; of as many dimensions as ``shape``, and of
        its size or 1 in each of them
    samples : of an output, the user's dimension of the batch
    factors : of an output, by which the host multiplies its values, float32; a number, or one for
        each place of a dimension of ``shape``
    table : of an input of integers, the real values that the host finds in it, (V, D) float32; D is
        the last of ``shape``, which integers lack
    """

    name: str
    tensor: Tensor
    shape: tuple[int, ...]
    finer: Ints = field(default_factory=lambda: np.zeros((), np.int64))
    samples: int = 0
    factors: npt.NDArray[np.float32] = field(default_factory=lambda: np.ones((), np.float32))
    table: npt.NDArray[np.float32] | None = None

    @property
    def exponents(self) -> Ints:
        """That broadcast to ``shape``: a real value is ``code * 2**exponent``."""
        return self.finer + self.tensor.exponent


@dataclass(frozen=True)
class Form:
    """The arguments and the result of a model, as its user sees them.

    Attributes
    ----------
    arguments : names of the tensors that the model takes, in order; the array takes those that
        are ``inputs``
    returns : what the model returns, see ``secateur.image.form``
    """

    arguments: tuple[str, ...] = ()
    returns: Any = 0


@dataclass(eq=False)
class Network:
    """A network of layers.

    Attributes
    ----------
    inputs : written by the host, in the order of the model's arguments
    outputs : the results, of different tensors
    layers : in execution order
    form : what the model takes and returns
    source_hash : SHA-256 of the quantised model's weights and graph
    states : are kept from one inference, a step of a sequence, to the next
    every_step : the model returns the outputs of all steps, not only of the last
    steps : of the longest sequence in the calibration data, if it is known
    """

    inputs: list[Port]
    outputs: list[Port]
    layers: list[Layer]
    form: Form = field(default_factory=Form)
    source_hash: str = ""
    states: list[State] = field(default_factory=list)
    every_step: bool = False
    steps: int = 0

    @property
    def tensors(self) -> list[Tensor]:
        """The inputs and the layers' outputs, each once, in order."""
        return list(dict.fromkeys([*self.given, *(layer.output for layer in self.layers)]))

    @property
    def given(self) -> list[Tensor]:
        """The tensors of the inputs."""
        return [port.tensor for port in self.inputs]

    @property
    def results(self) -> list[Tensor]:
        """The tensors of the outputs, which go to the result stream."""
        return [port.tensor for port in self.outputs]
