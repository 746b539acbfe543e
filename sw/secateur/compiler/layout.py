"""The padded map of a tensor and its windows in the banks."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.compiler.lanes import LaneMap, Split
from secateur.compiler.place import Placement, round_up
from secateur.errors import SecateurError
from secateur.ir import Layer, Source, Tensor
from secateur.text import printable


@dataclass(frozen=True)
class Padding:
    """Pixels around a tensor that its consumers read.

    Attributes
    ----------
    top, left, bottom, right : pixels
    fill : the byte that they hold
    """

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    fill: int = 0

    @property
    def any(self) -> bool:
        """Whether there is padding at all."""
        return bool(self.top or self.left or self.bottom or self.right)


def reads_outside(source: Source, layer: Layer) -> Padding:
    """What one consumer reads outside the tensor: a stride may leave declared padding unread."""
    top, left = source.padding[:2]
    bottom, right = (
        max(0, (out - 1) * stride + (kernel - 1) * dilation - before - (size - 1))
        for out, stride, kernel, dilation, before, size in zip(
            (layer.pixels.height, layer.pixels.width),
            source.stride,
            source.kernel,
            source.dilation,
            (top, left),
            (source.tensor.height, source.tensor.width),
            strict=True,
        )
    )
    fill = 0x80 if source.mode == "maximum" and source.part.signed else 0
    return Padding(max(0, top), max(0, left), bottom, right, fill)


def padding(tensor: Tensor, consumers: list[tuple[Layer, Source]]) -> Padding:
    """The padding that serves all consumers of a tensor.

    Raises
    ------
    SecateurError : some need zeros around the tensor, others (padded max pooling of signed codes)
        need -128
    """
    needs = [(reads_outside(source, layer), layer.name) for layer, source in consumers]
    fills = {need.fill for need, _ in needs if need.any}
    if len(fills) > 1:
        names = printable(", ".join(name for need, name in needs if need.any), 400)
        raise SecateurError(
            f"tensor {tensor.name!r} is read by {names}: some need zero padding, a padded "
            f"MaxPool2d over signed values needs -128; put a ReLU before the MaxPool2d, or let it "
            f"read a tensor of its own"
        )
    return Padding(
        max((need.top for need, _ in needs), default=0),
        max((need.left for need, _ in needs), default=0),
        max((need.bottom for need, _ in needs), default=0),
        max((need.right for need, _ in needs), default=0),
        fills.pop() if fills else 0,
    )


def unite(a: Padding, b: Padding) -> Padding | None:
    """The padding that serves both; None if both are padded with different bytes."""
    if a.any and b.any and a.fill != b.fill:
        return None
    return Padding(
        max(a.top, b.top),
        max(a.left, b.left),
        max(a.bottom, b.bottom),
        max(a.right, b.right),
        a.fill if a.any else b.fill,
    )


@dataclass(frozen=True)
class MapLayout:
    """A tensor's padded map: channel-last, the right padding of a row is the left of the next.

    Attributes
    ----------
    tensor, placement, padding : the tensor, its channels in a pixel, and the pixels around it
    pitch : bytes from one map row to the next
    n : bytes of a bank word
    split : offsets of the lanes' windows
    window : words of a lane's window
    base : first bank word of the window
    clear : whether the window is filled before the tensor is written
    """

    tensor: Tensor
    placement: Placement
    padding: Padding
    pitch: int
    n: int
    split: Split
    window: int = 0
    base: int = 0
    clear: bool = False

    @property
    def words(self) -> int:
        """Words of the map, padding behind the last row included."""
        rows = self.padding.top + self.tensor.height + self.padding.bottom
        row = self.padding.left + self.tensor.width + self.padding.right
        size = max(rows * self.pitch, (rows - 1) * self.pitch + row * self.placement.pixel_bytes)
        return -(-size // self.n)

    @property
    def origin(self) -> int:
        """Byte of pixel (0, 0) in the map."""
        return self.padding.top * self.pitch + self.padding.left * self.placement.pixel_bytes

    def first_tap(self, source: Source) -> int:
        """Byte in the map of the first tap of output pixel (0, 0)."""
        top, left = source.padding[:2]
        tap = self.origin - top * self.pitch - left * self.placement.pixel_bytes
        return tap + self.placement.start[source.first]

    def reach(self, source: Source, lane_map: LaneMap) -> int:
        """Words of a window that hold all that lane 0 reads of this source."""
        pixel = self.placement.pixel_bytes
        step_x = self.group_step(source, lane_map)
        groups = (lane_map.gy - 1) * source.stride[0] * self.pitch + (lane_map.gx - 1) * step_x
        kernel_height, kernel_width = source.kernel
        taps = (kernel_height - 1) * source.dilation[0] * self.pitch
        taps += (kernel_width - 1) * source.dilation[1] * pixel
        end = self.first_tap(source) - self.placement.start[source.first] + groups + taps + pixel
        return -(-end // self.n)

    def group_step(self, source: Source, lane_map: LaneMap) -> int:
        """Bytes from one group to the next along x."""
        if lane_map.kind == "blocks":
            return self.n
        if lane_map.kind == "linear":
            return lane_map.lanes * self.placement.pixel_bytes
        return source.stride[1] * self.placement.pixel_bytes


def row_pixels(tensor: Tensor, pads: Padding) -> int:
    """Pixels from one map row to the next, unless alignment asks for more bytes."""
    return tensor.width + max(pads.left, pads.right)


def make_layout(
    tensor: Tensor, placement: Placement, pads: Padding, split: Split | None, n: int
) -> MapLayout | None:
    """The map of a tensor, without its window.

    Parameters
    ----------
    tensor : the tensor
    placement : of its channels
    pads : padding around it
    split : of the lanes' windows; None for one window
    n : bytes of a bank word

    Returns
    -------
    layout : None if a lane's window would not begin at a whole word
    """
    pitch = row_pixels(tensor, pads) * placement.pixel_bytes
    split = split or Split(1, 0, 0)
    if split.column % n:
        return None
    while split.rows * pitch % n:
        pitch += 1
    if placement.pixel_bytes % n == 0:
        pitch = round_up(pitch, n)
    return MapLayout(tensor, placement, pads, pitch, n, split)
