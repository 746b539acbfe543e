"""From a plan to stream words: configuration, row headers, bodies, image header."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secateur.compiler.certificate import check_fields
from secateur.compiler.choose import LayerPlan
from secateur.compiler.cost import layer_cycles
from secateur.compiler.layout import MapLayout
from secateur.compiler.schedule import Plan
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Reg
from secateur.ir import Layer
from secateur.text import printable

Words = npt.NDArray[np.uint8]  # (words, N + 1)

_MODES = {
    "broadcast": spec.Mode.BROADCAST,
    "lanewise": spec.Mode.LANEWISE,
    "maximum": spec.Mode.MAXIMUM,
    "gate": spec.Mode.GATE,
}


@dataclass(frozen=True)
class Encoded:
    """The image's words and their cycles.

    Attributes
    ----------
    words : (words, N + 1) uint8
    cycles : of an inference
    layer_cycles : per layer
    layer_words : configuration, headers and bodies, per layer
    """

    words: Words
    cycles: int
    layer_cycles: list[int]
    layer_words: list[int]

    @property
    def data(self) -> bytes:
        """The image as bytes, without metadata."""
        return self.words.tobytes()


def output_registers(layout: MapLayout) -> dict[Reg, int]:
    """Registers that describe the windows of the tensor that is written."""
    n = layout.n
    return {
        Reg.OUT_W: layout.base,
        Reg.OUT_S: layout.window,
        Reg.OFF_PC: layout.split.pc,
        Reg.OFF_DR: layout.split.rows * layout.pitch // n,
        Reg.OFF_DC: layout.split.column // n,
    }


def _walk_registers(plan: Plan, layer_plan: LayerPlan, layout: MapLayout) -> dict[Reg, int]:
    """Counts and steps of the walk by which drained pixels find their words ("Drain", stream.md).

    The lanes divide a map into equal tiles, so the last ones may reach beyond it. Example: 10
    columns on PC = 4 lanes are GX = 3 each; the last lane has CLAST = 10 - 3 * 3 = 1, and its
    other two pixels are not written. A last tile that is full needs no bound: 0xFFFF is never
    reached.
    """
    layer, lane_map = layer_plan.layer, layer_plan.lane_map
    pixel, pitch = layout.placement.pixel_bytes // layout.n, layout.pitch // layout.n
    start = layout.placement.start[layer.first] // layout.n
    region = layer.pixels
    start += region.top * pitch + region.left * pixel
    down, right = (
        (step[0] * pitch + step[1] * pixel) % spec.MAP_WORDS for step in (region.down, region.right)
    )
    registers = {
        Reg.GX: lane_map.gx,
        Reg.GY: lane_map.gy,
        Reg.GZ: layer_plan.body.passes,
        Reg.LANES: lane_map.lanes,
        Reg.OUT_BASE: layout.origin // layout.n + start,
    }
    if lane_map.kind == "linear":
        # Lane p takes every P-th position of the *input's* raster, its padding included, so that
        # all lanes read at one distance. The walk counts these positions: PC is a whole line of the
        # raster, and columns from CLAST on, the padding, are not written.
        read = plan.layouts[layer.sources[0].tensor]
        registers |= {Reg.PC: read.pitch // read.placement.pixel_bytes, Reg.PR: lane_map.lines}
        return registers | {Reg.D_PC: right, Reg.D_PR: down, Reg.CLAST: lane_map.columns}
    # Along "blocks" the walk goes on by N channels of one pixel, one word; else by a pixel.
    step = 1 if lane_map.kind == "blocks" else right
    last_column = lane_map.columns - (lane_map.pc - 1) * lane_map.gx
    last_line = lane_map.lines - (lane_map.pr - 1) * lane_map.gy
    registers |= {Reg.PC: lane_map.pc, Reg.PR: lane_map.pr}
    registers[Reg.CLAST] = last_column if last_column < lane_map.gx else 0xFFFF
    registers[Reg.RLAST] = last_line if last_line < lane_map.gy else 0xFFFF
    steps = [
        (Reg.D_GX, lane_map.gx, step),
        (Reg.D_GY, lane_map.gy, down),
        (Reg.D_PC, lane_map.pc, lane_map.gx * step % spec.MAP_WORDS),
        (Reg.D_PR, lane_map.pr, lane_map.gy * down % spec.MAP_WORDS),
    ]
    # A step that is never taken keeps its old value: each change costs configuration words.
    return registers | {register: value for register, count, value in steps if count > 1}


def _source_registers(plan: Plan, layer_plan: LayerPlan) -> dict[Reg, int]:
    """Addresses of both sources. A step that no loop of this layer takes keeps its old value."""
    registers: dict[Reg, int] = {}
    lane_map = layer_plan.lane_map
    names = ((Reg.A_BASE, Reg.A_KR, Reg.A_SX, Reg.A_SY), (Reg.B_BASE, Reg.B_KR, Reg.B_SX, Reg.B_SY))
    for (base, kernel_row, step_x, step_y), source in zip(
        names, layer_plan.layer.sources, strict=False
    ):
        layout = plan.layouts[source.tensor]
        registers[base] = layout.base * layout.n + layout.first_tap(source)
        if source.kernel[0] > 1:
            registers[kernel_row] = source.dilation[0] * layout.pitch
        if lane_map.gx > 1:
            registers[step_x] = layout.group_step(source, lane_map)
        if lane_map.gy > 1:
            registers[step_y] = source.stride[0] * layout.pitch
        if layer_plan.body.passes > 1:
            step_z = layer_plan.body.pass_rows * source.dilation[0] * layout.pitch
            registers[Reg.A_SZ] = step_z
    return registers


def _flags(
    layer_plan: LayerPlan, layout: MapLayout, clear: bool, result: bool, table: int | None
) -> dict[Reg, int]:
    layer = layer_plan.layer
    flags = layer.signed << spec.FLAG_OUT_SIGNED
    flags |= (layer_plan.lane_map.kind == "linear") << spec.FLAG_LINEAR
    flags |= result << spec.FLAG_RESULT | clear << spec.FLAG_CLEAR
    flags |= (clear and layout.padding.fill == 0x80) << spec.FLAG_FILL
    bits = (
        (spec.FLAG_A_MODE, spec.FLAG_A_SIGNED, spec.FLAG_A_ROWSTEP, spec.FLAG_A_WSHIFT),
        (spec.FLAG_B_MODE, spec.FLAG_B_SIGNED, spec.FLAG_B_ROWSTEP, spec.FLAG_B_WSHIFT),
    )
    for (mode, signed, rowstep, wshift), source in zip(bits, layer.sources, strict=False):
        flags |= _MODES[source.mode] << mode | source.tensor.signed << signed
        flags |= (source.mode != "broadcast") << rowstep | source.wshift << wshift
    clip = (layer.low & 0xFF) | (layer.high & 0xFF) << 8
    flags2 = int(layer.shift.min()) << spec.FLAG2_SHIFT_BASE
    if table is not None:
        flags2 |= 1 << spec.FLAG2_LOOKUP | table << spec.FLAG2_TABLE
    return {Reg.FLAGS: flags, Reg.FLAGS2: flags2, Reg.CLIP: clip}


def tables_of(plan: Plan) -> list[bytes]:
    """The activation tables of a plan, each once, in the order of their use.

    Raises
    ------
    SecateurError : there are more than the target has
    """
    found = dict.fromkeys(
        layer.table.entries.astype(np.uint8).tobytes()
        for layer in plan.network.layers
        if layer.table is not None
    )
    if len(found) > plan.geometry.tables:
        names = ", ".join(repr(layer.name) for layer in plan.network.layers if layer.table)
        raise SecateurError(
            f"layers {printable(names, 400)} need {len(found)} activation tables, the target has "
            f"{plan.geometry.tables}; choose a target with more, or use fewer different functions"
        )
    return list(found)


class _Writer:
    """Collects words and tracks the values of the registers.

    At first nothing is known: an inference begins with the registers of the one before.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.words: list[npt.NDArray[np.uint8]] = []
        self.count = 0
        self.held: list[int | None] = [None] * spec.REGISTERS

    def add(self, words: npt.NDArray[np.uint8]) -> None:
        """Append (words, N + 1) bytes."""
        self.words.append(words)
        self.count += len(words)

    def tables(self, tables: list[bytes]) -> None:
        """Entries of all tables, and the mark at which all inferences but the first begin."""
        if not tables:
            return
        entries = np.frombuffer(b"".join(tables), np.uint8).reshape(-1, self.n)
        self.add(np.pad(entries, ((0, 0), (0, 1)), constant_values=spec.INDEX_TABLE))
        mark = np.zeros((1, self.n + 1), np.uint8)
        mark[0, -1] = spec.INDEX_LOOP
        self.add(mark)

    def configure(self, name: str, registers: dict[Reg, int], event: int) -> int:
        """Write the registers that change, then the event.

        Parameters
        ----------
        name : of the layer, for messages
        registers : values that the layer needs
        event : LOAD or START, in the last word

        Returns
        -------
        words : configuration words that were added

        Raises
        ------
        SecateurError : a value does not fit 16 bits
        """
        wanted = list(self.held)
        for register, value in registers.items():
            if not 0 <= value < 1 << 16:
                raise SecateurError(
                    f"layer {name!r}: {register.name} = {value} does not fit 16 bits; make the "
                    f"layer's maps smaller"
                )
            wanted[register] = value
        changed = [i for i in range(spec.REGISTERS) if wanted[i] != self.held[i]]
        starts: list[int] = []
        for index in changed or [0]:
            if not starts or index >= starts[-1] + self.n // 2:
                starts.append(index)
        for start in starts:
            window = slice(start, min(start + self.n // 2, spec.REGISTERS))
            wanted[window] = [value or 0 for value in wanted[window]]
            values = np.array(wanted[window], dtype="<u2")
            word = np.zeros(self.n + 1, dtype=np.uint8)
            word[: 2 * len(values)] = values.view(np.uint8)
            word[-1] = start | (event if start == starts[-1] else 0)
            self.add(word[None])
        self.held = wanted
        return len(starts)


def _header_words(layer: Layer, lanes: npt.NDArray[np.int64], count: int, last: bool) -> Words:
    n = len(lanes)
    if count >= 1 << spec.ROW_COUNT_BITS:
        raise SecateurError(
            f"layer {layer.name!r}: a row of {count} words exceeds {(1 << spec.ROW_COUNT_BITS) - 1}"
            f"; prune it or split its input channels"
        )
    used = lanes >= 0
    bias = np.where(used, layer.bias[lanes], 0)
    delta = np.where(used, layer.shift[lanes] - layer.shift.min(), 0)
    words = np.zeros((2, n + 1), dtype=np.int64)
    words[0, :n] = bias & 0xFF
    words[0, n] = count & 0xFF
    words[1, :n] = (bias >> 8 & 0x1F) | delta << 5
    words[1, n] = count >> 8 | (spec.ROW_LAST if last else 0)
    return words.astype(np.uint8)


def _row_words(layer_plan: LayerPlan) -> Iterator[Words]:
    """Header and body of every row of a layer."""
    for index, row in enumerate(layer_plan.rows):
        last = index == len(layer_plan.rows) - 1
        lanes = layer_plan.body.lanes[index]
        if layer_plan.body.uniform:  # all channels have the bias and the shift of channel 0
            lanes = np.zeros_like(lanes)
        yield _header_words(layer_plan.layer, lanes, len(row.common), last)
        yield np.concatenate([row.weights.view(np.uint8), row.common[:, None]], axis=1)


def encode(plan: Plan, check_depth: bool = True) -> Encoded:
    """Image of a plan, header and CRC included.

    Parameters
    ----------
    plan : the plan
    check_depth : refuse more words than the weight memory has

    Raises
    ------
    SecateurError : a number does not fit its field, or the image does not fit the weight memory
    """
    geometry, network = plan.geometry, plan.network
    check_fields(plan)
    writer, tables = _Writer(geometry.n), tables_of(plan)
    writer.tables(tables)
    read = plan.layouts[network.input]
    load = output_registers(read) | {Reg.GX: read.words}
    writer.configure(network.input.name, load, spec.COMMON_LOAD)
    cycles, written = spec.load_tail(geometry.p), set()
    by_layer, words_by_layer = [], []
    for layer_plan in plan.layers:
        layer, before = layer_plan.layer, writer.count
        result = layer.output is network.output
        layout = plan.result if result else plan.layouts[layer.output]
        clear = layout.clear and layer.output not in written
        written.add(layer.output)
        table = None
        if layer.table is not None:
            table = tables.index(layer.table.entries.astype(np.uint8).tobytes())
        registers = _source_registers(plan, layer_plan)
        registers |= _flags(layer_plan, layout, clear, result, table)
        registers |= _walk_registers(plan, layer_plan, layout)
        if not result:
            registers |= output_registers(layout)
        configuration = writer.configure(layer.name, registers, spec.COMMON_START)
        for words in _row_words(layer_plan):
            writer.add(words)
        took = layer_cycles(
            configuration=configuration,
            rows=layer_plan.cycles,
            clear=layout.window if clear else 0,
            p=geometry.p,
        )
        by_layer.append(took)
        words_by_layer.append(writer.count - before)
        cycles += took
    program = np.concatenate(writer.words)
    total = geometry.header_words + len(program)
    if check_depth and total > geometry.weight_words:
        raise SecateurError(
            f"the image takes {total} words, the target's weight memory has "
            f"{geometry.weight_words}: prune more, or choose a larger target"
        )
    words = _with_header(plan, program, cycles)
    return Encoded(words, cycles, by_layer, words_by_layer)


def _with_header(plan: Plan, program: Words, cycles: int) -> Words:
    geometry = plan.geometry
    total = geometry.header_words + len(program)
    bank_words = max(layout.base + layout.window for layout in plan.layouts.values())
    header = np.zeros(geometry.header_words * geometry.word_bytes, dtype=np.uint8)

    def fill(crc: int) -> bytes:
        fields = (spec.MAGIC, spec.VERSION, geometry.n, geometry.p, len(tables_of(plan)))
        packed = spec.HEADER.pack(*fields, total, bank_words, cycles, crc)
        header[: spec.HEADER.size] = np.frombuffer(packed, dtype=np.uint8)
        return header.tobytes() + program.tobytes()

    data = fill(zlib.crc32(fill(0)))
    return np.frombuffer(data, dtype=np.uint8).reshape(total, geometry.word_bytes)
