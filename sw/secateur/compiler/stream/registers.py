"""What a layer needs in the registers of the array."""

from __future__ import annotations

from secateur.compiler.choose import LayerPlan
from secateur.compiler.layout import MapLayout
from secateur.compiler.schedule import Plan
from secateur.hw import spec
from secateur.hw.spec import Reg

_MODES = {
    "broadcast": spec.Mode.BROADCAST,
    "lanewise": spec.Mode.LANEWISE,
    "maximum": spec.Mode.MAXIMUM,
    "gate": spec.Mode.GATE,
}


def layer_registers(
    plan: Plan, layer_plan: LayerPlan, *, clear: bool, slots: list[int], base: int
) -> dict[Reg, int]:
    """All registers that a layer needs.

    Parameters
    ----------
    plan : the plan
    layer_plan : of one of its layers
    clear : the output window is filled first
    slots : of the tables that codes go through: none, one, or one for each member
    base : shift of a lane whose delta is 0
    """
    output = layer_plan.layer.output
    result = output in plan.results
    layout = plan.results[output] if result else plan.layouts[output]
    registers = _source_registers(plan, layer_plan)
    registers |= _flags(plan, layer_plan, layout, clear, slots)
    registers[Reg.FLAGS2] |= base << spec.FLAG2_SHIFT_BASE
    registers |= _walk_registers(plan, layer_plan, layout)
    return registers if result else registers | output_registers(layout)


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
    if lane_map.kind == "filters":
        registers |= {Reg.PC: lane_map.pc, Reg.PR: 1, Reg.D_PC: 1}
        registers[Reg.CLAST] = (len(layer_plan.rows) - 1) % lane_map.pc + 1
        steps = [(Reg.D_GX, lane_map.gx, right), (Reg.D_GY, lane_map.gy, down)]
        return registers | {register: value for register, count, value in steps if count > 1}
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
    for index, ((base, kernel_row, step_x, step_y), source) in enumerate(
        zip(names, layer_plan.layer.sources, strict=False)
    ):
        layout = plan.layouts[source.tensor]
        registers[base] = layout.base * layout.n + layout.first_tap(source)
        if source.kernel[0] > 1:
            step = source.dilation[0] * layout.pitch
            if layer_plan.filters:  # they have moved on by what the kernel row spans
                unit = 1 if source.mode == "broadcast" else layout.n
                step -= layer_plan.body.spans[index] * unit
            registers[kernel_row] = step % spec.MAP_WORDS
        if lane_map.gx > 1:
            registers[step_x] = layout.group_step(source, lane_map)
        if lane_map.gy > 1:
            registers[step_y] = source.stride[0] * layout.pitch
        if layer_plan.body.passes > 1:
            step_z = layer_plan.body.pass_rows * source.dilation[0] * layout.pitch
            registers[Reg.A_SZ] = step_z
    return registers


def _flags(
    plan: Plan, layer_plan: LayerPlan, layout: MapLayout, clear: bool, slots: list[int]
) -> dict[Reg, int]:
    layer = layer_plan.layer
    result = layer.output in plan.results
    flags = layer.signed << spec.FLAG_OUT_SIGNED
    flags |= (layer_plan.lane_map.kind == "linear") << spec.FLAG_LINEAR
    flags |= result << spec.FLAG_RESULT | clear << spec.FLAG_CLEAR
    flags |= (clear and layout.padding.fill == 0x80) << spec.FLAG_FILL
    bits = (
        (spec.FLAG_A_MODE, spec.FLAG_A_SIGNED, spec.FLAG_A_ROWSTEP, spec.FLAG_A_WSHIFT),
        (spec.FLAG_B_MODE, spec.FLAG_B_SIGNED, spec.FLAG_B_ROWSTEP, spec.FLAG_B_WSHIFT),
    )
    for (mode, signed, rowstep, wshift), source in zip(bits, layer.sources, strict=False):
        flags |= _MODES[source.mode] << mode | source.part.signed << signed
        flags |= (source.mode != "broadcast") << rowstep | source.wshift << wshift
    clip = (layer.low & 0xFF) | (layer.high & 0xFF) << 8
    flags2 = (result and layer_plan is not plan.layers[-1]) << spec.FLAG2_MORE
    flags2 |= layer_plan.filters << spec.FLAG2_FILTERS
    if slots:
        flags2 |= 1 << spec.FLAG2_LOOKUP
        several = len(set(slots)) > 1
        flags2 |= 1 << spec.FLAG2_TABLES if several else slots[0] << spec.FLAG2_TABLE
    return {Reg.FLAGS: flags, Reg.FLAGS2: flags2, Reg.CLIP: clip}
