"""From a plan to stream words: configuration, row headers, bodies, image header."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from secateur.compiler.body import Bodies, Body
from secateur.compiler.certificate import check_fields
from secateur.compiler.choose import LayerPlan
from secateur.compiler.cost import Clock, Parts
from secateur.compiler.layout import MapLayout
from secateur.compiler.room.ring import check_ring
from secateur.compiler.room.weights import crowded
from secateur.compiler.schedule import Plan, plan
from secateur.compiler.stream.registers import layer_registers, output_registers
from secateur.compiler.stream.tables import assign
from secateur.compiler.stream.writer import Words, Writer
from secateur.errors import SecateurError, TargetTooSmall
from secateur.hw import spec
from secateur.hw.spec import Geometry, Reg
from secateur.ir import Layer, Network
from secateur.text import printable


@dataclass(frozen=True)
class Encoded:
    """The image's words and their cycles.

    Attributes
    ----------
    words : (words, N + 1) uint8
    cycles : of an inference
    layer_parts : of its cycles, per layer
    layer_words : configuration, headers and bodies, per layer
    interval : cycles from one inference to the next, all input words being there
    alone : the same, if none is taken before the inference has ended
    late_words : input words that are not taken before that
    """

    words: Words
    cycles: int
    layer_parts: list[Parts]
    layer_words: list[int]
    interval: int
    alone: int
    late_words: int

    @property
    def layer_cycles(self) -> list[int]:
        """Cycles per layer."""
        return [parts.cycles for parts in self.layer_parts]

    @property
    def data(self) -> bytes:
        """The image as bytes, without metadata."""
        return self.words.tobytes()


class _Tables:
    """The activation tables of a plan, equal ones once, and the slots that they take.

    Raises
    ------
    TargetTooSmall : the target has no slot
    """

    def __init__(self, plan: Plan) -> None:
        layers = {
            layer: [table.entries.astype(np.uint8).tobytes() for table in layer.tables]
            for layer in plan.network.layers
            if layer.tables
        }
        if layers and not plan.geometry.tables:
            names = ", ".join(repr(layer.name) for layer in layers)
            raise TargetTooSmall(
                f"layers {printable(names, 400)} look up activation tables, the target has none"
            )
        flat = [(layer, entries) for layer, found in layers.items() for entries in found]
        self.entries = list(dict.fromkeys(entries for _, entries in flat))
        uses = [self.entries.index(entries) for _, entries in flat]
        self.slots = assign(uses, plan.geometry.tables)
        self._of: dict[Layer, list[tuple[int, int, bool]]] = {}
        found = zip(flat, uses, self.slots.slot, self.slots.fills, strict=True)
        for (layer, _), table, slot, fill in found:
            self._of.setdefault(layer, []).append((table, slot, fill))

    @property
    def first(self) -> list[bytes]:
        """Tables with which the first inference begins, from the first slot on."""
        return [self.entries[table] for table in self.slots.start if table is not None]

    def before(self, layer: Layer, writer: Writer, clock: Clock) -> tuple[list[int], int]:
        """The slots of a layer's tables, and the cycles that it took to fill them for it."""
        slots, cycles = list[int](), 0
        for table, slot, fill in self._of.get(layer, []):
            slots.append(slot)
            if fill:
                cycles += clock.fill(*writer.fill(slot, self.entries[table]), writer.n)
        return slots, cycles


def _header_words(
    layer: Layer, lanes: npt.NDArray[np.int64], count: int, last: bool, base: int, slots: list[int]
) -> Words:
    """Both header words of a row; ``slots`` are those of all members if each row names its own."""
    n = len(lanes)
    most = (1 << (spec.ROW_TABLE_COUNT_BITS if slots else spec.ROW_COUNT_BITS)) - 1
    if count > most:
        raise SecateurError(
            f"layer {layer.name!r}: a row of {count} words exceeds {most}"
            f"; prune it or split its input channels"
        )
    used = lanes >= 0
    bias = np.where(used, layer.bias[lanes], 0)
    delta = np.where(used, layer.shift[lanes] - base, 0)
    words = np.zeros((2, n + 1), dtype=np.int64)
    words[0, :n] = bias & 0xFF
    words[0, n] = count & 0xFF
    words[1, :n] = (bias >> 8 & 0x1F) | delta << 5
    words[1, n] = count >> 8 | (spec.ROW_LAST if last else 0)
    if slots:  # a row is of one member
        ends = np.cumsum([each.channels for each in layer.members])
        words[1, n] |= slots[int((ends <= lanes.max()).sum())] << spec.ROW_TABLE
    return words.astype(np.uint8)


def _shift_base(layer: Layer, before: int) -> int:
    """From where shifts count: as in the layer before, if they can, which costs no word."""
    least, most = int(layer.shift.min()), int(layer.shift.max())
    return before if most - spec.SHIFT_SPAN <= before <= least else least


def _own_steps(
    layer_plan: LayerPlan, common: npt.NDArray[np.uint8], lane: int
) -> npt.NDArray[np.uint8]:
    """Moves of a filter lane whose word of lane-wise sources lies so many words on.

    Such a source reads one word for each pixel: its first move is 0.
    """
    stepped = common.copy()
    for index, source in enumerate(layer_plan.layer.sources):
        if source.mode == "lanewise":
            moves = common >= spec.STEP_SOURCE if index else common[:1] < spec.STEP_ADD_LIMIT
            stepped[np.flatnonzero(moves)[:1]] += lane
    return stepped


def _row_words(layer_plan: LayerPlan, base: int, slots: list[int]) -> Iterator[Words]:
    """Header and body of every row group of a layer, its rows interleaved word by word.

    A shorter row is filled with words of weight 0 in front, as ``body`` fills short rows.
    """
    counts, side = layer_plan.counts, layer_plan.side
    for group, count in enumerate(counts):
        group_rows = []
        for index in range(group * side, (group + 1) * side):
            if index >= len(layer_plan.rows):  # no row of the layer: never drained
                index = group * side
            row, lanes = layer_plan.rows[index], layer_plan.body.lanes[index]
            if layer_plan.body.uniform:  # all channels have the bias and the shift of channel 0
                lanes = np.zeros_like(lanes)
            last = group == len(counts) - 1
            head = _header_words(layer_plan.layer, lanes, count, last, base, slots)
            common = row.common
            if layer_plan.lane_map.own_steps:
                common = _own_steps(layer_plan, common, index - group * side)
            body = np.concatenate([row.weights.view(np.uint8), common[:, None]], axis=1)
            fill = np.zeros((count - len(body), body.shape[1]), np.uint8)
            group_rows.append(np.concatenate([head, fill, body]))
        yield np.stack(group_rows, axis=1).reshape(-1, group_rows[0].shape[1])


def _load(writer: Writer, layout: MapLayout) -> tuple[int, int]:
    """The LOAD of an input; returns configuration words and input words."""
    registers = output_registers(layout) | {Reg.GX: layout.words}
    return writer.configure(layout.tensor.name, registers, spec.COMMON_LOAD), layout.words


def encode(planned: Plan, check_depth: bool = True) -> Encoded:
    """Image of a plan, header and CRC included.

    Parameters
    ----------
    planned : the plan
    check_depth : refuse more words than the weight memory has

    Raises
    ------
    SecateurError : a number does not fit its field
    TargetTooSmall : the image does not fit the weight memory, or needs tables that are not there
    """
    geometry = planned.geometry
    check_fields(planned)
    writer, tables = Writer(geometry.n), _Tables(planned)
    writer.tables(tables.first)
    loads = [_load(writer, planned.layouts[given]) for given in planned.network.given]
    clock, written = Clock(geometry.p), set()
    by_layer, words_by_layer, base = [], [], 0
    for layer_plan in planned.layers:
        layer, before = layer_plan.layer, writer.count
        result = layer.output in planned.results
        layout = planned.results[layer.output] if result else planned.layouts[layer.output]
        clear = layout.clear and layer.output not in written
        written.add(layer.output)
        slots, filling = tables.before(layer, writer, clock)
        base = _shift_base(layer, base)
        registers = layer_registers(planned, layer_plan, clear=clear, slots=slots, base=base)
        opens = planned.opens is not None and layer_plan is planned.layers[planned.opens]
        event = spec.COMMON_AHEAD if opens else spec.COMMON_START
        configuration = writer.configure(layer.name, registers, event)
        writer.align(geometry.header_words, layer_plan.side)
        for words in _row_words(layer_plan, base, slots if len(set(slots)) > 1 else []):
            writer.add(words)
        parts = layer_plan.timed(
            clock,
            configuration=configuration,
            filling=filling,
            clear=layout.window if clear else 0,
            last=layer_plan is planned.layers[-1],
            opens=opens,
        )
        by_layer.append(parts)
        words_by_layer.append(writer.count - before)
    program = np.concatenate(writer.words)
    total = geometry.header_words + len(program)
    if check_depth and total > geometry.weight_words:
        raise crowded(bodies_of(planned), geometry, total)
    words = _with_header(planned, program, clock.now, len(tables.slots.start))
    alone = clock.alone(loads)
    interval, late = (alone, sum(each for _, each in loads))
    if planned.opens is not None:
        interval, late = clock.ahead(*loads[0])
    return Encoded(words, clock.now, by_layer, words_by_layer, interval, alone, late)


def plan_and_encode(
    network: Network,
    geometry: Geometry,
    bodies: Bodies | None = None,
    *,
    check_depth: bool = True,
) -> tuple[Plan, Encoded]:
    """A plan and its image; with pixel lanes alone if only then it fits the weight memory.

    Rows side by side are as long as the longest, so filter lanes take more words.

    Parameters
    ----------
    network : with the copies that the array needs
    geometry : of the array
    bodies : rows of the network, if there are any yet
    check_depth : refuse more words than the weight memory has

    Raises
    ------
    SecateurError : as ``plan`` and ``encode``
    """
    planned = plan(network, geometry, bodies=bodies)
    encoded = encode(planned, check_depth=False)
    if geometry.s > 1 and len(encoded.words) > geometry.weight_words:
        narrow = plan(network, replace(geometry, s=1), bodies=bodies)
        smaller = encode(narrow, check_depth=False)
        if len(smaller.words) <= geometry.weight_words:
            check_ring(narrow, geometry)
            return narrow, smaller
        if check_depth:
            least = min(len(encoded.words), len(smaller.words))
            raise crowded(bodies_of(planned), geometry, least)
    if check_depth and len(encoded.words) > geometry.weight_words:
        raise crowded(bodies_of(planned), geometry, len(encoded.words))
    check_ring(planned, geometry)
    return planned, encoded


def bodies_of(planned: Plan) -> dict[Layer, Body]:
    """The rows of every layer."""
    return {each.layer: each.body for each in planned.layers}


def _with_header(plan: Plan, program: Words, cycles: int, tables: int) -> Words:
    geometry = plan.geometry
    total = geometry.header_words + len(program)
    bank_words = max(layout.base + layout.window for layout in plan.layouts.values())
    header = np.zeros(geometry.header_words * geometry.word_bytes, dtype=np.uint8)

    s = max(layer_plan.side for layer_plan in plan.layers)

    def fill(crc: int) -> bytes:
        features = spec.pack_features(tables, s)
        fields = (spec.MAGIC, spec.VERSION, geometry.n, geometry.p, features)
        packed = spec.HEADER.pack(*fields, total, bank_words, cycles, crc)
        header[: spec.HEADER.size] = np.frombuffer(packed, dtype=np.uint8)
        return header.tobytes() + program.tobytes()

    data = fill(zlib.crc32(fill(0)))
    return np.frombuffer(data, dtype=np.uint8).reshape(total, geometry.word_bytes)
