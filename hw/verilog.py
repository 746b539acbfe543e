"""Verilog export."""

from __future__ import annotations

import re

from amaranth.back import verilog

from secateur.hw.engine import Engine
from secateur.hw.link.uart_top import UartEngine
from secateur.hw.memory import asic_ram
from secateur.hw.soc.soc import BUSES, Soc
from secateur.hw.spec import Geometry
from secateur.hw.stream_top import StreamEngine

#: A register's value at power-up, and that of a memory, as Amaranth's back end writes them.
_REGISTER = re.compile(r"^(\s*reg [^=;]*?)\s+= \d+'\w+;$", re.MULTILINE)
_CONTENTS = re.compile(r"^  initial begin\n(?:    \S+\[\d+\] = \d+'\w+;\n)+  end\n", re.MULTILINE)


def to_verilog(
    geometry: Geometry,
    init=None,
    *,
    family="generic",
    bels=None,
    compact=None,
    name="secateur",
    interface="stream",
    divisor=None,
) -> str:
    """Verilog of the engine, with a bus or a UART around it or without.

    Ports of an engine's nested interfaces are named with two underscores (``image__valid``). Clock
    and reset are ``clk`` and ``rst``, with "axi" ``aclk`` and ``aresetn``. For family "asic"
    nothing has a value at power-up.

    Parameters
    ----------
    geometry, init, family, bels, compact : see ``Engine``
    name : of the module
    interface : "stream" (see ``StreamEngine``), "axi" or "wishbone" (``Soc``), "uart"
        (``UartEngine``)
    divisor : cycles of a bit on the line, for "uart" only

    Raises
    ------
    ValueError : a parameter is out of range, or two do not go together
    """
    if (divisor is not None) != (interface == "uart"):
        raise ValueError(f"divisor must be given for interface 'uart' alone, not {divisor!r}")
    if interface == "stream":
        engine = Engine(geometry, init=init, family=family, bels=bels, compact=compact)
        top = StreamEngine(engine)
    elif interface in BUSES:
        top = Soc(geometry, bus=interface, init=init, family=family, bels=bels)
    elif interface == "uart":
        top = UartEngine(geometry, init=init, family=family, bels=bels, divisor=divisor)
    else:
        known = ", ".join(["stream", *BUSES, "uart"])
        raise ValueError(f"interface must be one of {known}, not {interface!r}")
    text = verilog.convert(top, name=name, emit_src=False)
    if family == "asic":
        text = without_initial_values(text)
        text += asic_ram.definitions(text)
    return text


def without_initial_values(text: str) -> str:
    """``text``, of Amaranth, with every register and memory unknown until it is written.

    Raises
    ------
    ValueError : an initial value of another form is left
    """
    text = _CONTENTS.sub("", _REGISTER.sub(r"\1 ;", text))
    left = re.search(r"^\s*(?:initial\b.*|reg [^=;]*= \d+'.*)$", text, re.MULTILINE)
    if left:
        raise ValueError(f"an initial value is left: {left.group().strip()}")
    return text
