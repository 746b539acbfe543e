"""Verilog export."""

from __future__ import annotations

from amaranth.back import verilog

from .engine import Engine
from .soc import BUSES, Soc
from .spec import Geometry


def to_verilog(
    geometry: Geometry,
    init=None,
    *,
    family="generic",
    bels=None,
    name="secateur",
    interface="stream",
) -> str:
    """Verilog of an ``Engine``, or with ``interface`` "axi" or "wishbone" of a ``Soc``; see there
    for the parameters and for the ports.

    Ports of an engine's nested interfaces are named with two underscores (``image__valid``); clock
    and reset are ``clk`` and ``rst``, with "axi" ``aclk`` and ``aresetn``.
    """
    if interface == "stream":
        top = Engine(geometry, init=init, family=family, bels=bels)
    elif interface in BUSES:
        top = Soc(geometry, bus=interface, init=init, family=family)
    else:
        known = ", ".join(["stream", *BUSES])
        raise ValueError(f"interface must be one of {known}, not {interface!r}")
    return verilog.convert(top, name=name, emit_src=False)
