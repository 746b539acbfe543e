"""The pins of an SDRAM on ECP5: a flip-flop each way at each of them, and the clock."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, IOPort, Module, Signal

from secateur.hw.link.uart_top import UartEngine


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
