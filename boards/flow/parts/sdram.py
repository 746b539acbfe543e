"""The pins of an SDRAM on ECP5: a flip-flop each way at each of them, and the clock."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, IOPort, Module, Signal

from secateur.hw.link.uart_top import UartEngine
from secateur.hw.sdram import Sdram

#: Ways out of the FPGA and into it, in ns together: least and most. From data sheets, not measured.
WAYS_NS = (3.0, 5.0)
#: From the SDRAM's clock to its data at the latest, and for how long they stay behind the next one.
ACCESS_NS, HOLD_NS = 5.4, 2.5


def sdram_at(clock: int) -> Sdram:
    """How an engine with a clock in Hz uses an SDRAM at these pins.

    Raises
    ------
    ValueError : no edge of the clock is sure to take the SDRAM's data, or it is too fast for it
    """
    period = 1e9 / clock
    for delay in range(2):
        taken = (0.5 + delay) * period  # behind the edge of the SDRAM's clock
        if WAYS_NS[1] + ACCESS_NS <= taken <= period + HOLD_NS + WAYS_NS[0]:
            return Sdram(clock=clock, delay=delay)
    slow = 0.5e3 / (WAYS_NS[1] + ACCESS_NS)
    fast = 0.5e3 / (WAYS_NS[0] + HOLD_NS)
    raise ValueError(
        f"clock must be at most {slow:.1f} MHz, or {fast:.1f} to 142.8 MHz, for data of the SDRAM, "
        f"not {clock / 1e6:g} MHz; name one with --clock"
    )


def connect_sdram(
    m: Module, engine: UartEngine, outputs: dict[str, Signal], lines: list[IOPort]
) -> None:
    """Connect an engine to an SDRAM, whose clock rises between two edges of the engine's.

    Flip-flops at pins keep the ways of all lines alike. The chip is always selected, and its clock
    always counts.

    Parameters
    ----------
    m, engine, outputs, lines : as in ``top.SdramPads``
    """
    command = engine.sdram_command
    levels = {"we_n": command[0], "cas_n": command[1], "ras_n": command[2]}
    levels |= dict.fromkeys(("dqm0", "dqm1"), engine.sdram_mask)
    levels |= {f"ba{i}": bit for i, bit in enumerate(engine.sdram_bank)}
    levels |= {f"a{i}": bit for i, bit in enumerate(engine.sdram_address)}
    for name, level in levels.items():
        _register(m, f"sdram_{name}_ff", "OFS1P3BX", level, outputs[f"sdram_{name}"])
    m.d.comb += [outputs["sdram_cs_n"].eq(0), outputs["sdram_cke"].eq(1)]
    m.submodules.sdram_clock = Instance(
        "ODDRX1F",
        i_SCLK=ClockSignal(),
        i_RST=Const(0),
        i_D0=Const(0),
        i_D1=Const(1),
        o_Q=outputs["sdram_clk"],
    )
    for index, line in enumerate(lines):
        off, value, level = (Signal(name=f"sdram_{what}{index}") for what in ("off", "to", "from"))
        _register(m, f"sdram_off{index}_ff", "OFS1P3BX", ~engine.sdram_drive, off)
        _register(m, f"sdram_to{index}_ff", "OFS1P3BX", engine.sdram_value[index], value)
        _register(m, f"sdram_from{index}_ff", "IFS1P3DX", level, engine.sdram_level[index])
        m.submodules[f"sdram_line{index}"] = Instance(
            "BB", i_I=value, i_T=off, o_O=level, io_B=line
        )


def _register(m: Module, name: str, kind: str, value, output) -> None:
    """A flip-flop at a pin; what ends with BX is 1 when the part is configured."""
    clear = "i_PD" if kind.endswith("BX") else "i_CD"
    m.submodules[name] = Instance(
        kind, i_SCLK=ClockSignal(), i_SP=Const(1), i_D=value, o_Q=output, **{clear: Const(0)}
    )
